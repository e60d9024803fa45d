"""OpenAI's Agents SDK, over Chat Completions and over Responses."""

import asyncio

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city"""
    return "sunny, 22 degrees" if city == "Paris" else "unknown"


@pytest.fixture(params=[OpenAIChatCompletionsModel, OpenAIResponsesModel])
def agent(request: pytest.FixtureRequest, url: str, model: str) -> Agent:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    return Agent(
        name="Assistant",
        model=request.param(model=model, openai_client=client),
        tools=[get_weather],
        model_settings=ModelSettings(temperature=0),
    )


def test_a_tool_is_called_and_its_result_told(agent: Agent) -> None:
    result = asyncio.run(Runner.run(agent, "What is the weather in Paris?"))
    assert "sunny, 22 degrees" in result.final_output
    assert len(result.raw_responses) == 2


def test_streams(agent: Agent) -> None:
    async def run() -> tuple[str, int]:
        streamed = Runner.run_streamed(agent, "What is the weather in Paris?")
        pieces = [
            event.data.delta
            async for event in streamed.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return streamed.final_output, len(pieces)

    output, pieces = asyncio.run(run())
    assert "sunny, 22 degrees" in output
    assert pieces > 2
