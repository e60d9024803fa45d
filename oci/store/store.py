"""The store: an OCI image layout on disk, safe for many processes at once.

The life of a blob
    *Ingest.* Bytes are appended to a file in ``ingest/``, which its writer keeps locked, and are hashed on
    the way. Nobody else sees them. If the writer fails or dies, the file is a leftover: a writer that asks
    to resume reads it again and goes on, and the sweep removes it.
    *Commit.* Size is compared, then the digest, then the file is put on disk (``fsync``), then renamed to
    ``blobs/<algorithm>/<hex>``, then the folder is put on disk. The rename is the point of no return. So
    what has a name under ``blobs/`` is complete and is what its name says; it is never written again.
    *Tag.* Last, once all that the manifest names is there, ``index.json`` is replaced in one step.
    *Unpack.* Of a tar layer the store keeps the files in it, each a blob of its own, and a record by which
    the layer is assembled whenever it is read (``contents.py``): weights are there once, whatever names them.
    *Sweep.* ``gc`` removes blobs that no tag needs and no lease lists. A lease is a locked file with the
    digests that a running operation relies on; whoever dies loses the lock, and with it the lease.

Locks
    One file, ``lock``. Shared, for the instant of adding a blob or a lease; exclusive, to tag and to sweep.
    Reading takes no lock and works on a read-only file system. All locks end with their process.

Durability
    After a crash or power loss at any instant every earlier tag is there and complete, and what is left over
    lies in ``ingest/``, ``leases/`` or untagged in ``blobs/``, where ``gc`` finds it.

Other programs may read the layout as it is, and write to it too (``skopeo copy … oci:STORE:NAME``), but
they take no locks: let none run beside ``gc``.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from ..descriptor import Descriptor
from ..digest import Digest, Hasher
from ..errors import BadManifest, BlobNotFound, DigestMismatch, ModelNotFound, SizeMismatch
from ..manifest import Index, Manifest
from ..progress import ProgressSink, ignore_progress
from ..reference import Reference
from .blob import find_blob, is_intact, read_blob
from .contents import (
    AssembledBlob,
    LayerContents,
    PackedFile,
    find_assembled,
    find_complete,
    find_same,
    hash_assembled,
    write_contents,
)
from .creation import ensure_folders, prepare
from .disk import open_regular, sync_folder, translating
from .fsck import FsckReport, check
from .graph import Unreadable, read_document, walk
from .hashing import CHUNK
from .importer import (
    ImportedFile,
    clone_into,
    hash_source,
    import_into,
    link_as,
    may_link,
    open_source,
)
from .index import Entry, TaggedManifest, TagIndex
from .ingest import Ingest, ingesting
from .layout import StoreLayout
from .lease import LeaseBook
from .lock import locked
from .mark import set_mark
from .parted_file import bytes_present
from .sweep import GcReport, SweepPolicy, live_digests, sweep

__all__ = [
    "FsckReport",
    "GcReport",
    "ImportedFile",
    "Ingest",
    "LayerContents",
    "PackedFile",
    "Store",
    "SweepPolicy",
    "TaggedManifest",
]


class Store:
    """Blobs by digest and manifests by reference. Open one with ``Store.open``.

    Safe to use from several threads, and any number of processes may have the same store open. Every
    method may raise StoreFailure where the operating system refuses; those that write also DiskFull and
    StoreReadOnly.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._leases = LeaseBook(layout)
        self._index = TagIndex(layout)

    @classmethod
    def open(cls, root: Path) -> Store:
        """The store in the folder ``root``, which is created where it is missing or empty.

        A store that exists is opened without writing.

        Raises: NotAStore where the folder holds something else; StoreReadOnly where it cannot be created.
        """
        layout = StoreLayout(root.absolute())
        prepare(layout)
        return cls(layout)

    @property
    def root(self) -> Path:
        """The folder, absolute."""
        return self._layout.root

    @property
    def layout(self) -> StoreLayout:
        """The paths of this store."""
        return self._layout

    # Blobs: reading

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there and, where given, has ``size`` bytes. Reads no content: see ``intact``.

        Under a lease, the blob is kept from now on.
        """
        self._touch(digest)
        fd = find_blob(self._layout, digest)
        if fd is None:
            assembled = find_assembled(self._layout, digest)
            return assembled is not None and size in (None, assembled.size)
        try:
            return size is None or os.fstat(fd).st_size == size
        finally:
            os.close(fd)

    def intact(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the blob is there and its content is right. Reads it all, unless it bears the mark of
        having been verified and not written since (``mark.py``).

        Under a lease, the blob is kept from now on.
        """
        self._touch(digest)
        return is_intact(self._layout, digest, size)

    def blob_path(self, digest: Digest) -> Path:
        """The file of the blob, to be mapped or read but never written.

        Raises: BlobNotFound, also for a layer that is only assembled when it is read: see ``open_blob``.
        """
        self._touch(digest)
        fd = find_blob(self._layout, digest)
        if fd is None:
            raise BlobNotFound(str(digest))
        os.close(fd)
        return self._layout.blob(digest)

    def blob_size(self, digest: Digest) -> int:
        """The bytes that the blob has. Raises: BlobNotFound."""
        fd = find_blob(self._layout, digest)
        if fd is None:
            return self._assembled(digest).size
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob, opened for reading; the caller closes it. It stays readable if it is swept.

        A layer that is assembled from files has no descriptor (``fileno`` raises OSError); ``read`` and
        ``seek`` work as for any.

        Raises: BlobNotFound.
        """
        fd = find_blob(self._layout, digest)
        if fd is not None:
            return os.fdopen(fd, "rb")
        return io.BufferedReader(AssembledBlob(self._layout, self._assembled(digest)), buffer_size=CHUNK)

    def read_blob(self, digest: Digest, *, limit: int) -> bytes:
        """The whole blob, verified. ``limit`` is the most bytes that are accepted.

        Raises: BlobNotFound; DigestMismatch; SizeMismatch where it is larger than ``limit``.
        """
        return read_blob(self._layout, digest, limit=limit)

    # What is packed in layers

    def contents(self, digest: Digest) -> LayerContents | None:
        """What is packed in a layer, where it was unpacked and all of it is there."""
        found = find_complete(self._layout, digest)
        if found is None:
            return None
        self._touch(digest, *(file.digest for file in found.files))
        return found

    def put_contents(self, contents: LayerContents) -> None:
        """Keep what is packed in a layer; the caller has verified it against the layer's digest. With gaps,
        the layer's own blob goes: from now on it is assembled.

        Raises: BlobNotFound where a file is not in the store.
        """
        for file in contents.files:
            if not self.has(file.digest, file.size):
                raise BlobNotFound(str(file.digest))
        ensure_folders(self._layout)
        path = self._layout.contents_of(contents.digest)
        with translating("writing", path), locked(self._layout.lock, "exclusive"):
            self._leases.record(contents.digest, *(file.digest for file in contents.files))
            write_contents(self._layout, contents)
            if contents.gaps is not None:
                self._layout.blob(contents.digest).unlink(missing_ok=True)

    def assemble(self, files: tuple[PackedFile, ...], gaps: tuple[bytes, ...]) -> LayerContents:
        """The layer that these pieces make. It takes no room but for the gaps; for its digest, the files are
        read once, and not again as long as the layer is known.

        Raises: BlobNotFound where a file is not in the store.
        """
        for file in files:
            if not self.has(file.digest, file.size):
                raise BlobNotFound(str(file.digest))
        found = find_same(self._layout, files, gaps)
        if found is None or not self.intact(found.digest):
            size = sum(map(len, gaps)) + sum(file.size for file in files)
            made = LayerContents(Digest.of(b""), size, files, gaps)
            with translating("reading", self._layout.blobs):
                found = replace(made, digest=hash_assembled(self._layout, made))
            self.put_contents(found)
        return found

    # Blobs: writing

    def put_bytes(self, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """Store ``data`` as a blob. A damaged blob in its place is replaced."""
        digest = Digest.of(data, algorithm=algorithm)
        if self.intact(digest, len(data)):
            return digest
        with self._ingest_new(digest.algorithm) as ingest:
            ingest.write(data)
            return ingest.commit()

    def import_file(
        self,
        path: Path,
        *,
        expected: Descriptor | None = None,
        link: bool = False,
        on_bytes: Callable[[int], None] | None = None,
    ) -> ImportedFile:
        """Store the content of a local file, which stays as it is. One read; a clone where possible; nothing
        is written where the store has it already, nor read where that is ``expected``.

        ``link`` allows hard links, for files that nobody ever writes again: see ``importer.py``.
        ``on_bytes`` is told each number of bytes that was taken in; in all, the size of the file.

        Raises: BadSource, SourceChanged; DigestMismatch, SizeMismatch where it is not what is ``expected``;
            then nothing is stored.
        """
        source = open_source(path)
        try:
            size = os.fstat(source).st_size
            if expected is not None:
                if size != expected.size:
                    raise SizeMismatch(str(expected.digest), expected.size, size)
                if self.intact(expected.digest, size):
                    return ImportedFile(expected.digest, size)
            elif self._has_blob_of_size(size):
                known = hash_source(source, path, on_bytes)
                if self.intact(known.digest, known.size):
                    return known
                on_bytes = None  # it has been told of every byte
            if link and (linked := self._link(source, path, expected, on_bytes)) is not None:
                return linked
            with self.ingest(expected) as ingest:
                return import_into(ingest, source, path, on_bytes)
        finally:
            os.close(source)

    def _link(
        self,
        source: int,
        path: Path,
        expected: Descriptor | None,
        on_bytes: Callable[[int], None] | None,
    ) -> ImportedFile | None:
        """`import_file` by a clone, or else a hard link; None where neither is possible."""
        with self.ingest(expected) as ingest:
            if (cloned := clone_into(ingest, source, path, on_bytes)) is not None:
                return cloned
        if not may_link(source, self._layout.ingest):
            return None
        found = hash_source(source, path, on_bytes)
        if expected is not None and found.digest != expected.digest:
            raise DigestMismatch(str(expected.digest), str(found.digest), what=str(path))
        name, target = self._layout.ingest / f"new-{secrets.token_hex(8)}", self._layout.blob(found.digest)
        with translating("linking", target):
            if not link_as(source, path, name):
                return None
            try:
                set_mark(source, found.digest)
                os.fsync(source)
                with locked(self._layout.lock, "shared"):
                    self._leases.record(found.digest)
                    name.rename(target)
                sync_folder(target.parent)
            finally:
                name.unlink(missing_ok=True)  # renaming it to another name of the same file does nothing
        return replace(found, linked=True)

    @contextmanager
    def ingest(
        self,
        expected: Descriptor | None = None,
        *,
        resume: bool = False,
        part_size: int | None = None,
        wait_s: float | None = None,
        on_wait: Callable[[int], None] | None = None,
    ) -> Iterator[Ingest]:
        """Write a blob piece by piece: ``write``, then ``commit``. Leaving without commit removes what was
        written; with ``resume`` it is kept for a later ``ingest(…, resume=True)`` of the same content, unless
        it turned out to be wrong. What is larger than ``part_size`` bytes has ``parts`` instead of ``write``.

        One writer at a time for the same ``expected`` content, over all processes: others wait up to
        ``wait_s`` seconds, for ever where None, and then mostly find the blob ``present``. Meanwhile
        ``on_wait`` is told again and again how many bytes the other writer has; what it raises ends the wait.

        Raises: IngestBusy; DiskFull before anything is written where ``expected`` does not fit.
        """
        if expected is None:
            with self._ingest_new() as ingest:
                yield ingest
            return
        ingest = Ingest(self._layout, self._leases, expected)
        try:
            ensure_folders(self._layout)
            ingest.open(resume=resume, wait_s=wait_s, on_wait=on_wait)
            if self.intact(expected.digest, expected.size):
                ingest.present = True
                ingest.offset = expected.size
        except BaseException:
            ingest.end(keep=resume)
            raise
        with ingesting(ingest, expected, resume=resume, part_size=part_size):
            yield ingest

    def arrived(self, expected: Descriptor) -> int:
        """How many bytes of a blob that is not in the store an interrupted ``ingest`` has left to resume."""
        try:
            fd = open_regular(self._layout.partial(expected.digest), follow_links=False)
        except OSError:
            return 0
        try:
            with translating("reading", self._layout.partial(expected.digest)):
                return bytes_present(fd, expected.size)
        finally:
            os.close(fd)

    def adopt(self, path: Path, expected: Descriptor, *, known: tuple[Hasher, int] | None = None) -> None:
        """Make ``path``, a file in ``ingest/`` that has all the bytes of ``expected``, its blob: the file is
        read, verified and renamed. Where it is wrong, too short or too long, it is removed.

        ``known``: a hasher, of the digest's algorithm, that has seen the file's beginning as this process
        wrote it, and the length of that; only the rest is read.

        Raises: IngestBusy where somebody has it locked; SizeMismatch, DigestMismatch.
        """
        ingest = Ingest(self._layout, self._leases, expected, path=path)
        ingest.open(resume=True, wait_s=0)
        if known is not None:
            ingest.know(*known)
        with ingesting(ingest, expected, resume=True):
            try:
                ingest.commit()
            except SizeMismatch:
                ingest.discard()
                raise

    @contextmanager
    def _ingest_new(self, algorithm: str = "sha256") -> Iterator[Ingest]:
        ensure_folders(self._layout)
        ingest = Ingest(self._layout, self._leases, None, algorithm=algorithm)
        ingest.open(resume=False, wait_s=None)
        with ingesting(ingest, None, resume=False):
            yield ingest

    # Manifests and tags

    def put_manifest(self, manifest: Manifest | Index) -> Descriptor:
        """Store the exact bytes of ``manifest``; it is kept only once it is tagged."""
        self.put_bytes(manifest.raw)
        return manifest.descriptor

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index that ``descriptor`` names, verified.

        Raises: BlobNotFound, DigestMismatch, SizeMismatch, BadManifest.
        """
        return read_document(self._layout, descriptor)

    def tag(self, reference: Reference, descriptor: Descriptor) -> TaggedManifest:
        """Let ``reference`` name a manifest or index that is complete in this store.

        A tag whose name differs in case only is the same tag, and keeps its spelling. The result says
        what was written.

        Raises: BlobNotFound where anything is missing; DigestMismatch where ``reference`` has another digest;
            BadManifest, SizeMismatch, StoreCorrupt. Then every tag is as it was.
        """
        if reference.digest is not None and reference.digest != descriptor.digest:
            raise DigestMismatch(str(reference.digest), str(descriptor.digest), what=str(reference))
        ensure_folders(self._layout)
        with locked(self._layout.lock, "exclusive"):
            return self._set_tag(reference, descriptor, self._index.read().by_name(reference))

    def untag(self, reference: Reference) -> TaggedManifest:
        """Forget a tag; its blobs stay until the sweep. Returns what it was.

        Raises: ModelNotFound.
        """
        ensure_folders(self._layout)
        with locked(self._layout.lock, "exclusive"):
            entry = self._index.read().by_name(reference)
            if entry is None or entry.reference is None:
                raise ModelNotFound(str(reference), reference.display)
            self._index.remove(entry.reference)
        return self._tagged(entry, entry.reference)

    def move_tag(self, reference: Reference, was: Digest | None, descriptor: Descriptor | None) -> bool:
        """`tag`, or `untag` where ``descriptor`` is None, if the tag names ``was`` (None: if there is none).

        False, with nothing changed, where another process was quicker. Raises: as `tag`.
        """
        ensure_folders(self._layout)
        with locked(self._layout.lock, "exclusive"):
            entry = self._index.read().by_name(reference)
            if (entry.descriptor.digest if entry else None) != was:
                return False
            if descriptor is not None:
                self._set_tag(reference, descriptor, entry)
            elif entry is not None and entry.reference is not None:
                self._index.remove(entry.reference)
        return True

    def discard(self, digest: Digest) -> bool:
        """Remove a blob at once, whatever its age and whoever holds a lease on it; False, and it stays,
        where a tag needs it.

        Raises: BlobNotFound; StoreCorrupt where some tag cannot be read.
        """
        ensure_folders(self._layout)
        with locked(self._layout.lock, "exclusive"):
            if digest in live_digests(self._layout, self._index.read()):
                return False
            path = self._layout.blob(digest)
            with translating("removing", path):
                try:
                    path.unlink()
                except FileNotFoundError:
                    raise BlobNotFound(str(digest)) from None
        return True

    def find(self, reference: Reference) -> TaggedManifest:
        """The tag that ``reference`` means: of that name, of that name in another case, or, with a digest,
        one of the same repository with that digest.

        Raises: ModelNotFound, StoreCorrupt.
        """
        entry = self._entry(reference)
        return self._tagged(entry, entry.reference or reference)

    def resolve(self, reference: Reference) -> Manifest:
        """The manifest that ``reference`` names, verified. Under a lease, it and its blobs are kept.

        Raises: ModelNotFound; BadManifest where it is an index; BlobNotFound, DigestMismatch, SizeMismatch,
            StoreCorrupt where the store is damaged.
        """
        document = self.read_manifest(self._entry(reference).descriptor)
        if isinstance(document, Index):
            raise BadManifest([f"{reference.display} is an index of {len(document.manifests)} manifests"])
        self._touch(document.digest, *(blob.digest for blob in document.blobs))
        return document

    def tags(self) -> list[TaggedManifest]:
        """Every tag, the latest first. Raises: StoreCorrupt."""
        tagged = [
            self._tagged(entry, entry.reference)
            for entry in self._index.read().entries
            if entry.reference is not None
        ]
        return sorted(tagged, key=lambda tag: (-tag.modified.timestamp(), str(tag.reference)))

    # Upkeep

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Until the end, no blob is swept that was ingested, looked for or resolved through this object
        meanwhile, by any thread.
        """
        ensure_folders(self._layout)
        with self._leases.lease():
            yield

    def gc(self, *, dry_run: bool = False, policy: SweepPolicy | None = None) -> GcReport:
        """Remove what no tag and no lease needs, and old leftovers. ``dry_run`` only tells.

        Raises: StoreCorrupt where some tag cannot be read; then nothing was removed.
        """
        ensure_folders(self._layout)
        with locked(self._layout.lock, "exclusive"):
            return sweep(self._layout, self._index.read(), policy or SweepPolicy(), dry_run=dry_run)

    def fsck(self, *, repair: bool = False, progress: ProgressSink = ignore_progress) -> FsckReport:
        """Read everything and tell all that is wrong. ``repair`` moves damaged files to ``quarantine/`` and
        accepts ``index.json`` as it is; the report is of before.
        """
        return check(self._layout, self._index, repair=repair, progress=progress)

    # Helpers

    def _set_tag(self, reference: Reference, descriptor: Descriptor, entry: Entry | None) -> TaggedManifest:
        """The caller holds the exclusive lock and has read ``entry``, of the same name, under it."""
        self._require_complete(descriptor)
        spelled = entry.reference if entry and entry.reference else reference
        now = datetime.now(UTC)
        self._index.set(spelled, descriptor, now)
        return TaggedManifest(spelled, descriptor, now)

    def _assembled(self, digest: Digest) -> LayerContents:
        contents = find_assembled(self._layout, digest)
        if contents is None:
            raise BlobNotFound(str(digest))
        return contents

    def _entry(self, reference: Reference) -> Entry:
        entry = self._index.read().find(reference)
        if entry is None:
            raise ModelNotFound(str(reference), reference.display)
        return entry

    def _tagged(self, entry: Entry, reference: Reference) -> TaggedManifest:
        return TaggedManifest(reference, entry.descriptor, entry.modified or self._arrival(entry.descriptor))

    def _arrival(self, descriptor: Descriptor) -> datetime:
        """When the blob came, for tags that other programs wrote without a time."""
        try:
            seconds = self._layout.blob(descriptor.digest).lstat().st_mtime
        except OSError:
            seconds = 0.0
        return datetime.fromtimestamp(seconds, UTC)

    def _has_blob_of_size(self, size: int) -> bool:
        for path, _ in self._layout.iter_blob_files():
            with suppress(FileNotFoundError):
                if path.lstat().st_size == size:
                    return True
        return False

    def _require_complete(self, descriptor: Descriptor) -> None:
        try:
            for needed in walk(self._layout, descriptor):
                size = self.blob_size(needed.digest)
                if size != needed.size:
                    raise SizeMismatch(str(needed.digest), needed.size, size)
        except Unreadable as error:
            raise error.cause from error

    def _touch(self, *digests: Digest) -> None:
        if self._leases.active:
            with locked(self._layout.lock, "shared"), translating("recording in", self._layout.leases):
                self._leases.record(*digests)
