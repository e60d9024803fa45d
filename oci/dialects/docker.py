"""The dialect of Docker's model packaging, version 0.1: what is in the ``ai`` namespace of Docker Hub.

Its readers go by media types, and pass over layers of other types: those are ours, with the role in an
annotation. ``num_ctx`` is in the config as well, as ``context_size``.

Source: docker/model-runner, pkg/distribution (the code; its specification document says otherwise in places).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..canonical import canonical_json
from ..descriptor import Descriptor
from ..gguf.header import GgufArray, GgufHeader
from ..layer import Layer, Role
from ..manifest import Manifest
from ..media_type import FILEPATH, ROLE
from ..store import Store
from . import modelpack
from .dialect import Content, Details, Dialect, Part, Reader, Stated, Written, member, text
from .file_role import stated_role

PREFIX = "application/vnd.docker.ai."
CONFIG_TYPE = PREFIX + "model.config.v0.1+json"
_CONFIG_TYPES = (CONFIG_TYPE, PREFIX + "model.config.v0.2+json")
_GGUF = PREFIX + "gguf.v3"
_TYPES: Mapping[Role, str] = {
    Role.WEIGHTS: _GGUF,
    Role.PROJECTOR: PREFIX + "mmproj",
    Role.TEMPLATE_JINJA: PREFIX + "chat.template.jinja",
    Role.LICENSE: PREFIX + "license",
}
_ROLES = {media_type: role for role, media_type in _TYPES.items()} | {
    _GGUF + ".lora": Role.ADAPTER,
    _GGUF + ".mmproj": Role.PROJECTOR,
}
_MAX_VALUE = 4096
"""Characters of a metadata value that is repeated in the config."""


def write(content: Content, store: Store) -> Written:
    """The model as Docker Model Runner reads it; the rest of it in layers that it passes over."""
    config = canonical_json(_config(content))
    manifest = Manifest.build(
        config=Descriptor(CONFIG_TYPE, store.put_bytes(config), len(config)),
        layers=[_layer(layer) for layer in content.layers],
        annotations={**content.annotations, **modelpack.stated_annotations(content)},
    )
    return Written(manifest)


def _layer(layer: Layer) -> Descriptor:
    annotations = {**layer.descriptor.annotations, FILEPATH: layer.filepath}
    media_type = _TYPES.get(layer.role)
    if media_type is None:
        media_type, annotations[ROLE] = modelpack.media_type_of(layer.role), str(layer.role)
    return Descriptor(media_type, layer.digest, layer.size, annotations)


def _config(content: Content) -> dict[str, Any]:
    size = sum(layer.size for layer in content.of(Role.WEIGHTS))
    config: dict[str, Any] = {
        "format": "gguf",
        "quantization": content.config["quantization"],
        "parameters": content.config["paramSize"],
        "architecture": content.headers[0].architecture or "",
        "size": f"{size / 1e9:.2f} GB" if size >= 10**9 else f"{size / 1e6:.2f} MB",
        "gguf": _metadata(content.headers[0]),
    }
    context = content.params.get("num_ctx")
    if isinstance(context, int) and context > 0:
        config["context_size"] = context
    return {
        "config": config,
        "descriptor": {"created": content.created} if content.created else {},
        "rootfs": {"type": "rootfs", "diff_ids": [str(layer.digest) for layer in content.layers]},
    }


def _metadata(header: GgufHeader) -> dict[str, str]:
    """The scalars of the header as text, without long ones: the file itself has them."""
    texts = {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in header.metadata.items()
        if not isinstance(value, GgufArray)
    }
    return {key: value for key, value in texts.items() if len(value) <= _MAX_VALUE}


def _recognises(manifest: Manifest) -> bool:
    return manifest.config.media_type in _CONFIG_TYPES


def _role_of(part: Part) -> Role:
    role = _ROLES.get(part.media_type)
    if role is None:
        return stated_role(part.descriptor) or Role.OTHER
    # The newer version of the dialect tells a projector by its name alone.
    name = part.path.rpartition("/")[2].lower()
    return Role.PROJECTOR if role is Role.WEIGHTS and "mmproj" in name else role


def _stated(manifest: Manifest, config: Mapping[str, Any], weights: Layer) -> Stated:
    facts = member(config, "config")
    family = text(facts, "architecture")
    context_length, embedding_length = modelpack.lengths_in(weights)
    details = Details(
        format=text(facts, "format") or "gguf",
        family=family,
        families=(family,) if family else (),
        parameter_size=text(facts, "parameters"),
        quantization_level=text(facts, "quantization"),
        context_length=context_length,
        embedding_length=embedding_length,
        parent_model=modelpack.display_name(manifest.annotations.get(modelpack.BASE_NAME, "")),
    )
    context = facts.get("context_size")
    params = {"num_ctx": context} if isinstance(context, int) and context > 0 else {}
    return modelpack.stated_in(manifest.annotations, details, params)


READER = Reader(dialect=Dialect.DOCKER, recognises=_recognises, role_of=_role_of, stated=_stated)
