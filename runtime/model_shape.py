"""The hyper-parameters of a model that decide how much memory it takes, read from GGUF metadata.

Source: llama.cpp, ``llama-hparams.cpp`` (``n_embd_k_gqa``, ``n_embd_r``, ``n_embd_s``, ``set_swa_pattern``),
``models/*.cpp`` for the patterns of sliding windows, ``gguf-py/gguf/constants.py`` for the names of keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from ..oci.gguf.header import GgufArray

_PADDING = 256
_NO_ATTENTION = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_ADAPTING_PROJECTORS = ("qwen2", "qwen3", "pixtral", "glm", "kimi")
_ADAPTED_PATCHES = 4 * 46 * 46
"""What llama.cpp prepares for where a projector takes pictures of any size (``set_warmup_n_tokens``)."""
_WINDOW_PERIOD = {
    "afmoe": 4,
    "cohere2": 4,
    "exaone4": 4,
    "exaone-moe": 4,
    "gemma-embedding": 6,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "mellum": 4,
    "olmo2": 4,
    "plamo3": 8,
}
"""One layer of so many looks at everything, the others at their window; where the metadata do not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes in elements. Whatever a header leaves out is 0."""

    architecture: str
    layers: int
    embedding: int
    feed_forward: int
    """Of the widest layer; for a mixture of experts, of all experts that one token uses."""
    heads: int
    key_value: int
    """Keys and values of one token, summed over the layers that keep all tokens."""
    windowed_key_value: int
    """The same over the layers that keep only the last ``window`` tokens."""
    window: int
    attention: int
    """Queries of one token in the widest layer."""
    recurrent: int
    """State of one sequence, whatever its length, summed over layers; kept as 32-bit floats."""
    recurrent_width: int
    """Of what one token becomes inside a recurrent layer."""
    vocabulary: int
    context_length: int
    pooling: bool
    """Whether the model is made for embeddings."""


def read_shape(metadata: Mapping[str, object], *, vocabulary: int = 0) -> ModelShape:
    """The shape of a text model (not of a projector or adapter).

    ``vocabulary``: number of tokens, where the metadata do not say.
    """
    facts = _Facts(metadata)
    layers, embedding = facts.number("block_count"), facts.number("embedding_length")
    heads = facts.numbers("attention.head_count", layers)
    most_heads = max(heads, default=0)
    head_size = embedding // most_heads if most_heads else 0
    key = facts.number("attention.key_length") or head_size
    value = facts.number("attention.value_length") or head_size
    kv_heads = _kv_heads(facts, layers, heads)
    window = facts.number("attention.sliding_window")
    windowed = _windowed_layers(facts, layers) if window else [False] * layers
    whole = sum(count for count, cut in zip(kv_heads, windowed, strict=False) if not cut)
    return ModelShape(
        architecture=facts.architecture,
        layers=layers,
        embedding=embedding,
        feed_forward=_feed_forward(facts, layers),
        heads=most_heads,
        key_value=whole * (key + value),
        windowed_key_value=(sum(kv_heads) - whole) * (key + value),
        window=window,
        attention=most_heads * key,
        recurrent=_recurrent(facts, layers, embedding, kv_heads),
        recurrent_width=facts.number("ssm.inner_size"),
        vocabulary=facts.number("vocab_size") or vocabulary,
        context_length=facts.number("context_length"),
        pooling=facts.has("pooling_type"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorShape:
    """What decides how much memory the look at a picture takes. Sizes in elements."""

    patches: int
    """Of the largest picture, as far as the header tells."""
    width: int
    feed_forward: int


def read_projector_shape(metadata: Mapping[str, object]) -> ProjectorShape | None:
    """The shape of a projector; None where it is not for pictures."""
    if metadata.get("clip.has_vision_encoder") is not True:
        return None
    facts = _Facts({"general.architecture": "clip", **metadata})
    side, patch = facts.number("vision.image_size"), facts.number("vision.patch_size")
    kind = metadata.get("clip.projector_type") or metadata.get("clip.vision.projector_type")
    adapts = isinstance(kind, str) and kind.startswith(_ADAPTING_PROJECTORS)
    return ProjectorShape(
        patches=max((side // patch) ** 2 if patch else 0, _ADAPTED_PATCHES if adapts else 0),
        width=facts.number("vision.embedding_length"),
        feed_forward=facts.number("vision.feed_forward_length"),
    )


def padded_context(n_ctx: int) -> int:
    """Cells that llama.cpp sets up for a context of ``n_ctx`` tokens."""
    return -(-n_ctx // _PADDING) * _PADDING


def _kv_heads(facts: _Facts, layers: int, heads: list[int]) -> list[int]:
    """Heads of keys and values in each layer; 0 in layers without attention or that use another's."""
    if facts.architecture in _NO_ATTENTION:
        return [0] * layers
    counts = facts.numbers("attention.head_count_kv", layers) or heads
    own = max(len(counts) - facts.number("attention.shared_kv_layers"), 0)
    return counts[:own] + [0] * (len(counts) - own)


