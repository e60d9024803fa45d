"""The store of an Ollama on this machine: its models are taken over as they are, layer by layer.

    manifests/<host>/<namespace>/<model>/<tag>      Docker manifests
    blobs/sha256-<hex>                              layers and configs

Nothing in it is changed, but that blobs which are shared by a hard link become read-only; Ollama does not
write to them again. Its blobs are verified: it does not do that itself for what it has.

Source: Ollama, manifest/paths.go, server/layer.go.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...modelfile.errors import IntegrityError, LadingError, NotFoundError
from ..canonical import MAX_DOCUMENT_SIZE
from ..descriptor import Descriptor
from ..dialects.reading import layers_of
from ..errors import BadManifest, BadReference, BadSource
from ..manifest import Manifest
from ..progress import ProgressSink, ignore_progress
from ..reference import Reference
from ..store import Store
from ..store.disk import open_regular
from .imported import TAKEN, FileImporter, Imported, ImportPolicy, Status, is_taken, readable

MAX_MODELS = 10_000


@dataclass(frozen=True, slots=True)
class OllamaModel:
    """A name in Ollama's store, and the file of its manifest."""

    reference: Reference
    path: Path


@dataclass(frozen=True, slots=True)
class OllamaStore:
    """The folder that Ollama knows as OLLAMA_MODELS."""

    root: Path

    def models(self) -> list[OllamaModel]:
        """All that have a name, in order. Raises: NotFoundError where it is no such store; BadSource."""
        with readable(self.root):
            if not (self.root / "manifests").is_dir():
                raise NotFoundError(
                    f"importing from Ollama: {self.root} is not the folder of its models",
                    hint="name it with --from; it has the folders blobs and manifests",
                )
            os.scandir(self.root / "manifests").close()  # what is closed to us is not empty
            return list(self._walk())

    def select(self, wanted: Sequence[Reference]) -> list[OllamaModel]:
        """Those of these names. Raises: NotFoundError for the first that is not there."""
        known = {model.reference.familiar_key: model for model in self.models()}
        for reference in wanted:
            if reference.familiar_key not in known:
                names = ", ".join(model.reference.display for model in list(known.values())[:12])
                raise NotFoundError(
                    f"importing {reference.display}: Ollama has no such model in {self.root}",
                    hint=f"it has: {names}" if names else "it has none",
                )
        return [known[reference.familiar_key] for reference in wanted]

    def blob(self, descriptor: Descriptor) -> Path:
        return self.root / "blobs" / f"{descriptor.digest.algorithm}-{descriptor.digest.hex}"

    def _walk(self) -> Iterator[OllamaModel]:
        folder = self.root / "manifests"
        for count, path in enumerate(sorted(folder.glob("*/*/*/*"))):
            if count >= MAX_MODELS:
                return
            host, namespace, model, tag = path.relative_to(folder).parts
            try:
                reference = Reference(host.lower(), f"{namespace}/{model}", tag)
            except BadReference:
                continue  # no name that Ollama would give
            if path.is_file():
                yield OllamaModel(reference, path)


def import_from_ollama(
    store: Store,
    ollama: OllamaStore,
    model: OllamaModel,
    policy: ImportPolicy,
    progress: ProgressSink = ignore_progress,
) -> Imported:
    """Take one model over, under its name. Where something is wrong with it, the result says so, and no tag
    has changed.

    Raises: what the store raises where it cannot be written.
    """
    try:
        manifest = _read_manifest(model)
        size = sum(blob.size for blob in manifest.blobs)
    except LadingError as error:
        return Imported(reference=model.reference, status=Status.SKIPPED, size=0, reason=error.message)
    reason = _obstacle(store, ollama, model, manifest, policy)
    status = Status.SKIPPED if reason else Status.POSSIBLE
    found = Imported(
        reference=model.reference, status=status, size=size, digest=manifest.digest, reason=reason
    )
    if reason or policy.dry_run:
        return found
    return _take_over(store, ollama, model, manifest, policy, progress)


def _take_over(
    store: Store,
    ollama: OllamaStore,
    model: OllamaModel,
    manifest: Manifest,
    policy: ImportPolicy,
    progress: ProgressSink,
) -> Imported:
    importer = FileImporter(store, policy, progress)
    status, reason = Status.IMPORTED, ""
    with store.lease():
        was_there = all(store.has(blob.digest, blob.size) for blob in manifest.blobs)
        try:
            for blob in (*manifest.layers, manifest.config):
                importer.take(ollama.blob(blob), blob.digest.short, blob)
        except (IntegrityError, BadSource) as error:
            damaged = ollama.blob(blob)
            reason = f"{damaged.name} is damaged ({error.message}); ollama pull {model.reference.display}"
            status = Status.SKIPPED
        else:
            store.tag(model.reference, store.put_manifest(manifest))
            status = Status.PRESENT if was_there else Status.IMPORTED
    return Imported(
        reference=model.reference,
        status=status,
        size=sum(blob.size for blob in manifest.blobs),
        shared=importer.shared,
        digest=manifest.digest,
        reason=reason,
    )


def _read_manifest(model: OllamaModel) -> Manifest:
    try:
        with os.fdopen(open_regular(model.path, follow_links=False), "rb") as file:
            data = file.read(MAX_DOCUMENT_SIZE + 1)
    except OSError as error:
        raise BadSource(model.path, error.strerror or str(error)) from error
    return Manifest.parse(data)


def _obstacle(
    store: Store, ollama: OllamaStore, model: OllamaModel, manifest: Manifest, policy: ImportPolicy
) -> str:
    """Why the model cannot be taken over; empty where it can, as far as sizes tell."""
    try:
        layers_of(manifest, lambda layer: ())
    except BadManifest as error:
        return f"{error.message} (of models in safetensors, and in the cloud, there is nothing to run)"
    for blob in manifest.blobs:
        try:
            size = ollama.blob(blob).stat().st_size
        except OSError as error:
            return f"{ollama.blob(blob).name}: {(error.strerror or str(error)).lower()}"
        if size != blob.size:
            return f"{ollama.blob(blob).name} is damaged: it has {size} bytes, expected {blob.size}"
    if not policy.replace and is_taken(store, model.reference, manifest):
        return TAKEN
    return ""
