"""The runtime's events as a response of the Responses API. No I/O: events in, objects or SSE events out.

Rules that clients depend on: events are numbered from 0 without a gap; ids do not change; an item is added,
filled, done, and only then the next one is added; each item has its place in ``output``; the last event
is one of ``response.completed``, ``response.incomplete`` and ``response.failed``, with the whole response.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from ...modelfile.errors import InternalError
from ...runtime.inference import Done, InferenceEvent
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Text, Thinking, ToolCall
from ...runtime.protocol import Usage as Counters
from ..errors import Problem
from ..wire import sse_event
from . import responses_schema as schema
from .encode import arguments_text, logprob_content
from .request import new_id
from .responses_request import ENCRYPTED, namespaces_of


def new_response(request: schema.ResponsesRequest) -> schema.Response:
    """The response to a request, before anything of it is there."""
    return schema.Response(
        id=_id("resp"),
        object="response",
        created_at=int(time.time()),
        completed_at=None,
        status="in_progress",
        background=False,
        error=None,
        incomplete_details=None,
        instructions=request.instructions or None,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata,
        model=request.model,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls,
        previous_response_id=request.previous_response_id or None,
        reasoning={"effort": request.reasoning.effort or None, "summary": request.reasoning.summary or None},
        store=request.store,
        temperature=request.temperature,
        text={"format": request.text.format or {"type": "text"}},
        tool_choice="auto" if request.tool_choice is None else request.tool_choice,
        tools=request.tools,
        top_logprobs=request.top_logprobs,
        top_p=request.top_p,
        truncation=request.truncation or "disabled",
        usage=None,
    )


class ResponseWriter:
    """Writes one response, which grows in `response`."""

    def __init__(self, request: schema.ResponsesRequest, response: schema.Response) -> None:
        self.response = response
        self._shows_thoughts_twice = ENCRYPTED in request.include
        self._namespaces = namespaces_of(request.tools)
        self._sequence = 0
        self._item: schema.ReasoningItem | schema.MessageItem | None = None

    async def events(self, events: AsyncIterator[InferenceEvent]) -> AsyncIterator[bytes]:
        """The server-sent events of the whole response."""
        yield self._event("response.created", response=self.response)
        yield self._event("response.in_progress", response=self.response)
        async for event in events:
            for made in self.write(event):
                yield made

    async def whole(self, events: AsyncIterator[InferenceEvent]) -> schema.Response:
        """The response once it is complete."""
        async for event in events:
            for _ in self.write(event):
                pass
        if self.response.usage is None:
            raise InternalError("generating: the stream ended without its last event")
        return self.response

    def failed(self, problem: Problem) -> bytes:
        """The last event of a response that failed."""
        self.response.status = "failed"
        code = problem.code if problem.status < 500 else "server_error"
        self.response.error = schema.ResponseError(code=code, message=problem.text)
        return self._event("response.failed", response=self.response)

    def write(self, event: InferenceEvent) -> Iterator[bytes]:
        match event:
            case Text():
                yield from self._write_text(event)
            case Thinking() if event.text:
                yield from self._write_thought(event.text)
            case ToolCall():
                yield from self._end_item("completed")
                yield from self._write_call(event)
            case Done():
                yield from self._finish(event)

    def answer(self) -> Message:
        """What was said, as a message of the conversation."""
        output = self.response.output
        calls = [item for item in output if isinstance(item, schema.FunctionCallItem)]
        return Message(
            role="assistant",
            content="".join(
                part.text for item in output if isinstance(item, schema.MessageItem) for part in item.content
            ),
            thinking="".join(
                part.text
                for item in output
                if isinstance(item, schema.ReasoningItem)
                for part in item.summary
            ),
            tool_calls=tuple(
                MessageToolCall(
                    id=call.call_id,
                    function=FunctionCall(
                        name=f"{call.namespace}.{call.name}" if call.namespace else call.name,
                        arguments=msgspec.json.decode(call.arguments),
                    ),
                )
                for call in calls
            ),
        )

    # Items

    def _write_text(self, event: Text) -> Iterator[bytes]:
        if not event.text and not event.logprobs:
            return
        if not isinstance(self._item, schema.MessageItem):
            yield from self._end_item("completed")
            part = schema.OutputText()
            item = schema.MessageItem(id=_id("msg"), role="assistant", content=[], status="in_progress")
            yield from self._add(item)
            yield self._of_part("response.content_part.added", item, part=part)
            item.content.append(part)
            self._item = item
        item = self._item
        part, logprobs = item.content[0], logprob_content(event.logprobs)
        part.text += event.text
        part.logprobs = [*part.logprobs, *logprobs]
        yield self._of_part("response.output_text.delta", item, delta=event.text, logprobs=logprobs)

    def _write_thought(self, text: str) -> Iterator[bytes]:
        if not isinstance(self._item, schema.ReasoningItem):
            yield from self._end_item("completed")
            item = schema.ReasoningItem(id=_id("rs"), summary=[], status="in_progress")
            yield from self._add(item)
            part = schema.SummaryText(text="")
            yield self._of_summary("response.reasoning_summary_part.added", item, part=part)
            item.summary.append(part)
            self._item = item
        self._item.summary[0].text += text
        yield self._of_summary("response.reasoning_summary_text.delta", self._item, delta=text)

    def _write_call(self, event: ToolCall) -> Iterator[bytes]:
        namespace, name = self._split(event.name)
        item = schema.FunctionCallItem(
            id=_id("fc"),
            call_id=event.call_id,
            name=name,
            arguments="",
            status="in_progress",
            namespace=namespace,
        )
        yield from self._add(item)
        arguments = arguments_text(event)
        yield self._of_item("response.function_call_arguments.delta", item, delta=arguments)
        item.arguments = arguments
        yield self._of_item("response.function_call_arguments.done", item, arguments=arguments)
        yield from self._done(item, "completed")

    def _split(self, name: str) -> tuple[str, str]:
        for namespace in self._namespaces:
            if name.startswith(f"{namespace}."):
                return namespace, name.removeprefix(f"{namespace}.")
        return "", name

    def _add(self, item: schema.Item) -> Iterator[bytes]:
        self.response.output.append(item)
        yield self._event("response.output_item.added", output_index=self._index, item=item)

    def _end_item(self, status: str) -> Iterator[bytes]:
        item, self._item = self._item, None
        match item:
            case schema.MessageItem(content=[part]):
                yield self._of_part("response.output_text.done", item, text=part.text, logprobs=part.logprobs)
                yield self._of_part("response.content_part.done", item, part=part)
                yield from self._done(item, status)
            case schema.ReasoningItem(summary=[summary]):
                yield self._of_summary("response.reasoning_summary_text.done", item, text=summary.text)
                yield self._of_summary("response.reasoning_summary_part.done", item, part=summary)
                item.encrypted_content = summary.text if self._shows_thoughts_twice else ""
                yield from self._done(item, status)

    def _done(self, item: schema.Item, status: str) -> Iterator[bytes]:
        item.status = status
        yield self._event("response.output_item.done", output_index=self._index, item=item)

    def _finish(self, done: Done) -> Iterator[bytes]:
        cut = done.reason == "length"
        status = "incomplete" if cut else "completed"
        yield from self._end_item(status)
        response = self.response
        response.status = status
        response.completed_at = None if cut else int(time.time())
        response.incomplete_details = schema.IncompleteDetails(reason="max_output_tokens") if cut else None
        response.usage = _usage(done.usage)
        yield self._event(f"response.{status}", response=response)

    # Events

    @property
    def _index(self) -> int:
        """The place in the output of the item at hand, which is always the last."""
        return len(self.response.output) - 1

    def _of_part(self, kind: str, item: schema.Item, **fields: Any) -> bytes:
        return self._of_item(kind, item, content_index=0, **fields)

    def _of_summary(self, kind: str, item: schema.Item, **fields: Any) -> bytes:
        return self._of_item(kind, item, summary_index=0, **fields)

    def _of_item(self, kind: str, item: schema.Item, **fields: Any) -> bytes:
        return self._event(kind, item_id=item.id, output_index=self._index, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse_event(event, event=kind)


def _usage(counters: Counters) -> schema.Usage:
    return schema.Usage(
        input_tokens=counters.prompt_tokens,
        input_tokens_details=schema.InputTokensDetails(
            cached_tokens=counters.cached_tokens, cache_write_tokens=0
        ),
        output_tokens=counters.eval_tokens,
        output_tokens_details=schema.OutputTokensDetails(reasoning_tokens=counters.thinking_tokens),
        total_tokens=counters.prompt_tokens + counters.eval_tokens,
    )


def _id(prefix: str) -> str:
    return new_id(prefix).replace("-", "_")
