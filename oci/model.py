"""A model in the store, read: its layers by role, and what the small ones hold.

    model = read_model(store, store.resolve(reference))
    model.weights, model.system(), model.details

Reading a model reads its config. Texts are read, bounded and verified, when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from .canonical import strict_json
from .dialects.dialect import Details, Dialect, Stated
from .dialects.reading import layers_of, reader_of
from .encryption.errors import Encrypted
from .encryption.marks import is_encrypted
from .errors import BadManifest
from .gguf.reader import GgufHeader, read_header
from .layer import MAX_TEXT_SIZES, Layer, Role
from .manifest import Manifest
from .parameter_count import format_parameter_count
from .store import Store
from .unpacking import unpacked

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


@dataclass(frozen=True)
class Model:
    """A manifest with its layers by role. ``layers`` has the weights first, shards in order."""

    manifest: Manifest
    dialect: Dialect
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    stated: Stated
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
        return {**self.stated.params, **value}

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
        return self.stated.renderer

    @property
    def parser(self) -> str | None:
        return self.stated.parser

    @property
    def requires(self) -> str | None:
        return self.stated.requires

    @cached_property
    def details(self) -> Details:
        """From the config; from the header of the weights where the config does not say.

        Raises: BadGguf where the header is needed and bad.
        """
        details = self.stated.details
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


def read_model(store: Store, manifest: Manifest) -> Model:
    """The model that ``manifest`` describes. Its blobs need not all be there; its config must, and layers
    that files of it are packed in, which are unpacked now where they were not yet.

    Raises: BadManifest, BadJson where it is no model or a broken one; BlobNotFound; DigestMismatch; and what
        `unpacked` raises; Encrypted where its layers are.
    """
    if is_encrypted(manifest):
        raise Encrypted
    layers = layers_of(manifest, lambda layer: unpacked(store, layer).files)
    raw = store.read_blob(manifest.config.digest, limit=MAX_CONFIG_SIZE)
    config = strict_json(raw, what="config of the model", limit=MAX_CONFIG_SIZE)
    if not isinstance(config, dict):
        raise BadManifest(["its config is not a JSON object"], what="model")
    reader = reader_of(manifest)
    stated = reader.stated(manifest, config, layers[0])
    return Model(manifest, reader.dialect, layers, config, stated, store)


def _message(item: object, index: int) -> Message:
    if isinstance(item, dict):
        role, content = item.get("role"), item.get("content")
        if role in _ROLES and isinstance(content, str):
            return Message(role, content)
    raise BadManifest([f"message {index} has no role and content"], what="model")


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
