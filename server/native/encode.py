"""The runtime's events in the native dialect. Pure: events in, lines out; the clock is given.

Rules that clients depend on: every chat line has a string ``content``; a tool call is sent whole, once, on a
line of its own; exactly one line has ``done: true``, it is the last, and has no text.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from ...modelfile.errors import InternalError
from ...runtime.inference import Done, InferenceEvent
from ...runtime.protocol import Text, Thinking, TokenLogprob, ToolCall
from ..errors import Problem, native_body
from ..wire import ndjson_line
from .schema import ChatChunk, FunctionCallOut, GenerateChunk, MessageOut, TokenLogprobOut, ToolCallOut

Clock = Callable[[], str]
"""Now, as RFC 3339."""


async def chat_lines(
    events: AsyncIterator[InferenceEvent], *, model: str, clock: Clock
) -> AsyncIterator[bytes]:
    """The NDJSON lines of a chat."""
    async for event in events:
        yield ndjson_line(_chat_chunk(event, model, clock()))


async def generate_lines(
    events: AsyncIterator[InferenceEvent], *, model: str, clock: Clock
) -> AsyncIterator[bytes]:
    """The NDJSON lines of a completion. Tool calls, which nobody asked for, stand on the last."""
    calls: list[ToolCallOut] = []
    async for event in events:
        if isinstance(event, ToolCall):
            calls.append(_call(event))
        else:
            yield ndjson_line(_generate_chunk(event, model, clock(), calls))


async def whole_chat(events: AsyncIterator[InferenceEvent], *, model: str, clock: Clock) -> ChatChunk:
    """A chat's answer in one object."""
    whole = await _gather(events)
    message = MessageOut(
        role="assistant", content=whole.content, thinking=whole.thinking, tool_calls=whole.calls
    )
    return _ended_chat(whole.done, model, clock(), message, whole.logprobs)


async def whole_generate(events: AsyncIterator[InferenceEvent], *, model: str, clock: Clock) -> GenerateChunk:
    """A completion in one object."""
    whole = await _gather(events)
    return _ended_generate(
        whole.done, model, clock(), whole.calls, whole.content, whole.thinking, whole.logprobs
    )


def problem_line(problem: Problem) -> bytes:
    """The last line of a stream that failed."""
    return ndjson_line(native_body(problem))


class _Whole:
    """What a stream adds up to."""

    def __init__(self) -> None:
        self.content, self.thinking = "", ""
        self.calls: list[ToolCallOut] = []
        self.logprobs: list[TokenLogprobOut] = []
        self.done: Done


async def _gather(events: AsyncIterator[InferenceEvent]) -> _Whole:
    whole, text, thinking = _Whole(), [], []
    async for event in events:
        match event:
            case Text():
                text.append(event.text)
                whole.logprobs += _logprobs(event.logprobs)
            case Thinking():
                thinking.append(event.text)
                whole.logprobs += _logprobs(event.logprobs)
            case ToolCall():
                whole.calls.append(_call(event))
            case Done():
                whole.done = event
                whole.content, whole.thinking = "".join(text), "".join(thinking)
                return whole
    raise InternalError("generating: the stream ended without its last event")


def _chat_chunk(event: InferenceEvent, model: str, now: str) -> ChatChunk:
    match event:
        case Text():
            message, logprobs = MessageOut(role="assistant", content=event.text), event.logprobs
        case Thinking():
            message = MessageOut(role="assistant", content="", thinking=event.text)
            logprobs = event.logprobs
        case ToolCall():
            message, logprobs = MessageOut(role="assistant", content="", tool_calls=[_call(event)]), ()
        case Done():
            return _ended_chat(event, model, now, MessageOut(role="assistant", content=""), [])
    return ChatChunk(model=model, created_at=now, message=message, done=False, logprobs=_logprobs(logprobs))


def _generate_chunk(
    event: Text | Thinking | Done, model: str, now: str, calls: list[ToolCallOut]
) -> GenerateChunk:
    match event:
        case Done():
            return _ended_generate(event, model, now, calls, "", "", [])
        case Text():
            response, thinking = event.text, ""
        case Thinking():
            response, thinking = "", event.text
    return GenerateChunk(
        model=model,
        created_at=now,
        response=response,
        thinking=thinking,
        done=False,
        logprobs=_logprobs(event.logprobs),
    )


def _ended_chat(
    done: Done, model: str, now: str, message: MessageOut, logprobs: list[TokenLogprobOut]
) -> ChatChunk:
    return ChatChunk(
        model=model,
        created_at=now,
        message=message,
        done=True,
        done_reason=done.reason,
        total_duration=done.total_duration_ns,
        load_duration=done.load_duration_ns,
        prompt_eval_count=done.usage.prompt_tokens,
        prompt_eval_duration=done.usage.prompt_duration_ns,
        eval_count=done.usage.eval_tokens,
        eval_duration=done.usage.eval_duration_ns,
        logprobs=logprobs,
    )


def _ended_generate(  # seven parts of one answer; a class would only rename them
    done: Done,
    model: str,
    now: str,
    calls: list[ToolCallOut],
    response: str,
    thinking: str,
    logprobs: list[TokenLogprobOut],
) -> GenerateChunk:
    return GenerateChunk(
        model=model,
        created_at=now,
        response=response,
        thinking=thinking,
        done=True,
        done_reason=done.reason,
        context=list(done.context),
        total_duration=done.total_duration_ns,
        load_duration=done.load_duration_ns,
        prompt_eval_count=done.usage.prompt_tokens,
        prompt_eval_duration=done.usage.prompt_duration_ns,
        eval_count=done.usage.eval_tokens,
        eval_duration=done.usage.eval_duration_ns,
        tool_calls=calls,
        logprobs=logprobs,
    )


def _call(event: ToolCall) -> ToolCallOut:
    return ToolCallOut(
        id=event.call_id,
        function=FunctionCallOut(index=event.index, name=event.name, arguments=event.arguments),
    )


def _logprobs(tokens: Iterable[TokenLogprob]) -> list[TokenLogprobOut]:
    return [
        TokenLogprobOut(
            token=token.token,
            logprob=token.logprob,
            bytes=list(token.bytes),
            top_logprobs=_logprobs(token.top),
        )
        for token in tokens
    ]
