"""Which instruction made which layer of a model."""

from __future__ import annotations

from dataclasses import dataclass

from .canonical import MAX_DOCUMENT_SIZE
from .dialects import modelpack
from .digest import Digest
from .errors import BadDigest, BadManifest, BlobNotFound
from .layer import Layer, Role
from .manifest import Manifest
from .model import Model

_SHOWN = 72

_INSTRUCTIONS = {
    Role.WEIGHTS: "FROM",
    Role.PROJECTOR: "FROM",
    Role.ADAPTER: "ADAPTER",
    Role.DRAFT: "DRAFT",
    Role.TEMPLATE_GO: "TEMPLATE",
    Role.TEMPLATE_JINJA: "COPY",
    Role.SYSTEM: "SYSTEM",
    Role.PARAMS: "PARAMETER",
    Role.MESSAGES: "MESSAGE",
    Role.LICENSE: "LICENSE",
    Role.README: "COPY",
    Role.DOC: "COPY",
}
_TEXT_ROLES = frozenset({Role.TEMPLATE_GO, Role.SYSTEM, Role.LICENSE})
_EXCERPT_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """One layer. ``created_by`` is the instruction; ``inherited`` says that the base model brought it."""

    created_by: str
    role: Role
    digest: Digest
    size: int
    inherited: bool = False


def history(model: Model) -> tuple[Step, ...]:
    """The layers in the order of the manifest, each with what made it.

    Whether a layer was inherited is known while the base model is in the store.

    Raises: BlobNotFound, DigestMismatch where a layer with text cannot be read.
    """
    base = _base_digests(model)
    return tuple(
        Step(_created_by(model, layer), layer.role, layer.digest, layer.size, layer.digest in base)
        for layer in model.layers
    )


def _base_digests(model: Model) -> frozenset[Digest]:
    stated = model.manifest.annotations.get(modelpack.BASE_DIGEST)
    if stated is None:
        return frozenset()
    try:
        manifest = Manifest.parse(model.store.read_blob(Digest.parse(stated), limit=MAX_DOCUMENT_SIZE))
    except (BadDigest, BlobNotFound, BadManifest):  # somebody else's annotation, or the base is gone
        return frozenset()
    return frozenset(layer.digest for layer in manifest.layers)


def _created_by(model: Model, layer: Layer) -> str:
    keyword = _INSTRUCTIONS.get(layer.role)
    if keyword is None:
        return layer.filepath or str(layer.role)
    return f"{keyword} {_argument(model, layer)}".rstrip()


def _argument(model: Model, layer: Layer) -> str:
    if layer.role in _TEXT_ROLES:
        if layer.size > _EXCERPT_LIMIT:
            return layer.filepath
        text = model.store.read_blob(layer.digest, limit=_EXCERPT_LIMIT).decode("utf-8", "replace")
        return _excerpt(text)
    if layer.role is Role.PARAMS:
        return _excerpt(", ".join(f"{name} {_value(value)}" for name, value in model.params().items()))
    if layer.role is Role.WEIGHTS:
        return f"{layer.filepath or f'@{layer.digest}'}{_origin(layer)}"
    if layer.role is Role.MESSAGES:
        count = len(model.messages())
        return f"({count} message{'s' if count != 1 else ''})"
    return layer.filepath or f"@{layer.digest}"


def _origin(layer: Layer) -> str:
    """What weights were quantised from, in short."""
    originals = modelpack.quantized_from(layer)
    if not originals:
        return ""
    more = f" and {len(originals) - 1} more" if len(originals) > 1 else ""
    return f" (quantized from {originals[0].short}{more})"


def _value(value: object) -> str:
    if isinstance(value, list):
        return " ".join(repr(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _excerpt(text: str) -> str:
    """The first words on one line, control characters and all else that does not print left out."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
