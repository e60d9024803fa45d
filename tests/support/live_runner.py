"""A real runner process for tests, and short ways to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
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
    AddVariant,
    DropVariant,
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
    Variant,
    VariantAdded,
    VariantRefused,
)

GREEDY = Options(temperature=0.0)


@dataclass
class LiveRunner:
    """A runner that is ready, or `failure` why it is not."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    """The other end of its stdin."""
    socket: Path
    progress: list[float]
    ready: Ready | None = None
    failure: LoadFailed | None = None

    def add_variant(self, variant: Variant) -> VariantAdded | VariantRefused:
        """Hand a variant over, its files as descriptors, and wait for what becomes of it."""
        files = [os.open(adapter.path, os.O_RDONLY) for adapter in variant.adapters]
        message = frame.pack(AddVariant(variant=variant))
        sent = socket.send_fds(self.control, [message], files)
        self.control.sendall(message[sent:])
        for fd in files:
            os.close(fd)
        assert self.process.stdout is not None
        body = frame.read_frame(self.process.stdout)
        assert body is not None, "the runner has ended"
        reply = frame.unpack(frame.STATUS, body)
        assert isinstance(reply, VariantAdded | VariantRefused)
        return reply

    def drop_variant(self, name: str) -> None:
        self.control.sendall(frame.pack(DropVariant(id=name)))

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[RunnerClient]:
        client = await RunnerClient.connect(self.socket)
        try:
            yield client
        finally:
            await client.aclose()


ON_PROCESSORS = {"flash_attention": "off", "n_ubatch": 128}
"""How the keeper loads most models there: see `LoadPlan.flash_attention`."""


@contextlib.contextmanager
def live_runner(model: Path, **settings: Any) -> Iterator[LiveRunner]:
    """A runner of ``model``; ``settings`` are fields of LoadSpec. Killed at the end if it still runs."""
    with tempfile.TemporaryDirectory(prefix="runner") as folder:
        path = Path(folder) / "socket"
        spec = LoadSpec(
            socket_path=str(path),
            weights=(str(model),),
            parent_pid=os.getpid(),
            **({} if settings.get("projector") else ON_PROCESSORS) | settings,
        )
        control, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "lading.runtime.runner"],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        runner = LiveRunner(process, control, path, [])
        try:
            _start(runner, spec)
            yield runner
        finally:
            process.kill()
            control.close()
            _, errors = process.communicate()
            print(errors.decode(errors="replace"), file=sys.stderr)  # shown with a test that fails


def _start(runner: LiveRunner, spec: LoadSpec) -> None:
    assert runner.process.stdout is not None
    runner.control.sendall(frame.pack(spec))
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
