"""Pydantic AI, over its OpenAI and Anthropic models."""

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Capital(BaseModel):
    country: str
    capital: str


@pytest.fixture(params=["openai", "ollama"])
def chat(request: pytest.FixtureRequest, url: str, model: str) -> OpenAIChatModel:
    if request.param == "ollama":
        return OpenAIChatModel(model, provider=OllamaProvider(base_url=f"{url}/v1"))
    return OpenAIChatModel(model, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="any"))


def test_text(chat: OpenAIChatModel) -> None:
    agent = Agent(chat, system_prompt="Answer in one word.", model_settings={"temperature": 0})
    result = agent.run_sync("What is the capital of France?")
    assert result.output == "Paris"
    assert result.usage.output_tokens > 0


def test_tools(chat: OpenAIChatModel) -> None:
    agent = Agent(chat, model_settings={"temperature": 0})
    asked: list[str] = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather in a city"""
        asked.append(city)
        return "sunny, 22 degrees"

    assert "sunny, 22 degrees" in agent.run_sync("What is the weather in Paris?").output
    assert asked == ["Paris"]


def test_structured_output(chat: OpenAIChatModel) -> None:
    native = Agent(chat, output_type=NativeOutput(Capital), model_settings={"temperature": 0})
    assert isinstance(native.run_sync("Give the capital of France as JSON.").output, Capital)
    tool = Agent(chat, output_type=Capital, model_settings={"temperature": 0})  # a required tool call
    assert isinstance(tool.run_sync("Give the capital of France as JSON.").output, Capital)
