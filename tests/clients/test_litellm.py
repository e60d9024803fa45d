"""LiteLLM, in its three dialects that can mean us: ollama_chat, openai and anthropic."""

import json

import litellm
import pytest

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


@pytest.fixture(params=["ollama_chat", "openai", "anthropic"])
def dialect(request: pytest.FixtureRequest, url: str, model: str) -> dict[str, object]:
    base = f"{url}/v1" if request.param == "openai" else url
    return {
        "model": f"{request.param}/{model}",
        "api_base": base,
        "api_key": "any",
        "temperature": 0,
        "max_tokens": 100,
    }


def test_whole_answers(dialect: dict[str, object]) -> None:
    answer = litellm.completion(messages=PARIS, **dialect)
    assert answer.choices[0].message.content.strip() == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens > 5 and answer.usage.completion_tokens > 3


def test_streams(dialect: dict[str, object]) -> None:
    pieces = [
        chunk.choices[0].delta.content or ""
        for chunk in litellm.completion(messages=PARIS, stream=True, **dialect)
    ]
    assert "".join(pieces).strip() == "The capital of France is Paris."
    assert sum(bool(piece) for piece in pieces) > 2


def test_tools(dialect: dict[str, object]) -> None:
    answer = litellm.completion(messages=WEATHER, tools=TOOLS, **dialect).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "sunny, 22 degrees"}
    turns = [*WEATHER, answer.message.model_dump(exclude_none=True), result]
    final = litellm.completion(messages=turns, tools=TOOLS, **dialect)
    assert "sunny, 22 degrees" in final.choices[0].message.content


def test_embeddings(url: str, embedder: str) -> None:
    texts = ["a cat", "a dog"]
    native = litellm.embedding(model=f"ollama/{embedder}", input=texts, api_base=url)
    openai = litellm.embedding(
        model=f"openai/{embedder}",
        input=texts,
        api_base=f"{url}/v1",
        api_key="any",
        encoding_format="float",
    )
    for answer in (native, openai):
        assert [len(row["embedding"]) for row in answer.data] == [64, 64]
    assert native.data[0]["embedding"] == pytest.approx(openai.data[0]["embedding"], abs=1e-5)


def test_errors(url: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="not found"):
        litellm.completion(model="openai/nope", messages=PARIS, api_base=f"{url}/v1", api_key="any")