def _windowed_layers(facts: _Facts, layers: int) -> list[bool]:
    pattern = facts.flags("attention.sliding_window_pattern")
    if pattern:
        return pattern[:layers] + [False] * (layers - len(pattern))
    period = facts.number("attention.sliding_window_pattern") or _WINDOW_PERIOD.get(facts.architecture, 1)
    return [layer % period < period - 1 for layer in range(layers)]


def _feed_forward(facts: _Facts, layers: int) -> int:
    dense = max(facts.numbers("feed_forward_length", layers), default=0)
    experts = facts.number("expert_used_count")
    if not experts:
        return dense
    one = facts.number("expert_feed_forward_length") or dense
    return max(dense, experts * one + facts.number("expert_shared_feed_forward_length"))


def _recurrent(facts: _Facts, layers: int, embedding: int, kv_heads: list[int]) -> int:
    inner, state = facts.number("ssm.inner_size"), facts.number("ssm.state_size")
    one = 0
    if inner or state:
        groups = facts.number("ssm.group_count")
        one = max(facts.number("ssm.conv_kernel") - 1, 0) * (inner + 2 * groups * state) + inner * state
    elif facts.has("wkv.head_size"):
        shifts = facts.number("token_shift_count") or 2
        one = embedding * (shifts + facts.number("wkv.head_size"))
    elif facts.has("shortconv.l_cache"):
        one = embedding * max(facts.number("shortconv.l_cache") - 1, 0)
    # Where heads are given by layer, those without any are the recurrent ones; otherwise all may be.
    return one * (kv_heads.count(0) or layers)


class _Facts:
    """Metadata under the architecture's prefix; wrong types count as absent, the checker reports them."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        architecture = metadata.get("general.architecture")
        self.architecture = architecture if isinstance(architecture, str) else ""
        self._metadata = metadata

    def has(self, name: str) -> bool:
        return f"{self.architecture}.{name}" in self._metadata

    def number(self, name: str) -> int:
        """The number, the largest of an array, or 0."""
        value = self._metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, int) and not isinstance(value, bool):
            return max(value, 0)
        return max((item for item in _items(value) if _is_count(item)), default=0)

    def numbers(self, name: str, count: int) -> list[int]:
        """One for each of ``count`` layers; none where the key is absent."""
        value = self._metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, int) and not isinstance(value, bool):
            return [max(value, 0)] * count
        return [item for item in _items(value) if _is_count(item)][:count]

    def flags(self, name: str) -> list[bool]:
        """The booleans of an array; none where it is something else."""
        value = self._metadata.get(f"{self.architecture}.{name}")
        return [bool(item) for item in _items(value) if item in (0, 1)]


def _items(value: object) -> tuple[int | float | bool | str, ...]:
    return (value.values or ()) if isinstance(value, GgufArray) else ()


def _is_count(item: object) -> TypeGuard[int]:
    return isinstance(item, int) and not isinstance(item, bool) and item >= 0
