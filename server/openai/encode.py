"""The runtime's events in OpenAI's chat dialect. Pure: events in, objects or SSE events out.

Rules that clients depend on: every chunk of an answer has the same ``id`` and ``created``; the role comes
first; ``finish_reason`` stands on the last chunk of a choice alone, whose delta is empty; the usage chunk has
no choices; then ``[DONE]``. ``arguments`` is JSON text here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import msgspec

from ...modelfile.errors import InternalError
from ...runtime.inference import Done, InferenceEvent
from ...runtime.protocol import Text, Thinking, TokenLogprob, ToolCall
from ...runtime.protocol import Usage as Counters
from ..errors import Problem, openai_body
from ..merging import Numbered
from ..wire import SSE_DONE, sse_event
from . import schema as schema

FINGERPRINT = "fp_lading"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What all chunks of an answer share."""

    id: str
    created: int
    """Unix time, seconds."""
    model: str
    """As the client named it."""


async def chat_events(
    events: AsyncIterator[Numbered], *, head: Head, include_usage: bool
) -> AsyncIterator[bytes]:
    """The server-sent events of a chat."""
    begun: set[int] = set()
    called: set[int] = set()
    usage = _Tally()
    async for index, event in events:
        if index not in begun:
            begun.add(index)
            yield _chunk(head, index, schema.Delta(role="assistant", content=""))
        match event:
            case Text():
                yield _chunk(head, index, schema.Delta(content=event.text), logprobs=event.logprobs)
            case Thinking():
                # ``logprobs.content`` is of the content alone.
                yield _chunk(head, index, schema.Delta(reasoning=event.text))
            case ToolCall():
                called.add(index)
                yield _chunk(head, index, schema.Delta(tool_calls=[_call_delta(event)]))
            case Done():
                usage.add(event.usage)
                yield _chunk(head, index, schema.Delta(), finish=finish_reason(event, index in called))
    if include_usage:
        yield sse_event(_chunk_object(head, [], usage.total))
    yield SSE_DONE


async def whole_chat(events: AsyncIterator[Numbered], *, head: Head, n: int) -> schema.ChatCompletion:
    """A chat's answer in one object."""
    usage = _Tally()
    choices = [_Choice() for _ in range(n)]
    async for index, event in events:
        choices[index].add(event)
        if isinstance(event, Done):
            usage.add(event.usage)
    return schema.ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        system_fingerprint=FINGERPRINT,
        choices=[choice.finished(index) for index, choice in enumerate(choices)],
        usage=usage.total,
    )


def problem_event(problem: Problem) -> bytes:
    """The last event of a stream that failed: SDKs raise on its ``error``. No ``[DONE]`` follows."""
    return sse_event(openai_body(problem))


def finish_reason(done: Done, called: bool) -> str:
    if done.reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def arguments_text(event: ToolCall) -> str:
    return msgspec.json.encode(event.arguments).decode()


class _Tally:
    """Usage over all choices; they share one prompt, which is counted once."""

    def __init__(self) -> None:
        self._prompt = self._cached = self._eval = self._thinking = 0

    def add(self, counters: Counters) -> None:
        self._prompt = max(self._prompt, counters.prompt_tokens)
        self._cached = max(self._cached, counters.cached_tokens)
        self._eval += counters.eval_tokens
        self._thinking += counters.thinking_tokens

    @property
    def total(self) -> schema.Usage:
        return schema.Usage(
            prompt_tokens=self._prompt,
            completion_tokens=self._eval,
            total_tokens=self._prompt + self._eval,
            prompt_tokens_details=schema.PromptTokensDetails(cached_tokens=self._cached),
            completion_tokens_details=schema.CompletionTokensDetails(reasoning_tokens=self._thinking),
        )


class _Choice:
    """One choice as it grows."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[schema.ToolCallOut] = []
        self._logprobs: list[schema.LogprobContent] = []
        self._done: Done | None = None

    def add(self, event: InferenceEvent) -> None:
        match event:
            case Text():
                self._text.append(event.text)
                self._logprobs += logprob_content(event.logprobs)
            case Thinking():
                self._reasoning.append(event.text)
            case ToolCall():
                self._calls.append(
                    schema.ToolCallOut(id=event.call_id, type="function", function=_function(event))
                )
            case Done():
                self._done = event

    def finished(self, index: int) -> schema.Choice:
        if self._done is None:
            raise InternalError("generating: the stream ended without its last event")
        text = "".join(self._text)
        return schema.Choice(
            index=index,
            message=schema.MessageOut(
                role="assistant",
                content=None if self._calls and not text else text,
                reasoning="".join(self._reasoning),
                tool_calls=self._calls,
            ),
            finish_reason=finish_reason(self._done, bool(self._calls)),
            logprobs=schema.Logprobs(content=self._logprobs) if self._logprobs else None,
        )


def _chunk(
    head: Head,
    index: int,
    delta: schema.Delta,
    *,
    finish: str | None = None,
    logprobs: Iterable[TokenLogprob] = (),
) -> bytes:
    content = logprob_content(logprobs)
    choice = schema.ChunkChoice(
        index=index,
        delta=delta,
        finish_reason=finish,
        logprobs=schema.Logprobs(content=content) if content else None,
    )
    return sse_event(_chunk_object(head, [choice], None))


def _chunk_object(
    head: Head, choices: list[schema.ChunkChoice], usage: schema.Usage | None
) -> schema.ChatCompletionChunk:
    return schema.ChatCompletionChunk(
        id=head.id,
        object="chat.completion.chunk",
        created=head.created,
        model=head.model,
        system_fingerprint=FINGERPRINT,
        choices=choices,
        usage=usage,
    )


def _call_delta(event: ToolCall) -> schema.ToolCallDelta:
    return schema.ToolCallDelta(
        index=event.index, id=event.call_id, type="function", function=_function(event)
    )


def _function(event: ToolCall) -> schema.FunctionOut:
    return schema.FunctionOut(name=event.name, arguments=arguments_text(event))


def logprob_content(tokens: Iterable[TokenLogprob]) -> list[schema.LogprobContent]:
    return [
        schema.LogprobContent(
            token=token.token,
            logprob=token.logprob,
            bytes=list(token.bytes),
            top_logprobs=[
                schema.LogprobAlternative(token=other.token, logprob=other.logprob, bytes=list(other.bytes))
                for other in token.top
            ],
        )
        for token in tokens
    ]
