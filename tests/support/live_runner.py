"""A real runner process for tests, and short ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lading.runtime import frame
from lading.runtime.client import RunnerClient, StreamEvent
from lading.runtime.options import Options
from lading.runtime.protocol import (
    End,
    Generate,
    LoadFailed,
    Loading,
    LoadSpec,
    Message,
    Ready,
    Text,
    Thinking,
    ToolCall,
)

GREEDY = Options(temperature=0.0)


@dataclass
class LiveRunner:
    """A runner that is ready, or `failure` why it is not."""

    process: subprocess.Popen[bytes]
    socket: Path
    progress: list[float]
    ready: Ready | None = None
    failure: LoadFailed | None = None

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RunnerClient]:
        client = await RunnerClient.connect(self.socket)
        try:
            yield client
        finally:
            await client.aclose()


@contextlib.contextmanager
def live_runner(model: Path, **settings: Any) -> Iterator[LiveRunner]:
    """A runner of ``model``; ``settings`` are fields of LoadSpec. Killed at the end if it still runs."""
    with tempfile.TemporaryDirectory(prefix="runner") as folder:
        path = Path(folder) / "socket"
        spec = LoadSpec(socket_path=str(path), weights=(str(model),), parent_pid=os.getpid(), **settings)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lading.runtime.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        runner = LiveRunner(process, path, [])
        try:
            _start(runner, spec)
            yield runner
        finally:
            process.kill()
            _, errors = process.communicate()
            print(errors.decode(errors="replace"), file=sys.stderr)  # shown with a test that fails


def _start(runner: LiveRunner, spec: LoadSpec) -> None:
    assert runner.process.stdin is not None and runner.process.stdout is not None
    runner.process.stdin.write(frame.pack(spec))
    runner.process.stdin.flush()
    while (body := frame.read_frame(runner.process.stdout)) is not None:
        message = frame.unpack(frame.STATUS, body)
        if isinstance(message, Loading):
            runner.progress.append(message.fraction)
        elif isinstance(message, Ready):
            runner.ready = message
            return
        else:
            runner.failure = message
            return


@dataclass
class Answer:
    """A whole answer, gathered from its events."""

    text: str
    thinking: str
    calls: list[ToolCall]
    end: End
    events: list[StreamEvent]


def chat(text: str, **fields: Any) -> Generate:
    """A request of one user message, greedy unless ``options`` says otherwise."""
    return Generate(id=0, messages=(Message("user", text),), **({"options": GREEDY} | fields))


def options(**fields: Any) -> Options:
    return msgspec.structs.replace(GREEDY, **fields)


async def ask(client: RunnerClient, request: Generate) -> Answer:
    events = [event async for event in client.generate(request)]
    end = events[-1]
    assert isinstance(end, End)
    return Answer(
        text="".join(event.text for event in events if isinstance(event, Text)),
        thinking="".join(event.text for event in events if isinstance(event, Thinking)),
        calls=[event for event in events if isinstance(event, ToolCall)],
        end=end,
        events=events,
    )


async def ask_all(client: RunnerClient, requests: list[Generate]) -> list[Answer]:
    return list(await asyncio.gather(*(ask(client, request) for request in requests)))
