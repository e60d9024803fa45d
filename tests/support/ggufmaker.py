"""A writer of GGUF files, independent of the reader under test, that can also write wrong ones.

make_gguf(model_metadata(), model_tensors())            a small sound model
make_gguf(model_metadata(llama__block_count=u32(0)))    the same with one fault
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

ALIGNMENT = 32

# value types by their number in the file
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
_CODES = dict(enumerate("BbHhIif?")) | {UINT64: "Q", INT64: "q", FLOAT64: "d"}

# (elements in a block, bytes of a block) of the tensor types that tests use
_TENSOR_TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144), 14: (256, 210), 30: (1, 2)}


@dataclass(frozen=True)
class Typed:
    """A metadata value as it stands in the file: the number of its type, and its bytes."""

    type: int
    data: bytes


def number(type_: int, value: float) -> Typed:
    return Typed(type_, struct.pack("<" + _CODES[type_], value))


def u8(value: int) -> Typed:
    return number(UINT8, value)


def u16(value: int) -> Typed:
    return number(UINT16, value)


def u32(value: int) -> Typed:
    return number(UINT32, value)


def i32(value: int) -> Typed:
    return number(INT32, value)


def u64(value: int) -> Typed:
    return number(UINT64, value)


def f32(value: float) -> Typed:
    return number(FLOAT32, value)


def boolean(value: bool) -> Typed:
    return number(BOOL, value)


def string(value: str | bytes) -> Typed:
    return Typed(STRING, _string(value))


def strings(values: Iterable[str | bytes], *, count: int | None = None) -> Typed:
    items = list(values)
    data = b"".join(_string(item) for item in items)
    return Typed(ARRAY, struct.pack("<IQ", STRING, len(items) if count is None else count) + data)


def numbers(type_: int, values: Sequence[float], *, count: int | None = None) -> Typed:
    data = struct.pack(f"<{len(values)}{_CODES[type_]}", *values)
    return Typed(ARRAY, struct.pack("<IQ", type_, len(values) if count is None else count) + data)


def _string(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


@dataclass(frozen=True)
class Tensor:
    """A tensor info. None: where a sound file has it (``offset``), as many as ``shape`` has (``n_dims``)."""

    name: str | bytes
    shape: tuple[int, ...] = (32, 4)
    type: int = 0
    offset: int | None = None
    n_dims: int | None = None

    @property
    def size(self) -> int:
        block, block_size = _TENSOR_TYPES.get(self.type, (1, 4))
        count = 1
        for dimension in self.shape:
            count *= dimension
        return count // block * block_size


def make_gguf(
    metadata: Mapping[str, Typed] | Sequence[tuple[str | bytes, Typed]] = (),
    tensors: Sequence[Tensor] = (),
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_values: int | None = None,
    alignment: int = ALIGNMENT,
    data: bytes | None = None,
    seed: int = 0,
) -> bytes:
    """The bytes of a GGUF file. Tensor data are a pattern made from ``seed``, or ``data``."""
    pairs = list(metadata.items()) if isinstance(metadata, Mapping) else list(metadata)
    parts = [magic, struct.pack("<I", version)]
    parts.append(struct.pack("<Q", len(tensors) if n_tensors is None else n_tensors))
    parts.append(struct.pack("<Q", len(pairs) if n_values is None else n_values))
    parts += [_string(key) + struct.pack("<I", value.type) + value.data for key, value in pairs]
    end = 0
    for tensor in tensors:
        offset = end if tensor.offset is None else tensor.offset
        n_dims = len(tensor.shape) if tensor.n_dims is None else tensor.n_dims
        parts.append(_string(tensor.name) + struct.pack("<I", n_dims))
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", tensor.type & 0xFFFFFFFF, offset & 0xFFFFFFFFFFFFFFFF))
        end += tensor.size + -tensor.size % alignment
    header = b"".join(parts)
    if not tensors:
        return header + (data or b"")
    header += bytes(-len(header) % alignment)
    return header + (pattern(end, seed) if data is None else data)


def pattern(size: int, seed: int = 0) -> bytes:
    """``size`` bytes that depend on ``seed``, the same on every machine."""
    block = bytes((index * 31 + seed * 17 + 7) % 251 for index in range(251))
    return (block * (size // 251 + 1))[:size]


def model_metadata(**changes: Typed | None) -> dict[str, Typed]:
    """Metadata of a small sound model of the llama architecture.

    ``changes`` replace or add values; ``__`` in a name stands for a dot; None takes the value away.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "hello", "world"]
    metadata: dict[str, Typed] = {
        "general.architecture": string("llama"),
        "general.type": string("model"),
        "general.name": string("Fixture"),
        "general.file_type": u32(0),
        "llama.block_count": u32(2),
        "llama.context_length": u32(512),
        "llama.embedding_length": u32(32),
        "llama.feed_forward_length": u32(64),
        "llama.attention.head_count": u32(4),
        "llama.attention.head_count_kv": u32(2),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.dimension_count": u32(8),
        "llama.rope.freq_base": f32(10000.0),
        "llama.vocab_size": u32(len(tokens)),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.scores": numbers(FLOAT32, [-float(index) for index in range(len(tokens))]),
        "tokenizer.ggml.token_type": numbers(INT32, [2, 3, 3, *[6] * 256, 1, 1]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": boolean(True),
        "tokenizer.chat_template": string("{% for m in messages %}{{ m.content }}{% endfor %}"),
    }
    return changed(metadata, changes)


def changed(metadata: dict[str, Typed], changes: Mapping[str, Typed | None]) -> dict[str, Typed]:
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            metadata.pop(key, None)
        else:
            metadata[key] = value
    return metadata


def bpe_metadata(
    tokens: Sequence[str], merges: Sequence[str | bytes], **changes: Typed | None
) -> dict[str, Typed]:
    """The same model with a byte-pair vocabulary."""
    metadata = model_metadata(
        tokenizer__ggml__model=string("gpt2"),
        tokenizer__ggml__pre=string("gpt-2"),
        tokenizer__ggml__tokens=strings(tokens),
        tokenizer__ggml__merges=strings(merges),
        tokenizer__ggml__token_type=numbers(INT32, [1] * len(tokens)),
        tokenizer__ggml__scores=None,
        llama__vocab_size=u32(len(tokens)),
    )
    return changed(metadata, changes)


def model_tensors(*, type_: int = 0, embedding: int = 32, vocabulary: int = 261) -> list[Tensor]:
    """Tensors of that model: all that llama.cpp looks for."""
    feed_forward, kv = embedding * 2, embedding // 2
    tensors = [
        Tensor("token_embd.weight", (embedding, vocabulary), type_),
        Tensor("output_norm.weight", (embedding,)),
    ]
    for block in range(2):
        for name, shape in (
            ("attn_norm", (embedding,)),
            ("attn_q", (embedding, embedding)),
            ("attn_k", (embedding, kv)),
            ("attn_v", (embedding, kv)),
            ("attn_output", (embedding, embedding)),
            ("ffn_norm", (embedding,)),
            ("ffn_gate", (embedding, feed_forward)),
            ("ffn_up", (embedding, feed_forward)),
            ("ffn_down", (feed_forward, embedding)),
        ):
            kind = 0 if len(shape) == 1 else type_
            tensors.append(Tensor(f"blk.{block}.{name}.weight", shape, kind))
    return tensors


def make_model(*, seed: int = 0, **changes: Typed | None) -> bytes:
    """A small sound model. ``seed`` makes another one of the same shape."""
    return make_gguf(model_metadata(**changes), model_tensors(), seed=seed)


def make_adapter(*, rank: int = 4, embedding: int = 32, seed: int = 0, **changes: Typed | None) -> bytes:
    """A LoRA adapter for that model."""
    metadata = {
        "general.architecture": string("llama"),
        "general.type": string("adapter"),
        "adapter.type": string("lora"),
        "adapter.lora.alpha": f32(16.0),
    }
    tensors = [
        Tensor("blk.0.attn_q.weight.lora_a", (embedding, rank)),
        Tensor("blk.0.attn_q.weight.lora_b", (rank, embedding)),
    ]
    return make_gguf(changed(metadata, changes), tensors, seed=seed)


def make_projector(*, seed: int = 0, **changes: Typed | None) -> bytes:
    """The vision projector of some model."""
    metadata = {
        "general.architecture": string("clip"),
        "general.type": string("mmproj"),
        "clip.has_vision_encoder": boolean(True),
        "clip.projector_type": string("mlp"),
        "clip.vision.image_size": u32(224),
        "clip.vision.patch_size": u32(14),
        "clip.vision.embedding_length": u32(64),
        "clip.vision.block_count": u32(1),
        "clip.vision.attention.head_count": u32(4),
    }
    return make_gguf(changed(metadata, changes), [Tensor("mm.0.weight", (64, 32))], seed=seed)


def make_shards(count: int) -> list[bytes]:
    """That model in ``count`` files. As llama.cpp's tool does it, only the first has the metadata."""
    tensors = model_tensors()
    size = -(-len(tensors) // count)
    shards = []
    for number_ in range(count):
        split = {
            "split.no": u16(number_),
            "split.count": u16(count),
            "split.tensors.count": i32(len(tensors)),
        }
        metadata = (model_metadata() if number_ == 0 else {}) | split
        shards.append(make_gguf(metadata, tensors[number_ * size : (number_ + 1) * size], seed=number_))
    return shards
