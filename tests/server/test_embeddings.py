"""Embeddings in both dialects, from a small model with random weights: shapes, lengths and encodings."""

from __future__ import annotations

import base64
import contextlib
import math
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import openai
import pytest
from live_server import TINY_CHAT, LiveServer, build_model, running_server
from random_models import WIDTH, embedding_model


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("embedder")
    weights = embedding_model(folder / "embed.gguf", TINY_CHAT)
    build_model(folder / "home", "embed", source=weights)
    with running_server(folder / "home", folder) as live:
        yield live


def length(vector: Any) -> float:
    return math.sqrt(sum(value * value for value in vector))


def test_each_text_has_a_vector_of_unit_length(embedder: LiveServer) -> None:
    client = ollama.Client(host=embedder.url)
    answer = client.embed("embed", ["one text", "another", "one text"])
    client._client.close()
    assert [len(vector) for vector in answer.embeddings] == [WIDTH] * 3
    assert all(length(vector) == pytest.approx(1, abs=1e-4) for vector in answer.embeddings)
    assert answer.embeddings[0] == pytest.approx(answer.embeddings[2], abs=1e-5)
    assert answer.embeddings[0] != pytest.approx(answer.embeddings[1], abs=1e-2)
    assert answer.prompt_eval_count and answer.prompt_eval_count > 3


def test_the_answer_has_every_field_that_clients_demand(embedder: LiveServer) -> None:
    body = embedder.post("/api/embed", {"model": "embed", "input": "x"}).json()
    assert set(body) == {"model", "embeddings", "total_duration", "load_duration", "prompt_eval_count"}
    assert body["total_duration"] >= body["load_duration"] >= 0


def test_tokens_stand_for_their_text(embedder: LiveServer) -> None:
    def embedded(given: Any) -> list[Any]:
        answer = embedder.post("/v1/embeddings", {"model": "embed", "input": given})
        assert answer.status_code == 200, answer.text
        return [row["embedding"] for row in answer.json()["data"]]

    tokens = embedder.post("/tokenize", {"model": "embed", "content": "one text"}).json()["tokens"]
    [vector] = embedded("one text")
    assert embedded(tokens)[0] == pytest.approx(vector, abs=1e-5)
    mixed = embedded([tokens, "another", tokens])
    assert len(mixed) == 3 and mixed[2] == pytest.approx(vector, abs=1e-5)


@pytest.mark.parametrize("given", [None, "", []], ids=repr)
def test_no_input_loads_the_model(embedder: LiveServer, given: Any) -> None:
    body = embedder.post("/api/embed", {"model": "embed", "input": given}).json()
    assert (body["embeddings"], body["prompt_eval_count"]) == ([], 0)
    assert [model["name"] for model in embedder.call("GET", "/api/ps").json()["models"]] == ["embed:latest"]


def test_dimensions_cut_and_normalise_again(embedder: LiveServer) -> None:
    [vector] = embedder.post("/api/embed", {"model": "embed", "input": "x", "dimensions": 8}).json()[
        "embeddings"
    ]
    assert len(vector) == 8 and length(vector) == pytest.approx(1, abs=1e-4)


def test_options_that_are_all_null_are_fine(embedder: LiveServer) -> None:
    options = dict.fromkeys(("num_ctx", "temperature", "top_k", "stop", "mirostat"))
    assert (
        embedder.post("/api/embed", {"model": "embed", "input": "x", "options": options}).status_code == 200
    )


def test_the_older_route(embedder: LiveServer) -> None:
    [expected] = embedder.post("/api/embed", {"model": "embed", "input": "x"}).json()["embeddings"]
    body = embedder.post("/api/embeddings", {"model": "embed", "prompt": "x"}).json()
    assert set(body) == {"embedding"}
    assert body["embedding"] == pytest.approx(expected, abs=1e-5)
    assert embedder.post("/api/embeddings", {"model": "embed", "prompt": ""}).json() == {"embedding": []}


def test_too_long_a_text_is_cut_or_refused(embedder: LiveServer) -> None:
    long = "word " * 5000
    assert embedder.post("/api/embed", {"model": "embed", "input": long}).status_code == 200
    refused = embedder.post("/api/embed", {"model": "embed", "input": long, "truncate": False})
    assert refused.status_code == 400
    assert "exceeds the context length" in refused.json()["error"]


def test_openais_client_gets_the_same_vectors_in_base64(embedder: LiveServer) -> None:
    [expected] = embedder.post("/api/embed", {"model": "embed", "input": "x"}).json()["embeddings"]
    with openai.OpenAI(base_url=f"{embedder.url}/v1", api_key="any", max_retries=0) as client:
        answer = client.embeddings.create(model="embed", input=["x", "y"])
        floats = client.embeddings.create(model="embed", input="x", encoding_format="float")
    assert [row.index for row in answer.data] == [0, 1]
    assert answer.data[0].embedding == pytest.approx(expected, abs=1e-5)
    assert floats.data[0].embedding == pytest.approx(expected, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 1


def test_base64_is_little_endian_float32(embedder: LiveServer) -> None:
    body = {"model": "embed", "input": "x", "encoding_format": "base64"}
    data = base64.b64decode(embedder.post("/v1/embeddings", body).json()["data"][0]["embedding"])
    assert len(data) == 4 * WIDTH
    assert length(struct.unpack(f"<{WIDTH}f", data)) == pytest.approx(1, abs=1e-4)


def test_an_embedding_model_does_not_chat(embedder: LiveServer) -> None:
    shown = embedder.post("/api/show", {"model": "embed"}).json()
    assert shown["capabilities"] == ["embedding"]
    answer = embedder.post("/api/chat", {"model": "embed", "messages": [{"role": "user", "content": "x"}]})
    assert (answer.status_code, answer.json()) == (400, {"error": '"embed" does not support chat'})


@pytest.mark.parametrize("given", [None, [], {"a": 1}, 3, [[]], [True], [1, "x"], [[1, "x"]]], ids=repr)
def test_openai_refuses_what_is_neither_text_nor_tokens(embedder: LiveServer, given: Any) -> None:
    answer = embedder.post("/v1/embeddings", {"model": "embed", "input": given})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input")


def test_clients_that_leave_make_room_for_the_next_and_do_no_harm(embedder: LiveServer) -> None:
    few = {"model": "embed", "input": ["one text"]}
    [expected] = embedder.post("/api/embed", few).json()["embeddings"]
    many = {"model": "embed", "input": [f"{number} word" * 100 for number in range(4000)]}

    def leave() -> None:
        with contextlib.suppress(httpx.ReadTimeout):
            embedder.call("POST", "/api/embed", json=many, timeout=0.3)

    for _ in range(5):
        impatient = [threading.Thread(target=leave) for _ in range(6)]
        for thread in impatient:
            thread.start()
        for thread in impatient:
            thread.join()
        began = time.monotonic()
        [vector] = embedder.post("/api/embed", few).json()["embeddings"]
        assert time.monotonic() - began < 3
        assert vector == pytest.approx(expected, abs=1e-5)
    assert "unexpectedly" not in embedder.log
