"""Golden bytes of Anthropic's dialect, and how its conversations are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lading.modelfile.errors import InternalError
from lading.runtime.inference import Done, InferenceEvent
from lading.runtime.protocol import Text, Thinking, ToolCall, Usage
from lading.server.anthropic import schema as schema
from lading.server.anthropic.encode import Head, anthropic_body, message_events, problem_event, whole_message
from lading.server.anthropic.request import messages_of
from lading.server.errors import Problem
from lading.server.wire import json_bytes

USAGE = Usage(prompt_tokens=11, cached_tokens=4, eval_tokens=5)
CALL = ToolCall(id=1, index=0, call_id="call_abcdefgh", name="add", arguments={"b": 2, "a": "\u2028"})
HEAD = Head(id="msg_1", model="m", stops=("END",))


def done(**fields: Any) -> Done:
    return Done(**{"reason": "stop", "usage": USAGE, "total_duration_ns": 2, "load_duration_ns": 1, **fields})


async def stream(events: tuple[InferenceEvent, ...]) -> AsyncIterator[InferenceEvent]:
    for event in events:
        yield event


def sse(*events: InferenceEvent) -> bytes:
    async def collect() -> bytes:
        chunks = message_events(stream(events), head=HEAD, prompt=Usage(prompt_tokens=11, cached_tokens=4))
        return b"".join([chunk async for chunk in chunks])

    return asyncio.run(collect())


def whole(*events: InferenceEvent) -> schema.MessageOut:
    return asyncio.run(whole_message(stream(events), head=HEAD))


def test_a_stream() -> None:
    assert sse(Text(id=1, text="Hi"), Text(id=1, text=""), Text(id=1, text="!"), done()) == (
        b'event: message_start\ndata: {"type":"message_start","message":{"type":"message","id":"msg_1",'
        b'"role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":'
        b'{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":0}}}\n\n'
        b'event: ping\ndata: {"type":"ping"}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"Hi"}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"!"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn",'
        b'"stop_sequence":null},"usage":{"input_tokens":7,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":4,"output_tokens":5}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_blocks_are_numbered_and_closed_before_the_next() -> None:
    data = sse(Thinking(id=1, text="hm"), Text(id=1, text="a"), CALL, CALL, Text(id=1, text="b"), done())
    events = [json.loads(part.partition("data: ")[2]) for part in data.decode().split("\n\n") if part]
    shown = [
        (event["type"].removeprefix("content_block_"), event.get("index"))
        for event in events
        if event["type"].startswith("content_block")
    ]
    assert shown == [
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("stop", 1)],
        *[("start", 2), ("delta", 2), ("stop", 2)],
        *[("start", 3), ("delta", 3), ("stop", 3)],
        *[("start", 4), ("delta", 4), ("stop", 4)],
    ]
    deltas = [event["delta"]["type"] for event in events if event["type"] == "content_block_delta"]
    assert deltas[:2] == ["thinking_delta", "signature_delta"]
    assert deltas[3:] == ["input_json_delta", "input_json_delta", "text_delta"]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_an_answer_without_content() -> None:
    assert b"content_block" not in sse(done())
    assert json.loads(json_bytes(whole(done())))["content"] == []


def test_a_whole_message() -> None:
    answer = whole(
        Thinking(id=1, text="h"), Thinking(id=1, text="m"), Text(id=1, text="a"), Text(id=1, text="b"), CALL,
        done(),
    )  # fmt: skip
    assert json_bytes(answer) == (
        b'{"type":"message","id":"msg_1","role":"assistant","model":"m","content":['
        b'{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"ab"},'
        b'{"type":"tool_use","id":"call_abcdefgh","name":"add","input":{"b":2,"a":"\\u2028"}}],'
        b'"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":7,'
        b'"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":5}}'
    )


def test_a_stream_that_ends_without_its_last_event_is_a_failure() -> None:
    with pytest.raises(InternalError):
        whole(Text(id=1, text="a"))


@pytest.mark.parametrize(
    ("fields", "reason", "sequence"),
    [
        ({}, "end_turn", None),
        ({"reason": "length"}, "max_tokens", None),
        ({"stop_sequence": "END"}, "stop_sequence", "END"),
        ({"stop_sequence": "<|im_end|>"}, "end_turn", None),
    ],
    ids=["end", "limit", "the client's", "the model's own"],
)
def test_why_an_answer_ended(fields: Any, reason: str, sequence: str | None) -> None:
    answer = whole(Text(id=1, text="a"), done(**fields))
    assert (answer.stop_reason, answer.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (400, "invalid_request", "invalid_request_error", "no"),
        (400, "context_length_exceeded", "invalid_request_error", "prompt is too long: no"),
        (404, "model_not_found", "not_found_error", "no"),
        (413, "request_too_large", "request_too_large", "no"),
        (503, "queue_full", "overloaded_error", "no"),
        (507, "insufficient_resources", "api_error", "no"),
    ],
)
def test_problems(status: int, code: str, kind: str, text: str) -> None:
    problem = Problem(status, code, "no")
    body = {"type": "error", "error": {"type": kind, "message": text}, "request_id": "r"}
    assert anthropic_body(problem, "r") == body
    assert problem_event(problem, request_id="r") == b"event: error\ndata: " + json_bytes(body) + b"\n\n"


def test_results_of_tools_come_before_what_is_said_beside_them() -> None:
    messages = messages_of(
        [
            schema.MessageIn(role="user", content="a"),
            schema.MessageIn(role="user", content=[{"type": "text", "text": "b"}]),
            schema.MessageIn(
                role="assistant",
                content=[
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "c"},
                    {"type": "tool_use", "id": "1", "name": "add", "input": {"a": 1}},
                    {"type": "tool_use", "id": "2", "name": "now", "input": {}},
                ],
            ),
            schema.MessageIn(
                role="user",
                content=[
                    {"type": "text", "text": "d"},
                    {"type": "tool_result", "tool_use_id": "2", "content": [{"type": "text", "text": "r2"}]},
                    {"type": "tool_result", "tool_use_id": "1", "content": "r1", "is_error": True},
                ],
            ),
        ]
    )
    assert [(message.role, message.content, message.tool_name) for message in messages] == [
        ("user", "a\nb", ""),
        ("assistant", "c", ""),
        ("tool", "r2", "now"),
        ("tool", "r1", "add"),
        ("user", "d", ""),
    ]
    assert messages[1].thinking == "t"
    assert [call.function.name for call in messages[1].tool_calls] == ["add", "now"]


def test_of_documents_the_text_is_read() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "inside"}
    message = schema.MessageIn(role="user", content=[{"type": "document", "source": source}])
    assert messages_of([message])[0].content == "inside"
