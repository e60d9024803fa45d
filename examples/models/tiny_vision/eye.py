"""The eye in PyTorch: a vision transformer and a projector, as llama.cpp's `clip` has them for llava."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = 0.5, 0.5


@dataclass(frozen=True)
class Shape:
    side: int = 48
    patch: int = 12
    width: int = 96
    heads: int = 4
    feed_forward: int = 192
    layers: int = 2
    hidden: int = 256  # of the projector
    output: int = 256  # width of the language model
    epsilon: float = 1e-5

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.heads = shape.heads
        self.ln1 = nn.LayerNorm(width, eps=shape.epsilon)
        self.attn_q = nn.Linear(width, width)
        self.attn_k = nn.Linear(width, width)
        self.attn_v = nn.Linear(width, width)
        self.attn_out = nn.Linear(width, width)
        self.ln2 = nn.LayerNorm(width, eps=shape.epsilon)
        self.ffn_up = nn.Linear(width, shape.feed_forward)
        self.ffn_down = nn.Linear(shape.feed_forward, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        h = self.ln1(x)
        q, k, v = (
            linear(h).view(batch, length, self.heads, -1).transpose(1, 2)
            for linear in (self.attn_q, self.attn_k, self.attn_v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        x = x + self.attn_out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.ffn_down(F.gelu(self.ffn_up(self.ln2(x)), approximate="tanh"))


class Eye(nn.Module):
    """Pictures of shape (batch, 3, side, side), 0 to 1, to (batch, patches, output)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embd = nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch)
        self.position_embd = nn.Parameter(torch.randn(shape.patches, shape.width) * 0.1)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.post_ln = nn.LayerNorm(shape.width, eps=shape.epsilon)
        self.mm_0 = nn.Linear(shape.width, shape.hidden)
        self.mm_2 = nn.Linear(shape.hidden, shape.output)

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.patch_embd((pictures - MEAN) / STD).flatten(2).transpose(1, 2) + self.position_embd
        for layer in self.blk:
            x = layer(x)
        result: Tensor = self.mm_2(F.gelu(self.mm_0(self.post_ln(x)), approximate="tanh"))
        return result
