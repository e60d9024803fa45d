"""The Responses API by openai-python, against a real server and a real model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from live_server import LiveServer

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
NO_THINKING: Any = {"reasoning": {"effort": "none"}}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
CITY: Any = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def ask(sdk: openai.OpenAI, given: Any = QUESTION, **fields: Any) -> Any:
    return sdk.responses.create(
        **{"model": "tiny", "input": given, "max_output_tokens": 100, **NO_THINKING, **fields}
    )


def test_a_text_is_answered(sdk: openai.OpenAI) -> None:
    answer = ask(sdk)
    assert answer.output_text == ANSWER
    assert (answer.object, answer.status, answer.model) == ("response", "completed", "tiny")
    assert [item.type for item in answer.output] == ["message"]
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens > 3
    assert answer.error is None and answer.incomplete_details is None


@pytest.mark.parametrize(
    "items",
    [
        [{"role": "user", "content": QUESTION}],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
        [
            {"role": "user", "content": "What is the capital of Spain?"},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [
                    {
                        "type": "output_text",
                        "text": "The capital of Spain is Madrid.",
                        "annotations": [],
                    }
                ],
            },
            {"role": "user", "content": QUESTION},
        ],
    ],
    ids=["short", "parts", "several turns"],
)
def test_items_are_answered(sdk: openai.OpenAI, items: Any) -> None:
    assert ask(sdk, items).output_text == ANSWER


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions_and_messages_that_instruct(sdk: openai.OpenAI, role: str) -> None:
    shouted = ANSWER.upper()
    assert ask(sdk, instructions="Answer in capital letters.").output_text == shouted
    items = [{"role": role, "content": "Answer in capital letters."}, {"role": "user", "content": QUESTION}]
    assert ask(sdk, items).output_text == shouted


def test_a_stream_builds_the_same_response(sdk: openai.OpenAI) -> None:
    whole = ask(sdk)
    events = list(ask(sdk, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
    last = events[-1].response
    assert (last.output_text, last.usage.output_tokens) == (ANSWER, whole.usage.output_tokens)
    assert {event.response.id for event in events if hasattr(event, "response")} == {last.id}


def test_the_streaming_helper_follows(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="tiny", input=QUESTION, max_output_tokens=100) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == ANSWER
    assert [item.type for item in final.output] == ["reasoning", "message"]


def test_thoughts_are_reasoning_items(sdk: openai.OpenAI) -> None:
    answer = ask(sdk, reasoning={"effort": "low"}, include=["reasoning.encrypted_content"])
    thought, message = answer.output
    assert (thought.type, message.type) == ("reasoning", "message")
    assert thought.summary[0].text == thought.encrypted_content != ""
    events = list(ask(sdk, reasoning={"effort": "low"}, stream=True))
    deltas = [event.delta for event in events if event.type == "response.reasoning_summary_text.delta"]
    assert "".join(deltas) == thought.summary[0].text
    places = {event.output_index for event in events if event.type == "response.output_text.delta"}
    assert places == {1}
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    brief = ask(sdk, reasoning={"effort": "low"}, extra_body={"max_thinking_tokens": 0})
    assert [item.type for item in brief.output] == ["message"]
    assert brief.usage.output_tokens_details.reasoning_tokens <= 3  # the tags


def test_a_tool_call_and_its_result(sdk: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = ask(sdk, items, tools=[WEATHER])
    call = first.output[-1]
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments) == {"city": "Paris"}
    items += [item.model_dump(exclude_none=True) for item in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny, 22 degrees"})
    assert "sunny, 22 degrees" in ask(sdk, items, tools=[WEATHER]).output_text


def test_a_streamed_tool_call(sdk: openai.OpenAI) -> None:
    events = list(ask(sdk, "What is the weather in Paris?", tools=[WEATHER], stream=True))
    kinds = [event.type for event in events if "function" in event.type or "item" in event.type]
    assert kinds == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    done = next(event for event in events if event.type == "response.function_call_arguments.done")
    assert json.loads(done.arguments) == {"city": "Paris"}
    assert events[-1].response.output[0].id == done.item_id


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
    ids=["required", "named", "allowed"],
)
def test_a_forced_tool_is_called_whatever_was_asked(sdk: openai.OpenAI, choice: Any) -> None:
    answer = ask(sdk, "Say the word hello.", tools=[WEATHER], tool_choice=choice)
    assert [item.type for item in answer.output] == ["function_call"]
    assert set(json.loads(answer.output[0].arguments)) == {"city"}


def test_tools_in_a_namespace_come_back_in_it(sdk: openai.OpenAI) -> None:
    namespace = {"type": "namespace", "name": "home", "description": "Home", "tools": [WEATHER]}
    answer = ask(
        sdk, "Say the word hello.", tools=[namespace, {"type": "web_search"}], tool_choice="required"
    )
    call = answer.output[0]
    assert (call.namespace, call.name) == ("home", "get_weather")


def test_a_schema_binds_the_answer(sdk: openai.OpenAI) -> None:
    text = {"format": {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}}
    assert json.loads(ask(sdk, text=text).output_text)["city"] in ("Paris", "Rome")


def test_a_limit_makes_a_response_incomplete(sdk: openai.OpenAI) -> None:
    cut = ask(sdk, "Count from 1 to 20.", max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert cut.output[0].status == "incomplete"
    last = list(ask(sdk, "Count from 1 to 20.", max_output_tokens=3, stream=True))[-1]
    assert (last.type, last.response.status) == ("response.incomplete", "incomplete")


def test_logprobs_are_there_when_included(sdk: openai.OpenAI) -> None:
    answer = ask(sdk, include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = answer.output[0].content[0].logprobs
    assert "".join(token.token for token in logprobs).strip() == ANSWER
    assert len(logprobs[0].top_logprobs) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_response_can_be_continued(sdk: openai.OpenAI, stream: bool) -> None:
    first = ask(sdk, "My name is Ada.", stream=stream)
    first_id = list(first)[-1].response.id if stream else first.id
    second = ask(sdk, "What is my name?", previous_response_id=first_id)
    assert second.previous_response_id == first_id
    assert second.output_text == "Your name is Ada."
    third = ask(sdk, "What is my name?", previous_response_id=second.id)
    assert "Ada" in third.output_text


def test_instructions_are_not_carried_on(sdk: openai.OpenAI) -> None:
    first = ask(sdk, "Hello!", instructions="You are Bob.")
    second = ask(sdk, "Who are you?", previous_response_id=first.id)
    assert "Bob" not in second.output_text
    third = ask(sdk, "Who are you?", previous_response_id=first.id, instructions="You are Bob.")
    assert "Bob" in third.output_text


def test_a_tool_result_continues_a_response(sdk: openai.OpenAI) -> None:
    first = ask(sdk, "What is the weather in Paris?", tools=[WEATHER])
    result = {
        "type": "function_call_output",
        "call_id": first.output[-1].call_id,
        "output": "sunny, 22 degrees",
    }
    second = ask(sdk, [result], tools=[WEATHER], previous_response_id=first.id)
    assert "sunny, 22 degrees" in second.output_text


def test_a_response_is_kept_until_it_is_deleted(sdk: openai.OpenAI) -> None:
    made = ask(sdk, metadata={"topic": "cities"})
    found = sdk.responses.retrieve(made.id)
    assert found == made and found.metadata == {"topic": "cities"}
    sdk.responses.delete(made.id)
    for call in (sdk.responses.retrieve, sdk.responses.delete):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, previous_response_id=made.id)
    assert caught.value.param == "previous_response_id"


def test_what_is_not_to_be_stored_is_not(sdk: openai.OpenAI) -> None:
    made = ask(sdk, store=False)
    assert made.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(made.id)


def test_a_prompt_that_is_too_long_is_refused_unless_it_may_be_cut(sdk: openai.OpenAI) -> None:
    items: Any = [
        {"role": "user", "content": "hello " * 1100},
        {"role": "assistant", "content": "Hello! How can I help you?"},
        {"role": "user", "content": QUESTION},
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, items)
    assert caught.value.code == "context_length_exceeded"
    assert ask(sdk, items, truncation="auto").output_text == ANSWER


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "code_interpreter", "container": "auto"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "yaml"}}}, "text"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning"),
        ({"truncation": "some"}, "truncation"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_a_bad_request_that_names_the_field(
    sdk: openai.OpenAI, fields: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, **({"given": fields.pop("input")} if "input" in fields else {}), **fields)
    assert caught.value.param == param


def test_fields_that_change_nothing_are_no_obstacle(server: LiveServer) -> None:
    body = {
        "model": "tiny",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": QUESTION}]}],
        "include": [],
        "prompt_cache_key": "x",
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
        "client_metadata": {"a": "b"},
        "reasoning": None,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    }
    answer = server.post("/v1/responses", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "completed"
