"""What is packed in a layer: which files, and how the layer is put together from them again.

A tar layer with a model in it is the model's file between two headers. The store keeps that file as a blob of
its own, which can be mapped and shared; of the layer it keeps a record, ``contents/<algorithm>/<hex>``, named
by the layer's digest::

    {"files": [{"digest": "sha256:…", "path": "models/a.gguf", "size": 4633440}],
     "gaps": ["bW9kZWxz…", "AAAA…"], "size": 4637696}

``gaps`` are the bytes before, between and behind the files, in base64. With them the layer is *assembled*
whenever it is read, byte for byte, and need not be in ``blobs/``. A compressed layer cannot be put together
again from its files: its record has no gaps, and its blob stays.

A record with gaps is verified like a blob: by its digest, once, and then it bears the mark (``mark.py``).
"""

from __future__ import annotations

import base64
import binascii
import io
import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..canonical import canonical_json, strict_json
from ..digest import HEX_LENGTHS, Digest, new_hasher
from ..errors import BadDigest, BadJson, BlobNotFound, StoreCorrupt
from .disk import open_regular, replace_durably, sync_folder, translating
from .layout import StoreLayout, listing
from .mark import has_mark, set_mark

MAX_FILES = 4096
MAX_GAPS = 1 << 20
"""Bytes of all gaps together. A layer with more beside its files keeps its blob."""
_MAX_RECORD = 8 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A regular file in a layer. ``path`` is relative; ``digest`` and ``size`` (bytes) are of its content."""

    path: str
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class LayerContents:
    """What is packed in the layer of ``digest``, which has ``size`` bytes. ``gaps`` is None where the layer
    cannot be assembled, else one more than there are files."""

    digest: Digest
    size: int
    files: tuple[PackedFile, ...]
    gaps: tuple[bytes, ...] | None = None

    def pieces(self) -> Iterator[bytes | PackedFile]:
        """What the layer is assembled from, in order. Only where it has gaps."""
        for gap, file in itertools.zip_longest(self.gaps or (), self.files):
            yield gap
            if file is not None:
                yield file

    def to_json(self) -> bytes:
        value: dict[str, Any] = {
            "size": self.size,
            "files": [{"path": f.path, "digest": str(f.digest), "size": f.size} for f in self.files],
        }
        if self.gaps is not None:
            value["gaps"] = [base64.b64encode(gap).decode("ascii") for gap in self.gaps]
        return canonical_json(value)

    @classmethod
    def from_json(cls, digest: Digest, data: bytes) -> LayerContents:
        """Raises: BadJson, BadDigest, ValueError where it is no such record."""
        value = strict_json(data, what="contents", limit=_MAX_RECORD)
        if not isinstance(value, dict) or not isinstance(value.get("files"), list):
            raise ValueError("expected an object with files")
        files = tuple(_read_file(member) for member in value["files"])
        gaps = value.get("gaps")
        if gaps is None:
            return cls(digest, _whole(value.get("size")), files)
        if not isinstance(gaps, list) or len(gaps) != len(files) + 1:
            raise ValueError("expected one gap more than files")
        decoded = tuple(base64.b64decode(str(gap), validate=True) for gap in gaps)
        size = sum(map(len, decoded)) + sum(file.size for file in files)
        if size != value.get("size"):
            raise ValueError("the size is not that of its parts")
        return cls(digest, size, files, decoded)


def _read_file(member: object) -> PackedFile:
    if not isinstance(member, dict) or not isinstance(member.get("path"), str):
        raise ValueError("expected a file with a path")
    return PackedFile(member["path"], Digest.parse(str(member.get("digest"))), _whole(member.get("size")))


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("expected a number of bytes")
    return value


def find_contents(layout: StoreLayout, digest: Digest) -> LayerContents | None:
    """The record of a layer; None where there is none. Raises: StoreCorrupt, StoreFailure."""
    path = layout.contents_of(digest)
    with translating("reading", path):
        try:
            fd = open_regular(path, follow_links=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(fd, "rb") as file:
            data = file.read(_MAX_RECORD + 1)
    try:
        return LayerContents.from_json(digest, data)
    except (BadJson, BadDigest, ValueError, binascii.Error) as error:
        remedy = "lading fsck --repair takes the record away; then pull the model again"
        raise StoreCorrupt(f"reading {path}", str(error), hint=remedy) from error


def find_assembled(layout: StoreLayout, digest: Digest) -> LayerContents | None:
    """The record of a layer that can be assembled: it has gaps, and all files are there. A damaged record is
    as good as none: whoever needs the layer brings it again. Raises: StoreFailure.
    """
    found = find_complete(layout, digest)
    return found if found is not None and found.gaps is not None else None


def find_complete(layout: StoreLayout, digest: Digest) -> LayerContents | None:
    """The record of a layer all of whose files are there; None where it is damaged. Raises: StoreFailure."""
    with suppress(StoreCorrupt):
        found = find_contents(layout, digest)
        return found if found is not None and has_files(layout, found) else None
    return None


def find_same(
    layout: StoreLayout, files: tuple[PackedFile, ...], gaps: tuple[bytes, ...]
) -> LayerContents | None:
    """The record of the layer that these pieces make; None where there is none. Raises: StoreFailure."""
    for _, digest in iter_records(layout):
        with suppress(StoreCorrupt):
            found = find_contents(layout, digest) if digest is not None else None
            if found is not None and found.files == files and found.gaps == gaps:
                return found
    return None


def has_files(layout: StoreLayout, contents: LayerContents) -> bool:
    """Whether all files are there, of the right sizes."""
    for file in contents.files:
        try:
            if layout.blob(file.digest).lstat().st_size != file.size:
                return False
        except OSError:
            return False
    return True


def write_contents(layout: StoreLayout, contents: LayerContents) -> None:
    """Keep the record, which has been verified. Raises: OSError."""
    path = layout.contents_of(contents.digest)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(layout.contents)
        sync_folder(layout.root)
    replace_durably(path, contents.to_json(), scratch=layout.ingest)
    mark_contents(layout, contents.digest)


def mark_contents(layout: StoreLayout, digest: Digest) -> None:
    """Mark the record as verified."""
    with suppress(OSError):
        fd = os.open(layout.contents_of(digest), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            set_mark(fd, digest)
        finally:
            os.close(fd)


def is_marked(layout: StoreLayout, digest: Digest) -> bool:
    """Whether the record was verified and not written since."""
    try:
        return has_mark(layout.contents_of(digest).lstat(), digest)
    except OSError:
        return False


def iter_records(layout: StoreLayout) -> Iterator[tuple[Path, Digest | None]]:
    """Every file below ``contents`` with the digest that its place says; None where it says none."""
    for folder in listing(layout.contents):
        for path in listing(folder) if folder.name in HEX_LENGTHS else [folder]:
            try:
                yield path, Digest(folder.name, path.name)
            except BadDigest:
                yield path, None


class AssembledBlob(io.RawIOBase):
    """A layer that can be assembled, as an open file: to read and to seek in, by one thread at a time.

    Its files are opened at once, so it stays readable if they are swept.
    Raises: BlobNotFound, from the start.
    """

    def __init__(self, layout: StoreLayout, contents: LayerContents) -> None:
        super().__init__()
        self._position = 0
        self._size = contents.size
        self._parts: list[tuple[int, int, bytes | int]] = []
        """First byte, end, and the bytes themselves or the descriptor of a file."""
        try:
            self._open(layout, contents)
        except BaseException:
            self.close()
            raise

    def _open(self, layout: StoreLayout, contents: LayerContents) -> None:
        end = 0
        for piece in contents.pieces():
            start = end
            source: bytes | int
            if isinstance(piece, bytes):
                end, source = start + len(piece), piece
            else:
                end, source = start + piece.size, _open_file(layout, piece)
            self._parts.append((start, end, source))

    @property
    def size(self) -> int:
        """Bytes of the whole layer."""
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the start")
        self._position = base + offset
        return self._position

    def file_at(self, position: int) -> tuple[int, int, int] | None:
        """As the function of that name."""
        for start, end, source in self._parts:
            if start <= position < end and isinstance(source, int):
                return source, position - start, end - position
        return None

    def readinto(self, buffer: Any, /) -> int:
        """Reads from one part at most, so fewer bytes than asked for are not the end. Raises: OSError."""
        view = memoryview(buffer).cast("B")
        for start, end, source in self._parts:
            if start <= self._position < end:
                wanted = view[: end - self._position]
                offset = self._position - start
                if isinstance(source, int):
                    count = os.preadv(source, [wanted], offset)
                    if not count:
                        raise OSError(f"a blob ends {end - self._position} bytes too early")
                else:
                    count = len(wanted)
                    wanted[:] = source[offset : offset + count]
                self._position += count
                return count
        return 0

    def close(self) -> None:
        for _, _, source in self._parts:
            if isinstance(source, int):
                os.close(source)
        self._parts = []
        super().close()


def file_at(blob: BinaryIO, position: int) -> tuple[int, int, int] | None:
    """Where byte `position` of an open blob is: the descriptor of a file, the offset in it, and how many
    bytes from there on belong to the blob. None between the files of an assembled layer, and at the end."""
    raw = getattr(blob, "raw", blob)
    if isinstance(raw, AssembledBlob):
        return raw.file_at(position)
    fd = blob.fileno()
    left = os.fstat(fd).st_size - position
    return (fd, position, left) if left > 0 else None


def _open_file(layout: StoreLayout, file: PackedFile) -> int:
    path = layout.blob(file.digest)
    with translating("reading", path):
        try:
            return open_regular(path, follow_links=False)
        except FileNotFoundError:
            raise BlobNotFound(str(file.digest)) from None


def hash_assembled(layout: StoreLayout, contents: LayerContents) -> Digest:
    """The digest of the layer, by reading all of it. Raises: BlobNotFound, OSError."""
    hasher = new_hasher(contents.digest.algorithm)
    buffer = memoryview(bytearray(_PIECE))
    with AssembledBlob(layout, contents) as blob:
        while count := blob.readinto(buffer):
            hasher.update(buffer[:count])
    return Digest(contents.digest.algorithm, hasher.hexdigest())
