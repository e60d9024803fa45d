"""Unpacking layers: the files in a tar layer become blobs of their own, which can be mapped and shared.

It is done once. A plain archive is then assembled from its files when somebody wants it, and takes no room of
its own; a compressed one stays beside them. Nothing is ever written under a name that an archive gives: names
are kept as text, files under their digests.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from ..modelfile.errors import InputError
from .descriptor import Descriptor
from .dialects.packing import Packing, packing_of
from .dialects.reading import packed_layers
from .digest import Digest, Hasher, new_hasher
from .errors import BadManifest, DigestMismatch, SizeMismatch
from .manifest import Manifest
from .offline.archive_reader import ArchiveReader, BadArchive
from .progress import Progress, ProgressSink, ignore_progress
from .store import LayerContents, PackedFile, Store
from .store.contents import MAX_FILES, MAX_GAPS

MAX_EXPANSION = 40
"""Times that a compressed layer may grow, beyond some MiB. Weights hardly do; bombs grow a thousandfold."""
_FREE_EXPANSION = 64 << 20


class BadLayer(InputError):
    """A layer is no archive that can be unpacked."""

    def __init__(self, layer: Descriptor, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"unpacking layer {layer.digest.short}: {reason}", hint=hint)


def unpack_layers(store: Store, manifest: Manifest, progress: ProgressSink = ignore_progress) -> None:
    """Unpack what files of the model are packed in, where they were not or are damaged meanwhile. Does
    nothing for what is no model.

    Raises: what `unpacked` raises.
    """
    for layer in packed_layers(manifest):
        with store.lease():
            known = store.contents(layer.digest)
            if known is not None and all(store.intact(file.digest, file.size) for file in known.files):
                store.put_contents(known)  # the layer may have come again
            else:
                _unpack(store, layer, progress)


def unpacked(store: Store, layer: Descriptor) -> LayerContents:
    """What is packed in a layer of the store. Its files are in the store, and kept as long as the layer is.

    Raises: BadLayer, BlobNotFound; DigestMismatch, SizeMismatch where the layer is damaged; DiskFull, and
        what else the store raises. Then nothing has changed.
    """
    with store.lease():
        return store.contents(layer.digest) or _unpack(store, layer, ignore_progress)


def _unpack(store: Store, layer: Descriptor, progress: ProgressSink) -> LayerContents:
    """The caller holds a lease."""
    packing = packing_of(layer.media_type)
    if packing is Packing.ZSTD:
        hint = "convert the layer to gzip or plain tar first: skopeo copy --dest-compress-format gzip"
        raise BadLayer(layer, "it is compressed with zstd, which is not supported", hint=hint)
    with store.open_blob(layer.digest) as blob:
        try:
            contents = _Unpacking(store, layer, blob, packing, progress).run()
        except BadArchive as error:
            raise BadLayer(layer, error.reason) from error
        except (zlib.error, gzip.BadGzipFile, EOFError) as error:
            raise BadLayer(layer, f"its compression is damaged ({error})") from error
    store.put_contents(contents)
    return contents


class _Hashed(io.RawIOBase):
    """A file that is hashed while it is read from start to end."""

    def __init__(self, file: BinaryIO, hasher: Hasher) -> None:
        super().__init__()
        self._file = file
        self._hasher = hasher
        self.position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._hasher.update(data)
        self.position += len(data)
        return data


class _Watched(io.RawIOBase):
    """What the archive reader reads: it keeps what lies between the wanted files, in ``gaps``, which is None
    once that is too much. ``limit`` is the most bytes that are read."""

    def __init__(self, file: io.RawIOBase | gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._file = file
        self._limit = limit
        self._kept = 0
        self._gap = bytearray()
        self.in_file = False
        self.gaps: list[bytes] | None = []

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size) or b""
        self._limit -= len(data)
        if self._limit < 0:
            raise BadArchive("unpacked it is far larger than any model that shrinks to its size")
        if not self.in_file and self.gaps is not None:
            self._gap += data
            self._kept += len(data)
            if self._kept > MAX_GAPS:
                self.gaps, self._gap = None, bytearray()
        return data

    def end_gap(self) -> None:
        """A wanted file begins here, or the archive ends."""
        if self.gaps is not None:
            self.gaps.append(bytes(self._gap))
            self._gap = bytearray()


class _Unpacking:
    """One layer, read once from start to end."""

    def __init__(
        self, store: Store, layer: Descriptor, blob: BinaryIO, packing: Packing, progress: ProgressSink
    ) -> None:
        self._store = store
        self._layer = layer
        self._progress = progress
        self._hasher = new_hasher(layer.digest.algorithm)
        self._source = _Hashed(blob, self._hasher)
        self._packing = packing

    def run(self) -> LayerContents:
        size = self._store.blob_size(self._layer.digest)
        if size != self._layer.size:
            raise SizeMismatch(str(self._layer.digest), self._layer.size, size)
        with self._opened() as file:
            limit = size if self._packing is Packing.TAR else size * MAX_EXPANSION + _FREE_EXPANSION
            watched = _Watched(file, limit)
            files = tuple(self._files(watched))
        while self._source.read(1 << 20):  # what follows the compressed data, if anything
            pass
        found = Digest(self._layer.digest.algorithm, self._hasher.hexdigest())
        if found != self._layer.digest:
            raise DigestMismatch(str(self._layer.digest), str(found), hint="pull the model again")
        watched.end_gap()
        # A layer without any file of the model is best left as it is.
        assembles = self._packing is Packing.TAR and watched.gaps is not None and files
        gaps = tuple(watched.gaps or ()) if assembles else None
        return LayerContents(self._layer.digest, size, files, gaps)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[io.RawIOBase | gzip.GzipFile]:
        if self._packing is Packing.TAR:
            yield self._source
        else:
            with gzip.GzipFile(fileobj=self._source, mode="rb") as file:
                yield file

    def _files(self, watched: _Watched) -> Iterator[PackedFile]:
        reader = ArchiveReader(watched, passes_over=True)
        count = 0
        for member in reader.members():
            if member.is_folder or not member.name.startswith(self._wanted()):
                continue
            count += 1
            if count > MAX_FILES:
                raise BadManifest([f"layer {self._layer.digest.short} has more than {MAX_FILES} files"])
            watched.end_gap()
            watched.in_file = True
            with self._store.ingest() as ingest:
                for chunk in reader.chunks():
                    ingest.write(chunk)
                    self._report()
                digest = ingest.commit()
            watched.in_file = False
            yield PackedFile(member.name, digest, member.size)

    def _wanted(self) -> str:
        return "models/" if ".image." in self._layer.media_type else ""

    def _report(self) -> None:
        done = self._source.position
        status = f"unpacking {self._layer.digest.short}"
        self._progress(Progress(status, self._layer.digest, done, self._layer.size))
