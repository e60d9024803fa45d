"""Layers by what they are for, whatever dialect the manifest is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from .descriptor import Descriptor
from .digest import Digest
from .gguf.header import GgufKind


class Role(StrEnum):
    """What a layer is for. The value is what our annotation says."""

    WEIGHTS = "weights"
    PROJECTOR = "projector"
    ADAPTER = "adapter"
    DRAFT = "draft"
    TEMPLATE_GO = "template"
    TEMPLATE_JINJA = "chat-template"
    SYSTEM = "system"
    PARAMS = "params"
    MESSAGES = "messages"
    LICENSE = "license"
    README = "readme"
    DOC = "doc"
    MODELFILE = "modelfile"
    OTHER = "other"


# the roles whose layers are GGUF files, and of which kind
GGUF_KINDS: Mapping[Role, GgufKind] = MappingProxyType(
    {
        Role.WEIGHTS: GgufKind.MODEL,
        Role.PROJECTOR: GgufKind.PROJECTOR,
        Role.ADAPTER: GgufKind.ADAPTER,
        Role.DRAFT: GgufKind.MODEL,
    }
)


# Where the files of a role belong. Weights, projectors and documents keep the names they came with.
FIXED_PATHS: Mapping[Role, str] = MappingProxyType(
    {
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
)


# The most bytes that a text layer may have: such layers are read whole. Held when building and when reading.
MAX_TEXT_SIZES: Mapping[Role, int] = MappingProxyType(
    {
        Role.TEMPLATE_GO: 1 << 20,
        Role.TEMPLATE_JINJA: 1 << 20,
        Role.SYSTEM: 4 << 20,
        Role.PARAMS: 1 << 20,
        Role.MESSAGES: 16 << 20,
        Role.LICENSE: 4 << 20,
        Role.MODELFILE: 64 << 20,
    }
)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer and its role. ``filepath`` is where the layer's file belongs, relative; empty where unsaid."""

    role: Role
    descriptor: Descriptor
    filepath: str = ""

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    @property
    def size(self) -> int:
        """Bytes."""
        return self.descriptor.size
