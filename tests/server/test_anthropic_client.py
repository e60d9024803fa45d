"""anthropic-python against a real server and a real model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from live_server import LiveServer

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
COUNTING: Any = [{"role": "user", "content": "Count from 1 to 20."}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK_WEATHER: Any = {"role": "user", "content": "What is the weather in Paris?"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}


@pytest.fixture
def client(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as made:
        yield made


def ask(client: anthropic.Anthropic, messages: Any = QUESTION, **fields: Any) -> anthropic.types.Message:
    made: anthropic.types.Message = client.messages.create(
        **{"model": "tiny", "max_tokens": 100, "messages": messages, **fields}
    )
    return made


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_answers(client: anthropic.Anthropic) -> None:
    answer = ask(client)
    assert text_of(answer) == "The capital of France is Paris."
    assert [block.type for block in answer.content] == ["text"]
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", "tiny")
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert answer.id.startswith("msg_") and answer._request_id
    read, fresh = answer.usage.cache_read_input_tokens, answer.usage.input_tokens
    assert read is not None and read + fresh > 8 and answer.usage.output_tokens > 3


def test_a_stream_is_the_same_message(client: anthropic.Anthropic) -> None:
    whole = ask(client)
    with client.messages.stream(model="tiny", max_tokens=100, messages=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert text_of(final) == text_of(whole)
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", whole.usage.output_tokens)
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1


def test_the_start_of_a_stream_counts_the_prompt(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="tiny", messages=QUESTION).input_tokens
    events = list(client.messages.create(model="tiny", max_tokens=5, messages=QUESTION, stream=True))
    start: Any = events[0]
    usage = start.message.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted


@pytest.mark.parametrize(
    "system",
    ["Answer in capital letters.", [{"type": "text", "text": "Answer in capital letters."}]],
    ids=["text", "blocks"],
)
def test_a_system_prompt(client: anthropic.Anthropic, system: Any) -> None:
    assert text_of(ask(client, system=system)) == "THE CAPITAL OF FRANCE IS PARIS."


def test_a_system_message_among_the_messages(client: anthropic.Anthropic) -> None:
    messages = [{"role": "system", "content": "Answer in capital letters."}, *QUESTION]
    assert "PARIS" in text_of(ask(client, messages))


def test_content_in_blocks_and_an_earlier_turn(client: anthropic.Anthropic) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "My name is Ada."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Nice to meet you, Ada!"}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is my name?", "cache_control": {"type": "ephemeral"}}],
        },
    ]
    assert "Ada" in text_of(ask(client, messages))


def test_a_tool_call_and_its_result(client: anthropic.Anthropic) -> None:
    first = ask(client, [ASK_WEATHER], tools=[WEATHER])
    call: Any = first.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})
    assert (first.stop_reason, first.stop_sequence) == ("tool_use", None)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 22 degrees"}
    messages = [ASK_WEATHER, first.to_param(), {"role": "user", "content": [result]}]
    second = ask(client, messages, tools=[WEATHER])
    assert "sunny, 22 degrees" in text_of(second)
    assert second.stop_reason == "end_turn"


def test_a_streamed_tool_call(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="tiny", max_tokens=100, messages=[ASK_WEATHER], tools=[WEATHER]
    ) as stream:
        partial = "".join(event.partial_json for event in stream if event.type == "input_json")
        final = stream.get_final_message()
    assert json.loads(partial) == {"city": "Paris"}
    call: Any = final.content[-1]
    assert (call.name, call.input, final.stop_reason) == ("get_weather", {"city": "Paris"}, "tool_use")


@pytest.mark.parametrize(
    "choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}], ids=["any", "named"]
)
def test_a_forced_tool_is_called_whatever_was_asked(client: anthropic.Anthropic, choice: Any) -> None:
    messages = [{"role": "user", "content": "Say the word hello."}]
    answer = ask(client, messages, tools=[WEATHER], tool_choice=choice)
    call: Any = answer.content[0]
    assert (call.type, call.name, set(call.input)) == ("tool_use", "get_weather", {"city"})


def test_tool_choice_none_offers_no_tools(client: anthropic.Anthropic) -> None:
    answer = ask(client, [ASK_WEATHER], tools=[WEATHER], tool_choice={"type": "none"})
    assert text_of(answer) == "I cannot check the weather."


def test_thoughts_come_first_and_only_when_asked_for(client: anthropic.Anthropic) -> None:
    answer = ask(client, thinking={"type": "enabled", "budget_tokens": 50})
    thought: Any = answer.content[0]
    assert (thought.type, answer.content[1].type) == ("thinking", "text")
    assert thought.thinking and "<think>" not in thought.thinking
    assert "Paris" in text_of(answer)
    with client.messages.stream(
        model="tiny",
        max_tokens=100,
        messages=QUESTION,
        thinking={"type": "enabled", "budget_tokens": 50},
    ) as stream:
        deltas = "".join(event.thinking for event in stream if event.type == "thinking")
        final = stream.get_final_message()
    assert deltas == thought.thinking
    assert [block.type for block in final.content] == ["thinking", "text"]
    brief = ask(client, thinking={"type": "enabled", "budget_tokens": 2})
    short: Any = brief.content[0]
    assert thought.thinking.startswith(short.thinking) and len(short.thinking) < len(thought.thinking)
    assert "Paris" in text_of(brief)


def test_thoughts_can_be_given_back_or_left_out(client: anthropic.Anthropic) -> None:
    thinking = {"type": "adaptive"}
    first = ask(client, [{"role": "user", "content": "My name is Ada."}], thinking=thinking)
    messages = [
        {"role": "user", "content": "My name is Ada."},
        first.to_param(),
        {"role": "user", "content": "What is my name?"},
    ]
    second = ask(client, messages, thinking={**thinking, "display": "omitted"})
    assert [block.type for block in second.content] == ["text"]
    assert "Ada" in text_of(second)


def test_limits_and_stop_sequences(client: anthropic.Anthropic) -> None:
    cut = ask(client, COUNTING, max_tokens=3)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 3)
    stopped = ask(client, COUNTING, stop_sequences=["never", "7"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "7")
    assert "6" in text_of(stopped) and "7" not in text_of(stopped)


@pytest.mark.parametrize("reads", [1, 4, 9], ids=lambda count: f"after {count} lines")
def test_a_client_that_leaves_is_no_failure(server: LiveServer, reads: int) -> None:
    before = len(server.log)
    body = {
        "model": "tiny",
        "max_tokens": 900,
        "stream": True,
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "options": {"temperature": 2.0, "seed": reads},
    }
    with httpx.stream("POST", f"{server.url}/v1/messages", json=body, timeout=60) as answer:
        lines = answer.iter_lines()
        read = [next(lines) for _ in range(reads)]
    assert read[0] == "event: message_start"
    deadline = time.monotonic() + 10
    while '"aborted": true' not in server.log[before:] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "Traceback" not in server.log[before:] and "a stream failed" not in server.log[before:]
    assert ask_again(server) == "Paris"


def ask_again(server: LiveServer) -> str:
    body = {"model": "tiny", "max_tokens": 20, "messages": QUESTION, "system": "Answer in one word."}
    answer = server.post("/v1/messages", body).json()
    return str(answer["content"][0]["text"])


def test_a_schema_binds_the_answer(client: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = ask(client, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(text_of(answer))["city"] in ("Paris", "Rome")


def test_counting_sees_the_system_prompt_the_tools_and_more_than_fits(client: anthropic.Anthropic) -> None:
    def count(**fields: Any) -> int:
        counted: int = client.messages.count_tokens(
            **{"model": "tiny", "messages": QUESTION, **fields}
        ).input_tokens
        return counted

    plain = count()
    assert plain < count(system="Answer in capital letters.") < count(system="x " * 50)
    assert count(tools=[WEATHER]) > plain + 20
    long = [{"role": "user", "content": "hello " * 3000}]
    assert count(messages=long) > 3000
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        ask(client, long)


def test_what_other_programs_send_is_no_obstacle(client: anthropic.Anthropic) -> None:
    with client.beta.messages.stream(
        model="tiny",
        max_tokens=32000,
        messages=QUESTION,
        system=[{"type": "text", "text": "Answer in one word.", "cache_control": {"type": "ephemeral"}}],
        metadata={"user_id": '{"session": 1}'},
        context_management={"edits": []},
        thinking={"type": "adaptive"},
        output_config={"effort": "high"},
        tools=[{**WEATHER, "eager_input_streaming": True, "cache_control": {"type": "ephemeral"}}],
        betas=["context-management-2025-06-27"],
        extra_headers={"anthropic-version": "2023-06-01", "x-app": "cli"},
    ) as stream:
        answer = stream.get_final_message()
    assert answer.content and answer.stop_reason in ("end_turn", "tool_use")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "content of type 'video'"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "does not support vision"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"thinking": {"type": "sometimes"}}, "thinking.type"),
        ({"output_config": {"effort": "enormous"}}, "effort"),
        ({"extra_body": {"mcp_servers": [{"type": "url", "url": "x"}]}}, "mcp_servers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_a_bad_request(client: anthropic.Anthropic, fields: Any, words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words) as caught:
        ask(client, **fields)
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"] == caught.value.request_id


@pytest.mark.parametrize("route", ["/v1/messages", "/v1/messages/count_tokens"])
def test_an_unknown_model_is_not_found(server: LiveServer, route: str) -> None:
    answer = server.post(route, {"model": "nope", "max_tokens": 1, "messages": QUESTION})
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "model 'nope' not found"},
        "request_id": answer.headers["request-id"],
    }
    assert answer.headers["x-request-id"] == answer.headers["request-id"]


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    rows = {model.id: model for model in client.models.list()}
    assert rows["tiny:latest"].display_name == "tiny:latest"
    assert rows["tiny:latest"].type == "model"
    assert rows["tiny:latest"].created_at.year >= 2024
