"""The figures of an architecture: layers, heads, lengths. Out of range, several of them abort llama.cpp.

Source: load_hparams in llama-model.cpp of llama.cpp; LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Final

from .header import GgufArray, GgufHeader
from .problem import Problem, ProblemCode, quoted
from .type_table import HYBRID_ARCHITECTURES, RECURRENT_ARCHITECTURES, ROPE_SCALING_TYPES, ValueType

MAX_BLOCKS: Final = 512
MAX_EXPERTS: Final = 1024
MAX_HEADS: Final = 1024
MAX_EMBEDDING_LENGTH: Final = 1 << 20
MAX_CONTEXT_LENGTH: Final = 1 << 24
MAX_HEAD_SIZE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class _Range:
    low: int
    high: int
    required: bool = False


# {architecture}.KEY: one unsigned 32-bit integer
_INTEGERS = {
    "block_count": _Range(1, MAX_BLOCKS, required=True),
    "context_length": _Range(1, MAX_CONTEXT_LENGTH, required=True),
    "embedding_length": _Range(1, MAX_EMBEDDING_LENGTH, required=True),
    "expert_count": _Range(0, MAX_EXPERTS),
    "attention.key_length": _Range(1, MAX_HEAD_SIZE),
    "attention.value_length": _Range(1, MAX_HEAD_SIZE),
    "attention.key_length_swa": _Range(1, MAX_HEAD_SIZE),
    "attention.value_length_swa": _Range(1, MAX_HEAD_SIZE),
    "rope.dimension_count": _Range(0, MAX_HEAD_SIZE),
    "rope.dimension_count_swa": _Range(0, MAX_HEAD_SIZE),
    "nextn_predict_layers": _Range(0, MAX_BLOCKS),
}

# {architecture}.KEY: one 32-bit float. True: greater than 0, False: 0 is allowed ("not set")
_FLOATS = {
    "attention.layer_norm_epsilon": True,
    "attention.layer_norm_rms_epsilon": True,
    "attention.group_norm_epsilon": True,
    "rope.freq_base": True,
    "rope.freq_base_swa": True,
    "rope.scaling.factor": False,
    "rope.scaling.attn_factor": False,
}


def check_hyperparameters(header: GgufHeader) -> list[Problem]:
    """What is wrong with the figures of the model's architecture. Nothing when that is missing itself."""
    if header.architecture is None:
        return []
    return _Checker(header).run()


