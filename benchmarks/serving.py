"""Serving speed against other servers, in the same run: latencies, throughput, prefix reuse, memory.

    python benchmarks/serving.py --lading --llama-server PATH [--model FILE.gguf] [--rounds 5] [--json FILE]
    python benchmarks/serving.py --lading --peer other=http://127.0.0.1:8080

`--lading` and `--llama-server` start servers of the same file with the same threads, slots and context per
slot; `--peer` takes any server that speaks OpenAI's chat completions. Within a round every workload meets
all servers, one after the other, each round in another order and with prompts of its own, the same for all;
medians of the rounds are printed, with the processor time of servers started here, which noise from other
processes changes less. Without `--model` the model of make_model.py is used. `cold` and `restart` stop and
start servers, so they leave out those that run elsewhere. `--pooled` says that the model embeds; then
embeddings are measured, and nothing else, by default with the model of make_embedding_model.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import make_embedding_model
import make_model
from serving_peers import LadingServer, LlamaServer, Peer, RemoteServer, Setup

from lading.cli.benchmark import (
    Figures,
    Question,
    Words,
    intrusion,
    long_prompt,
    many_streams,
    medians,
    schema_output,
    shared_prefix,
    single_stream,
)
from lading.cli.benchmark_http import PeerFailure
from lading.modelfile.errors import LadingError

Workload = Callable[[Peer, Words], Awaitable[Figures]]

LONG_PROMPT = 1900
"""Words; a few more tokens."""
_SAVED_AFTER_S = 2.0
"""Lading writes prefixes to disk when it has been idle for half a second."""


async def cold(peer: Peer, words: Words) -> Figures:
    """From the start of the server's process to the first token of a short prompt: the model is loaded."""
    peer.stop()
    began = time.perf_counter()
    peer.start()
    await peer.speaker.ask(Question(text=words.text(32), max_tokens=1))
    return {"first_token_s": time.perf_counter() - began}


async def restart(peer: Peer, words: Words) -> Figures:
    """A long prompt, and the same after the server was stopped and has loaded the model again."""
    question = Question(text=words.text(LONG_PROMPT), max_tokens=1)
    before = await peer.speaker.ask(question)
    await asyncio.sleep(_SAVED_AFTER_S)
    peer.stop()
    peer.start()
    await peer.speaker.ask(Question(text=words.text(32), max_tokens=1))
    after = await peer.speaker.ask(question)
    return {
        "known_ttft_s": after.ttft_s,
        "cold_ttft_s": before.ttft_s,
        "known_to_cold": after.ttft_s / before.ttft_s,
    }


async def embeddings(peer: Peer, words: Words, *, texts: int = 64, count: int = 64) -> Figures:
    """Several texts in one request."""
    body = {"model": peer.speaker.model, "input": [words.text(count) for _ in range(texts)]}
    began = time.perf_counter()
    answer = await peer.speaker.call("POST", "/v1/embeddings", body)
    wall = time.perf_counter() - began
    if len(answer["data"]) != texts:
        raise PeerFailure(f"embedding: expected {texts} vectors, got {len(answer['data'])}")
    return {"texts_per_s": texts / wall}


RESTARTS: dict[str, Workload] = {"cold": cold, "restart": restart}
POOLED: dict[str, Workload] = {"embeddings": embeddings}
WORKLOADS: dict[str, Workload] = {
    "single": lambda peer, words: single_stream(peer.speaker, words),
    "clients-8": lambda peer, words: many_streams(peer.speaker, words, clients=8),
    "clients-16": lambda peer, words: many_streams(peer.speaker, words, clients=16),
    "shared-prefix": lambda peer, words: shared_prefix(peer.speaker, words),
    "intrusion": lambda peer, words: intrusion(peer.speaker, words),
    "schema": lambda peer, words: schema_output(peer.speaker, words),
    "prompt": lambda peer, words: long_prompt(peer.speaker, words),
    **RESTARTS,
    **POOLED,
}
HEADLINE = {
    "single": ("tokens_per_s", "tokens/s"),
    "clients-8": ("tokens_per_s", "tokens/s"),
    "clients-16": ("tokens_per_s", "tokens/s"),
    "shared-prefix": ("wall_s", "s"),
    "intrusion": ("worst_gap_s", "s"),
    "schema": ("tokens_per_s", "tokens/s"),
    "prompt": ("prompt_tokens_per_s", "tokens/s"),
    "cold": ("first_token_s", "s"),
    "restart": ("known_ttft_s", "s"),
    "embeddings": ("texts_per_s", "texts/s"),
}


