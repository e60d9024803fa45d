"""Speed with a draft model and without, for draft models that are right more or less often.

    python benchmarks/drafting.py [--rounds 5] [--clients 1,4] [--threads 1] [--json FILE]

The model has random weights and 24 layers. Its draft model is a copy of the first two of them, and the others
add to what those two say: little of it, and the draft model is nearly always right, much, and it hardly ever
is. So the price of a guess is that of a real pair, a twelfth of a step, and its quality can be set. A draft
model with weights of its own is never right.

One runner serves both ways, in turns, with the same prompts: requests with ``draft_num_predict`` 0 are
answered without drafts. What is printed are medians of the rounds, and whether both ways said the same."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from lading.cli.benchmark import Words
from lading.modelfile.syntax import parse
from lading.oci.building.build import build
from lading.oci.reference import Reference
from lading.oci.store import Store
from lading.runtime.embedded import EmbeddedRuntime
from lading.runtime.inference import Done, GenerateRequest, Inference, Settings
from lading.runtime.protocol import Text
from lading.runtime.settings import RuntimeSettings

TINY_CHAT = Path(__file__).parents[1] / "examples" / "models" / "tiny-chat.gguf"
BLOCKS, DRAFTED_BLOCKS, WIDTH, HEAD, KV_WIDTH, FEED = 24, 2, 896, 64, 128, 4864
QUALITIES = {"always right": 0.0, "mostly right": 0.1, "sometimes right": 0.3, "never right": None}
"""How much the layers say that the draft model has not; None: the draft model is another one."""
_TOKENIZER = "tokenizer.ggml."


def write_model(path: Path, *, blocks: int, more: float, seed: int) -> None:
    """``more``: how much the layers after the draft model's add, 1 being as much as those."""
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = _copy_tokenizer(writer)
    writer.add_block_count(blocks)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(WIDTH // HEAD)
    writer.add_head_count_kv(KV_WIDTH // HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(HEAD)
    random = np.random.default_rng(seed)

    def weight(name: str, rows: int, width: int, scale: float = 1.0) -> None:
        data = random.standard_normal((rows, width), np.float32) * np.float32(0.04 * scale)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(data, kind), raw_dtype=kind)

    weight("token_embd", vocabulary, WIDTH)
    weight("output", vocabulary, WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for i in range(blocks):
        scale = 1.0 if i < DRAFTED_BLOCKS else more
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(WIDTH, np.float32))
        weight(f"blk.{i}.attn_q", WIDTH, WIDTH)
        weight(f"blk.{i}.attn_k", KV_WIDTH, WIDTH)
        weight(f"blk.{i}.attn_v", KV_WIDTH, WIDTH)
        weight(f"blk.{i}.attn_output", WIDTH, WIDTH, scale)
        weight(f"blk.{i}.ffn_gate", FEED, WIDTH)
        weight(f"blk.{i}.ffn_up", FEED, WIDTH)
        weight(f"blk.{i}.ffn_down", WIDTH, FEED, scale)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_tokenizer(writer: gguf.GGUFWriter) -> int:
    """That of the tiny chat model. Returns the number of tokens."""
    size = 0
    for name, field in gguf.GGUFReader(TINY_CHAT).fields.items():
        if not name.startswith(_TOKENIZER):
            continue
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, value, gguf.GGUFValueType.ARRAY, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, value, field.types[0])
        if name == _TOKENIZER + "tokens":
            size = len(value)
    return size


@dataclass(frozen=True, slots=True)
class Sample:
    """One way of answering, once."""

    texts: tuple[str, ...]
    tokens_per_s: float
    drafted: int
    accepted: int
    tokens: int


async def answer(inference: Inference, prompts: list[str], options: dict[str, Any]) -> Sample:
    async def ask(prompt: str) -> tuple[str, Done]:
        request = GenerateRequest(model="pair", prompt=prompt, raw=True, settings=Settings(options=options))
        text = ""
        async for event in inference.generate(request):
            if isinstance(event, Text):
                text += event.text
            elif isinstance(event, Done):
                return text, event
        raise AssertionError("no end")

    started = time.perf_counter()
    answers = await asyncio.gather(*(ask(prompt) for prompt in prompts))
    seconds = time.perf_counter() - started
    usages = [done.usage for _, done in answers]
    tokens = sum(usage.eval_tokens for usage in usages)
    return Sample(
        tuple(text for text, _ in answers),
        tokens / seconds,
        sum(usage.drafted_tokens for usage in usages),
        sum(usage.accepted_tokens for usage in usages),
        tokens,
    )


async def compare(store: Path, clients: int, rounds: int, tokens: int, threads: int) -> dict[str, Any]:
    words, ratios, plain_speeds = Words(7), [], []
    drafted = accepted = generated = 0  # in rounds that count
    same = True
    options = {"temperature": 0, "num_predict": tokens, "num_ctx": 1024, "num_thread": threads}
    options["logit_bias"] = {str(token): -100 for token in (1269, 1271)}  # an answer goes on
    async with EmbeddedRuntime(store, RuntimeSettings(num_parallel=max(clients, 1))) as runtime:
        for turn in range(-1, rounds):  # the first is not counted
            prompts = [words.text(12) for _ in range(clients)]
            ways = {}
            for way in (4, 0) if turn % 2 else (0, 4):
                chosen = {**options, "draft_num_predict": way} if way == 0 else options
                ways[way] = await answer(runtime.inference, prompts, chosen)
            same &= ways[0].texts == ways[4].texts
            if turn >= 0:
                ratios.append(ways[4].tokens_per_s / ways[0].tokens_per_s)
                plain_speeds.append(ways[0].tokens_per_s)
                drafted += ways[4].drafted
                accepted += ways[4].accepted
                generated += ways[4].tokens
    return {
        "tokens_per_s_without": round(statistics.median(plain_speeds), 1),
        "with_to_without": round(statistics.median(ratios), 2),
        "drafted_per_token": round(drafted / generated, 2),
        "steps_per_token": round(1 - accepted / generated, 2),
        "same_answers": same,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", default="1,4", help="at once, several numbers")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--threads", type=int, default=1, help="of llama.cpp")
    parser.add_argument("--json", type=Path, help="where to write the figures, too")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="drafting-") as folder:
        files = Path(folder)
        for quality, more in QUALITIES.items():
            write_model(files / "model.gguf", blocks=BLOCKS, more=more or 0.0, seed=1)
            write_model(files / "draft.gguf", blocks=DRAFTED_BLOCKS, more=0.0, seed=2 if more is None else 1)
            root = files / quality
            store = Store.open(root)
            modelfile = parse("FROM model.gguf\nDRAFT draft.gguf\n")
            build(
                modelfile, context=files, store=store, reference=Reference.parse("pair"), base=store.resolve
            )
            for clients in map(int, options.clients.split(",")):
                figures = asyncio.run(compare(root, clients, options.rounds, options.tokens, options.threads))
                results.append({"draft_model": quality, "clients": clients, **figures})
                print(json.dumps(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    if not all(result["same_answers"] for result in results):
        sys.exit("answers differ")


if __name__ == "__main__":
    main()
