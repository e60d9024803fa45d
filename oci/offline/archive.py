"""Models as one file, to be carried where no registry is: an OCI image layout in a tar archive.

``save`` writes what ``skopeo copy oci-archive:FILE`` reads, and ``load`` reads what skopeo and Podman write.
The same models give the same bytes on every machine: ``oci-layout``, ``index.json``, then the blobs by
digest, each once, owned by nobody in particular and without times.

A load takes each blob into the store through the same door as a pull: verified, and visible only then. No
name is given before everything that any of the names needs is there. What a failed load has brought stays
untagged, and the sweep removes it.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from ..canonical import MAX_DOCUMENT_SIZE, canonical_json, strict_json
from ..descriptor import Descriptor
from ..digest import HEX_LENGTHS, Digest, new_hasher
from ..errors import BadDigest, BadJson, BlobNotFound, DigestMismatch, quoted
from ..manifest import Index, Manifest
from ..media_type import INDEX_TYPES, MANIFEST_TYPES, OCTET_STREAM, REF_NAME
from ..progress import Progress, ProgressSink, ignore_progress
from ..reference import Reference
from ..signing.attachment_tag import attachment_tag, is_attachment_tag
from ..signing.attachments import StoreAttachments
from ..signing.policy import SignaturePolicy
from ..store import Store
from ..store.blob import REPAIR_HINT
from ..store.graph import Unreadable, walk
from ..store.hashing import CHUNK, BackgroundHasher, iter_chunks
from ..store.index import TaggedManifest
from ..unpacking import unpack_layers
from .archive_reader import ArchiveReader, BadArchive, Member
from .image_layout import IMAGE_NAME, carry_signatures, model_manifest, pinned, reference_of

MAX_OTHER = 16 << 20
"""Bytes of a file that is no part of the layout, as Docker's archives have; it is passed over."""

_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
_RECORD = tarfile.RECORDSIZE


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load has tagged. ``unnamed`` counts the manifests in the archive that have no usable name."""

    tagged: tuple[TaggedManifest, ...]
    unnamed: int = 0


@dataclass(frozen=True, slots=True)
class Packed:
    """Models that are to be saved: the index of the archive and, by digest, all that it needs."""

    index: bytes
    blobs: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes that the archive has, but for a few hundred for each blob."""
        return len(self.index) + sum(blob.size for blob in self.blobs)


@contextmanager
def packing(store: Store, references: Sequence[Reference]) -> Iterator[Packed]:
    """The models of these names, with their signatures, which stay in the store until the block ends.

    Raises: ModelNotFound, BlobNotFound where a model is incomplete, BadManifest, DigestMismatch.
    """
    with store.lease():
        entries: dict[str, Descriptor] = {}
        blobs: dict[Digest, Descriptor] = {}
        for reference in references:
            model = store.find(reference)
            for tagged in (model, *_attached(store, model)):
                name = str(tagged.reference)
                annotations = {REF_NAME: name, IMAGE_NAME: name}
                entries[name] = replace(tagged.descriptor, annotations=annotations)
                blobs.update((needed.digest, needed) for needed in _parts(store, tagged.descriptor))
        for blob in blobs.values():
            if not store.has(blob.digest, blob.size):
                raise BlobNotFound(str(blob.digest))
        index = Index.build(manifests=[entry for _, entry in sorted(entries.items())])
        yield Packed(index.raw, tuple(blobs[digest] for digest in sorted(blobs)))


def _attached(store: Store, model: TaggedManifest) -> list[TaggedManifest]:
    """The tags of what is attached to a model, such as its signatures."""
    prefix, name = attachment_tag(model.descriptor.digest), model.reference.name.lower()
    return [
        tagged
        for tagged in store.tags()
        if is_attachment_tag(tagged.reference.tag)
        and str(tagged.reference.tag).startswith(prefix)
        and tagged.reference.name.lower() == name
    ]


def _parts(store: Store, descriptor: Descriptor) -> list[Descriptor]:
    try:
        return list(walk(store.layout, descriptor))
    except Unreadable as error:
        raise error.cause from error


