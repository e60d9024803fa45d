"""A model in the store, read: its layers by role, and what the small ones hold.

    model = read_model(store, store.resolve(reference))
    model.weights, model.system(), model.details

Reading a model reads its config. Texts are read, bounded and verified, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from . import modelpack
from .canonical import strict_json
from .dialects import Dialect, dialect_of, layers_of
from .errors import BadManifest, BadReference
from .gguf.reader import GgufHeader, read_header
from .layer import MAX_TEXT_SIZES, Layer, Role
from .manifest import Manifest
from .parameter_count import format_parameter_count
from .reference import Reference
from .store import Store

__all__ = ["Details", "Layer", "Message", "Model", "Role", "Template", "read_model"]

MAX_CONFIG_SIZE: Final = 1 << 20

_ROLES: Final = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that every chat with the model starts with."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template and the language it is written in."""

    kind: Literal["go", "jinja"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What listings say about a model. Empty where it is not known. ``parameter_size`` is as in "8.0B"."""

    format: str = "gguf"
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int | None = None
    embedding_length: int | None = None
    parent_model: str = ""


@dataclass(frozen=True)
class Model:
    """A manifest with its layers by role. ``layers`` has the weights first, shards in order."""

    manifest: Manifest
    dialect: Dialect
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    store: Store = field(compare=False, repr=False)

    def of(self, role: Role) -> tuple[Layer, ...]:
        """The layers of one role, in order."""
        return tuple(layer for layer in self.layers if layer.role is role)

    @property
    def weights(self) -> tuple[Layer, ...]:
        """One layer, or the shards of a split model in order."""
        return self.of(Role.WEIGHTS)

    @property
    def projector(self) -> Layer | None:
        return self._last(Role.PROJECTOR)

    @property
    def adapters(self) -> tuple[Layer, ...]:
        return self.of(Role.ADAPTER)

    @property
    def draft(self) -> Layer | None:
        return self._last(Role.DRAFT)

    @property
    def size(self) -> int:
        """Bytes of all layers and the config."""
        return sum(blob.size for blob in self.manifest.blobs)

    def header(self) -> GgufHeader:
        """The header of the weights (of the first shard).

        Raises: BadGguf, BlobNotFound.
        """
        return read_header(self.store.blob_path(self.weights[0].digest))

    def params(self) -> dict[str, Any]:
        """The model's parameters; unknown names and values are the caller's to judge.

        Raises: BadManifest where they are not a JSON object.
        """
        value = self._json(Role.PARAMS, {})
        if not isinstance(value, dict):
            raise BadManifest(["its parameters are not a JSON object"], what="model")
        return value

    def system(self) -> str | None:
        """The system prompt."""
        return self._text(Role.SYSTEM)

    def messages(self) -> tuple[Message, ...]:
        """Raises: BadManifest where they are not a list of roles and contents."""
        value = self._json(Role.MESSAGES, [])
        if not isinstance(value, list):
            raise BadManifest(["its messages are not a JSON list"], what="model")
        return tuple(_message(item, index) for index, item in enumerate(value))

    def template(self) -> Template | None:
        """The template that comes as a layer, Go's before Jinja's; the one in the GGUF is the header's."""
        go = self.template_of("go")
        return go if go is not None else self.template_of("jinja")

    def template_of(self, kind: Literal["go", "jinja"]) -> Template | None:
        """The template in one of the two languages."""
        text = self._text(Role.TEMPLATE_GO if kind == "go" else Role.TEMPLATE_JINJA)
        return Template(kind, text) if text is not None else None

    def licenses(self) -> tuple[str, ...]:
        return tuple(self._decoded(layer) for layer in self.of(Role.LICENSE))

    def modelfile(self) -> str | None:
        """The Modelfile that the model was created from, its local paths replaced by digests."""
        return self._text(Role.MODELFILE)

    @property
    def renderer(self) -> str | None:
        return self._stated(modelpack.RENDERER, "renderer")

    @property
    def parser(self) -> str | None:
        return self._stated(modelpack.PARSER, "parser")

    @property
    def requires(self) -> str | None:
        return self._stated(modelpack.REQUIRES, "requires")

    @cached_property
    def details(self) -> Details:
        """From the config; from the header of the weights where the config does not say.

        Raises: BadGguf where the header is needed and bad.
        """
        details = _DETAILS[self.dialect](self)
        if details.family and details.parameter_size and details.quantization_level:
            return details
        return _header_details(self.header(), details.parent_model)

    # reading

    def _last(self, role: Role) -> Layer | None:
        return next(reversed(self.of(role)), None)

    def _text(self, role: Role) -> str | None:
        layer = self._last(role)
        return self._decoded(layer) if layer is not None else None

    def _decoded(self, layer: Layer) -> str:
        try:
            return self.store.read_blob(layer.digest, limit=MAX_TEXT_SIZES[layer.role]).decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadManifest([f"its {layer.role} is not UTF-8 text"], what="model") from error

    def _json(self, role: Role, default: object) -> Any:
        layer = self._last(role)
        if layer is None:
            return default
        limit = MAX_TEXT_SIZES[role]
        raw = self.store.read_blob(layer.digest, limit=limit)
        return strict_json(raw, what=f"{role} of the model", limit=limit)

    def _stated(self, annotation: str, key: str) -> str | None:
        value = self.manifest.annotations.get(annotation)
        if value is None and self.dialect is Dialect.OLLAMA:
            value = self.config.get(key)
        return value if isinstance(value, str) and value else None


def read_model(store: Store, manifest: Manifest) -> Model:
    """The model that ``manifest`` describes. Its blobs need not all be there; its config must.

    Raises: BadManifest, BadJson where it is no model or a broken one; BlobNotFound; DigestMismatch.
    """
    layers = layers_of(manifest)
    raw = store.read_blob(manifest.config.digest, limit=MAX_CONFIG_SIZE)
    config = strict_json(raw, what="config of the model", limit=MAX_CONFIG_SIZE)
    if not isinstance(config, dict):
        raise BadManifest(["its config is not a JSON object"], what="model")
    return Model(manifest, dialect_of(manifest), layers, config, store)


def _message(item: object, index: int) -> Message:
    if isinstance(item, dict):
        role, content = item.get("role"), item.get("content")
        if role in _ROLES and isinstance(content, str):
            return Message(role, content)
    raise BadManifest([f"message {index} has no role and content"], what="model")


# details, by dialect


def _modelpack_details(model: Model) -> Details:
    descriptor, config = _object(model.config, "descriptor"), _object(model.config, "config")
    annotations = model.weights[0].descriptor.annotations
    family = _text(descriptor, "family")
    return Details(
        format=_text(config, "format") or "gguf",
        family=family,
        families=(family,) if family else (),
        parameter_size=_text(config, "paramSize"),
        quantization_level=_text(config, "quantization") or _text(config, "precision"),
        context_length=_number(annotations.get(modelpack.CONTEXT_LENGTH)),
        embedding_length=_number(annotations.get(modelpack.EMBEDDING_LENGTH)),
        parent_model=_display(model.manifest.annotations.get(modelpack.BASE_NAME, "")),
    )


def _ollama_details(model: Model) -> Details:
    config = model.config
    families = config.get("model_families")
    context_length, embedding_length = config.get("context_length"), config.get("embedding_length")
    parent = model.weights[0].descriptor.extra.get("from")
    return Details(
        format=_text(config, "model_format") or "gguf",
        family=_text(config, "model_family"),
        families=tuple(map(str, families)) if isinstance(families, list) else (),
        parameter_size=_text(config, "model_type"),
        quantization_level=_text(config, "file_type"),
        context_length=context_length if isinstance(context_length, int) else None,
        embedding_length=embedding_length if isinstance(embedding_length, int) else None,
        parent_model=parent if isinstance(parent, str) else "",
    )


def _docker_details(model: Model) -> Details:
    config = _object(model.config, "config")
    family = _text(config, "architecture")
    return Details(
        format=_text(config, "format") or "gguf",
        family=family,
        families=(family,) if family else (),
        parameter_size=_text(config, "parameters"),
        quantization_level=_text(config, "quantization"),
    )


_DETAILS: Mapping[Dialect, Callable[[Model], Details]] = {
    Dialect.MODELPACK: _modelpack_details,
    Dialect.OLLAMA: _ollama_details,
    Dialect.DOCKER: _docker_details,
}


def _header_details(header: GgufHeader, parent_model: str) -> Details:
    family = header.architecture or ""
    return Details(
        family=family,
        families=(family,) if family else (),
        parameter_size=format_parameter_count(header.parameter_count),
        quantization_level=header.file_type or "unknown",
        context_length=header.context_length,
        embedding_length=header.embedding_length,
        parent_model=parent_model,
    )


def _display(name: str) -> str:
    """A model's name in the form for people; as it is where it is none."""
    try:
        return Reference.parse(name).display
    except BadReference:
        return name


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    member = value.get(key)
    return member if isinstance(member, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str:
    member = value.get(key)
    return member if isinstance(member, str) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 16 else None
