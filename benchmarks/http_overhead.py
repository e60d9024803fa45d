"""What HTTP adds to the time to the first token: `lading serve` against its engine, with 1 and 32 clients.

    python benchmarks/http_overhead.py [--repeats 200] [--clients 1,32] [--json]

The same question, its prompt known already, once over `/v1/chat/completions` and once on the runner's socket,
in turns; the model is the tiny one, whose own time is short. The difference of the medians and of the 99th
percentiles is what the web worker, the keeper's grant and the way there and back cost. A client has a
connection of its own to the runner, and a new one to the web server each time.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from live_server import build_model, running_server

from lading.cli.benchmark import Question
from lading.cli.benchmark_http import HttpSpeaker
from lading.runtime.client import RunnerClient
from lading.runtime.grant import Acquire
from lading.runtime.options import Options
from lading.runtime.protocol import Generate, Message, Text
from lading.server.keeper.client import KeeperClient

QUESTION = "What is the capital of France?"
TOKENS = 8

Ask = Callable[[], Awaitable[float]]
"""Seconds to the first token of one answer."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, metavar="N", help="of each way, in all")
    parser.add_argument("--clients", default="1,32", metavar="N,…")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    counts = [int(text) for text in options.clients.split(",")]
    with tempfile.TemporaryDirectory(prefix="lading-") as folder:
        build_model(Path(folder) / "home", "tiny")
        runtime = {"num_parallel": max(counts)}
        with running_server(Path(folder) / "home", Path(folder), access_log=False, runtime=runtime) as server:
            keeper = keeper_socket(server.process.pid)
            figures = {
                count: asyncio.run(measure(server.url, keeper, count, options.repeats)) for count in counts
            }
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{'clients':>8}{'':>10}{'engine':>10}{'HTTP':>10}{'above it':>10}   milliseconds")
    for count, row in figures.items():
        for name, (engine, http) in row.items():
            print(f"{count:>8}{name:>10}{engine:10.2f}{http:10.2f}{http - engine:10.2f}")
    return 0


def keeper_socket(master: int) -> Path:
    """Where the keeper of a running server listens."""
    for process in psutil.Process(master).children(recursive=True):
        for connection in process.net_connections(kind="unix"):
            if str(connection.laddr).endswith("/keeper.sock"):
                return Path(str(connection.laddr))
    raise RuntimeError("the server has no keeper")


async def measure(url: str, keeper: Path, clients: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds, of the engine alone and over HTTP, by percentile."""
    grant = await KeeperClient(keeper).acquire(Acquire(model="tiny", keep_alive=float("inf")))
    runners = [await RunnerClient.connect(Path(grant.socket_path)) for _ in range(clients)]
    speaker = HttpSpeaker(url=url, model="tiny", fields={"temperature": 0, "reasoning_effort": "none"})
    ways: tuple[list[Ask], list[Ask]] = (
        [functools.partial(ask_runner, runner) for runner in runners],
        [functools.partial(ask_http, speaker)] * clients,
    )
    times: tuple[list[float], list[float]] = ([], [])
    try:
        for number in range(-(-repeats // clients) + 1):
            for way, found in zip(ways, times, strict=True):
                seconds = await asyncio.gather(*(ask() for ask in way))
                if number:  # the first round makes the prompt known
                    found += seconds
    finally:
        for runner in runners:
            await runner.aclose()
    return {
        name: (percentile(times[0], percent) * 1e3, percentile(times[1], percent) * 1e3)
        for name, percent in (("p50", 50), ("p99", 99))
    }


async def ask_runner(runner: RunnerClient) -> float:
    request = Generate(
        id=0,
        messages=(Message("user", QUESTION),),
        think=False,
        options=Options(temperature=0.0, num_predict=TOKENS),
    )
    started, first = time.perf_counter(), 0.0
    async for event in runner.generate(request):
        if isinstance(event, Text) and not first:
            first = time.perf_counter()
    return first - started


async def ask_http(speaker: HttpSpeaker) -> float:
    return (await speaker.ask(Question(text=QUESTION, max_tokens=TOKENS))).ttft_s


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


if __name__ == "__main__":
    sys.exit(main())
