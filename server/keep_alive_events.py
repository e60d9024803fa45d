"""Signs of life in a stream of events while a model is busy with something that is only sent whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

SILENCE_S = 15.0
"""Proxies and clients give up after 30 to 60 s without a byte."""
COMMENT = b": ping\n\n"
"""A line that readers of events skip. Source: the HTML standard, server-sent events."""


async def with_pings(
    chunks: AsyncIterator[bytes], ping: bytes, *, silence_s: float = SILENCE_S
) -> AsyncIterator[bytes]:
    """The chunks, and a ``ping`` for every ``silence_s`` seconds in which none comes."""
    waiting: asyncio.Task[bytes] | None = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(_next(chunks))
            done, _ = await asyncio.wait((waiting,), timeout=silence_s)
            if not done:
                yield ping
                continue
            finished, waiting = waiting, None
            try:
                chunk = finished.result()
            except _End:
                return
            yield chunk
    finally:
        if waiting is not None:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await waiting


class _End(Exception):
    """StopAsyncIteration cannot be the result of a task."""


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    try:
        return await anext(chunks)
    except StopAsyncIteration:
        raise _End from None
