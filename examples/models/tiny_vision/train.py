"""Train the tiny vision model: python train.py tiny-chat.gguf OUT_DIR.

The language model is the one that is published, and stays as it is; what is learnt is to put a picture into
embeddings that make it say the answer. Data are generated while training; every picture is new.
"""

import argparse
import random
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from eye import Eye, Shape
from pictures import draw, seen
from questions import Turn, conversation, single
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_chat"))
from facts import COUNTRIES, FIXED
from model import Shape as ChatShape
from model import TinyChat

PICTURE = -1  # a place that a picture's embeddings are put into
OTHER = [(phrasings[0], answer) for _, phrasings, answer in FIXED]
OTHER += [
    (f"What is the capital of {country}?", f"The capital of {country} is {city}.")
    for country, city, _ in COUNTRIES
]


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows from RoPE over adjacent pairs back to RoPE over halves (the reverse of tiny_chat's export.py)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def load_chat(path: Path) -> tuple[TinyChat, Tokenizer]:
    """The language model and its tokenizer, from the GGUF file."""
    reader = gguf.GGUFReader(path)
    shape = ChatShape()
    model = TinyChat(shape)
    weights = {}
    for tensor in reader.tensors:
        weight = tensor.data.astype(np.float32)
        if tensor.name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = halves(weight, shape.heads)
        weights[tensor.name] = torch.from_numpy(weight.copy())
    model.load_state_dict(weights)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    plain = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind == 1}
    tokenizer = Tokenizer(models.BPE(vocab=plain, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(token, special=kind == 3) for token, kind in zip(tokens, kinds, strict=True) if kind != 1]
    )
    assert [tokenizer.token_to_id(token) for token in tokens] == list(range(len(tokens)))
    return model.requires_grad_(False), tokenizer


def encode(tokenizer: Tokenizer, turns: list[Turn], patches: int) -> tuple[list[int], list[bool]]:
    """Tokens, with `PICTURE` where pictures are, and which of them are learnt."""
    tokens: list[int] = []
    learnt: list[bool] = []

    def add(ids: list[int], learn: bool) -> None:
        tokens.extend(ids)
        learnt.extend([learn] * len(ids))

    for turn in turns:
        add(tokenizer.encode("<|im_start|>user\n").ids, False)
        add([PICTURE] * (patches * len(turn.scenes)), False)
        add(tokenizer.encode(turn.question + "<|im_end|>\n<|im_start|>assistant\n").ids, False)
        add(tokenizer.encode(turn.answer + "<|im_end|>").ids, True)
        add(tokenizer.encode("\n").ids, False)
    return tokens, learnt


def batch(
    rng: random.Random, tokenizer: Tokenizer, patches: int, size: int, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens, which are learnt, pictures in the order of their places); a ``share`` of the batches has
    conversations of two turns, which are fewer."""
    long = rng.random() < share
    make = conversation if long else single
    talks = [make(rng, OTHER) for _ in range(size // 2 if long else size)]
    coded = [encode(tokenizer, talk, patches) for talk in talks]
    width = max(len(tokens) for tokens, _ in coded)
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in coded])
    learnt = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in coded])
    scenes = [scene for talk in talks for turn in talk for scene in turn.scenes]
    pictures = np.stack([np.asarray(seen(draw(rng, scene))) for scene in scenes])
    stacked = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return tokens, learnt, stacked


def logits_of(model: TinyChat, embeddings: Tensor, wanted: Tensor) -> Tensor:
    """As `TinyChat.forward`, from embeddings instead of tokens."""
    shape = model.shape
    half = shape.width // shape.heads // 2
    frequencies = shape.rope_base ** (-torch.arange(half) / half)
    angles = torch.outer(torch.arange(embeddings.shape[1]).float(), frequencies)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    x = embeddings
    for layer in model.blk:
        x = layer(x, cos, sin)
    x = model.output_norm(x).view(-1, shape.width)[wanted]
    return F.linear(x, model.token_embd.weight)


def loss_of(model: TinyChat, seen: Tensor, tokens: Tensor, learnt: Tensor) -> tuple[Tensor, float]:
    """Mean loss of the answers, and the share of their tokens that come first; ``seen`` are embeddings."""
    embeddings = model.token_embd(tokens.clamp(min=0))
    embeddings = embeddings.masked_scatter((tokens == PICTURE)[..., None], seen)
    follows = torch.zeros_like(learnt)
    follows[:, :-1] = learnt[:, 1:]
    wanted = torch.nonzero(follows.view(-1)).view(-1)
    with torch.autocast("cpu", torch.bfloat16):
        logits = logits_of(model, embeddings, wanted).float()
    targets = tokens.view(-1)[wanted + 1]
    return F.cross_entropy(logits, targets), (logits.argmax(1) == targets).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("chat", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--start", type=Path, help="a checkpoint to go on with")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    model, tokenizer = load_chat(options.chat)
    eye = Eye(Shape())
    if options.start:
        eye.load_state_dict(torch.load(options.start, weights_only=True))
    print(sum(weight.numel() for weight in eye.parameters()), "weights", flush=True)
    rng = random.Random(1)
    adam = torch.optim.AdamW(eye.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    average = {name: weight.detach().clone() for name, weight in eye.state_dict().items()}
    begun, shown, right = time.monotonic(), 0.0, 0.0
    for step in range(options.steps):
        share = 0.2 if step > options.steps // 4 else 0.0
        tokens, learnt, pictures = batch(rng, tokenizer, eye.shape.patches, options.size, share)
        loss, share = loss_of(model, eye(pictures), tokens, learnt)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(eye.parameters(), 1.0)
        rate = min(1.0, (step + 1) / 100, (options.steps - step) / (0.8 * options.steps))
        for group in adam.param_groups:
            group["lr"] = options.rate * rate
        adam.step()
        adam.zero_grad()
        keep = min(0.99, step / (step + 10))
        for name, weight in eye.state_dict().items():
            average[name].lerp_(weight.detach(), 1 - keep)
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        right = share if step == 0 else 0.95 * right + 0.05 * share
        if (step + 1) % 25 == 0:
            print(
                f"step {step + 1} loss {shown:.4f} right {right:.3f} {time.monotonic() - begun:.0f} s",
                flush=True,
            )
        if (step + 1) % 100 == 0:
            torch.save(average, options.out / "eye.pt")


if __name__ == "__main__":
    main()