class _Checker:
    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        self._architecture = header.architecture
        self._problems: list[Problem] = []

    def run(self) -> list[Problem]:
        for suffix, range_ in _INTEGERS.items():
            self._integer(suffix, range_)
        for suffix, positive in _FLOATS.items():
            self._float(suffix, positive)
        self._rope_scaling()
        self._experts()
        self._heads()
        self._rope()
        return self._problems

    def _note(self, suffix: str, what: str, code: ProblemCode = ProblemCode.BAD_METADATA) -> None:
        self._problems.append(Problem(code, f"key {quoted(f'{self._architecture}.{suffix}')}", what))

    def _type(self, suffix: str) -> ValueType | None:
        return self._header.types.get(f"{self._architecture}.{suffix}")

    def _sound(self, suffix: str) -> int | None:
        """The integer, when it is there and was found in its range."""
        value, range_ = self._header.kv(suffix), _INTEGERS[suffix]
        if self._type(suffix) is not ValueType.UINT32 or not isinstance(value, int):
            return None
        return value if range_.low <= value <= range_.high else None

    def _integer(self, suffix: str, range_: _Range) -> None:
        value, type_ = self._header.kv(suffix), self._type(suffix)
        if type_ is None:
            if range_.required:
                self._note(suffix, "is missing")
        elif type_ is not ValueType.UINT32:
            if range_.required or type_ is not ValueType.ARRAY:  # some architectures have one per layer
                self._note(suffix, f"is of type {type_}, expected uint32")
        elif isinstance(value, int) and not range_.low <= value <= range_.high:
            self._note(suffix, f"is {value:,}, expected {range_.low} to {range_.high:,}")

    def _float(self, suffix: str, positive: bool) -> None:
        value, type_ = self._header.kv(suffix), self._type(suffix)
        if type_ is None or type_ is ValueType.ARRAY:
            return
        if type_ is not ValueType.FLOAT32:
            self._note(suffix, f"is of type {type_}, expected float32")
        elif isinstance(value, float) and (not isfinite(value) or value < 0 or (positive and not value)):
            self._note(suffix, f"is {value}, expected a finite number {'above' if positive else 'from'} 0")

    def _rope_scaling(self) -> None:
        value = self._header.kv("rope.scaling.type")
        if value is not None and value not in ROPE_SCALING_TYPES:
            expected = ", ".join(sorted(ROPE_SCALING_TYPES))
            self._note("rope.scaling.type", f"is {quoted(str(value))}, expected one of {expected}")

    def _experts(self) -> None:
        count = self._sound("expert_count") or 0
        used = self._per_layer("expert_used_count", MAX_EXPERTS)
        if used is None:
            return
        most = max(used, default=0)
        if most > count:
            self._note("expert_used_count", f"is {most:,}, but the model has {count:,} experts")
        elif count and not most:
            self._note("expert_used_count", f"is 0, but the model has {count:,} experts")

    def _heads(self) -> None:
        """Attention heads per layer; 0 where the layer has no attention."""
        heads = self._per_layer("attention.head_count", MAX_HEADS)
        if heads is None:
            return
        if not any(heads) and not self._has_state():
            self._note("attention.head_count", "is 0, expected 1 to 1,024")
            return
        embedding = self._sound("embedding_length")
        if embedding and heads[0] and embedding % heads[0] and not self._has_head_size():
            what = f"is {embedding:,}, expected a multiple of the {heads[0]} attention heads"
            self._note("embedding_length", what)
        self._kv_heads(heads)

    def _kv_heads(self, heads: tuple[int, ...]) -> None:
        suffix = "attention.head_count_kv"
        kv_heads = self._per_layer(suffix, MAX_HEADS)
        if kv_heads is None:
            return
        if not any(kv_heads) and any(heads) and not self._has_state():
            self._note(suffix, "is 0, expected 1 to 1,024")
        for count, kv in zip(heads, kv_heads, strict=False):
            if kv and count % kv:
                self._note(suffix, f"is {kv}, which does not divide the {count} attention heads")
                return

    def _has_state(self) -> bool:
        return self._architecture in RECURRENT_ARCHITECTURES | HYBRID_ARCHITECTURES

    def _has_head_size(self) -> bool:
        return all(self._sound(f"attention.{part}_length") for part in ("key", "value"))

    def _rope(self) -> None:
        for suffix in ("rope.dimension_count", "rope.dimension_count_swa"):
            count = self._sound(suffix)
            if not count:
                continue
            size = self._head_size("_swa" if suffix.endswith("_swa") else "")
            if count % 2:
                self._note(suffix, f"is {count}, expected an even number")
            elif size and count > size:
                self._note(suffix, f"is {count}, but an attention head has {size} dimensions")

    def _head_size(self, variant: str) -> int | None:
        stated = self._sound(f"attention.key_length{variant}") or self._sound("attention.key_length")
        if stated:
            return stated
        heads, embedding = self._header.kv("attention.head_count"), self._sound("embedding_length")
        if isinstance(heads, int) and heads and embedding:
            return embedding // heads
        return None

    def _per_layer(self, suffix: str, high: int) -> tuple[int, ...] | None:
        """A figure that is one integer for all layers, or an array of one for each; None if unsound."""
        value, type_ = self._header.kv(suffix), self._type(suffix)
        if type_ is None:
            return None
        blocks = self._sound("block_count")
        if isinstance(value, GgufArray):
            if value.element_type not in (ValueType.UINT32, ValueType.INT32):
                self._note(suffix, f"is an array of {value.element_type}, expected uint32 or int32")
                return None
            if value.values is None or (blocks and value.count != blocks):
                self._note(suffix, f"is an array of {value.count:,}, expected {blocks}: one for each block")
                return None
            values = tuple(int(item) for item in value.values)
        elif type_ is ValueType.UINT32 and isinstance(value, int):
            values = (value,) * (blocks or 1)
        else:
            self._note(suffix, f"is of type {type_}, expected uint32")
            return None
        wrong = next((item for item in values if not 0 <= item <= high), None)
        if wrong is not None:
            self._note(suffix, f"is {wrong:,}, expected 0 to {high:,}")
            return None
        return values
