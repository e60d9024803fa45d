"""OCI image layouts in folders: those of other programs, and other stores.

    oci:FOLDER          the only model in it
    oci:FOLDER:NAME     the model of that name, as skopeo and Podman write it

A layout is read without writing to it, and written to as a store, which it then is, too: under its locks,
each blob verified and visible only when it is complete, the name last. Where both are on a file system that
can share bytes, none are copied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ...modelfile.errors import InputError, NotFoundError
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadManifest, BadReference, BlobNotFound, DigestMismatch, NotAStore, SizeMismatch, quoted
from ..manifest import Index, Manifest
from ..media_type import INDEX_TYPES, MANIFEST_TYPES, REF_NAME
from ..model import MAX_CONFIG_SIZE
from ..progress import Progress, ProgressSink, ignore_progress
from ..reference import Reference
from ..registry.index_choice import choose_manifest
from ..signing.attachment_tag import is_attachment_tag
from ..signing.attachments import StoreAttachments
from ..signing.policy import SignaturePolicy
from ..store import Ingest, Store
from ..store.hashing import CHUNK
from ..store.importer import import_into
from ..store.index import Entry, TaggedManifest, TagIndex
from ..unpacking import unpack_layers

PREFIX = "oci:"

IMAGE_NAME = "io.containerd.image.name"
"""Where containerd and Docker look for the full name; for them the other annotation is the tag alone."""

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class LayoutPlace:
    """A folder, and the name of a model in it where one is given."""

    folder: Path
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> LayoutPlace | None:
        """The place that ``oci:FOLDER[:NAME]`` says; None for text that begins otherwise.

        The first colon ends the folder, as for skopeo. Raises: InputError.
        """
        if not text.startswith(PREFIX):
            return None
        folder, colon, name = text.removeprefix(PREFIX).partition(":")
        if not folder or "\0" in text or (colon and not name):
            raise InputError(f"reading {quoted(text)}: expected oci:FOLDER or oci:FOLDER:NAME")
        return cls(Path(folder), name or None)

    def __str__(self) -> str:
        return f"{PREFIX}{self.folder}" + (f":{self.name}" if self.name else "")


def pull_from(
    store: Store,
    place: LayoutPlace,
    *,
    policy: SignaturePolicy,
    progress: ProgressSink = ignore_progress,
) -> TaggedManifest:
    """Brings a model from an image layout into the store, under the name that it has there, and with the
    signatures that it has there.

    On failure the store's tags are as before.

    Raises: NotFoundError where there is no layout, or no such model in it; InputError where it is not clear
        which is meant; NotSigned, SignatureInvalid where ``policy`` requires a signature; BadManifest,
        BlobNotFound, DigestMismatch, SizeMismatch, and what the store raises.
    """
    source = _open(place.folder)
    progress(Progress("reading the layout"))
    reference, entry = _find(source, place)
    with store.lease():
        manifest = model_manifest(source, reference, entry)
        attached = StoreAttachments(source, reference)
        policy.check(attached, reference, (manifest, source.read_manifest(entry)), progress)
        _copy(source, store, manifest, progress)
        unpack_layers(store, manifest, progress)
        tagged = store.tag(pinned(reference, manifest), store.put_manifest(manifest))
        carry_signatures(attached, store, tagged)
    progress(Progress("success"))
    return tagged


def push_to(
    store: Store, reference: Reference, place: LayoutPlace, *, progress: ProgressSink = ignore_progress
) -> TaggedManifest:
    """Brings a model of the store into an image layout, which is created where there is none, under its own
    name or that of ``place``. Signatures that the store has of it go along.

    On failure the layout's tags are as before.

    Raises: ModelNotFound; NotAStore where the folder holds something else; BadReference, BlobNotFound,
        DigestMismatch, SizeMismatch, and what the store raises.
    """
    name = Reference.parse(place.name) if place.name else None
    with store.lease():
        manifest = store.resolve(reference)
        target = Store.open(place.folder)
        with target.lease():
            _copy(store, target, manifest, progress)
            kept = name or store.find(reference).reference
            tagged = target.tag(kept, target.put_manifest(manifest))
            carry_signatures(StoreAttachments(store, reference), target, tagged)
    progress(Progress("success"))
    return tagged


def carry_signatures(source: StoreAttachments, target: Store, tagged: TaggedManifest) -> None:
    """Adds to the target what signatures the source has of a manifest."""
    if source.any(tagged.descriptor.digest):
        from ..signing.signature import copy_signatures  # brings cryptography, which most models need not

        copy_signatures(source, StoreAttachments(target, tagged.reference), tagged.descriptor.digest)


def reference_of(entry: Descriptor) -> Reference | None:
    """The name that an entry of an index bears; None where it bears none that can be a model's."""
    for key in (IMAGE_NAME, REF_NAME):
        text = entry.annotations.get(key)
        if text is not None:
            try:
                return Reference.parse(text)
            except BadReference:
                continue
    return None


