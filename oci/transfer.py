"""Pull and push: models between a store and registries.

Order is what makes both safe to interrupt. A pull brings blobs, then the manifest, and tags last; a push
sends layers, then the config, then the manifest under its tag. So a name never means something incomplete,
here or there, and whatever has arrived is not moved again.

Progress comes as one stream, from one thread at a time, in Ollama's words.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..modelfile.errors import LadingError
from .descriptor import Descriptor
from .digest import Digest
from .errors import BadManifest, BlobNotFound, DigestMismatch
from .importing.hub_model import is_for_hub, pull_from_hub
from .manifest import Index, Manifest
from .progress import Progress, ProgressSink, ignore_progress
from .reference import Reference
from .registry.client import RegistryClient
from .registry.crew import Crew, Slots
from .registry.download import download
from .registry.errors import RegistryError
from .registry.index_choice import Platform, choose_manifest
from .registry.parted_download import PartedDownload
from .registry.repository import Repository
from .registry.sources import Sources
from .registry.upload import BlobUpload
from .registry.web_files import WebFiles
from .signing.attachments import Attachments, RegistryAttachments, StoreAttachments
from .signing.policy import Mode
from .store import Ingest, Store
from .store.disk import require_room
from .unpacking import unpack_layers

MAX_CONFIG_SIZE = 1024 * 1024
"""Bytes. Configs are read into memory by every reader; real ones have a few KiB."""

_REPORT_EVERY_S = 0.06  # as often as Ollama does
_MOUNT_SOURCES = 3


def pull(
    store: Store,
    client: RegistryClient,
    reference: Reference,
    *,
    progress: ProgressSink = ignore_progress,
    platform: Platform | None = None,
) -> Manifest:
    """Fetches a model into the store and tags it as `reference`. Blobs that the store has are not fetched;
    one that is damaged there is fetched again.

    platform: which manifest to take, where the registry has an index of several.
    On failure the store's tags are as before; what came of a blob is kept, and the next pull goes on there.

    Raises: RemoteModelNotFound, RemoteBlobNotFound, RegistryDenied, RegistryError, RegistryBusy,
        DigestMismatch, SizeMismatch, BadManifest, DiskFull, and what the store raises; NotSigned and
        SignatureInvalid, before any blob is fetched, where the settings require a signature.
    """
    run = _Run(client, progress)
    run.report(Progress("pulling manifest"))
    sources = run.sources(reference)
    with store.lease():
        try:
            repository, document = sources.ask(lambda source: (source, source.fetch_manifest(reference)))
        except RegistryError as error:
            if not is_for_hub(reference, error):
                raise
            return _pull_from_hub(store, client, reference, run)
        manifest = _model_manifest(repository, reference, document, platform)
        if isinstance(document, Index) and reference.digest is not None:
            # The digest named the index; what is kept is the manifest.
            reference = replace(reference, digest=manifest.digest)
        attachments = RegistryAttachments(repository, reference)
        client.settings.signatures.check(attachments, reference, (manifest, document), run.report)
        if manifest.config.size > MAX_CONFIG_SIZE:
            raise BadManifest([f"the config has {manifest.config.size} bytes, more than {MAX_CONFIG_SIZE}"])
        wanted = _distinct((*manifest.layers, manifest.config))
        _require_room(store, wanted)
        run.each(
            wanted,
            lambda blob: sources.ask(lambda repository: _fetch_blob(store, repository, blob, run)),
        )
        run.report(Progress("verifying sha256 digest"))  # each has been, on its way in
        unpack_layers(store, manifest, run.report)
        run.report(Progress("writing manifest"))
        store.tag(reference, store.put_manifest(manifest))
        if client.settings.signatures.rule_for(reference).mode is not Mode.OFF:
            _copy_signatures(attachments, StoreAttachments(store, reference), manifest.digest)
    run.report(Progress("success"))
    return manifest


def _pull_from_hub(store: Store, client: RegistryClient, reference: Reference, run: _Run) -> Manifest:
    """What Hugging Face's Hub has no manifest for, file by file. The caller holds a lease."""
    hub = client.web_files(
        client.origin(reference.registry),
        reference.repository,
        {},
        sleep=run.crew.sleep,
        on_busy=run.slots.fewer,
    )
    fetch = functools.partial(_fetch_files, store, run)
    manifest = pull_from_hub(store, hub, reference, fetch, run.report)
    run.report(Progress("writing manifest"))
    store.tag(reference, store.put_manifest(manifest))
    run.report(Progress("success"))
    return manifest


