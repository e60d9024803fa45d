"""The runtime's events in Anthropic's dialect. Pure: events in, objects or SSE events out.

Rules that clients depend on: ``message_start`` first, with the prompt's tokens; blocks are numbered from 0,
one open at a time, each with start, deltas and stop; a call's arguments are one ``input_json_delta``; then
``message_delta`` with the reason and the counters, and ``message_stop``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec

from ...modelfile.errors import InternalError
from ...runtime.inference import Done, InferenceEvent
from ...runtime.protocol import Text, Thinking, ToolCall
from ...runtime.protocol import Usage as Counters
from ..errors import Problem
from ..wire import sse_event
from . import schema as schema

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_UNSIGNED = ""
"""The signature of thoughts: nobody here would check one, but clients want the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of an answer before it comes."""

    id: str
    model: str
    """As the client named it."""
    stops: tuple[str, ...] = ()
    """The client's own stop sequences; those of the model are not reported."""


async def message_events(
    events: AsyncIterator[InferenceEvent], *, head: Head, prompt: Counters
) -> AsyncIterator[bytes]:
    """The server-sent events of an answer. ``prompt`` has the counters of the prompt."""
    yield _sse(schema.MessageStart(message=_message(head, [], (None, None), prompt)))
    yield PING
    writer = _BlockWriter()
    async for event in events:
        if not isinstance(event, Done):
            for made in writer.write(event):
                yield _sse(made)
            continue
        for made in writer.close():
            yield _sse(made)
        reason, sequence = _stop(event, head, writer.called)
        delta = schema.StopDelta(stop_reason=reason, stop_sequence=sequence)
        yield _sse(schema.MessageDelta(delta=delta, usage=_usage(event.usage)))
        yield _sse(schema.MessageStop())


async def whole_message(events: AsyncIterator[InferenceEvent], *, head: Head) -> schema.MessageOut:
    """An answer in one object."""
    blocks: list[schema.Block] = []
    async for event in events:
        match event:
            case Text() | Thinking():
                _extend(blocks, event)
            case ToolCall():
                blocks.append(_tool_use(event))
            case Done():
                called = any(isinstance(block, schema.ToolUseBlock) for block in blocks)
                return _message(head, blocks, _stop(event, head, called), event.usage)
    raise InternalError("generating: the stream ended without its last event")


def anthropic_body(problem: Problem, request_id: str) -> dict[str, object]:
    """Anthropic's shape. Programs look for the words about a prompt that is too long."""
    long = problem.code == "context_length_exceeded"
    text = f"prompt is too long: {problem.text}" if long else problem.text
    kind = _ERROR_TYPES.get(problem.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}


def problem_event(problem: Problem, *, request_id: str) -> bytes:
    """The last event of a stream that failed."""
    return sse_event(anthropic_body(problem, request_id), event="error")


def _sse(event: schema.Event) -> bytes:
    return sse_event(event, event=str(event.__struct_config__.tag))


PING = _sse(schema.Ping())


class _BlockWriter:
    """Opens and closes blocks as the kind of what comes changes."""

    def __init__(self) -> None:
        self._index = -1
        self._open: type[Text] | type[Thinking] | None = None
        self.called = False

    def write(self, event: Text | Thinking | ToolCall) -> Iterator[schema.Event]:
        if isinstance(event, ToolCall):
            yield from self.close()
            yield from self._write_call(event)
        elif event.text:
            if not isinstance(event, self._open or ()):
                yield from self.close()
                self._index += 1
                self._open = type(event)
                yield schema.BlockStart(index=self._index, content_block=_empty(event))
            yield schema.BlockDelta(index=self._index, delta=_delta(event))

    def close(self) -> Iterator[schema.Event]:
        if self._open is Thinking:
            delta = schema.SignatureDelta(signature=_UNSIGNED)
            yield schema.BlockDelta(index=self._index, delta=delta)
        if self._open is not None:
            yield schema.BlockStop(index=self._index)
        self._open = None

    def _write_call(self, event: ToolCall) -> Iterator[schema.Event]:
        self.called = True
        self._index += 1
        block = schema.ToolUseBlock(id=event.call_id, name=event.name, input={})
        yield schema.BlockStart(index=self._index, content_block=block)
        arguments = msgspec.json.encode(event.arguments).decode()
        yield schema.BlockDelta(index=self._index, delta=schema.InputJsonDelta(partial_json=arguments))
        yield schema.BlockStop(index=self._index)


def _extend(blocks: list[schema.Block], event: Text | Thinking) -> None:
    last = blocks[-1] if blocks else None
    match last, event:
        case schema.TextBlock(), Text():
            last.text += event.text
        case schema.ThinkingBlock(), Thinking():
            last.thinking += event.text
        case _ if event.text:
            block = _empty(event)
            blocks.append(block)
            _extend(blocks, event)


def _empty(event: Text | Thinking) -> schema.Block:
    if isinstance(event, Text):
        return schema.TextBlock(text="")
    return schema.ThinkingBlock(thinking="", signature=_UNSIGNED)


def _delta(event: Text | Thinking) -> schema.TextDelta | schema.ThinkingDelta:
    if isinstance(event, Text):
        return schema.TextDelta(text=event.text)
    return schema.ThinkingDelta(thinking=event.text)


def _tool_use(event: ToolCall) -> schema.ToolUseBlock:
    return schema.ToolUseBlock(id=event.call_id, name=event.name, input=event.arguments)


def _stop(done: Done, head: Head, called: bool) -> tuple[str, str | None]:
    if called:
        return "tool_use", None
    if done.reason == "length":
        return "max_tokens", None
    if done.stop_sequence in head.stops:
        return "stop_sequence", done.stop_sequence
    return "end_turn", None


def _message(
    head: Head, blocks: list[schema.Block], stop: tuple[str | None, str | None], counters: Counters
) -> schema.MessageOut:
    return schema.MessageOut(
        id=head.id,
        role="assistant",
        model=head.model,
        content=blocks,
        stop_reason=stop[0],
        stop_sequence=stop[1],
        usage=_usage(counters),
    )


def _usage(counters: Counters) -> schema.Usage:
    return schema.Usage(
        input_tokens=counters.prompt_tokens - counters.cached_tokens,
        cache_creation_input_tokens=0,
        cache_read_input_tokens=counters.cached_tokens,
        output_tokens=counters.eval_tokens,
    )
