"""From the runtime's events to a response's bytes, whatever the dialect.

A stream is *opened* before the response starts: its first event is awaited, so that whatever fails before
the first token (no such model, a bad template, a full queue) still gets its proper status.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from ..modelfile.errors import InternalError, LadingError
from ..runtime.inference import Done, InferenceEvent
from .errors import INTERNAL, Problem, TookTooLong, problem_of
from .guard import Scope, elapsed_s, facts_of, left_s, note

log = logging.getLogger("lading.server")

_A = TypeVar("_A")
_E = TypeVar("_E")


class Opened(Generic[_E]):
    """A stream whose first event is here. Close it with `aclose`; that cancels what makes the events."""

    def __init__(self, first: _E, rest: AsyncGenerator[_E, None]) -> None:
        self._first = first
        self._rest = rest

    async def events(self) -> AsyncIterator[_E]:
        """All events; to be iterated once."""
        yield self._first
        async for event in self._rest:
            yield event

    async def aclose(self) -> None:
        await self._rest.aclose()


async def open_stream(events: AsyncGenerator[_E, None]) -> Opened[_E]:
    """Await the first event. Raises what the stream raises; it is closed then."""
    try:
        return Opened(await anext(events), events)
    except StopAsyncIteration:
        raise InternalError("generating: expected events, got none") from None
    except BaseException:
        await events.aclose()
        raise


async def gathered(opened: Opened[_E], gather: Callable[[AsyncIterator[_E]], Awaitable[_A]]) -> _A:
    """An answer that is not streamed. The stream is closed however this ends, by the client's leaving too."""
    async with contextlib.aclosing(opened):
        return await gather(opened.events())


async def noted(
    events: AsyncGenerator[InferenceEvent, None], scope: Scope
) -> AsyncGenerator[InferenceEvent, None]:
    """The same events; the time of the first and the counters of the last go to the access log. Of several
    answers to one request, the counters add up.

    Raises: TookTooLong where the last has not come in time; what makes the events has been told to stop.
    """
    try:
        async for event in _in_time(events, left_s(scope)):
            if isinstance(event, Done):
                _add_counters(scope, event)
            elif "ttft_ms" not in facts_of(scope):
                note(scope, ttft_ms=round(elapsed_s(scope) * 1000, 3))
            yield event
    finally:
        await events.aclose()


async def in_time(answer: Awaitable[_A], scope: Scope) -> _A:
    """An answer of a model that comes whole. Raises what it raises; TookTooLong: it has been given up."""
    try:
        async with asyncio.timeout(left_s(scope)):
            return await answer
    except TimeoutError:
        raise TookTooLong from None


async def _in_time(
    events: AsyncGenerator[InferenceEvent, None], seconds: float | None
) -> AsyncIterator[InferenceEvent]:
    end = None if seconds is None else asyncio.get_running_loop().time() + seconds
    while True:
        try:
            async with asyncio.timeout_at(end):
                event = await anext(events, None)
        except TimeoutError:
            raise TookTooLong from None
        if event is None:
            return
        yield event


def _add_counters(scope: Scope, done: Done) -> None:
    usage, before = done.usage, facts_of(scope)
    counters = {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "eval_tokens": usage.eval_tokens,
        "load_ms": round(done.load_duration_ns / 1e6, 3),
        "queue_ms": round(usage.queue_duration_ns / 1e6, 3),
        "eval_ms": round(usage.eval_duration_ns / 1e6, 3),
    }
    if usage.drafted_tokens:
        counters |= {"drafted_tokens": usage.drafted_tokens, "accepted_tokens": usage.accepted_tokens}
    note(scope, done_reason=done.reason, **{name: before.get(name, 0) + n for name, n in counters.items()})


class Body(Generic[_E]):
    """The bytes of a streamed answer. Falcon awaits `close` when the response ends, however it ends."""

    def __init__(
        self,
        opened: Opened[_E],
        encode: Callable[[AsyncIterator[_E]], AsyncIterator[bytes]],
        encode_problem: Callable[[Problem], bytes],
    ) -> None:
        self._opened = opened
        self._chunks = _encoded(opened, encode, encode_problem)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def close(self) -> None:
        await self._chunks.aclose()
        await self._opened.aclose()


async def _encoded(
    opened: Opened[_E],
    encode: Callable[[AsyncIterator[_E]], AsyncIterator[bytes]],
    encode_problem: Callable[[Problem], bytes],
) -> AsyncGenerator[bytes, None]:
    """What is sent; a failure becomes the dialect's last line, for the status has gone out."""
    chunks = encode(opened.events())
    try:
        async for chunk in chunks:
            yield chunk
    except LadingError as error:
        problem = problem_of(error)
        log.warning("a stream failed", extra={"facts": {"status": problem.status, "error": problem.text}})
        yield encode_problem(problem)
    except Exception:  # the HTTP boundary: nothing above could tell the client any more
        log.exception("a stream failed")
        yield encode_problem(INTERNAL)
    finally:
        if isinstance(chunks, AsyncGenerator):  # one that still waits for an event stops doing so
            await chunks.aclose()