def _fetch_files(store: Store, run: _Run, files: WebFiles, wanted: Sequence[Descriptor]) -> None:
    distinct = _distinct(wanted)
    _require_room(store, distinct)
    run.each(distinct, lambda blob: _fetch_blob(store, files, blob, run))


def fetch_file(
    store: Store,
    client: RegistryClient,
    files: WebFiles,
    wanted: Descriptor,
    *,
    progress: ProgressSink = ignore_progress,
) -> None:
    """Brings a file whose digest is known into the store, as `pull` does with blobs.

    Raises: RemoteBlobNotFound, RegistryDenied, RegistryError, DigestMismatch, SizeMismatch, DiskFull.
    """
    run = _Run(client, progress)
    _fetch_files(store, run, files, [wanted])


def push(
    store: Store,
    client: RegistryClient,
    reference: Reference,
    *,
    target: Reference | None = None,
    manifest: Manifest | None = None,
    progress: ProgressSink = ignore_progress,
) -> Descriptor:
    """Sends a model of the store to the registry, under `target` or its own name. The manifest arrives byte
    for byte; blobs that the registry has are not sent. Signatures that the store has of it go along.

    manifest: what to send in place of what `reference` names, such as the same model in another dialect.
    On failure the registry's tag is as before; what has arrived is not sent again by the next push.

    Raises: ModelNotFound, BlobNotFound, RegistryDenied, RegistryError, RegistryBusy, RegistryUnsafe,
        DigestMismatch, and what the store raises.
    """
    target = target or reference
    run = _Run(client, progress)
    run.report(Progress("retrieving manifest"))
    with store.lease():
        manifest = manifest or store.resolve(reference)
        if target.digest is not None and target.digest != manifest.digest:
            raise DigestMismatch(
                str(target.digest), str(manifest.digest), what=f"the target {target.display}"
            )
        _require_blobs(store, manifest)
        repository = client.repository(target, writes=True, sleep=run.crew.sleep, on_busy=run.slots.fewer)
        sources = _mount_sources(store, target, manifest)

        def send(descriptor: Descriptor, *, again: bool = False) -> None:
            _send_blob(store, repository, descriptor, sources.get(descriptor.digest, ()), run, again=again)

        run.each(_distinct(manifest.layers), send)
        send(manifest.config)
        run.report(Progress("pushing manifest"))
        try:
            repository.put_manifest(manifest, target.tag)
        except RegistryError as error:
            if not {"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"} & set(error.codes):
                raise
            # It said that it had a blob, and has it no longer. Once more, without asking.
            for descriptor in _distinct((*manifest.layers, manifest.config)):
                send(descriptor, again=True)
            repository.put_manifest(manifest, target.tag)
        signatures = StoreAttachments(store, reference)
        if signatures.any(manifest.digest):
            run.report(Progress("pushing signatures"))
            _copy_signatures(signatures, RegistryAttachments(repository, target), manifest.digest)
    run.report(Progress("success"))
    return manifest.descriptor


class _Run:
    """One transfer: its progress stream, its threads and their connections."""

    def __init__(self, client: RegistryClient, progress: ProgressSink) -> None:
        self._client = client
        self.crew = Crew(client.cut, sleep=client.sleep)
        self.slots = Slots(client.settings.parallel, self.crew)
        self._progress = progress
        self._lock = threading.Lock()

    def sources(self, reference: Reference) -> Sources:
        """Where a model is pulled from."""
        return Sources(
            self._client,
            reference,
            sleep=self.crew.sleep,
            slots=self.slots,
            on_skip=lambda why: self.report(Progress(why)),
        )

    def report(self, progress: Progress) -> None:
        """Hands on progress, from one thread at a time. Raises: TransferStopped."""
        self.crew.check()
        with self._lock:
            self._progress(progress)

    def each(self, descriptors: Iterable[Descriptor], work: Callable[[Descriptor], None]) -> None:
        """Does the work for several blobs at once; the first failure ends all, and is raised."""
        self.crew.each(descriptors, work, threads=self.slots.count)

    def counter(self, verb: str, descriptor: Descriptor) -> Callable[[int], None]:
        """Takes how many bytes of a blob are done, and reports that now and then, and at the end."""
        status = f"{verb} {descriptor.digest.short}"
        due = 0.0

        def count(completed: int) -> None:
            nonlocal due
            now = time.monotonic()
            if now >= due or completed >= descriptor.size or self.crew.stopped:
                due = now + _REPORT_EVERY_S
                self.report(Progress(status, descriptor.digest, completed, descriptor.size))

        return count


def _copy_signatures(source: Attachments, target: Attachments, digest: Digest) -> None:
    from .signing.signature import copy_signatures  # brings cryptography, which most transfers need not

    copy_signatures(source, target, digest)


