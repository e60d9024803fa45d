"""The events of the Responses API without a model, and the memory for responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from lading.modelfile.errors import InternalError
from lading.runtime.inference import Done, InferenceEvent
from lading.runtime.protocol import Message, Text, Thinking, ToolCall, Usage
from lading.server.errors import Problem
from lading.server.openai import responses_schema as schema
from lading.server.openai.response_memory import ResponseMemory
from lading.server.openai.responses_encode import ResponseWriter, new_response
from lading.server.openai.responses_request import messages_of

USAGE = Usage(prompt_tokens=11, cached_tokens=4, eval_tokens=5)
DONE = Done(reason="stop", usage=USAGE, total_duration_ns=2, load_duration_ns=1)
CALL = ToolCall(id=1, index=0, call_id="call_abcdefgh", name="add", arguments={"b": 2})
REQUEST = schema.ResponsesRequest(model="m", input="x")


async def stream(events: tuple[InferenceEvent, ...]) -> AsyncIterator[InferenceEvent]:
    for event in events:
        yield event


def writer() -> ResponseWriter:
    return ResponseWriter(REQUEST, new_response(REQUEST))


def objects(*events: InferenceEvent) -> list[Any]:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in writer().events(stream(events))])

    found = []
    for part in asyncio.run(collect()).decode().split("\n\n")[:-1]:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_the_sequence_of_an_answer_with_everything_in_it() -> None:
    events = objects(Thinking(id=1, text="hm"), Text(id=1, text="a"), Text(id=1, text="b"), CALL, DONE)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [(event["type"].removeprefix("response."), event.get("output_index")) for event in events] == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("reasoning_summary_part.added", 0),
        ("reasoning_summary_text.delta", 0),
        ("reasoning_summary_text.done", 0),
        ("reasoning_summary_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("completed", None),
    ]
    ids = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert [one.partition("_")[0] for one in ids] == ["rs", "msg", "fc"]
    assert [item["id"] for item in events[-1]["response"]["output"]] == ids
    assert all(event["item_id"] == ids[event["output_index"]] for event in events if "item_id" in event)


def test_an_item_is_added_empty_and_done_full() -> None:
    events = objects(Text(id=1, text="a"), DONE)
    added = next(event for event in events if event["type"] == "response.output_item.added")
    done = next(event for event in events if event["type"] == "response.output_item.done")
    assert (added["item"]["content"], added["item"]["status"]) == ([], "in_progress")
    assert done["item"] == {
        "type": "message",
        "id": added["item"]["id"],
        "role": "assistant",
        "content": [{"type": "output_text", "text": "a", "annotations": [], "logprobs": []}],
        "status": "completed",
    }
    assert events[-1]["response"]["output"] == [done["item"]]
    assert events[-1]["response"]["usage"] == {
        "input_tokens": 11,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 16,
    }


def test_a_failure_is_the_last_event() -> None:
    written = writer()
    data = written.failed(Problem(503, "busy", "later")).decode().split("\n")
    assert data[0] == "event: response.failed"
    response = json.loads(data[1].removeprefix("data: "))["response"]
    assert (response["status"], response["error"]) == (
        "failed",
        {"code": "server_error", "message": "later"},
    )


def test_a_stream_that_ends_without_its_last_event_is_a_failure() -> None:
    with pytest.raises(InternalError):
        asyncio.run(writer().whole(stream((Text(id=1, text="a"),))))


def test_what_was_said_is_one_message() -> None:
    written = writer()
    asyncio.run(written.whole(stream((Thinking(id=1, text="hm"), Text(id=1, text="a"), CALL, DONE))))
    said = written.answer()
    assert (said.role, said.thinking, said.content) == ("assistant", "hm", "a")
    assert [(call.id, call.function.arguments) for call in said.tool_calls] == [("call_abcdefgh", {"b": 2})]
    items = [
        json.loads(json.dumps(item))
        for item in objects(Text(id=1, text="a"), CALL, DONE)[-1]["response"]["output"]
    ]
    again = messages_of([*items, {"type": "function_call_output", "call_id": "call_abcdefgh", "output": "3"}])
    assert [(one.role, one.content, one.tool_name) for one in again] == [
        ("assistant", "a", ""),
        ("tool", "3", "add"),
    ]
    assert again[0].tool_calls == said.tool_calls


def test_a_result_finds_its_call_in_an_earlier_response() -> None:
    written = writer()
    asyncio.run(written.whole(stream((CALL, DONE))))
    output = {"type": "function_call_output", "call_id": "call_abcdefgh", "output": "3"}
    [result] = messages_of([output], (Message(role="user", content="x"), written.answer()))
    assert (result.tool_call_id, result.tool_name) == ("call_abcdefgh", "add")


def kept(memory: ResponseMemory, *texts: str) -> list[str]:
    ids = []
    for text in texts:
        response = new_response(REQUEST)
        memory.put(response, (Message(role="user", content=text),))
        ids.append(response.id)
    return ids


def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    memory = ResponseMemory(max_count=2)
    first, second = kept(memory, "a", "b")
    assert memory.get(first) is not None
    (third,) = kept(memory, "c")
    assert [memory.get(one) is not None for one in (first, second, third)] == [True, False, True]


def test_the_bytes_that_are_kept_are_bounded() -> None:
    memory = ResponseMemory(max_bytes=10_000)
    ids = kept(memory, *["x" * 3000] * 5)
    assert [memory.get(one) is not None for one in ids] == [False, False, False, True, True]
    (large,) = kept(memory, "x" * 20_000)
    assert memory.get(large) is None
    assert [memory.get(one) for one in ids] == [None] * 5


def test_removing_makes_room() -> None:
    memory = ResponseMemory(max_bytes=10_000)
    for _ in range(10):
        (one,) = kept(memory, "x" * 6000)
        assert memory.remove(one) and not memory.remove(one)
    (last,) = kept(memory, "x" * 6000)
    assert memory.get(last) is not None