def save(store: Store, packed: Packed, out: BinaryIO, *, progress: ProgressSink = ignore_progress) -> None:
    """Writes the archive. Every blob is verified on its way; where one is damaged, the archive has no end.

    Raises: DigestMismatch, BlobNotFound; OSError from ``out``.
    """
    written = 0

    def put(data: bytes | memoryview) -> None:
        nonlocal written
        out.write(data)
        written += len(data)

    for name, content in (("oci-layout", _LAYOUT), ("index.json", packed.index)):
        put(_header(name, len(content)))
        put(content)
        put(bytes(-len(content) % tarfile.BLOCKSIZE))
    put(_header("blobs/", None))
    folder = ""
    for blob in packed.blobs:
        if folder != blob.digest.algorithm:
            folder = blob.digest.algorithm
            put(_header(f"blobs/{folder}/", None))
        put(_header(f"blobs/{folder}/{blob.digest.hex}", blob.size))
        _put_blob(store, blob, put, progress)
        put(bytes(-blob.size % tarfile.BLOCKSIZE))
    put(bytes(2 * tarfile.BLOCKSIZE))
    put(bytes(-written % _RECORD))
    out.flush()
    progress(Progress("success"))


def _header(name: str, size: int | None) -> bytes:
    """The header of a file, or of a folder where ``size`` is None. Sizes from 8 GiB are in a pax record."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if size is None else tarfile.REGTYPE
    info.mode = 0o755 if size is None else 0o644
    info.size = size or 0
    return info.tobuf(format=tarfile.PAX_FORMAT, encoding="utf-8", errors="strict")


def _put_blob(
    store: Store, blob: Descriptor, put: Callable[[bytes | memoryview], None], progress: ProgressSink
) -> None:
    status, done = f"saving {blob.digest.short}", 0
    with store.open_blob(blob.digest) as file, BackgroundHasher(new_hasher(blob.digest.algorithm)) as hasher:
        for chunk in _chunks(file, blob.size):
            hasher.update(chunk)
            put(chunk)
            done += len(chunk)
            progress(Progress(status, blob.digest, done, blob.size))
        found = Digest(blob.digest.algorithm, hasher.hexdigest())
    if found != blob.digest:
        raise DigestMismatch(str(blob.digest), str(found), hint=REPAIR_HINT)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes | memoryview]:
    try:
        fd = file.fileno()
    except OSError:  # a layer that is assembled while it is read
        while size > 0 and (data := file.read(min(CHUNK, size))):
            size -= len(data)
            yield data
    else:
        yield from iter_chunks(fd, limit=size)


def load(
    store: Store,
    file: BinaryIO,
    *,
    policy: SignaturePolicy,
    name: Reference | None = None,
    progress: ProgressSink = ignore_progress,
) -> LoadReport:
    """Takes the models of an archive into the store, and tags them with the names that it gives them; with
    ``name`` the only one in it, whatever that is called. Signatures that it has of them come along.

    On failure every tag is as before.

    Raises: BadArchive; DigestMismatch, SizeMismatch where content is not what its name says; NotSigned,
        SignatureInvalid where ``policy`` requires a signature; BadManifest; DiskFull and what else the
        store raises; OSError from ``file``.
    """
    with store.lease():
        index = _take_in(store, ArchiveReader(file), progress)
        names, unnamed = _names(index, name)
        found: list[tuple[_Brought, Manifest]] = []
        for reference, entry in names.items():
            manifest = _manifest(store, reference, entry)
            brought = _Brought(store, reference, _attachments_in(index, entry))
            policy.check(brought, reference, (manifest, store.read_manifest(entry)), progress)
            found.append((brought, manifest))
        tagged = []
        for brought, manifest in found:
            unpack_layers(store, manifest, progress)
            tagged.append(store.tag(pinned(brought.reference, manifest), manifest.descriptor))
            carry_signatures(brought, store, tagged[-1])
    progress(Progress("success"))
    return LoadReport(tuple(tagged), unnamed)


@dataclass(frozen=True, slots=True)
class _Brought(StoreAttachments):
    """What an archive has attached to a model, by tag. All its bytes are in the store, but nothing of it is
    tagged there."""

    brought: Mapping[str, Descriptor]

    def any(self, digest: Digest) -> bool:
        return any(tag.startswith(attachment_tag(digest)) for tag in self.brought)

    def find(self, tag: str) -> Manifest | Index | None:
        descriptor = self.brought.get(tag)
        try:
            return self.store.read_manifest(descriptor) if descriptor is not None else None
        except BlobNotFound:
            return None


def _attachments_in(index: Index, entry: Descriptor) -> dict[str, Descriptor]:
    """What the archive has attached to the model of an entry: in the repository of that name."""
    model = reference_of(entry)
    found: dict[str, Descriptor] = {}
    for other in index.manifests:
        reference = reference_of(other)
        if (
            model is not None
            and reference is not None
            and reference.tag is not None
            and is_attachment_tag(reference.tag)
            and reference.name.lower() == model.name.lower()
        ):
            found[reference.tag] = other
    return found


def _take_in(store: Store, reader: ArchiveReader, progress: ProgressSink) -> Index:
    """Everything that is in the archive. Returns what its index says."""
    documents: dict[str, bytes] = {}
    for member in reader.members():
        if member.is_folder:
            continue
        digest = _digest_of(member)
        if digest is not None:
            _take_blob(store, reader, Descriptor(OCTET_STREAM, digest, member.size), progress)
        elif member.name in ("oci-layout", "index.json"):
            documents[member.name] = reader.read(limit=MAX_DOCUMENT_SIZE)
        elif member.size > MAX_OTHER:
            raise BadArchive(f"{quoted(member.name)} is no part of an OCI image layout")
    if missing := [name for name in ("oci-layout", "index.json") if name not in documents]:
        raise BadArchive(
            f"it is no OCI image layout: {missing[0]} is missing",
            hint="podman save --format oci-archive and skopeo copy … oci-archive:FILE write one",
        )
    _require_version(documents["oci-layout"])
    return Index.parse(documents["index.json"])


def _digest_of(member: Member) -> Digest | None:
    """Which blob a member is; None where it is none. Raises: BadArchive where it pretends to be one."""
    folder, _, name = member.name.rpartition("/")
    algorithm = folder.removeprefix("blobs/")
    if folder == algorithm or algorithm not in HEX_LENGTHS:
        return None
    try:
        return Digest(algorithm, name)
    except BadDigest as error:
        raise BadArchive(f"{quoted(member.name)} is not named by a digest") from error


def _take_blob(store: Store, reader: ArchiveReader, blob: Descriptor, progress: ProgressSink) -> None:
    status = f"loading {blob.digest.short}"
    with store.ingest(blob) as ingest:
        if not ingest.present:
            for chunk in reader.chunks():
                ingest.write(chunk)
                progress(Progress(status, blob.digest, ingest.offset, blob.size))
        ingest.commit()
    progress(Progress(status, blob.digest, blob.size, blob.size))


def _require_version(data: bytes) -> None:
    try:
        value = strict_json(data, what="oci-layout")
    except BadJson as error:
        raise BadArchive(error.message) from error
    version = value.get("imageLayoutVersion") if isinstance(value, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise BadArchive("expected an OCI image layout of version 1")


def _names(index: Index, name: Reference | None) -> tuple[Mapping[Reference, Descriptor], int]:
    """What is to be tagged how, and how many manifests have no name. Raises: BadArchive."""
    entries = [
        entry
        for entry in index.manifests
        if entry.media_type in MANIFEST_TYPES | INDEX_TYPES and not _is_attachment(entry)
    ]
    if not entries:
        raise BadArchive("there is no model in it")
    if name is not None:
        if len({entry.digest for entry in entries}) > 1:
            raise BadArchive(f"it holds {len(entries)} models: one name does not do for all")
        return {name: entries[0]}, 0
    found: dict[Reference, Descriptor] = {}
    for entry in entries:
        reference = reference_of(entry)
        if reference is None:
            continue
        alike = [known for known in found if known.familiar_key == reference.familiar_key]
        if any(found[known].digest != entry.digest for known in alike):
            raise BadArchive(f"two models in it have the name {reference.display}")
        if not alike:
            found[reference] = entry
    if not found:
        raise BadArchive("the model in it has no name", hint="lading load --name NAME gives it one")
    return found, sum(reference_of(entry) is None for entry in entries)


def _is_attachment(entry: Descriptor) -> bool:
    reference = reference_of(entry)
    return reference is not None and is_attachment_tag(reference.tag)


def _manifest(store: Store, reference: Reference, entry: Descriptor) -> Manifest:
    """The complete manifest that the name means. Raises: BadArchive where something is missing."""
    try:
        manifest = model_manifest(store, reference, entry)
    except BlobNotFound as error:
        raise BadArchive(f"{reference.display} needs {error.digest}, which is not in it") from error
    for blob in manifest.blobs:
        if not store.has(blob.digest, blob.size):
            raise BadArchive(f"{reference.display} needs {blob.digest}, which is not in it")
    return manifest
