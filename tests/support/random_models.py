"""Tiny GGUF models with random weights and the tiny chat model's tokenizer, one for each kind of memory.

They say nothing sensible, but always the same: right for asking whether reuse and batching change an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

WIDTH, FEED, HEADS, HEAD = 64, 128, 4, 16
_TOKENIZER = "tokenizer.ggml."


class _Model:
    """A file being written. Weights are normal, and the same each time."""

    def __init__(self, path: Path, architecture: str, source: Path, *, context: int, blocks: int) -> None:
        self.writer = gguf.GGUFWriter(path, architecture)
        self.blocks = blocks
        self.context = context
        self._random = np.random.default_rng(7)
        self.vocabulary = self._tokenizer(source)
        self.writer.add_context_length(context)
        self.writer.add_embedding_length(WIDTH)
        self.writer.add_block_count(blocks)

    def _tokenizer(self, source: Path) -> int:
        reader = gguf.GGUFReader(source)
        size = 0
        for name, field in reader.fields.items():
            if not name.startswith(_TOKENIZER):
                continue
            value = field.contents()
            if field.types[0] == gguf.GGUFValueType.ARRAY:
                self.writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, sub_type=field.types[-1])
            else:
                self.writer.add_key_value(name, value, field.types[0])
            if name == _TOKENIZER + "tokens":
                size = len(value)
        return size

    def weight(self, name: str, *shape: int, scale: float = 0.3) -> None:
        """``shape`` as llama.cpp writes it: the width of a row first."""
        values = self._random.standard_normal(shape[::-1]) * scale
        self.writer.add_tensor(name, values.astype(np.float32))

    def ones(self, name: str, *shape: int) -> None:
        self.writer.add_tensor(name, np.ones(shape[::-1], np.float32))

    def vocabulary_weights(self) -> None:
        """The way out is not the way in, or the model would repeat its last token for ever."""
        self.weight("token_embd.weight", WIDTH, self.vocabulary)
        self.weight("output.weight", WIDTH, self.vocabulary)

    def close(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def plain_model(path: Path, source: Path, *, context: int = 1024) -> Path:
    """Llama: full attention, and nothing that is hard for anybody."""
    model = _Model(path, "llama", source, context=context, blocks=2)
    writer = model.writer
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD)
    model.vocabulary_weights()
    model.ones("output_norm.weight", WIDTH)
    for i in range(model.blocks):
        block = f"blk.{i}."
        model.ones(f"{block}attn_norm.weight", WIDTH)
        model.ones(f"{block}ffn_norm.weight", WIDTH)
        _attention(model, block)
        _feed_forward(model, block)
    model.close()
    return path


def sliding_window_model(path: Path, source: Path, *, window: int = 32, context: int = 1024) -> Path:
    """Gemma 3: five of six layers look back on ``window`` tokens only."""
    model = _Model(path, "gemma3", source, context=context, blocks=6)
    writer = model.writer
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_sliding_window(window)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    model.vocabulary_weights()
    model.ones("output_norm.weight", WIDTH)
    for i in range(model.blocks):
        block = f"blk.{i}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            model.ones(f"{block}{name}.weight", WIDTH)
        for name in ("attn_q_norm", "attn_k_norm"):
            model.ones(f"{block}{name}.weight", HEAD)
        _attention(model, block)
        _feed_forward(model, block)
    model.close()
    return path


def multimodal_rope_model(path: Path, source: Path, *, context: int = 1024) -> Path:
    """Qwen2-VL: positions have four dimensions."""
    model = _Model(path, "qwen2vl", source, context=context, blocks=2)
    writer = model.writer
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_sections([2, 3, 3, 0])
    model.vocabulary_weights()
    model.ones("output_norm.weight", WIDTH)
    for i in range(model.blocks):
        block = f"blk.{i}."
        model.ones(f"{block}attn_norm.weight", WIDTH)
        model.ones(f"{block}ffn_norm.weight", WIDTH)
        _attention(model, block)
        for name in ("attn_q", "attn_k", "attn_v"):
            model.weight(f"{block}{name}.bias", WIDTH)
        _feed_forward(model, block)
    model.close()
    return path


def recurrent_model(path: Path, source: Path, *, context: int = 1024) -> Path:
    """Mamba: a state instead of a cache; nothing of it can be cut off."""
    inner, state, rank, kernel = 2 * WIDTH, 8, 4, 4
    model = _Model(path, "mamba", source, context=context, blocks=2)
    writer = model.writer
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    model.vocabulary_weights()
    model.ones("output_norm.weight", WIDTH)
    for i in range(model.blocks):
        block = f"blk.{i}."
        model.ones(f"{block}attn_norm.weight", WIDTH)
        model.weight(f"{block}ssm_in.weight", WIDTH, 2 * inner)
        model.weight(f"{block}ssm_conv1d.weight", kernel, inner)
        model.weight(f"{block}ssm_conv1d.bias", inner)
        model.weight(f"{block}ssm_x.weight", inner, rank + 2 * state)
        model.weight(f"{block}ssm_dt.weight", rank, inner)
        model.weight(f"{block}ssm_dt.bias", inner)
        writer.add_tensor(f"{block}ssm_a", -np.ones((inner, state), np.float32))
        model.ones(f"{block}ssm_d", inner)
        model.weight(f"{block}ssm_out.weight", inner, WIDTH)
    model.close()
    return path


def hybrid_model(path: Path, source: Path, *, context: int = 1024) -> Path:
    """LFM2: layers of attention and layers with a state."""
    model = _Model(path, "lfm2", source, context=context, blocks=4)
    writer = model.writer
    cache = 3
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([0 if i % 2 == 0 else HEADS for i in range(model.blocks)])
    writer.add_shortconv_l_cache(cache)
    writer.add_vocab_size(model.vocabulary)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    model.vocabulary_weights()
    model.ones("token_embd_norm.weight", WIDTH)
    for i in range(model.blocks):
        block = f"blk.{i}."
        model.ones(f"{block}attn_norm.weight", WIDTH)
        model.ones(f"{block}ffn_norm.weight", WIDTH)
        _feed_forward(model, block)
        if i % 2 == 0:
            model.weight(f"{block}shortconv.conv.weight", cache, WIDTH)
            model.weight(f"{block}shortconv.in_proj.weight", WIDTH, 3 * WIDTH)
            model.weight(f"{block}shortconv.out_proj.weight", WIDTH, WIDTH)
        else:
            model.ones(f"{block}attn_q_norm.weight", HEAD)
            model.ones(f"{block}attn_k_norm.weight", HEAD)
            _attention(model, block)
    model.close()
    return path


def ranking_model(path: Path, source: Path, *, context: int = 128) -> Path:
    """BERT with a head that gives one number for a query and a document."""
    return embedding_model(path, source, context=context, ranks=True)


def embedding_model(path: Path, source: Path, *, context: int = 128, ranks: bool = False) -> Path:
    """BERT: an encoder with mean pooling."""
    model = _Model(path, "bert", source, context=context, blocks=2)
    writer = model.writer
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if ranks else gguf.PoolingType.MEAN)
    writer.add_token_type_count(1)
    model.weight("token_embd.weight", WIDTH, model.vocabulary)
    model.weight("token_types.weight", WIDTH, 1)
    model.weight("position_embd.weight", WIDTH, context)
    _norm(model, "token_embd_norm")
    if ranks:
        model.weight("cls.weight", WIDTH, WIDTH)
        writer.add_tensor("cls.bias", np.zeros(WIDTH, np.float32))
        model.weight("cls.output.weight", WIDTH, 1)
        writer.add_tensor("cls.output.bias", np.zeros(1, np.float32))
    for i in range(model.blocks):
        block = f"blk.{i}."
        _attention(model, block)
        _norm(model, f"{block}attn_output_norm")
        _norm(model, f"{block}layer_output_norm")
        model.weight(f"{block}ffn_up.weight", WIDTH, FEED)
        model.weight(f"{block}ffn_down.weight", FEED, WIDTH)
    model.close()
    return path


def adapter(path: Path, *, seed: int, width: int = 256, rank: int = 8) -> Path:
    """A LoRA adapter for the first layer of the tiny chat model."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    random = np.random.default_rng(seed)
    for name in ("attn_v", "attn_output"):
        for half, shape in (("lora_a", (rank, width)), ("lora_b", (width, rank))):
            values = random.standard_normal(shape) * 0.3
            writer.add_tensor(f"blk.0.{name}.weight.{half}", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


MEMORY_KINDS: dict[str, Callable[[Path, Path], Path]] = {
    "sliding window": sliding_window_model,
    "recurrent": recurrent_model,
    "hybrid": hybrid_model,
}


def _attention(model: _Model, block: str) -> None:
    for name in ("attn_q", "attn_k", "attn_v"):
        model.weight(f"{block}{name}.weight", WIDTH, HEADS * HEAD)
    model.weight(f"{block}attn_output.weight", HEADS * HEAD, WIDTH)


def _feed_forward(model: _Model, block: str) -> None:
    model.weight(f"{block}ffn_gate.weight", WIDTH, FEED)
    model.weight(f"{block}ffn_up.weight", WIDTH, FEED)
    model.weight(f"{block}ffn_down.weight", FEED, WIDTH)


def _norm(model: _Model, name: str) -> None:
    model.ones(f"{name}.weight", WIDTH)
    model.writer.add_tensor(f"{name}.bias", np.zeros(WIDTH, np.float32))
