"""What the header of a GGUF file says: metadata, tensor infos, and the facts that are read off them.

Source: the GGUF specification, version 3 (docs/gguf.md of ggml).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final, TypeAlias

from .type_table import FILE_TYPE_GUESSED, FILE_TYPES, TensorType, ValueType

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32
# of one element of a string array: tokens are short, and so is all else that comes in arrays
MAX_ELEMENT_SIZE: Final = 64 * 1024


Element: TypeAlias = int | float | bool | str


class GgufKind(StrEnum):
    """What a GGUF file is for."""

    MODEL = "model"
    ADAPTER = "adapter"
    PROJECTOR = "projector"
    OTHER = "other"  # importance matrices, control vectors, …


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufArray:
    """An array in the metadata. Short ones carry their values; of the others only the place is kept."""

    element_type: ValueType
    count: int
    offset: int  # of the first element, in bytes from the start of the file
    size: int  # bytes that the elements take in the file
    values: tuple[Element, ...] | None = None


Value: TypeAlias = Element | GgufArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Name, shape and place of one tensor. ``shape`` is in GGUF order: the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int  # from the start of the data section

    @property
    def elements(self) -> int:
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count

    @property
    def size(self) -> int:
        """Bytes of its data, without padding."""
        return self.elements // self.type.block * self.type.block_size


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """All that a GGUF file says about itself. Accessors return None for what it does not say."""

    version: int
    metadata: Mapping[str, Value]  # in file order
    types: Mapping[str, ValueType]  # the type of each metadata value
    tensors: tuple[TensorInfo, ...]
    alignment: int
    data_offset: int  # where the data section starts, in bytes
    file_size: int

    def kv(self, suffix: str) -> Value | None:
        """The value of ``{architecture}.{suffix}``."""
        return self.metadata.get(f"{self.architecture}.{suffix}")

    @property
    def architecture(self) -> str | None:
        return self._text("general.architecture")

    @property
    def name(self) -> str | None:
        return self._text("general.name")

    @property
    def kind(self) -> GgufKind:
        """Decided as llama.cpp's and Ollama's tools do: by ``general.type``, else by the architecture."""
        stated = self._text("general.type")
        if stated == "adapter":
            return GgufKind.ADAPTER
        if stated in ("mmproj", "projector") or self.architecture == "clip":
            return GgufKind.PROJECTOR
        if stated in (None, "model"):
            return GgufKind.MODEL
        return GgufKind.OTHER

    @cached_property
    def parameter_count(self) -> int:
        """Elements of all tensors in this file (of one shard, when the model is split)."""
        return sum(tensor.elements for tensor in self.tensors)

    @cached_property
    def data_size(self) -> int:
        """Bytes of tensor data, without padding."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def file_type(self) -> str | None:
        """The quantisation, such as ``Q4_K_M`` or ``F16``; the commonest tensor type where none is stated."""
        stated = self.metadata.get("general.file_type")
        if isinstance(stated, int) and (name := FILE_TYPES.get(stated & ~FILE_TYPE_GUESSED)):
            return name
        return self.commonest_type

    @property
    def commonest_type(self) -> str | None:
        """The type that most bytes of its matrices are of."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            if len(tensor.shape) > 1:  # norms and biases stay F32 in any mixture
                sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size
        return max(sizes, key=lambda name: sizes[name]) if sizes else None

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained for."""
        return self._integer("context_length")

    @property
    def embedding_length(self) -> int | None:
        return self._integer("embedding_length")

    @property
    def block_count(self) -> int | None:
        return self._integer("block_count")

    @property
    def chat_template(self) -> str | None:
        """The default Jinja chat template."""
        return self._text("tokenizer.chat_template")

    @property
    def vocabulary_size(self) -> int | None:
        """Tokens in the vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return tokens.count if isinstance(tokens, GgufArray) else self._integer("vocab_size")

    @property
    def pooling_type(self) -> int | None:
        """Present in embedding models only."""
        return self._integer("pooling_type")

    @property
    def split(self) -> tuple[int, int] | None:
        """(number of this shard from 0, count of shards), where the file is one of several."""
        number, count = self.metadata.get("split.no"), self.metadata.get("split.count")
        if isinstance(number, int) and isinstance(count, int) and count > 1:
            return number, count
        return None

    @property
    def is_first_shard(self) -> bool:
        """Whether it is where the metadata of the model are: of a split model, in the first shard only."""
        return self.split is None or self.split[0] == 0

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _integer(self, suffix: str) -> int | None:
        value = self.kv(suffix)
        return value if isinstance(value, int) and not isinstance(value, bool) else None
