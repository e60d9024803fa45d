"""Golden bytes: the same event sequences through every dialect's encoder.

What is asserted is what clients break on: no nulls, a string content on every chat line, one last line with
all the counters and no text, tool calls whole and once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from lading.modelfile.errors import InternalError
from lading.runtime.inference import Done, InferenceEvent
from lading.runtime.protocol import Text, Thinking, TokenLogprob, ToolCall, Usage
from lading.server.native import encode as native_encode
from lading.server.openai import encode as openai_encode
from lading.server.openai.encode import Head

USAGE = Usage(
    prompt_tokens=11,
    cached_tokens=4,
    eval_tokens=5,
    prompt_duration_ns=30_000_000,
    eval_duration_ns=90_000_000,
)
DONE = Done(reason="stop", usage=USAGE, total_duration_ns=812_345_678, load_duration_ns=20_123_456)
CUT = Done(reason="length", usage=USAGE, total_duration_ns=1, load_duration_ns=1)
CALL = ToolCall(id=1, index=0, call_id="call_abcdefgh", name="add", arguments={"b": 2, "a": [1, "x"]})
SECOND_CALL = ToolCall(id=1, index=1, call_id="call_ijklmnop", name="now", arguments={})
NOW = "2026-08-22T01:02:03.456789Z"
HEAD = Head(id="chatcmpl-1", created=1_789_000_000, model="m")

TAIL = (
    b'"done":true,"done_reason":"stop","total_duration":812345678,"load_duration":20123456,'
    b'"prompt_eval_count":11,"prompt_eval_duration":30000000,"eval_count":5,"eval_duration":90000000}\n'
)


async def stream(events: Sequence[InferenceEvent]) -> AsyncIterator[InferenceEvent]:
    for event in events:
        yield event


async def numbered(events: Sequence[InferenceEvent]) -> AsyncIterator[tuple[int, InferenceEvent]]:
    for event in events:
        yield 0, event


def written(chunks: AsyncIterator[bytes]) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in chunks])

    return asyncio.run(collect())


def chat(*events: InferenceEvent) -> bytes:
    return written(native_encode.chat_lines(stream(events), model="m", clock=lambda: NOW))


def generate(*events: InferenceEvent) -> bytes:
    return written(native_encode.generate_lines(stream(events), model="m", clock=lambda: NOW))


def sse(*events: InferenceEvent, include_usage: bool = False) -> bytes:
    return written(openai_encode.chat_events(numbered(events), head=HEAD, include_usage=include_usage))


def sse_objects(data: bytes) -> list[Any]:
    events = data.decode().split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def has_null(value: object) -> bool:
    if isinstance(value, dict):
        return any(has_null(item) for item in value.values())
    if isinstance(value, list):
        return any(has_null(item) for item in value)
    return value is None


def test_a_native_chat() -> None:
    assert chat(Text(id=1, text="He"), Text(id=1, text="llo"), DONE) == (
        b'{"model":"m","created_at":"2026-08-22T01:02:03.456789Z",'
        b'"message":{"role":"assistant","content":"He"},"done":false}\n'
        b'{"model":"m","created_at":"2026-08-22T01:02:03.456789Z",'
        b'"message":{"role":"assistant","content":"llo"},"done":false}\n'
        b'{"model":"m","created_at":"2026-08-22T01:02:03.456789Z",'
        b'"message":{"role":"assistant","content":""},' + TAIL
    )


def test_a_native_chat_with_thoughts_and_calls() -> None:
    lines = [
        json.loads(line) for line in chat(Thinking(id=1, text="hm"), CALL, SECOND_CALL, DONE).splitlines()
    ]
    assert [line["message"] for line in lines] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call_abcdefgh",
                    "function": {"index": 0, "name": "add", "arguments": {"b": 2, "a": [1, "x"]}},
                }
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_ijklmnop", "function": {"index": 1, "name": "now", "arguments": {}}}],
        },
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines] == [False, False, False, True]


def test_a_native_completion() -> None:
    done = Done(reason="stop", usage=USAGE, total_duration_ns=2, load_duration_ns=1, context=(1, 2))
    assert generate(Text(id=1, text="hi"), done) == (
        b'{"model":"m","created_at":"2026-08-22T01:02:03.456789Z","response":"hi","done":false}\n'
        b'{"model":"m","created_at":"2026-08-22T01:02:03.456789Z","response":"","done":true,'
        b'"done_reason":"stop","context":[1,2],"total_duration":2,"load_duration":1,'
        b'"prompt_eval_count":11,"prompt_eval_duration":30000000,"eval_count":5,"eval_duration":90000000}\n'
    )


def test_calls_of_a_native_completion_stand_on_its_last_line() -> None:
    lines = [json.loads(line) for line in generate(CALL, DONE).splitlines()]
    assert len(lines) == 1
    assert lines[0]["tool_calls"][0]["function"]["name"] == "add"


def test_counters_that_are_zero_are_still_there() -> None:
    none = Done(reason="stop", usage=Usage(), total_duration_ns=1, load_duration_ns=0)
    last = json.loads(chat(none))
    assert (last["eval_count"], last["prompt_eval_count"], last["load_duration"]) == (0, 0, 0)


@pytest.mark.parametrize(
    "encode", [chat, generate, sse], ids=["native chat", "native completion", "openai chat"]
)
def test_special_line_ends_never_reach_the_wire_raw(encode: Callable[..., bytes]) -> None:
    data = encode(Text(id=1, text="a\u2028b\x85c\u2029"), DONE)
    assert not any(char in data.decode() for char in "\u2028\x85\u2029")


@pytest.mark.parametrize("encode", [chat, generate], ids=["chat", "completion"])
@pytest.mark.parametrize(
    "events",
    [
        (DONE,),
        (Text(id=1, text="x"), CUT),
        (Thinking(id=1, text="t"), Text(id=1, text=""), CALL, DONE),
        (Text(id=1, text="x", logprobs=(TokenLogprob(token="x", logprob=-0.5, bytes=(120,)),)), DONE),
    ],
    ids=["empty", "cut off", "everything", "logprobs"],
)
def test_native_lines_have_no_nulls_and_one_last_line_with_the_counters(
    encode: Callable[..., bytes], events: tuple[InferenceEvent, ...]
) -> None:
    lines = [json.loads(line) for line in encode(*events).splitlines()]
    assert not any(has_null(line) for line in lines)
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert all("eval_count" not in line for line in lines[:-1])
    assert lines[-1].get("message", {}).get("content", "") == ""


def test_logprobs_of_a_native_chat() -> None:
    token = TokenLogprob(
        token="x", logprob=-0.5, bytes=(120,), top=(TokenLogprob(token="y", logprob=-1.5, bytes=(121,)),)
    )
    line = json.loads(chat(Text(id=1, text="x", logprobs=(token,)), DONE).splitlines()[0])
    assert line["logprobs"] == [
        {
            "token": "x",
            "logprob": -0.5,
            "bytes": [120],
            "top_logprobs": [{"token": "y", "logprob": -1.5, "bytes": [121]}],
        }
    ]


def test_a_whole_native_chat_is_the_sum_of_its_lines() -> None:
    events = (
        Thinking(id=1, text="h"),
        Thinking(id=1, text="m"),
        Text(id=1, text="a"),
        Text(id=1, text="b"),
        CALL,
        DONE,
    )
    whole = asyncio.run(native_encode.whole_chat(stream(events), model="m", clock=lambda: NOW))
    assert (whole.message.thinking, whole.message.content, len(whole.message.tool_calls)) == ("hm", "ab", 1)
    assert (whole.done, whole.done_reason, whole.eval_count) == (True, "stop", 5)


def test_a_stream_that_ends_without_its_last_event_is_a_failure() -> None:
    with pytest.raises(InternalError):
        asyncio.run(native_encode.whole_chat(stream([Text(id=1, text="a")]), model="m", clock=lambda: NOW))


# OpenAI


def test_an_openai_stream() -> None:
    head = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1789000000,"model":"m",'
    head += b'"system_fingerprint":"fp_lading",'
    assert sse(Text(id=1, text="Hi"), DONE, include_usage=True) == (
        head + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
        + head + b'"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
        + head + b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        + head + b'"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,'
        b'"prompt_tokens_details":{"cached_tokens":4},'
        b'"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
        b"data: [DONE]\n\n"
    )  # fmt: skip


def test_usage_is_only_sent_when_asked_for() -> None:
    assert all("usage" not in chunk for chunk in sse_objects(sse(Text(id=1, text="Hi"), DONE)))


def test_openai_calls_have_text_arguments_and_their_own_finish_reason() -> None:
    chunks = sse_objects(sse(CALL, SECOND_CALL, DONE))
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert [call["index"] for call in calls] == [0, 1]
    assert [call["type"] for call in calls] == ["function", "function"]
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": [1, "x"], "b": 2}
    assert calls[1]["function"]["arguments"] == "{}"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons == [None, None, None, "tool_calls"]


def test_openai_thoughts_are_reasoning() -> None:
    chunks = sse_objects(sse(Thinking(id=1, text="hm"), Text(id=1, text="a"), CUT))
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"reasoning": "hm"},
        {"content": "a"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_a_whole_openai_answer_with_calls_has_null_content() -> None:
    whole = asyncio.run(openai_encode.whole_chat(numbered([CALL, DONE]), head=HEAD, n=1))
    message = whole.choices[0].message
    assert (message.content, message.tool_calls[0].function.arguments) == (None, '{"b":2,"a":[1,"x"]}')
    assert whole.choices[0].finish_reason == "tool_calls"


def test_usage_of_several_choices_counts_the_prompt_once() -> None:
    async def both() -> AsyncIterator[tuple[int, InferenceEvent]]:
        for index in (1, 0):
            yield index, Text(id=1, text=str(index))
            yield index, DONE

    whole = asyncio.run(openai_encode.whole_chat(both(), head=HEAD, n=2))
    assert [choice.message.content for choice in whole.choices] == ["0", "1"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (11, 10)


def test_openai_logprobs_are_of_the_content_streamed_or_not() -> None:
    def token(text: str) -> tuple[TokenLogprob, ...]:
        return (TokenLogprob(token=text, logprob=-0.5, bytes=text.encode()),)

    events = (Thinking(id=1, text="hm", logprobs=token("hm")), Text(id=1, text="a", logprobs=token("a")), CUT)
    whole = asyncio.run(openai_encode.whole_chat(numbered(events), head=HEAD, n=1))
    assert whole.choices[0].logprobs is not None
    streamed = [
        row["token"]
        for chunk in sse_objects(sse(*events))
        for row in chunk["choices"][0].get("logprobs", {}).get("content", ())
    ]
    assert streamed == [row.token for row in whole.choices[0].logprobs.content] == ["a"]
