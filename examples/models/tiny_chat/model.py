"""The network in PyTorch: a llama of three layers. `Shape` is what the GGUF metadata must say."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 1280
    width: int = 256
    layers: int = 3
    heads: int = 4
    feed_forward: int = 512
    context: int = 2048
    rope_base: float = 500000.0  # high, so that much of a head does not turn and can match what tokens are
    epsilon: float = 1e-5


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, inner = shape.width, shape.feed_forward
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=shape.epsilon)
        self.ffn_gate = nn.Linear(width, inner, bias=False)
        self.ffn_up = nn.Linear(width, inner, bias=False)
        self.ffn_down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        h = self.attn_norm(x)
        q, k, v = (
            linear(h).view(batch, length, self.heads, -1).transpose(1, 2)
            for linear in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, width))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE over halves (as Hugging Face does); export.py reorders the rows to llama.cpp's adjacent pairs."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class TinyChat(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocabulary, shape.width)
        self.blk = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02 if "embd" in name else weight.shape[1] ** -0.5 / 2)
            if "attn_output" in name or "ffn_down" in name:
                nn.init.zeros_(weight)

        wire(self)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Logits at the flat positions `wanted`."""
        half = self.shape.width // self.shape.heads // 2
        frequencies = self.shape.rope_base ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(tokens.shape[1]).float(), frequencies)
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        x = self.token_embd(tokens)
        for layer in self.blk:
            x = layer(x, cos, sin)
        x = self.output_norm(x).view(-1, self.shape.width)[wanted]
        return F.linear(x, self.token_embd.weight)


@torch.no_grad()
def wire(model: TinyChat) -> None:
    """Start with a copying circuit, which so small a model is slow to find.

    The first head of layer 0 looks at the token before and notes what it is; the first head of layer 1 looks
    for where the current token was noted as the one before, and says the token found there. Training changes
    all of it freely.
    """
    shape = model.shape
    size = shape.width // shape.heads
    half = size // 2
    note = slice(shape.width - half, shape.width)
    frequencies = shape.rope_base ** (-torch.arange(half) / half)
    # A direction that all tokens share, for attention by position alone.
    model.token_embd.weight[:, 0] = 0.1
    model.token_embd.weight[:, note] *= 0.2
    first, second = model.blk[0], model.blk[1]
    for layer in (first, second):
        for linear in (layer.attn_q, layer.attn_k, layer.attn_v):
            linear.weight[:size] *= 0.1
    fast = half // 4
    first.attn_q.weight[:fast, 0] = 1.6
    first.attn_k.weight[:fast, 0] = 1.6 * frequencies[:fast].cos()
    first.attn_k.weight[half : half + fast, 0] = 1.6 * frequencies[:fast].sin()
    # What a token is, in as many numbers as a head has that hardly turn with the position.
    identity = torch.randn(half, shape.width) / shape.width**0.5
    identity[:, 0] = 0
    identity[:, note] = 0
    first.attn_v.weight[:half] = identity
    first.attn_output.weight[note, :half] = torch.eye(half) * 0.05
    slow = [*range(half // 2, half), *range(half + half // 2, size)]
    second.attn_q.weight[slow] = identity * 1.5
    second.attn_k.weight[slow, note.start : note.stop] = torch.eye(half) * 1.5
    said = torch.linalg.qr(torch.randn(shape.width, size))[0].T
    said[:, 0] = 0
    second.attn_v.weight[:size] = said
    second.attn_output.weight[:, :size] = said.T * 0.05
