"""Reading a tar archive that nobody vouches for: member by member, in one pass, in bounded memory.

Nothing is ever extracted. The reader says what a member is called and hands out its bytes; what to do with
them is the caller's business. It knows regular files and folders, and refuses everything else: links,
devices, sparse files, global headers, names that leave the archive, members that come twice, sizes said in
two ways, compressed input, an archive without end, and bytes behind the end. Of these, it can be told to pass
over what the layers of images may well have: links, devices, global headers and odd names.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar's long names ("L")
and binary sizes, which it writes by default.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from ...modelfile.errors import InputError
from ..errors import quoted
from ..store.hashing import CHUNK

BLOCK = 512
MAX_MEMBERS = 100_000
MAX_EXTENSION = 64 << 10
"""Bytes of an extended header or a long name. Real ones have a few hundred."""
MAX_NAME = 256
MAX_PADDING = 16 << 20
"""Bytes of zeros behind the end: writers fill up to whole records, which are at most a few MiB."""

_OCTAL_LIMIT = 1 << 33
"""The first size that does not fit eleven octal digits."""
_MAX_SIZE = (1 << 63) - 1
_COMPRESSED = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"BZh", "bzip2"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "unzip"),
)
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"7": "a contiguous file",
    b"D": "a dumped folder",
    b"K": "a long link",
    b"M": "part of a file",
    b"S": "a sparse file",
    b"V": "a volume label",
    b"g": "a global header",
}


_WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"6")
"""Links, devices and pipes: no content follows, whatever size the header says. Source: POSIX."""


class BadArchive(InputError):
    """An archive breaks a rule; nothing was tagged."""

    def __init__(self, reason: str, *, hint: str | None = None) -> None:
        self.reason = reason
        super().__init__(f"reading the archive: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder of an archive. ``name`` is relative and plain; ``size`` is bytes."""

    name: str
    size: int
    is_folder: bool = False


class ArchiveReader:
    """The members of one archive, in its order. ``file`` is read from where it stands, to its end.

    passes_over: links, devices and members whose names are none are passed over, as images may have them;
    otherwise they are refused.
    """

    def __init__(self, file: BinaryIO | io.RawIOBase, *, passes_over: bool = False) -> None:
        self._file = file
        self._passes_over = passes_over
        self._known_size = _size_of(file)
        self._offset = 0
        self._left = 0  # of the current member's content
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """Every member once. What is not read of one is passed over.

        Raises: BadArchive; OSError.
        """
        seen: set[str] = set()
        for _ in range(MAX_MEMBERS + 1):
            member = self._next()
            if member is None:
                self._require_end()
                return
            if not member.is_folder:
                if member.name in seen:
                    _refuse(f"{quoted(member.name)} is in it twice")
                seen.add(member.name)
            yield member
            self.skip()
        _refuse(f"it has more than {MAX_MEMBERS} members")

    def chunks(self) -> Iterator[bytes]:
        """The content of the current member, from where it was read to. Raises: BadArchive; OSError."""
        while self._left:
            data = self._read(min(CHUNK, self._left))
            self._left -= len(data)
            yield data

    def read(self, *, limit: int) -> bytes:
        """The content of the current member, at most ``limit`` bytes. Raises: BadArchive; OSError."""
        if self._left > limit:
            _refuse(f"expected at most {limit} bytes, got {self._left}")
        return b"".join(self.chunks())

    def skip(self) -> None:
        """Passes over what is left of the current member. Raises: BadArchive; OSError."""
        rest = self._left + self._padding
        if self._known_size is not None and rest > CHUNK:
            self._offset += rest
            if self._offset > self._known_size:
                _refuse("it ends in the middle of a member", hint=_CUT)
            self._file.seek(rest, os.SEEK_CUR)
            rest = 0
        while rest:
            rest -= len(self._read(min(CHUNK, rest)))
        self._left = self._padding = 0

    def _next(self) -> Member | None:
        """The next header of a file or folder; None at the end of the archive."""
        name: str | None = None
        size: int | None = None
        for _ in range(5 if self._passes_over else 3):  # at most one of each kind of extension
            block = self._read(BLOCK)
            if not any(block):
                if name is not None or size is not None:
                    _refuse("it ends behind an extended header")
                return None
            header = _Header(block)
            if header.kind == b"x":
                if size is not None:
                    _refuse("two extended headers for one member")
                found, size = _read_records(self._extension(header.size))
                name = found or name
            elif header.kind == b"L":
                name = _decode(self._extension(header.size).rstrip(b"\0"))
            elif self._passes_over and header.kind in (b"g", b"K"):
                self._extension(header.size)
            else:
                return self._enter(header, name, size or 0)
        raise BadArchive("too many extended headers for one member")

    def _enter(self, header: _Header, name: str | None, stated: int) -> Member:
        shown = header.name if name is None else name
        is_folder = header.kind == b"5"
        if self._passes_over and header.kind in _WITHOUT_CONTENT:
            return Member("", 0, is_folder=True)
        if header.kind not in (b"0", b"\0", b"5"):
            kind = _KINDS.get(header.kind, f"a member of type {quoted(header.kind.decode('latin-1'))}")
            _refuse(f"{quoted(shown)} is {kind}")
        if stated and stated != header.size and stated < _OCTAL_LIMIT:
            _refuse(f"{quoted(shown)} has two sizes, {header.size} and {stated}")
        size = stated or header.size
        if is_folder and size:
            _refuse(f"{quoted(shown)} is a folder with content")
        if self._known_size is not None and size > self._known_size - self._offset:
            _refuse(f"it ends in the middle of {quoted(shown)}", hint=_CUT)
        self._left, self._padding = size, -size % BLOCK
        if self._passes_over:
            shown = shown.lstrip("/")
            if not _is_plain(_trimmed(shown, is_folder=is_folder)):
                return Member("", size, is_folder=True)
        return Member(_plain(shown, is_folder=is_folder), size, is_folder)

    def _extension(self, size: int) -> bytes:
        if size > MAX_EXTENSION:
            _refuse(f"an extended header of {size} bytes")
        data = self._read(size)
        self._read(-size % BLOCK)
        return data

    def _require_end(self) -> None:
        """One block of zeros was read. A second must follow, then nothing but zeros. Source: POSIX."""
        if any(self._read(BLOCK)):
            _refuse("something follows its end")
        padding = 0
        while data := self._file.read(CHUNK):
            padding += len(data)
            if any(data) or padding > MAX_PADDING:
                _refuse("something follows its end")

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if self._offset == 0:
            _refuse_compressed(data)
        if len(data) < size:
            _refuse("it ends too early", hint=_CUT)
        self._offset += size
        return data