def model_manifest(store: Store, reference: Reference, entry: Descriptor) -> Manifest:
    """The manifest that an entry stands for: it, or the one that is the model of an index.

    Raises: BlobNotFound, DigestMismatch, SizeMismatch; BadManifest where it can be no model of ours.
    """
    document = store.read_manifest(entry)
    if reference.digest is not None and reference.digest != document.digest:
        raise DigestMismatch(str(reference.digest), str(document.digest), what=reference.display)
    if isinstance(document, Index):
        document = store.read_manifest(choose_manifest(document, reference))
    if isinstance(document, Index):
        raise BadManifest([f"{reference.display} is an index of indexes"])
    if document.config.size > MAX_CONFIG_SIZE:
        raise BadManifest([f"the config has {document.config.size} bytes, more than {MAX_CONFIG_SIZE}"])
    return document


def pinned(reference: Reference, manifest: Manifest) -> Reference:
    """The reference, with the manifest's digest in place of that of the index around it."""
    return replace(reference, digest=manifest.digest) if reference.digest is not None else reference


def _open(folder: Path) -> Store:
    """The layout, opened without writing. Raises: NotFoundError, NotAStore."""
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}", hint="expected that of an OCI image layout")
    if not (folder / "oci-layout").exists():
        raise NotAStore(folder, "it is no OCI image layout: oci-layout is missing")
    return Store.open(folder)


def _find(source: Store, place: LayoutPlace) -> tuple[Reference, Descriptor]:
    """The entry that is meant, and its name."""
    tags = TagIndex(source.layout).read()
    entries = [entry for entry in tags.entries if entry.descriptor.media_type in MANIFEST_TYPES | INDEX_TYPES]
    entries = [entry for entry in entries if not _is_attachment(_name_of(entry))]
    named = [(name, entry.descriptor) for entry in entries if (name := _name_of(entry)) is not None]
    if place.name is not None:
        wanted = Reference.parse(place.name)
        for name, descriptor in named:
            if name.familiar_key == wanted.familiar_key:
                return name, descriptor
        if len(entries) == 1 and not named:
            return wanted, entries[0].descriptor
        raise NotFoundError(f"model '{place.name}' not found in {place.folder}", hint=_choice(named))
    if len(named) == 1:
        return named[0]
    if not entries:
        raise NotFoundError(f"there is no model in {place.folder}")
    if named:
        raise InputError(f"reading {place}: it holds {len(named)} models", hint=_choice(named))
    raise InputError(f"reading {place}: the model in it has no name", hint=f"{place}:NAME gives it one")


def _name_of(entry: Entry) -> Reference | None:
    return reference_of(entry.descriptor) or entry.reference


def _is_attachment(name: Reference | None) -> bool:
    return name is not None and is_attachment_tag(name.tag)


def _choice(named: list[tuple[Reference, Descriptor]]) -> str:
    shown = ", ".join(str(name) for name, _ in named[:_SHOWN])
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"there are: {shown}{more}" if named else "the models in it have no names"


def _copy(source: Store, target: Store, manifest: Manifest, progress: ProgressSink) -> None:
    seen: set[Digest] = set()
    for blob in (*manifest.layers, manifest.config):
        if blob.digest not in seen:
            seen.add(blob.digest)
            _copy_blob(source, target, blob, progress)


def _copy_blob(source: Store, target: Store, blob: Descriptor, progress: ProgressSink) -> None:
    status, done = f"copying {blob.digest.short}", 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        progress(Progress(status, blob.digest, done, blob.size))

    try:
        file = source.open_blob(blob.digest)
    except BlobNotFound:
        raise BlobNotFound(str(blob.digest), needed_by=f"the model in {source.root}") from None
    with file, target.ingest(blob) as ingest:
        if not ingest.present:
            size = source.blob_size(blob.digest)
            if size != blob.size:
                raise SizeMismatch(str(blob.digest), blob.size, size)
            _import_open(ingest, file, source.layout.blob(blob.digest), count)
    progress(Progress(status, blob.digest, blob.size, blob.size))


def _import_open(ingest: Ingest, file: BinaryIO, path: Path, count: Callable[[int], None]) -> None:
    try:
        fd = file.fileno()
    except OSError:  # a layer that is assembled while it is read
        while data := file.read(CHUNK):
            ingest.write(data)
            count(len(data))
        ingest.commit()
    else:
        import_into(ingest, fd, path, count)
