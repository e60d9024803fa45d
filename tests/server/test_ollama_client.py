"""ollama-python against a real server and a real model; what is asserted is what the model says."""

from __future__ import annotations

import ollama
import pytest

QUESTION = {"role": "user", "content": "What is the capital of France?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_a_chat_answers(native: ollama.Client) -> None:
    answer = native.chat("tiny", [QUESTION], think=False)
    assert "Paris" in (answer.message.content or "")
    assert (answer.done, answer.done_reason, answer.message.role) == (True, "stop", "assistant")
    assert not answer.message.thinking
    assert answer.prompt_eval_count and answer.prompt_eval_count > 5
    assert answer.eval_count and answer.eval_count > 1
    assert (
        answer.total_duration and answer.eval_duration and answer.total_duration >= answer.eval_duration > 0
    )


def test_a_streamed_chat_is_the_same_answer_in_pieces(native: ollama.Client) -> None:
    whole = native.chat("tiny", [QUESTION], think=False)
    pieces = list(native.chat("tiny", [QUESTION], think=False, stream=True))
    assert len(pieces) > 3
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].message.content == ""
    assert pieces[-1].eval_count == whole.eval_count


def test_thoughts_are_kept_apart(native: ollama.Client) -> None:
    answer = native.chat("tiny", [QUESTION], think=True)
    assert answer.message.thinking
    assert "Paris" in (answer.message.content or "")
    assert "<think>" not in (answer.message.content or "")
    assert "</think>" not in answer.message.thinking


def test_a_conversation_is_remembered(native: ollama.Client) -> None:
    messages = [{"role": "user", "content": "My name is Alice."}]
    reply = native.chat("tiny", messages, think=False).message.content
    messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": "What is my name?"}]
    assert "Alice" in (native.chat("tiny", messages, think=False).message.content or "")


def test_old_turns_are_dropped_or_the_prompt_is_refused(native: ollama.Client) -> None:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi! " * 9}] * 150
    answer = native.chat("tiny", [*turns, QUESTION], think=False)
    assert "Paris" in (answer.message.content or "")
    with pytest.raises(ollama.ResponseError, match="the context has room for") as refusal:
        native._request(
            ollama.ChatResponse,
            "POST",
            "/api/chat",
            json={"model": "tiny", "messages": [*turns, QUESTION], "truncate": False, "stream": False},
        )
    assert refusal.value.status_code == 400


def test_a_tool_is_called_and_its_result_is_used(native: ollama.Client) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = native.chat("tiny", messages, tools=[WEATHER], think=False)
    [call] = first.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert [value.strip() for value in call.function.arguments.values()] == ["Paris"]
    messages += [
        first.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_name": "get_weather", "content": '{"weather": "sunny"}'},
    ]
    second = native.chat("tiny", messages, tools=[WEATHER], think=False)
    assert "sunny" in (second.message.content or "").lower()


def test_a_streamed_tool_call_comes_whole_and_once(native: ollama.Client) -> None:
    messages = [{"role": "user", "content": "What is the weather in Rome?"}]
    pieces = list(native.chat("tiny", messages, tools=[WEATHER], think=False, stream=True))
    calls = [call for piece in pieces for call in piece.message.tool_calls or []]
    assert [call.function.arguments["city"].strip() for call in calls] == ["Rome"]
    assert not pieces[-1].message.tool_calls


def test_the_models_own_system_prompt_is_obeyed(native: ollama.Client) -> None:
    content = native.chat("team/pirate:v1", [QUESTION], think=False).message.content or ""
    assert content.isupper()


def test_a_system_message_of_the_request_replaces_it(native: ollama.Client) -> None:
    messages = [{"role": "system", "content": "You are a helpful assistant."}, QUESTION]
    content = native.chat("tiny", messages, think=False).message.content or ""
    assert "Paris" in content


def test_generate_answers_and_its_context_continues_it(native: ollama.Client) -> None:
    answer = native.generate("tiny", "What is the capital of Italy?", think=False)
    assert "Rome" in (answer.response or "")
    assert answer.context


def test_raw_generate_sees_no_template(native: ollama.Client) -> None:
    prompt = "<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n<|im_start|>assistant\n"
    answer = native.generate("tiny", prompt, raw=True)
    assert "Rome" in (answer.response or "")
    assert not answer.context


def test_num_predict_cuts_the_answer(native: ollama.Client) -> None:
    answer = native.chat(
        "tiny", [{"role": "user", "content": "Count from 1 to 20."}], think=False, options={"num_predict": 3}
    )
    assert (answer.done_reason, answer.eval_count) == ("length", 3)


def test_a_stop_string_ends_the_answer_and_does_not_appear(native: ollama.Client) -> None:
    counting = [{"role": "user", "content": "Count from 1 to 9."}]
    options = {"num_predict": 40}
    full = native.chat("tiny", counting, think=False, options=options).message.content or ""
    assert "5" in full
    cut = native.chat("tiny", counting, think=False, options={**options, "stop": ["5"]})
    assert cut.message.content == full[: full.index("5")]
    assert cut.done_reason == "stop"


def test_the_same_seed_gives_the_same_answer(native: ollama.Client) -> None:
    options = {"temperature": 1.5, "seed": 7, "num_predict": 16}
    texts = {native.generate("tiny", "Tell me", raw=True, options=options).response for _ in range(2)}
    assert len(texts) == 1


def test_json_format_gives_json(native: ollama.Client) -> None:
    import json

    answer = native.chat(
        "tiny",
        [QUESTION],
        think=False,
        format={"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
        options={"num_predict": 100},
    )
    assert json.loads(answer.message.content or "")["city"] in ("Paris", "Rome")


def test_load_ps_and_unload(native: ollama.Client) -> None:
    loaded = native.generate("tiny", keep_alive="7m")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    row = next(model for model in native.ps().models if model.model == "tiny:latest")
    assert row.name == "tiny:latest"
    assert row.size and row.context_length == 1024
    assert row.expires_at is not None and row.expires_at.tzinfo is not None
    unloaded = native.generate("tiny", keep_alive=0)
    assert (unloaded.done, unloaded.done_reason) == (True, "unload")


def test_list_show_copy_delete(native: ollama.Client) -> None:
    names = {model.model for model in native.list().models}
    assert {"tiny:latest", "team/pirate:v1"} <= names
    shown = native.show("tiny")
    assert shown.modelinfo and shown.modelinfo["general.architecture"] == "llama"
    assert shown.details and shown.details.quantization_level == "F16"
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities or [])
    assert "Apache-2.0" in (shown.license or "")
    native.copy("tiny", "twin")
    rows = {model.model: model.digest for model in native.list().models}
    assert rows["twin:latest"] == rows["tiny:latest"]
    native.delete("twin")
    assert "twin:latest" not in {model.model for model in native.list().models}
    assert "Paris" in (native.chat("tiny", [QUESTION], think=False).message.content or "")


@pytest.mark.parametrize("verb", ["chat", "generate", "show", "delete"])
def test_a_model_that_is_not_there(native: ollama.Client, verb: str) -> None:
    arguments = {"chat": ("nope", [QUESTION]), "generate": ("nope", "x")}.get(verb, ("nope",))
    with pytest.raises(ollama.ResponseError) as caught:
        getattr(native, verb)(*arguments)
    assert (caught.value.status_code, caught.value.error) == (404, "model 'nope' not found")