def _model_manifest(
    repository: Repository, reference: Reference, document: Manifest | Index, platform: Platform | None
) -> Manifest:
    """The manifest itself, or the one of an index that is the model for this machine."""
    if isinstance(document, Manifest):
        return document
    chosen = choose_manifest(document, reference, platform)
    inner = repository.fetch_manifest(reference.with_digest(chosen.digest))
    if isinstance(inner, Index):
        raise BadManifest(
            [f"{reference.display} is an index of indexes; name one of its manifests by digest"]
        )
    return inner


def _fetch_blob(store: Store, repository: Repository, descriptor: Descriptor, run: _Run) -> None:
    """Brings one blob into the store, going on where an earlier attempt ended. What was put together from
    several answers and turns out wrong is fetched once more, in one piece: one of them may be to blame."""
    part_size = repository.settings.part_size
    for resume in (True, False):
        count = run.counter("pulling", descriptor)
        with store.ingest(descriptor, resume=resume, part_size=part_size, on_wait=count) as ingest:
            if ingest.present:
                count(descriptor.size)
                return
            continued = ingest.offset > 0
            if ingest.parts is not None:
                parted = PartedDownload(
                    repository, descriptor, ingest.parts, count, crew=run.crew, slots=run.slots, ranges=resume
                )
                parted.run()
                answers = parted.requests
            else:
                with run.slots.hold():
                    answers = download(repository, descriptor, _CountedSink(ingest, count))
            try:
                ingest.commit()
            except DigestMismatch:
                if not (resume and (continued or answers > 1)):
                    raise
                continue
            count(descriptor.size)
            return


@dataclass(frozen=True, slots=True)
class _CountedSink:
    """A store's ingest that tells how far it is."""

    ingest: Ingest
    count: Callable[[int], None]

    @property
    def offset(self) -> int:
        return self.ingest.offset

    def write(self, data: bytes, /) -> None:
        self.ingest.write(data)
        self.count(self.ingest.offset)


def _send_blob(
    store: Store,
    repository: Repository,
    descriptor: Descriptor,
    mount_from: tuple[str, ...],
    run: _Run,
    *,
    again: bool,
) -> None:
    count = run.counter("pushing", descriptor)  # 0 first where it is sent, else only that all of it is there
    path, opener = store.layout.blob(descriptor.digest), functools.partial(store.open_blob, descriptor.digest)
    upload = BlobUpload(repository, descriptor, path, count, opener=opener)
    with run.slots.hold():
        upload.run(() if again else mount_from, look_first=not again)
    count(descriptor.size)


def _require_room(store: Store, wanted: list[Descriptor]) -> None:
    """Raises: DiskFull when what is missing does not fit, before anything is fetched."""
    missing = 0
    for descriptor in wanted:
        if not store.has(descriptor.digest, descriptor.size):
            missing += descriptor.size - store.arrived(descriptor)
    require_room(store.root, missing)


def _require_blobs(store: Store, manifest: Manifest) -> None:
    """Raises: BlobNotFound before anything is sent."""
    for descriptor in manifest.blobs:
        if not store.has(descriptor.digest, descriptor.size):
            raise BlobNotFound(str(descriptor.digest), needed_by=f"manifest {manifest.digest.short}")


def _mount_sources(store: Store, target: Reference, manifest: Manifest) -> dict[Digest, tuple[str, ...]]:
    """For each blob, other repositories of the target's registry that should have it, since a model of that
    name in the store has it."""
    needed = {descriptor.digest for descriptor in manifest.blobs}
    found: dict[Digest, tuple[str, ...]] = {}
    for tagged in store.tags():
        repository = tagged.reference.repository
        if tagged.reference.registry != target.registry or repository == target.repository:
            continue
        try:
            document = store.read_manifest(tagged.descriptor)
        except LadingError:
            continue  # a damaged neighbour is no reason not to push
        for descriptor in document.blobs:
            known = found.get(descriptor.digest, ())
            if descriptor.digest in needed and repository not in known and len(known) < _MOUNT_SOURCES:
                found[descriptor.digest] = (*known, repository)
    return found


def _distinct(descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """Without repetitions, in order. Raises: BadManifest when one digest is given two sizes."""
    found: dict[Digest, Descriptor] = {}
    for descriptor in descriptors:
        known = found.setdefault(descriptor.digest, descriptor)
        if known.size != descriptor.size:
            raise BadManifest([f"blob {descriptor.digest} has two sizes, {known.size} and {descriptor.size}"])
    return list(found.values())