async def measure(
    peers: list[Peer], names: list[str], rounds: int, seed: int
) -> dict[str, dict[str, Figures]]:
    """Medians: workload → peer → figure."""
    for peer in peers:
        # Loads, maps and warms.
        await WORKLOADS["embeddings" if set(names) <= set(POOLED) else "single"](peer, Words(seed))
    samples: dict[str, dict[str, list[Figures]]] = {name: {peer.name: [] for peer in peers} for name in names}
    for turn in range(rounds):
        for index, name in enumerate(names):
            order = peers if (turn + index) % 2 == 0 else peers[::-1]
            for peer in order:
                if name in RESTARTS and isinstance(peer, RemoteServer):
                    continue
                words = Words(seed + 1 + turn * 1000 + index)
                before = peer.cpu_s()
                figures = await WORKLOADS[name](peer, words)
                if before is not None and name not in RESTARTS:
                    figures["cpu_s"] = (peer.cpu_s() or 0.0) - before
                samples[name][peer.name].append(figures)
                shown = "  ".join(f"{key} {value:.3f}" for key, value in figures.items())
                print(f"{turn + 1}/{rounds} {name:14} {peer.name:14} {shown}", file=sys.stderr, flush=True)
    return {
        name: {peer: medians(found) for peer, found in by_peer.items() if found}
        for name, by_peer in samples.items()
    }


def print_table(results: dict[str, dict[str, Figures]], peers: list[str]) -> None:
    print(f"{'workload':16}{'figure':18}" + "".join(f"{peer:>16}" for peer in peers) + f"{'ratio':>9}")
    for name, by_peer in results.items():
        for key in next(iter(by_peer.values()), {}):
            values = [by_peer.get(peer, {}).get(key, 0.0) for peer in peers]
            ratio = f"{values[0] / values[1]:>9.2f}" if len(values) > 1 and values[1] else ""
            mark = "*" if key == HEADLINE[name][0] else " "
            print(f"{name:16}{mark}{key:17}" + "".join(f"{value:>16.3f}" for value in values) + ratio)


@contextlib.contextmanager
def started(options: argparse.Namespace) -> Iterator[list[Peer]]:
    """All servers; those that were started here end with the block."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="serving-")))
        maker = make_embedding_model if options.pooled else make_model
        setup = Setup(
            model=options.model or maker.model(make_model.default_folder()),
            folder=folder,
            slots=options.slots,
            context=options.context,
            threads=options.threads,
            pooled=options.pooled,
        )
        peers: list[Peer] = []
        if options.lading:
            lading = LadingServer(setup)
            setup = replace(setup, model=lading.weights)  # the same file for all
            peers.append(lading)
        if options.llama_server:
            own = options.own_libraries
            peer = LlamaServer(
                setup, program=options.llama_server, options=options.llama_server_option, own_libraries=own
            )
            peers.append(peer)
        peers += [RemoteServer(*text.partition("=")[::2]) for text in options.peer]
        if not peers:
            sys.exit("nothing to measure: give --lading, --llama-server PATH or --peer NAME=URL")
        for peer in peers:
            stack.callback(peer.stop)
            peer.start()
        yield peers


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lading", action="store_true", help="start `lading serve` of this Python")
    parser.add_argument("--llama-server", type=Path, metavar="PATH", help="start llama.cpp's server")
    parser.add_argument(
        "--llama-server-option", action="append", default=[], metavar="OPTION", help="passed on to it"
    )
    parser.add_argument(
        "--own-libraries",
        action="store_true",
        help="let llama-server use its own build of llama.cpp, not that of llama-cpp-python",
    )
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL[#MODEL]")
    parser.add_argument("--model", type=Path, help="GGUF file of the servers that are started")
    parser.add_argument("--pooled", action="store_true", help="the model embeds")
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--context", type=int, default=4096, help="tokens of context of one slot")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help=f"some of: {', '.join(WORKLOADS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there as well")
    return parser


def main() -> None:
    options = arguments().parse_args()
    usual = [name for name in WORKLOADS if (name in POOLED) == options.pooled]
    names = options.only.split(",") if options.only else usual
    if unknown := [name for name in names if name not in WORKLOADS]:
        sys.exit(f"unknown workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    with started(options) as peers:
        try:
            results = asyncio.run(measure(peers, names, options.rounds, options.seed))
        except (LadingError, OSError, ExceptionGroup) as error:
            inner = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            sys.exit(f"{inner}")
        print_table(results, [peer.name for peer in peers])
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
