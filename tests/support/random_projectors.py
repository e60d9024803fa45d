"""Tiny projectors with random weights, one for each way of putting images among tokens, and models for them.

What they make of a picture means nothing, but it is always the same, and another for another picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
from random_models import WIDTH, multimodal_rope_model, sliding_window_model

_SIDE, _PATCH, _INNER, _HEADS, _FEED, _LAYERS = 64, 8, 32, 2, 48, 1


class _Projector:
    def __init__(self, path: Path, kind: str) -> None:
        self.writer = gguf.GGUFWriter(path, "clip")
        self._random = np.random.default_rng(11)
        writer = self.writer
        writer.add_type("mmproj")
        writer.add_clip_has_vision_encoder(True)
        writer.add_clip_projector_type(kind)
        writer.add_vision_image_size(_SIDE)
        writer.add_vision_patch_size(_PATCH)
        writer.add_vision_embedding_length(_INNER)
        writer.add_vision_feed_forward_length(_FEED)
        writer.add_vision_block_count(_LAYERS)
        writer.add_vision_head_count(_HEADS)
        writer.add_vision_projection_dim(WIDTH)
        writer.add_vision_attention_layernorm_eps(1e-5)
        writer.add_vision_image_mean([0.5] * 3)
        writer.add_vision_image_std([0.5] * 3)
        writer.add_vision_use_gelu(True)

    def weight(self, name: str, *shape: int, scale: float = 0.3) -> None:
        """``shape`` as llama.cpp writes it: the width of a row first."""
        values = self._random.standard_normal(shape[::-1]) * scale
        self.writer.add_tensor(name, values.astype(np.float32))

    def linear(self, name: str, width: int, height: int, *, scale: float = 0.3) -> None:
        self.weight(f"{name}.weight", width, height, scale=scale)
        self.weight(f"{name}.bias", height)

    def norm(self, name: str) -> None:
        self.writer.add_tensor(f"{name}.weight", np.ones(_INNER, np.float32))
        self.writer.add_tensor(f"{name}.bias", np.zeros(_INNER, np.float32))

    def layers(self) -> None:
        for i in range(_LAYERS):
            block = f"v.blk.{i}."
            for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
                self.linear(block + name, _INNER, _INNER)
            self.linear(f"{block}ffn_up", _INNER, _FEED)
            self.linear(f"{block}ffn_down", _FEED, _INNER)
            self.norm(f"{block}ln1")
            self.norm(f"{block}ln2")
        self.norm("v.post_ln")

    def close(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


def non_causal_projector(path: Path) -> Path:
    """Gemma 3's: the cells of an image look at each other in both directions."""
    made = _Projector(path, "gemma3")
    made.writer.add_uint32("clip.vision.projector.scale_factor", 2)
    made.weight("v.patch_embd.weight", _PATCH, _PATCH, 3, _INNER, scale=0.1)
    made.weight("v.patch_embd.bias", _INNER)
    made.weight("v.position_embd.weight", _INNER, (_SIDE // _PATCH) ** 2)
    made.layers()
    made.weight("mm.input_projection.weight", WIDTH, _INNER, scale=1.0)
    made.writer.add_tensor("mm.soft_emb_norm.weight", np.ones(_INNER, np.float32))
    made.close()
    return path


def multimodal_rope_projector(path: Path) -> Path:
    """Qwen2-VL's: a cell has a row and a column, and an image takes up fewer positions than it has cells."""
    made = _Projector(path, "qwen2vl_merger")
    for suffix in ("", ".1"):
        made.weight(f"v.patch_embd.weight{suffix}", _PATCH, _PATCH, 3, _INNER, scale=0.1)
    made.layers()
    made.linear("mm.0", 4 * _INNER, 4 * _INNER)
    made.linear("mm.2", 4 * _INNER, WIDTH)
    made.close()
    return path


IMAGE_KINDS: dict[str, tuple[Callable[[Path, Path], Path], Callable[[Path], Path]]] = {
    "non-causal": (sliding_window_model, non_causal_projector),
    "multimodal rope": (multimodal_rope_model, multimodal_rope_projector),
}
"""Makers of a model and of its projector."""
