"""Train the tiny chat model: python train.py OUT_DIR [--steps N]. About half an hour on two CPU cores.

Data are generated while training (every conversation is new); the loss is on what the assistant says.
Matrices are trained with Muon, the embedding and the norms with AdamW; checkpoints hold the average of
the weights.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from dialogue import check_held_out, segments
from model import Shape, TinyChat
from tokenizer import build
from tokenizers import Tokenizer
from tool_dialogue import conversation
from torch import Tensor

TOKENS_PER_STEP = 6144
POOL = 400  # conversations sorted by length at a time, so that little is padded


def encode(tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[bool]]:
    """Tokens of a new conversation and which of them are learnt; now and then its beginning is cut off."""
    tokens: list[int] = []
    learnt: list[bool] = []
    for text, learn in segments(conversation(rng)):
        ids = tokenizer.encode(text).ids
        tokens += ids
        learnt += [learn] * len(ids)
    if rng.random() < 0.02:
        cut = rng.randrange(len(tokens) // 2)
        return tokens[cut:], learnt[cut:]
    return tokens, learnt


def batches(tokenizer: Tokenizer, rng: random.Random, longest: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(tokens, flat positions with a learnt next token, those next tokens) of one pool, in random order."""
    pool = [pair for pair in (encode(tokenizer, rng) for _ in range(POOL)) if len(pair[0]) <= longest]
    pool.sort(key=lambda pair: len(pair[0]))
    groups: list[list[tuple[list[int], list[bool]]]] = [[]]
    for pair in pool:
        if groups[-1] and (len(groups[-1]) + 1) * len(pair[0]) > TOKENS_PER_STEP:
            groups.append([])
        groups[-1].append(pair)
    rng.shuffle(groups)
    result = []
    for group in groups:
        width = max(len(tokens) for tokens, _ in group)
        tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
        learnt = torch.tensor([flags + [False] * (width - len(flags)) for _, flags in group])
        follows = torch.zeros_like(learnt)
        follows[:, :-1] = learnt[:, 1:]
        wanted = torch.nonzero(follows.view(-1)).view(-1)
        result.append((tokens, wanted, tokens.view(-1)[wanted + 1]))
    return result


def stream(tokenizer: Tokenizer, seed: int, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches for ever; short conversations only in the first tenth."""
    rng = random.Random(seed)
    done = 0
    while True:
        for batch in batches(tokenizer, rng, 200 if done < steps / 10 else 2047):
            done += 1
            yield batch


class Muon:
    """Momentum, orthogonalised by Newton-Schulz steps (Keller Jordan's); matrices of one shape together."""

    def __init__(self, weights: list[Tensor], momentum: float = 0.95) -> None:
        self.groups: dict[torch.Size, list[Tensor]] = {}
        for weight in weights:
            self.groups.setdefault(weight.shape, []).append(weight)
        self.velocity = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}
        self.momentum = momentum

    @torch.no_grad()
    def step(self, rate: float, decay: float) -> None:
        for shape, group in self.groups.items():
            gradient = torch.stack([weight.grad for weight in group if weight.grad is not None])
            velocity = self.velocity[shape]
            velocity.lerp_(gradient, 1 - self.momentum)
            update = orthogonal(gradient.lerp(velocity, self.momentum)) * max(1, shape[0] / shape[1]) ** 0.5
            for weight, change in zip(group, update, strict=True):
                weight.mul_(1 - rate * decay).add_(change, alpha=-rate)
                weight.grad = None


def orthogonal(x: Tensor, steps: int = 5) -> Tensor:
    tall = x.shape[1] > x.shape[2]
    x = (x.mT if tall else x).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).float()


def rate_at(step: int, steps: int) -> float:
    """Warm up, hold, and in the last 45 % go down to zero."""
    return min(1.0, (step + 1) / 60, max(0.0, (steps - step) / (0.45 * steps)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    check_held_out()
    torch.manual_seed(options.seed)
    torch.set_num_threads(2)
    tokenizer = build()
    tokenizer.save(str(options.out / "tokenizer.json"))
    model = TinyChat(Shape(vocabulary=tokenizer.get_vocab_size()))
    train(model, stream(tokenizer, options.seed, options.steps), options)


def train(
    model: TinyChat, data: Iterator[tuple[Tensor, Tensor, Tensor]], options: argparse.Namespace
) -> None:
    parameters = dict(model.named_parameters())
    matrices = [weight for name, weight in parameters.items() if weight.dim() == 2 and "embd" not in name]
    others = [weight for name, weight in parameters.items() if weight.dim() != 2 or "embd" in name]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    average = {name: weight.detach().clone() for name, weight in parameters.items()}
    begun, seen, shown = time.monotonic(), 0, 0.0
    for step in range(options.steps):
        tokens, wanted, targets = next(data)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens, wanted)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        rate = rate_at(step, options.steps)
        for group in adam.param_groups:
            group["lr"] = 0.003 * rate
        adam.step()
        adam.zero_grad()
        muon.step(0.02 * rate, 0.01)
        keep = min(0.98, step / (step + 10))
        for name, weight in parameters.items():
            average[name].lerp_(weight.detach(), 1 - keep)
        seen += tokens.numel()
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        if not math.isfinite(shown):
            raise SystemExit("the loss is not finite")
        if (step + 1) % 20 == 0:
            spent = time.monotonic() - begun
            print(
                f"step {step + 1} loss {shown:.4f} tokens {seen} {seen / spent:.0f}/s {spent:.0f}s",
                flush=True,
            )
        if (step + 1) % options.save_every == 0 or step + 1 == options.steps:
            torch.save(average, options.out / "checkpoint.tmp")
            (options.out / "checkpoint.tmp").replace(options.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
