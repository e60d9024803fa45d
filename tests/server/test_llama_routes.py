"""The routes that llama-server has beside OpenAI's, on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, build_model, running_server

TEXT = "The capital of France is Paris. こんにちは"


def test_tokens_and_back(server: LiveServer) -> None:
    tokens = server.post("/tokenize", {"model": "tiny", "content": TEXT}).json()["tokens"]
    assert len(tokens) > 5 and all(isinstance(token, int) for token in tokens)
    assert server.post("/detokenize", {"model": "tiny", "tokens": tokens}).json() == {"content": TEXT}


def test_names_of_control_tokens_are_read_unless_they_are_text(server: LiveServer) -> None:
    def count(**fields: Any) -> int:
        body = {"model": "tiny", "content": "<|im_end|>", **fields}
        return len(server.post("/tokenize", body).json()["tokens"])

    assert count() == 1
    assert count(parse_special=False) > 1


def test_without_a_name_the_only_model_that_is_loaded_is_asked(tmp_path: Path) -> None:
    for name in ("tiny", "other"):
        build_model(tmp_path / "home", name, f"SYSTEM You are {name}.")
    with running_server(tmp_path / "home", tmp_path) as server:
        assert server.post("/tokenize", {"content": TEXT}).status_code == 400, "none is loaded"
        named = server.post("/tokenize", {"model": "tiny", "content": TEXT}).json()
        assert named["tokens"] and server.post("/tokenize", {"content": TEXT}).json() == named
        server.post("/api/generate", {"model": "other"})
        refused = server.post("/tokenize", {"content": TEXT}).json()["error"]
        assert refused["message"] == "model is required: 2 models are loaded"


@pytest.mark.parametrize(
    ("route", "body", "status", "param"),
    [
        ("/tokenize", {"model": "nope", "content": "x"}, 404, None),
        ("/tokenize", {"model": "tiny", "content": "x", "with_pieces": True}, 400, "with_pieces"),
        ("/tokenize", {"model": "tiny", "content": "x" * (2 * 1024 * 1024 + 1)}, 400, "content"),
        ("/detokenize", {"model": "tiny", "tokens": [10**9]}, 400, None),
        ("/detokenize", {"model": "tiny", "tokens": [-1]}, 400, None),
        ("/detokenize", {"model": "tiny", "tokens": [1] * 1_000_001}, 400, None),
        ("/detokenize", {"model": "tiny", "tokens": "x"}, 400, "tokens"),
    ],
    ids=["model", "pieces", "length", "too high", "negative", "too many", "type"],
)
def test_what_cannot_be_done_says_so(
    server: LiveServer, route: str, body: Any, status: int, param: str | None
) -> None:
    answer = server.post(route, body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"] and error["param"] == param


@pytest.mark.parametrize("text", ["", "a" * 100_000], ids=["empty", "long"])
def test_any_length_of_text(server: LiveServer, text: str) -> None:
    tokens = server.post("/tokenize", {"model": "tiny", "content": text}).json()["tokens"]
    assert server.post("/detokenize", {"model": "tiny", "tokens": tokens}).json() == {"content": text}
