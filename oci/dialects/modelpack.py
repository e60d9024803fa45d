"""The CNCF ModelPack dialect, in which Lading writes: media types, annotations, config, Kitfile.

Every layer is raw (no archive), so its digest is that of the file, and has both a file path and a title,
which different readers go by. ModelPack has no slot for parameters, prompts, templates of Go, adapters or
drafts: they are ``weight.config`` layers at fixed paths, and an annotation of ours names the role. Readers
that know nothing of it find ordinary ModelPack.

Read, too, is what others write: layers without roles, layers that are archives, and RamaLama's artifacts,
which have an empty config.

Source: CNCF model-spec v0.0.7 (docs/spec.md, docs/config.md, docs/annotations.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..canonical import canonical_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadDigest, BadReference
from ..layer import Layer, Role
from ..manifest import Manifest
from ..media_type import CREATED, FILEPATH, OCI_EMPTY, ROLE, TITLE, VENDOR
from ..reference import Reference
from ..store import Store
from .dialect import Content, Details, Dialect, Part, Reader, Stated, Written, member, text
from .file_role import role_by_name, stated_role

_PREFIX = "application/vnd.cncf.model."
ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG_TYPE = "application/vnd.cncf.model.weight.config.v1.raw"
DOC_TYPE = "application/vnd.cncf.model.doc.v1.raw"

KITFILE = "ml.kitops.modelkit.kitfile"
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"

CONTEXT_LENGTH = VENDOR + "context-length"
EMBEDDING_LENGTH = VENDOR + "embedding-length"
QUANTIZED_FROM = VENDOR + "quantized-from"
"""On the first layer of the weights: the digests of what they were quantised from, shards in order, commas
between."""
RENDERER = VENDOR + "renderer"
PARSER = VENDOR + "parser"
REQUIRES = VENDOR + "requires"

RESERVED_PREFIXES = (VENDOR, "org.cncf.model.", "ml.kitops.")
"""A LABEL may not begin so: the annotation would change how the artifact is read."""

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


def write(content: Content, store: Store) -> Written:
    """The model as ModelPack; everything of it has a place."""
    config = config_json(
        descriptor={**content.descriptor, **({"createdAt": content.created} if content.created else {})},
        config=content.config,
        layers=content.layers,
    )
    kitfile = kitfile_json(
        name=content.name, license_=content.license, params=content.params, layers=content.layers
    )
    manifest = build_manifest(
        config=Descriptor(CONFIG_TYPE, store.put_bytes(config), len(config)),
        layers=[layer_descriptor(layer, layer.descriptor.annotations) for layer in content.layers],
        annotations={**content.annotations, **stated_annotations(content), KITFILE: kitfile},
        created=content.created,
    )
    return Written(manifest)


def stated_annotations(content: Content) -> dict[str, str]:
    """What is said in annotations of ours, in any dialect that has annotations."""
    stated = {RENDERER: content.renderer, PARSER: content.parser, REQUIRES: content.requires}
    return {key: value for key, value in stated.items() if value}


# reading


def stated_in(annotations: Mapping[str, str], details: Details, params: Mapping[str, Any]) -> Stated:
    """What annotations of ours say, with what else is known."""
    own = (*RESERVED_PREFIXES, CREATED)
    return Stated(
        details=details,
        labels={key: value for key, value in annotations.items() if not key.startswith(own)},
        params=params,
        renderer=annotations.get(RENDERER) or None,
        parser=annotations.get(PARSER) or None,
        requires=annotations.get(REQUIRES) or None,
    )


def display_name(name: str) -> str:
    """A model's name in the form for people; as it is where it is none."""
    try:
        return Reference.parse(name).display
    except BadReference:
        return name


def _recognises(manifest: Manifest) -> bool:
    config = manifest.config.media_type
    return config == CONFIG_TYPE or (manifest.artifact_type == ARTIFACT_TYPE and config == OCI_EMPTY)


def _role_of(part: Part) -> Role:
    stated = stated_role(part.descriptor)
    if stated is not None:
        return stated
    role = role_by_name(part.path)
    if role is Role.WEIGHTS and part.media_type == WEIGHT_CONFIG_TYPE:
        return Role.OTHER
    return Role.DOC if role is Role.OTHER and part.media_type == DOC_TYPE else role


def _unpacks(media_type: str) -> bool:
    # Code and datasets are no part of the model that runs.
    return media_type.startswith((_PREFIX + "weight.", _PREFIX + "doc."))


def _stated(manifest: Manifest, config: Mapping[str, Any], weights: Layer) -> Stated:
    described, facts = member(config, "descriptor"), member(config, "config")
    family = text(described, "family")
    context_length, embedding_length = lengths_in(weights)
    details = Details(
        format=text(facts, "format") or "gguf",
        family=family,
        families=(family,) if family else (),
        parameter_size=text(facts, "paramSize"),
        quantization_level=text(facts, "quantization") or text(facts, "precision"),
        context_length=context_length,
        embedding_length=embedding_length,
        parent_model=display_name(manifest.annotations.get(BASE_NAME, "")),
    )
    return stated_in(manifest.annotations, details, {})


def lengths_in(weights: Layer) -> tuple[int | None, int | None]:
    """The context and embedding lengths that annotations of ours state."""
    annotations = weights.descriptor.annotations
    return _number(annotations.get(CONTEXT_LENGTH)), _number(annotations.get(EMBEDDING_LENGTH))


def quantized_from(weights: Layer) -> tuple[Digest, ...]:
    """What weights were quantised from, where a build of ours did it; empty otherwise."""
    stated = weights.descriptor.annotations.get(QUANTIZED_FROM)
    try:
        return tuple(map(Digest.parse, stated.split(","))) if stated else ()
    except BadDigest:  # somebody else's idea of it
        return ()


def _number(digits: str | None) -> int | None:
    return int(digits) if digits and digits.isascii() and digits.isdigit() and len(digits) < 16 else None


READER = Reader(
    dialect=Dialect.MODELPACK,
    recognises=_recognises,
    role_of=_role_of,
    stated=_stated,
    unpacks=_unpacks,
)
