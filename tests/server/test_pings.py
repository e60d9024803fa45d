"""Signs of life in a stream that is silent for long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from server_processes import runners

from lading.server.keep_alive_events import with_pings
from lading.server.streaming import Body, open_stream


async def chunks(*pauses: float, closed: list[bool] | None = None) -> AsyncGenerator[bytes, None]:
    try:
        for number, pause in enumerate(pauses):
            await asyncio.sleep(pause)
            yield b"%d" % number
    finally:
        if closed is not None:
            closed.append(True)


def collected(source: AsyncGenerator[bytes, None], silence_s: float) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [chunk async for chunk in with_pings(source, b"ping", silence_s=silence_s)]

    return asyncio.run(collect())


def test_a_lively_stream_is_as_it_was() -> None:
    assert collected(chunks(0, 0, 0), 5) == [b"0", b"1", b"2"]


def test_silence_is_filled_and_nothing_is_lost() -> None:
    got = collected(chunks(0, 0.5, 0), 0.1)
    assert [chunk for chunk in got if chunk != b"ping"] == [b"0", b"1", b"2"]
    assert got[1] == b"ping" and got.count(b"ping") >= 2


def test_what_goes_wrong_is_passed_on() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"0"
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        collected(broken(), 5)


def test_leaving_in_the_middle_of_silence_ends_the_waiting() -> None:
    closed: list[bool] = []

    async def leave() -> None:
        source = chunks(0, 60, closed=closed)
        stream = with_pings(source, b"ping", silence_s=0.05)
        async with contextlib.aclosing(stream):  # type: ignore[type-var]  # it is a generator
            async for chunk in stream:
                if chunk == b"ping":
                    break

    asyncio.run(asyncio.wait_for(leave(), 10))
    assert closed == [True]


def test_a_body_that_is_closed_in_silence_closes_what_makes_it() -> None:
    closed: list[bool] = []

    def encode(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        return with_pings(events, b"ping", silence_s=0.05)

    async def leave() -> None:
        opened = await open_stream(chunks(0, 60, closed=closed))
        body = Body(opened, encode, lambda problem: b"")
        async for chunk in body:
            if chunk == b"ping":
                break
        await body.close()

    asyncio.run(asyncio.wait_for(leave(), 10))
    assert closed == [True]


def test_silence_while_a_call_may_be_coming_is_filled_in_openais_dialect_too(server: LiveServer) -> None:
    tool = {"name": "f", "description": "", "parameters": {"type": "object"}}
    endless = {"model": "tiny", "stream": True, "options": {"logit_bias": {"1269": -100, "1271": -100}}}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {
            "messages": [{"role": "user", "content": "Count."}],
            "tools": [{"type": "function", "function": tool}],
            "max_tokens": 9000,
        },
        "/v1/responses": {
            "input": "Count.",
            "tools": [{"type": "function", **tool}],
            "max_output_tokens": 9000,
        },
    }
    with contextlib.ExitStack() as streams:
        opened = []
        for path, body in bodies.items():
            asked = httpx.stream("POST", server.url + path, json={**endless, **body}, timeout=60)
            lines = streams.enter_context(asked).iter_lines()
            assert next(lines).startswith(("data:", "event:"))
            opened.append(lines)
        [runner] = runners(server)
        runner.suspend()
        streams.callback(runner.resume)
        for lines in opened:
            assert ": ping" in lines
