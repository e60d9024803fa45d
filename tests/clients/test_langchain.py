"""LangChain's Ollama integration: chat, tools, structured output, text completion, embeddings."""

import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from pydantic import BaseModel


@tool
def get_weather(city: str) -> str:
    """The weather in a city"""
    return "sunny, 22 degrees"


class Capital(BaseModel):
    country: str
    capital: str


@pytest.fixture
def chat(url: str, model: str) -> ChatOllama:
    return ChatOllama(model=model, base_url=url, temperature=0, validate_model_on_init=True)


def test_whole_and_streamed(chat: ChatOllama) -> None:
    question = [SystemMessage("Answer in capital letters."), HumanMessage("What is the capital of France?")]
    answer = chat.invoke(question)
    assert answer.content == "THE CAPITAL OF FRANCE IS PARIS."
    assert answer.usage_metadata["output_tokens"] > 3
    assert answer.response_metadata["done_reason"] == "stop"
    pieces = [chunk.content for chunk in chat.stream(question)]
    assert "".join(pieces) == answer.content and len(pieces) > 2


def test_reasoning(url: str, model: str) -> None:
    chat = ChatOllama(model=model, base_url=url, temperature=0, reasoning=True)
    answer = chat.invoke("What is the capital of France?")
    assert "Paris" in answer.content and "<think>" not in answer.content
    assert answer.additional_kwargs["reasoning_content"]


def test_tools(chat: ChatOllama) -> None:
    bound = chat.bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris?")
    called = bound.invoke([question])
    [call] = called.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    assert "sunny, 22 degrees" in bound.invoke([question, called, result]).content


def test_structured_output(chat: ChatOllama) -> None:
    found = chat.with_structured_output(Capital, method="json_schema").invoke(
        "Give the capital of France as JSON."
    )
    assert isinstance(found, Capital)


def test_completion(url: str, model: str) -> None:
    llm = OllamaLLM(model=model, base_url=url, temperature=0, reasoning=False)
    assert llm.invoke("Count from 1 to 5.").strip() == "1, 2, 3, 4, 5"


def test_embeddings(url: str, embedder: str) -> None:
    embeddings = OllamaEmbeddings(model=embedder, base_url=url)
    one, two = embeddings.embed_documents(["a cat", "a dog"])
    assert len(one) == 64 and one != two
    assert embeddings.embed_query("a cat") == pytest.approx(one, abs=1e-4)
