"""What every dialect has: a name, a reader and a writer.

A *reader* tells what each layer of a manifest is for, and what config and annotations say about the model. A
*writer* makes a manifest of the same layers in its own words. To add a dialect: write a module with both, and
add them to the tables in ``reading`` and ``oci/conversion``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..descriptor import Descriptor
from ..gguf.header import GgufHeader
from ..layer import Layer, Role
from ..manifest import Manifest


class Dialect(StrEnum):
    """The value is what ``--as`` takes."""

    MODELPACK = "modelpack"
    DOCKER = "docker"
    OLLAMA = "ollama"
    KIT = "kit"
    MODELCAR = "modelcar"


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


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a model, before its role is known: a raw layer, or a file that is packed in one.

    ``descriptor`` is of the file's content. ``path`` is relative; empty where unsaid. ``media_type`` is the
    layer's.
    """

    descriptor: Descriptor
    path: str
    media_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What config and annotations say beside the layers. ``labels`` are those without meaning for us."""

    details: Details
    labels: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How a dialect is read. The manifest alone tells whether it is this one.

    unpacks: whether files of the model may be packed in a layer of this media type, should it be an archive.
    folder: the folder that packed files of the model are in; others are passed over.
    stated: takes the manifest, the config's JSON object, and the first layer of weights.
    """

    dialect: Dialect
    recognises: Callable[[Manifest], bool]
    role_of: Callable[[Part], Role]
    stated: Callable[[Manifest, Mapping[str, Any], Layer], Stated]
    unpacks: Callable[[str], bool] = lambda media_type: False
    folder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A model without any dialect: what a writer writes down.

    ``layers`` has the weights first, shards in order. Each has a path whose last part is unique, and its
    descriptor the annotations that it is to have beside path, title and role. ``annotations`` are those of
    the model as a whole. ``headers`` are those of the weights. ``descriptor`` and ``config`` are ModelPack's.
    ``created`` is RFC 3339, None for a model without a date.
    """

    layers: tuple[Layer, ...]
    name: str
    license: str | None
    params: Mapping[str, Any]
    headers: Sequence[GgufHeader]
    descriptor: Mapping[str, Any]
    config: Mapping[str, Any]
    annotations: Mapping[str, str]
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    created: str | None = None

    def of(self, *roles: Role) -> tuple[Layer, ...]:
        """The layers of these roles, in order."""
        return tuple(layer for layer in self.layers if layer.role in roles)


@dataclass(frozen=True, slots=True)
class Written:
    """A manifest in some dialect, whose blobs are in the store. ``left_out``: what of the model the dialect
    has no place for, one sentence each."""

    manifest: Manifest
    left_out: tuple[str, ...] = ()


def member(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object in a JSON object; empty where there is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def text(value: Mapping[str, Any], key: str) -> str:
    """A text in a JSON object; empty where there is none."""
    found = value.get(key)
    return found if isinstance(found, str) else ""
