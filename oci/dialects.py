"""Which layer of a manifest is for what, in each dialect that we read.

A dialect is recognised by the manifest alone; its config is read later, if at all. To add one, add a row to
``_DIALECTS``. Of several layers that could be the weights, the choice is: our annotation, then the
dialect's media type, then the file name (``.gguf``, not ``mmproj``), shards in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from . import modelpack
from .descriptor import Descriptor
from .errors import BadManifest
from .layer import Layer, Role
from .manifest import Manifest
from .media_type import OCI_EMPTY, TITLE

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)


class Dialect(StrEnum):
    MODELPACK = "modelpack"
    OLLAMA = "ollama"
    DOCKER = "docker"


_OLLAMA = "application/vnd.ollama.image."
_OLLAMA_ROLES = {
    _OLLAMA + "model": Role.WEIGHTS,
    _OLLAMA + "projector": Role.PROJECTOR,
    _OLLAMA + "adapter": Role.ADAPTER,
    _OLLAMA + "draft": Role.DRAFT,
    _OLLAMA + "template": Role.TEMPLATE_GO,
    _OLLAMA + "prompt": Role.TEMPLATE_GO,
    _OLLAMA + "system": Role.SYSTEM,
    _OLLAMA + "params": Role.PARAMS,
    _OLLAMA + "messages": Role.MESSAGES,
    _OLLAMA + "license": Role.LICENSE,
}

_DOCKER = "application/vnd.docker.ai."
_DOCKER_CONFIGS = (_DOCKER + "model.config.v0.1+json", _DOCKER + "model.config.v0.2+json")
_DOCKER_ROLES = {
    _DOCKER + "gguf.v3": Role.WEIGHTS,
    _DOCKER + "gguf.v3.lora": Role.ADAPTER,
    _DOCKER + "gguf.v3.mmproj": Role.PROJECTOR,
    _DOCKER + "mmproj": Role.PROJECTOR,
    _DOCKER + "chat.template.jinja": Role.TEMPLATE_JINJA,
    _DOCKER + "license": Role.LICENSE,
}

_MODELPACK_WEIGHTS = "application/vnd.cncf.model.weight.v1."
_MODELPACK_PREFIX = "application/vnd.cncf.model."
_ROLES = {str(role): role for role in Role}
_FILE_ROLES = {path.lower(): role for role, path in modelpack.FIXED_PATHS.items()}


@dataclass(frozen=True, slots=True)
class _Reader:
    dialect: Dialect
    recognises: Callable[[Manifest], bool]
    role_of: Callable[[Descriptor, str], Role]


def dialect_of(manifest: Manifest) -> Dialect:
    """Raises: BadManifest where it is a dialect that we do not read."""
    return _reader_of(manifest).dialect


def layers_of(manifest: Manifest) -> tuple[Layer, ...]:
    """The layers with their roles, in the manifest's order, but shards of weights by their number.

    Raises: BadManifest where the manifest is no model, or a layer is packed in an archive.
    """
    reader = _reader_of(manifest)
    layers = []
    for descriptor in manifest.layers:
        path = _filepath(descriptor)
        layers.append(Layer(reader.role_of(descriptor, path), descriptor, path))
    weights = sorted((layer for layer in layers if layer.role is Role.WEIGHTS), key=_shard_number)
    if not weights:
        raise BadManifest(["it has no layer with weights in GGUF format"], what="model")
    return (*weights, *(layer for layer in layers if layer.role is not Role.WEIGHTS))


def _reader_of(manifest: Manifest) -> _Reader:
    for reader in _READERS:
        if reader.recognises(manifest):
            return reader
    stated = manifest.artifact_type or manifest.config.media_type
    raise BadManifest([f"artifacts of type {stated} are not models that can be read"], what="model")


def _filepath(descriptor: Descriptor) -> str:
    """The stated path, when it is relative and clean; an empty text otherwise."""
    path = descriptor.annotations.get(modelpack.FILEPATH) or descriptor.annotations.get(TITLE) or ""
    parts = path.split("/")
    if len(path) > 255 or "\\" in path or any(part in ("", ".", "..") for part in parts):
        return ""
    return path if path.isprintable() else ""


def _shard_number(layer: Layer) -> int:
    """Shards by number; everything else keeps its place (sorting is stable)."""
    match = _SHARD.search(layer.filepath)
    return int(match[1]) if match else 0


# ModelPack, ours and others'


def _is_modelpack(manifest: Manifest) -> bool:
    config = manifest.config.media_type
    if config == modelpack.CONFIG_TYPE:
        return True
    return manifest.artifact_type == modelpack.ARTIFACT_TYPE and config in (modelpack.CONFIG_TYPE, OCI_EMPTY)


def _modelpack_role(descriptor: Descriptor, path: str) -> Role:
    stated = descriptor.annotations.get(modelpack.ROLE)
    if stated is not None:
        return _ROLES.get(stated, Role.OTHER)
    name = path.rpartition("/")[2].lower()
    if descriptor.media_type.startswith(_MODELPACK_PREFIX) and not descriptor.media_type.endswith(".raw"):
        kind = descriptor.media_type.removeprefix(_MODELPACK_PREFIX)
        if descriptor.media_type.startswith(_MODELPACK_WEIGHTS):
            raise BadManifest([f"weights packed as {kind} cannot be used in place"], what="model")
        return Role.OTHER
    if name.endswith(".gguf"):
        if "mmproj" in name:
            return Role.PROJECTOR
        if descriptor.media_type != modelpack.WEIGHT_CONFIG_TYPE:
            return Role.WEIGHTS
    if name in _FILE_ROLES:
        return _FILE_ROLES[name]
    if name.startswith("readme"):
        return Role.README
    if name.startswith(("license", "licence", "copying")):
        return Role.LICENSE
    return Role.DOC if descriptor.media_type == modelpack.DOC_TYPE else Role.OTHER


# dialects whose media types say it all


def _by_media_type(roles: Mapping[str, Role]) -> Callable[[Descriptor, str], Role]:
    return lambda descriptor, path: roles.get(descriptor.media_type, Role.OTHER)


def _is_ollama(manifest: Manifest) -> bool:
    return any(layer.media_type.startswith(_OLLAMA) for layer in manifest.layers)


def _is_docker(manifest: Manifest) -> bool:
    return manifest.config.media_type in _DOCKER_CONFIGS


_READERS = (
    _Reader(Dialect.MODELPACK, _is_modelpack, _modelpack_role),
    _Reader(Dialect.OLLAMA, _is_ollama, _by_media_type(_OLLAMA_ROLES)),
    _Reader(Dialect.DOCKER, _is_docker, _by_media_type(_DOCKER_ROLES)),
)
