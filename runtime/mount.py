"""Mounting: from a reference to everything that running the model takes.

Nothing is unpacked or copied: the paths are those of blobs in the store. Every GGUF file is checked before a
runner sees it, and found to have the size that the manifest promises; its content is not hashed again,
``fsck`` does that.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from ..modelfile.errors import IntegrityError
from ..modelfile.parameters import PARAMETERS, BadParameter, check_value
from ..oci.digest import Digest
from ..oci.errors import BadManifest, BlobNotFound
from ..oci.gguf.check import check_adapter_fits, check_file
from ..oci.gguf.header import GgufHeader
from ..oci.gguf.problem import BadGguf
from ..oci.layer import GGUF_KINDS, Layer
from ..oci.manifest import Manifest
from ..oci.model import Model, read_model
from ..oci.progress import Progress
from ..oci.reference import Reference
from ..oci.signing.policy import Mode, SignaturePolicy
from ..oci.store import Store
from .capabilities import TemplateKind, capabilities, choose_template
from .grant import Details, ModelFacts
from .load_plan import DraftFile, ModelFiles
from .model_shape import ProjectorShape, read_projector_shape, read_shape
from .protocol import MAX_ADAPTERS, Adapter, Message, Variant

_CACHED_MODELS = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountedModel:
    """A model that is ready to be planned and loaded."""

    reference: Reference
    digest: Digest
    """Of the manifest."""
    files: ModelFiles
    params: Mapping[str, Any] = field(hash=False)
    """The model's own parameters, each of its right type; those without meaning are left out."""
    facts: ModelFacts
    template_kind: TemplateKind | None
    """None: the model has no template; the runner wraps conversations in ChatML."""

    @property
    def size(self) -> int:
        """Bytes of the files that a runner maps or reads."""
        draft = self.files.draft
        return self.files.size + (draft.size if draft else 0)


class Mounter:
    """Mounts models of one store and remembers what it has checked. Thread-safe."""

    def __init__(
        self,
        store: Store,
        *,
        template: TemplateKind | None = None,
        signatures: SignaturePolicy | None = None,
    ) -> None:
        """``template``: the language to prefer, whatever the templates can do. ``signatures``: which models
        must be signed to be run."""
        self._store = store
        self._signatures = signatures or SignaturePolicy()
        self._signed: set[tuple[str, Digest]] = set()
        self._template = template
        self._lock = threading.Lock()
        self._mounted: OrderedDict[Digest, MountedModel] = OrderedDict()

    def mount(self, reference: Reference) -> MountedModel:
        """The model that ``reference`` names now.

        Raises: ModelNotFound; BadManifest, BadJson where it is no model; BlobNotFound, DigestMismatch where
            the store is damaged; BadGguf where a runner must not see one of its files, or it is cut short;
            NotSigned, SignatureInvalid where the policy wants a signature and finds none that counts.
        """
        manifest = self._store.resolve(reference)
        digest = manifest.descriptor.digest
        self._require_signature(reference, manifest)
        with self._lock:
            known = self._mounted.get(digest)
            if known is not None:
                self._mounted.move_to_end(digest)
        if known is None or not self._is_whole(manifest):
            known = mount_manifest(self._store, reference, manifest, template=self._template)
            with self._lock:
                self._mounted[digest] = known
                while len(self._mounted) > _CACHED_MODELS:
                    self._mounted.popitem(last=False)
        return known if known.reference == reference else _renamed(known, reference)

    def _require_signature(self, reference: Reference, manifest: Manifest) -> None:
        """Once for a name and digest. What is signed must also be what is there: blobs are hashed again
        unless the store knows them to be intact."""
        if not self._signatures.rules:  # as most are: nothing is looked up for each request then
            return
        tagged = self._store.find(reference).reference
        key = (tagged.name.lower(), manifest.digest)
        rule = self._signatures.rule_for(tagged)
        if rule.mode is Mode.OFF or key in self._signed:
            return
        from ..oci.signing.attachments import StoreAttachments  # heavy, and hardly ever needed

        self._signatures.check(StoreAttachments(self._store, tagged), tagged, (manifest,), _tell)
        for blob in manifest.blobs if rule.mode is Mode.REQUIRE else ():
            if not self._store.intact(blob.digest, blob.size):
                raise IntegrityError(
                    f"verifying {tagged.display}: {blob.digest} is damaged or missing",
                    hint=f"lading pull {tagged.display} fetches it again",
                )
        self._signed.add(key)

    def _is_whole(self, manifest: Manifest) -> bool:
        return all(self._store.has(blob.digest, blob.size) for blob in manifest.blobs)


def _tell(said: Progress) -> None:
    log.log(logging.WARNING if said.status.startswith("warning") else logging.DEBUG, "%s", said.status)


def mount(store: Store, reference: Reference, *, template: TemplateKind | None = None) -> MountedModel:
    """As `Mounter.mount`, remembering nothing."""
    return Mounter(store, template=template).mount(reference)


def mount_manifest(
    store: Store, reference: Reference, manifest: Manifest, *, template: TemplateKind | None = None
) -> MountedModel:
    """The model that ``manifest`` describes, under the name ``reference``. Raises as `Mounter.mount`."""
    model = read_model(store, manifest)
    if not model.weights:
        raise BadManifest(["it has no weights"], what="model")
    if len(model.adapters) > MAX_ADAPTERS:
        raise BadManifest(
            [f"it has {len(model.adapters)} adapters, expected at most {MAX_ADAPTERS}"], what="model"
        )
    headers = [_checked(store, layer) for layer in model.weights]
    for layer in model.adapters:
        _check_fit(layer, _checked(store, layer), headers)
    projector = None
    if model.projector is not None:  # one for sound alone is of no use here, and left out
        projector = read_projector_shape(_checked(store, model.projector).metadata)
    go, jinja = _templates(model, headers[0])
    kind = choose_template(go, jinja, forced=template)
    go_used, jinja_used = go if kind == "go" else None, _jinja_layer(model, kind)
    files = _files(store, model, headers, projector, go=go_used, jinja=jinja_used)
    sees = projector is not None
    return MountedModel(
        reference=reference,
        digest=manifest.descriptor.digest,
        files=files,
        params=_sound_params(model.params()),
        facts=_facts(reference, model, headers[0], kind, go if kind == "go" else jinja, sees=sees),
        template_kind=kind,
    )


