"""openai-python against a real server and a real model."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
REMOTE_IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}
NO_THINKING: Any = {"reasoning_effort": "none"}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_a_completion_answers(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="tiny", messages=QUESTION, **NO_THINKING)
    choice = answer.choices[0]
    assert "Paris" in (choice.message.content or "")
    assert (choice.finish_reason, choice.index, choice.message.role) == ("stop", 0, "assistant")
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == "tiny"
    assert (
        answer.usage
        and answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    )
    assert answer.usage.completion_tokens > 1


def test_a_stream_is_the_same_answer_with_usage_at_the_end(sdk: openai.OpenAI) -> None:
    whole = sdk.chat.completions.create(model="tiny", messages=QUESTION, **NO_THINKING)
    chunks = list(
        sdk.chat.completions.create(
            model="tiny",
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
            **NO_THINKING,
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert (chunks[-1].choices == [] and chunks[-1].usage == whole.usage) or chunks[-1].usage is not None
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert reasons[-1] == "stop" and set(reasons[:-1]) == {None}


def test_thoughts_are_reasoning(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="tiny", messages=QUESTION, reasoning_effort="low")
    assert answer.choices[0].message.model_extra
    assert answer.choices[0].message.model_extra["reasoning"]
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage and answer.usage.completion_tokens_details
    assert 0 < (answer.usage.completion_tokens_details.reasoning_tokens or 0) < answer.usage.completion_tokens


@pytest.mark.parametrize("limit", [{"max_thinking_tokens": 0}, {"reasoning": {"max_tokens": 0}}])
def test_thoughts_have_a_limit(sdk: openai.OpenAI, limit: dict[str, Any]) -> None:
    answer = sdk.chat.completions.create(
        model="tiny", messages=QUESTION, reasoning_effort="low", extra_body=limit
    )
    assert "reasoning" not in (answer.choices[0].message.model_extra or {})
    assert "Paris" in (answer.choices[0].message.content or "")


def test_old_turns_are_dropped_or_the_prompt_is_refused(sdk: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi! " * 9}] * 150
    answer = sdk.chat.completions.create(model="tiny", messages=[*turns, *QUESTION], **NO_THINKING)
    assert "Paris" in (answer.choices[0].message.content or "")
    with pytest.raises(openai.BadRequestError, match="the context has room for"):
        sdk.chat.completions.create(
            model="tiny", messages=[*turns, *QUESTION], extra_body={"truncate": False}, **NO_THINKING
        )


def test_a_tool_call_and_its_result(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = sdk.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER], **NO_THINKING)
    assert first.choices[0].finish_reason == "tool_calls"
    call: Any = (first.choices[0].message.tool_calls or [])[0]
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments)["city"].strip() == "Paris"
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'},
    ]
    second = sdk.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER], **NO_THINKING)
    assert "sunny" in (second.choices[0].message.content or "").lower()


def test_a_forced_tool_is_called_whatever_was_asked(sdk: openai.OpenAI) -> None:
    # A free text would be for the model to end, which a small one may forget.
    city = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tool: Any = {"type": "function", "function": {"name": "choose_city", "parameters": city}}
    answer = sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Say the word hello."}],
        tools=[WEATHER, tool],
        tool_choice={"type": "function", "function": {"name": "choose_city"}},
        max_completion_tokens=100,
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function" and call.function.name == "choose_city"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    assert answer.choices[0].finish_reason == "tool_calls"


def test_tool_choice_none_offers_no_tools(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[WEATHER],
        tool_choice="none",
        max_completion_tokens=40,
        **NO_THINKING,
    )
    assert not answer.choices[0].message.tool_calls


def test_a_json_schema_binds_the_answer(sdk: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = sdk.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "c", "schema": schema, "strict": True},
        },
        max_completion_tokens=100,
        **NO_THINKING,
    )
    assert json.loads(answer.choices[0].message.content or "")["city"] in ("Paris", "Rome")


def test_limits_and_stops(sdk: openai.OpenAI) -> None:
    counting: Any = [{"role": "user", "content": "Count from 1 to 20."}]
    cut = sdk.chat.completions.create(model="tiny", messages=counting, max_completion_tokens=3, **NO_THINKING)
    assert cut.choices[0].finish_reason == "length"
    assert cut.usage and cut.usage.completion_tokens == 3
    stopped = sdk.chat.completions.create(model="tiny", messages=counting, stop=["7"], **NO_THINKING)
    assert stopped.choices[0].finish_reason == "stop"
    assert "6" in (stopped.choices[0].message.content or "")
    assert "7" not in (stopped.choices[0].message.content or "")


def test_several_choices(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="tiny", messages=QUESTION, n=3, seed=1, **NO_THINKING)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all("Paris" in (choice.message.content or "") for choice in answer.choices)


def test_several_choices_streamed(sdk: openai.OpenAI) -> None:
    texts = {0: "", 1: ""}
    ends = []
    for chunk in sdk.chat.completions.create(
        model="tiny", messages=QUESTION, n=2, stream=True, **NO_THINKING
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.index] if choice.finish_reason else []
    assert all("Paris" in text for text in texts.values())
    assert sorted(ends) == [0, 1]


def test_logprobs(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model="tiny", messages=QUESTION, logprobs=True, top_logprobs=2, max_completion_tokens=4, **NO_THINKING
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.content
    first = logprobs.content[0]
    assert first.logprob <= 0 and len(first.top_logprobs) == 2
    assert "".join(token.token for token in logprobs.content).strip() in (
        answer.choices[0].message.content or ""
    )


def test_models(sdk: openai.OpenAI) -> None:
    rows = {model.id: model for model in sdk.models.list()}
    assert rows["tiny:latest"].owned_by == "library"
    assert rows["team/pirate:v1"].owned_by == "team"
    assert sdk.models.retrieve("tiny").id == "tiny:latest"
    assert sdk.models.retrieve("team/pirate:v1").created == rows["team/pirate:v1"].created


def test_an_unknown_model_is_a_not_found_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.chat.completions.create(model="nope", messages=QUESTION)
    assert caught.value.body == {
        "message": "model 'nope' not found",
        "type": "not_found_error",
        "param": None,
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 99}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"messages": [{"role": "user", "content": [REMOTE_IMAGE]}]}, "messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_makes_no_sense_is_a_bad_request_that_names_the_field(
    sdk: openai.OpenAI, options: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(**{"model": "tiny", "messages": QUESTION, **options})
    assert caught.value.param == param


PROMPT = "<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n<|im_start|>assistant\n"


def test_a_text_completion(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="tiny", prompt=PROMPT, max_tokens=20)
    assert "Rome" in answer.choices[0].text
    assert (answer.object, answer.choices[0].finish_reason) == ("text_completion", "stop")
    assert answer.usage and answer.usage.completion_tokens > 1
    pieces = list(sdk.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text
    assert pieces[-1].choices[0].finish_reason == "stop"


def test_a_text_completion_echoes_where_asked_to(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, echo=True)
    assert answer.choices[0].text.startswith(PROMPT)


def test_a_chat_model_does_not_embed(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        sdk.embeddings.create(model="tiny", input="x")
