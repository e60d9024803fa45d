"""LlamaIndex: its Ollama LLM and embeddings."""

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel


class Capital(BaseModel):
    country: str
    capital: str


@pytest.fixture
def llm(url: str, model: str) -> Ollama:
    return Ollama(model=model, base_url=url, temperature=0, request_timeout=60, thinking=False)


def test_chat_and_streams(llm: Ollama) -> None:
    question = [ChatMessage(role="user", content="What is the capital of France?")]
    assert llm.chat(question).message.content == "The capital of France is Paris."
    pieces = [piece.delta for piece in llm.stream_chat(question)]
    assert "".join(piece or "" for piece in pieces) == "The capital of France is Paris."
    assert len(pieces) > 2


def test_completion(llm: Ollama) -> None:
    assert llm.complete("Count from 1 to 5.").text.strip() == "1, 2, 3, 4, 5"


def test_tools(llm: Ollama) -> None:
    def get_weather(city: str) -> str:
        """The weather in a city"""
        return "sunny, 22 degrees"

    weather = FunctionTool.from_defaults(get_weather)
    answer = llm.chat_with_tools([weather], user_msg="What is the weather in Paris?")
    [call] = llm.get_tool_calls_from_response(answer)
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Paris"})


def test_structured_output(llm: Ollama) -> None:
    found = llm.as_structured_llm(Capital).complete("Give the capital of France as JSON.")
    assert isinstance(found.raw, Capital)


def test_embeddings(url: str, embedder: str) -> None:
    embedding = OllamaEmbedding(model_name=embedder, base_url=url)
    one, two = embedding.get_text_embedding_batch(["a cat", "a dog"])
    assert len(one) == 64 and one != two
    assert embedding.get_query_embedding("a cat") == pytest.approx(one, abs=1e-4)