def _templates(model: Model, header: GgufHeader) -> tuple[str | None, str | None]:
    """The Go and the Jinja template; a Jinja layer stands before the one in the GGUF."""
    go, jinja = model.template_of("go"), model.template_of("jinja")
    return go.text if go else None, jinja.text if jinja else header.chat_template


def _jinja_layer(model: Model, kind: TemplateKind | None) -> str | None:
    """The text to hand to the runner, which finds the GGUF's own by itself."""
    layer = model.template_of("jinja") if kind == "jinja" else None
    return layer.text if layer else None


def _files(
    store: Store,
    model: Model,
    headers: list[GgufHeader],
    projector: ProjectorShape | None,
    *,
    go: str | None,
    jinja: str | None,
) -> ModelFiles:
    others = (model.projector, model.draft)
    shared = [*model.weights, *(layer for layer in others if layer is not None)]
    adapters = tuple(
        Adapter(path=str(_path(store, layer)), digest=str(layer.digest)) for layer in model.adapters
    )
    vocabulary = headers[0].vocabulary_size or 0
    blocks, output_size = _layer_sizes(headers)
    return ModelFiles(
        key=" ".join(str(layer.digest) for layer in shared),
        weights=tuple(str(_path(store, layer)) for layer in model.weights),
        weights_size=sum(header.data_size for header in headers)
        + (model.projector.size if model.projector else 0),
        adapters_size=sum(layer.size for layer in model.adapters),
        blocks=blocks,
        output_size=output_size,
        shape=read_shape(headers[0].metadata, vocabulary=vocabulary),
        projector=str(_path(store, model.projector)) if model.projector and projector else "",
        projector_shape=projector,
        draft=_draft(store, model.draft) if model.draft else None,
        variant=Variant(adapters=adapters, template_go=go or "", template_jinja=jinja or ""),
    )


def _draft(store: Store, layer: Layer) -> DraftFile:
    header = _checked(store, layer)
    shape = read_shape(header.metadata, vocabulary=header.vocabulary_size or 0)
    return DraftFile(path=str(_path(store, layer)), size=header.data_size, shape=shape)


_BLOCK = re.compile(r"blk\.([0-9]{1,4})\.")


def _layer_sizes(headers: list[GgufHeader]) -> tuple[tuple[int, ...], int]:
    """Bytes of each layer's tensors, and of those that come after the last one."""
    blocks: dict[int, int] = {}
    sizes = {tensor.name: tensor.size for header in headers for tensor in header.tensors}
    for name, size in sizes.items():
        if found := _BLOCK.match(name):
            blocks[int(found[1])] = blocks.get(int(found[1]), 0) + size
    output = sum(size for name, size in sizes.items() if name.startswith("output"))
    if "output.weight" not in sizes:  # the way out is the way in, which is then on both sides
        output += sizes.get("token_embd.weight", 0)
    return tuple(blocks[i] for i in sorted(blocks)), output


def _facts(
    reference: Reference,
    model: Model,
    header: GgufHeader,
    kind: TemplateKind | None,
    text: str | None,
    *,
    sees: bool,
) -> ModelFacts:
    found = model.details
    return ModelFacts(
        name=reference.display,
        full_name=str(reference),
        digest=str(model.manifest.descriptor.digest),
        details=Details(
            parent_model=found.parent_model,
            format=found.format,
            family=found.family,
            families=found.families,
            parameter_size=found.parameter_size,
            quantization_level=found.quantization_level,
        ),
        capabilities=capabilities(header, kind=kind, template=text, projector=sees),
        system=model.system() or "",
        messages=tuple(Message(role=message.role, content=message.content) for message in model.messages()),
        context_length=header.context_length or 0,
    )


def _sound_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that have meaning. A model from elsewhere may carry any, right or wrong."""
    sound = {}
    for name, value in params.items():
        if value is None or name not in PARAMETERS:
            continue
        try:
            sound[name] = check_value(name, value)
        except BadParameter:
            continue
    return sound


def _checked(store: Store, layer: Layer) -> GgufHeader:
    """The header of a layer that a runner may see: sound, whole, and of the kind that its role promises."""
    kind = GGUF_KINDS[layer.role]
    return check_file(_path(store, layer), expected_size=layer.size, expected_kind=kind)


def _check_fit(layer: Layer, adapter: GgufHeader, model: list[GgufHeader]) -> None:
    """Raises: BadGguf where the adapter is for another model: it would go where other models' answers come
    from."""
    if problems := check_adapter_fits(adapter, model):
        raise BadGguf(f"the adapter {layer.digest}", problems)


def _path(store: Store, layer: Layer) -> Path:
    try:
        return store.blob_path(layer.digest)
    except BlobNotFound:
        raise BlobNotFound(str(layer.digest), needed_by=f"the model ({layer.role})") from None


def _renamed(model: MountedModel, reference: Reference) -> MountedModel:
    facts = structs.replace(model.facts, name=reference.display, full_name=str(reference))
    return replace(model, reference=reference, facts=facts)
