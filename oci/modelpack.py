"""The CNCF ModelPack dialect, in which Lading writes: media types, annotations, config, Kitfile.

Every layer is raw (no archive), so its digest is that of the file, and has both a file path and a title,
which different readers go by. ModelPack has no slot for parameters, prompts, templates of Go, adapters or
drafts: they are ``weight.config`` layers at fixed paths, and an annotation of ours names the role. Readers
that know nothing of it find ordinary ModelPack.

Source: CNCF model-spec v0.0.7 (docs/spec.md, docs/config.md, docs/annotations.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .canonical import canonical_json
from .descriptor import Descriptor
from .layer import Layer, Role
from .manifest import Manifest
from .media_type import CREATED, TITLE, VENDOR

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"

FILEPATH = "org.cncf.model.filepath"
KITFILE = "ml.kitops.modelkit.kitfile"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"

ROLE = VENDOR + "role"
CONTEXT_LENGTH = VENDOR + "context-length"
EMBEDDING_LENGTH = VENDOR + "embedding-length"
RENDERER = VENDOR + "renderer"
PARSER = VENDOR + "parser"
REQUIRES = VENDOR + "requires"

RESERVED_PREFIXES = (VENDOR, "org.cncf.model.", "ml.kitops.")
"""A LABEL may not begin so: the annotation would change how the artifact is read."""

# Where the files of a role belong. Weights, projectors and documents keep the names they came with.
FIXED_PATHS: Mapping[Role, str] = {
    Role.ADAPTER: "adapter.gguf",
    Role.DRAFT: "draft.gguf",
    Role.TEMPLATE_GO: "template.gotmpl",
    Role.TEMPLATE_JINJA: "chat_template.jinja",
    Role.SYSTEM: "system.txt",
    Role.PARAMS: "params.json",
    Role.MESSAGES: "messages.json",
    Role.LICENSE: "LICENSE",
    Role.MODELFILE: "Modelfile",
}

_DOCUMENTS = frozenset({Role.LICENSE, Role.README, Role.DOC})


def media_type_of(role: Role) -> str:
    if role in (Role.WEIGHTS, Role.PROJECTOR):
        return WEIGHT_TYPE
    return DOC_TYPE if role in _DOCUMENTS else WEIGHT_CONFIG_TYPE


def layer_descriptor(layer: Layer, more: Mapping[str, str] | None = None) -> Descriptor:
    """The descriptor of a layer in a manifest: media type of its role, path, title, role, and ``more``."""
    annotations = {
        FILEPATH: layer.filepath,
        TITLE: layer.filepath.rpartition("/")[2],
        ROLE: str(layer.role),
        **(more or {}),
    }
    return Descriptor(media_type_of(layer.role), layer.digest, layer.size, annotations)


def config_json(
    *, descriptor: Mapping[str, Any], config: Mapping[str, Any], layers: Sequence[Layer]
) -> bytes:
    """The ModelPack config: what the model is, and the digests of its layers (they are raw: diff ids)."""
    value = {
        "descriptor": dict(descriptor),
        "config": dict(config),
        "modelfs": {"type": "layers", "diffIds": [str(layer.digest) for layer in layers]},
    }
    return canonical_json(value)


def kitfile_json(
    *, name: str, license_: str | None, params: Mapping[str, Any], layers: Sequence[Layer]
) -> str:
    """A Kitfile that describes the same layers in the same order, for KitOps.

    Source: KitOps reads weights as ``model``, weight configs as its ``parts``, documents as ``docs``.
    """
    weights = [layer for layer in layers if media_type_of(layer.role) == WEIGHT_TYPE]
    model: dict[str, Any] = {"name": name, "path": weights[0].filepath, "format": "gguf"}
    parts = [layer for layer in layers if media_type_of(layer.role) == WEIGHT_CONFIG_TYPE]
    model["parts"] = [{"path": part.filepath, "type": str(part.role)} for part in parts]
    if params:
        model["parameters"] = dict(params)
    package = {"name": name} | ({"license": license_} if license_ else {})
    value: dict[str, Any] = {"manifestVersion": "1.0.0", "package": package, "model": model}
    docs = [{"path": layer.filepath} for layer in layers if layer.role in _DOCUMENTS]
    if docs:
        value["docs"] = docs
    return canonical_json(value).decode()


def build_manifest(
    *, config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str], created: str | None
) -> Manifest:
    """The manifest of a ModelPack artifact. ``created`` is RFC 3339, or None for one without a date."""
    dated = {**annotations, CREATED: created} if created else annotations
    return Manifest.build(config=config, layers=layers, artifact_type=ARTIFACT_TYPE, annotations=dated)
