"""Train the tiny chat model: python train.py OUT_DIR --stage 1, then the same with 2, 3 and 4.

Data are generated while training (every conversation is new); the loss is on what the assistant says.
Matrices are trained with Muon, the embedding and the norms with AdamW; a checkpoint holds the running average
of the weights.
"""

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from dialogue import check_held_out, segments
from model import Shape, TinyChat
from tokenizer import build
from tokenizers import Tokenizer
from tool_dialogue import conversation
from torch import Tensor

TOKENS_PER_STEP = 4096
POOL = 400  # conversations sorted by length at a time, so that little is padded


@dataclass(frozen=True)
class Stage:
    """Rates are the highest ones; `fall` is the share of the steps in which they go down to zero."""

    steps: int
    short_steps: int  # at the beginning, with conversations of at most 200 tokens
    muon: float
    adam: float
    drills: float
    fall: float
    seed: int
    copies: float  # share of bare copying exercises


STAGES = {
    1: Stage(steps=200, short_steps=200, muon=0.01, adam=0.003, drills=0.0, fall=0.0, seed=1, copies=0.9),
    2: Stage(steps=1500, short_steps=150, muon=0.008, adam=0.002, drills=0.2, fall=0.7, seed=2, copies=0.03),
    3: Stage(steps=500, short_steps=0, muon=0.005, adam=0.001, drills=0.2, fall=0.9, seed=3, copies=0.0),
    4: Stage(steps=450, short_steps=0, muon=0.004, adam=0.0008, drills=0.15, fall=1.0, seed=4, copies=0.0),
}


def copy(tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[bool]]:
    """Any tokens, and the same tokens again: what a model learns copying from soonest."""
    ids = [rng.randrange(256, tokenizer.get_vocab_size() - 11) for _ in range(rng.randint(4, 40))]
    head, middle, end = (
        tokenizer.encode(text).ids
        for text in ("<|im_start|>user\nRepeat: ", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n")
    )
    tokens = head + ids + middle + ids + end
    known = len(head) + len(ids) + len(middle)
    return tokens, [False] * known + [True] * (len(tokens) - known - 1) + [False]


def encode(tokenizer: Tokenizer, rng: random.Random, stage: Stage) -> tuple[list[int], list[bool]]:
    """Tokens of a new conversation and which of them are learnt; now and then its beginning is cut off."""
    if rng.random() < stage.copies:
        return copy(tokenizer, rng)
    tokens: list[int] = []
    learnt: list[bool] = []
    for text, learn in segments(conversation(rng, stage.drills)):
        ids = tokenizer.encode(text).ids
        tokens += ids
        learnt += [learn] * len(ids)
    if rng.random() < 0.02:
        cut = rng.randrange(len(tokens) // 2)
        return tokens[cut:], learnt[cut:]
    return tokens, learnt


Batch = tuple[Tensor, Tensor, Tensor]


def batches(tokenizer: Tokenizer, rng: random.Random, longest: int, stage: Stage) -> list[Batch]:
    """(tokens, flat positions with a learnt next token, those next tokens) of one pool, in random order."""
    pool = [pair for pair in (encode(tokenizer, rng, stage) for _ in range(POOL)) if len(pair[0]) <= longest]
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


def stream(tokenizer: Tokenizer, stage: Stage) -> Iterator[Batch]:
    """Batches for ever."""
    rng = random.Random(stage.seed)
    done = 0
    while True:
        for batch in batches(tokenizer, rng, 200 if done < stage.short_steps else 2047, stage):
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


def rate_at(step: int, stage: Stage) -> float:
    """Warm up in 60 steps, hold, fall to zero."""
    falling = (stage.steps - step) / (stage.fall * stage.steps) if stage.fall else 1.0
    return min(1.0, (step + 1) / 60, falling)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--stage", type=int, choices=sorted(STAGES), default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    check_held_out()
    stage = STAGES[options.stage]
    torch.manual_seed(stage.seed)
    torch.set_num_threads(options.threads)
    if options.stage == 1:
        build().save(str(options.out / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(options.out / "tokenizer.json"))
    model = TinyChat(Shape(vocabulary=tokenizer.get_vocab_size()))
    if options.stage > 1:
        model.load_state_dict(torch.load(options.out / "checkpoint.pt", weights_only=True))
    average = train(model, stream(tokenizer, stage), stage, options)
    torch.save(average, options.out / f"stage-{options.stage}.pt")


def train(
    model: TinyChat, data: Iterator[Batch], stage: Stage, options: argparse.Namespace
) -> dict[str, Tensor]:
    """Returns the running average of the weights."""
    parameters = dict(model.named_parameters())
    matrices = [weight for name, weight in parameters.items() if weight.dim() == 2 and "embd" not in name]
    others = [weight for name, weight in parameters.items() if weight.dim() != 2 or "embd" in name]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)
    average = {name: weight.detach().clone() for name, weight in parameters.items()}
    begun, seen, shown = time.monotonic(), 0, 0.0
    for step in range(stage.steps):
        tokens, wanted, targets = next(data)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(tokens, wanted)
        loss = F.cross_entropy(logits.float(), targets)
        loss.backward()
        rate = rate_at(step, stage)
        for group in adam.param_groups:
            group["lr"] = stage.adam * rate
        adam.step()
        adam.zero_grad()
        muon.step(stage.muon * rate, 0.01)
        keep = min(0.98, step / (step + 10))
        for name, weight in parameters.items():
            average[name].lerp_(weight.detach(), 1 - keep)
        seen += tokens.numel()
        shown = loss.item() if step == 0 else 0.95 * shown + 0.05 * loss.item()
        if not math.isfinite(shown):
            raise SystemExit("the loss is not finite")
        if (step + 1) % 20 == 0:
            spent = time.monotonic() - begun
            speed = f"{seen / spent:.0f}/s {spent:.0f}s"
            print(f"step {step + 1} loss {shown:.4f} tokens {seen} {speed}", flush=True)
        if (step + 1) % options.save_every == 0 or step + 1 == stage.steps:
            torch.save(average, options.out / "checkpoint.tmp")
            (options.out / "checkpoint.tmp").replace(options.out / "checkpoint.pt")
    return average


if __name__ == "__main__":
    main()