_CUT = "it was cut short: copy it again, and compare the sizes"


class _Header:
    """One header block, checked. ``size`` is what the block itself says."""

    __slots__ = ("kind", "name", "size")

    def __init__(self, block: bytes) -> None:
        magic = block[257:265]
        if magic not in (b"ustar\x0000", b"ustar  \0"):
            _refuse("it is not a tar archive", hint="expected what lading save, skopeo or podman write")
        # The sum is over the block with its own field as spaces.
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
            _refuse("a header is damaged: its checksum does not match", hint=_CUT)
        self.kind = block[156:157]
        self.size = _number(block[124:136])
        name = _decode(_until_nul(block[0:100]))
        prefix = _decode(_until_nul(block[345:500])) if magic.startswith(b"ustar\0") else ""
        self.name = f"{prefix}/{name}" if prefix else name


def _number(field: bytes) -> int:
    """A number in octal digits, or in GNU's binary form."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    else:
        digits = field.rstrip(b" \0").lstrip(b" ")
        if not all(b"0"[0] <= digit <= b"7"[0] for digit in digits):
            _refuse("a header is damaged: a number is none")
        value = int(digits, 8) if digits else 0
    if value > _MAX_SIZE:
        _refuse("a member is larger than any file can be")
    return value


def _read_records(data: bytes) -> tuple[str | None, int]:
    """The name, if any, and the size, or 0, that an extended header gives the next member."""
    name: str | None = None
    size: int | None = None
    while data:
        length, _, _ = data.partition(b" ")
        if not 0 < len(length) < 6 or not length.isdigit() or not 4 < int(length) <= len(data):
            _refuse("an extended header is damaged")
        record, data = data[: int(length)], data[int(length) :]
        key, equals, value = record[len(length) + 1 : -1].partition(b"=")
        if not equals or not record.endswith(b"\n"):
            _refuse("an extended header is damaged")
        if key.startswith(b"GNU.sparse"):
            _refuse("a sparse file")
        if key == b"path":
            if name is not None:
                _refuse("an extended header names a member twice")
            name = _decode(value)
        elif key == b"size":
            if size is not None or not value.isdigit() or len(value) > 19 or int(value) > _MAX_SIZE:
                _refuse("an extended header gives a member an impossible size")
            size = int(value)
    return name, size or 0


def _plain(text: str, *, is_folder: bool) -> str:
    """The name without a leading "./" and, for folders, the final slash; "" for the archive's root."""
    name = _trimmed(text, is_folder=is_folder)
    if (name or not is_folder) and not _is_plain(name):
        _refuse(f"{quoted(text)} is no name for a member")
    return name


def _trimmed(text: str, *, is_folder: bool) -> str:
    name = text.removeprefix("./")
    return name if not is_folder else "" if name == "." else name.removesuffix("/")


def _is_plain(name: str) -> bool:
    parts = name.split("/")
    return not (
        len(name) > MAX_NAME
        or not name.isprintable()
        or "\\" in name
        or ":" in parts[0]
        or any(part in ("", ".", "..") for part in parts)
    )


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(f"{quoted(data.decode('latin-1'))} is no name for a member")


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _refuse_compressed(block: bytes) -> None:
    for magic, program in _COMPRESSED:
        if block.startswith(magic):
            _refuse(
                f"it is compressed ({program})",
                hint=f"weights hardly shrink, so archives are read as they are: {program} it first",
            )


def _size_of(file: BinaryIO | io.RawIOBase) -> int | None:
    """How many bytes are left in a regular file; None for all else."""
    try:
        facts = os.fstat(file.fileno())
        return facts.st_size - file.tell() if stat.S_ISREG(facts.st_mode) else None
    except OSError:  # no file of the system's, such as a buffer in memory
        return None


def _refuse(reason: str, *, hint: str | None = None) -> NoReturn:
    raise BadArchive(reason, hint=hint)
