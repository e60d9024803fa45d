"""What is kept of one API key's prompts is not for another: over HTTP, in every dialect, by the usage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, build_model, running_server

from lading.server.access.api_key import KeyFile, key_of
from lading.server.access.role import Role

KEYS = {name: f"lading_{name}-{'x' * 30}" for name in ("alice", "bob")}
SECRET = "The secret of the house is a number: 4711. " * 12

Ask = Callable[[LiveServer, str, str], int]
"""Asks with a key for the answer to a text; tells how many tokens of it were cached."""


def post(server: LiveServer, key: str, path: str, body: dict[str, Any]) -> Any:
    headers = {"authorization": f"Bearer {KEYS[key]}"} if key else {}
    answer = server.call("POST", path, json={"model": "tiny"} | body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def openai_chat(server: LiveServer, key: str, text: str) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    usage = post(server, key, "/v1/chat/completions", body)["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def openai_completion(server: LiveServer, key: str, text: str) -> int:
    usage = post(server, key, "/v1/completions", {"prompt": text, "max_tokens": 2})["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def openai_response(server: LiveServer, key: str, text: str) -> int:
    usage = post(server, key, "/v1/responses", {"input": text, "max_output_tokens": 2})["usage"]
    return int(usage["input_tokens_details"]["cached_tokens"])


def anthropic_message(server: LiveServer, key: str, text: str) -> int:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 2}
    return int(post(server, key, "/v1/messages", body)["usage"]["cache_read_input_tokens"])


DIALECTS: dict[str, Ask] = {
    "chat": openai_chat,
    "completion": openai_completion,
    "response": openai_response,
    "message": anthropic_message,
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with two keys."""
    folder = tmp_path_factory.mktemp("tenants")
    with running_server(built(folder), folder, api_keys=str(folder / "keys.json")) as live:
        yield live


def built(folder: Path) -> Path:
    build_model(folder / "home", "tiny")
    for name, secret in KEYS.items():
        key = key_of(secret, name=name, roles=(Role.INFER,), created="2026-01-01T00:00:00Z")
        KeyFile(folder / "keys.json").add(key)
    return folder / "home"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_prompt_of_one_key_is_not_cached_for_another(locked: LiveServer, dialect: str) -> None:
    ask, text = DIALECTS[dialect], f"{dialect}: {SECRET}"
    assert ask(locked, "alice", text) < 20
    assert ask(locked, "bob", text) < 20, "bob asks what alice has asked"
    assert ask(locked, "alice", text) > 100
    assert ask(locked, "bob", text) > 100


def test_not_even_while_it_is_read(locked: LiveServer) -> None:
    text = f"at once: {SECRET}"
    with ThreadPoolExecutor(4) as threads:
        asked = ["alice", "bob", "alice", "bob"]
        cached = list(threads.map(lambda key: openai_chat(locked, key, text), asked))
    assert sum(count > 100 for count in cached) <= 2


def test_ollamas_dialect_keeps_them_apart_as_well(locked: LiveServer) -> None:
    """It has no field for what was cached; the log tells."""
    text = f"ollama: {SECRET}"
    for key in ("alice", "bob", "alice", "bob"):
        post(locked, key, "/api/generate", {"prompt": text, "stream": False, "options": {"num_predict": 2}})
    deadline = time.monotonic() + 30
    while len(cached := _logged(locked, "/api/generate")) < 4:  # a line comes after the answer
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [count > 100 for count in cached] == [False, False, True, True]


def _logged(server: LiveServer, path: str) -> list[int]:
    """How many tokens were cached, of each request in the log."""
    whole = server.log.rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line["cached_tokens"] for line in lines if line.get("path") == path]


def test_a_setting_shares_them(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"api_keys": str(tmp_path / "keys.json"), "shared_prefixes": True}
    with running_server(built(tmp_path), tmp_path, **settings) as server:
        assert openai_chat(server, "alice", SECRET) == 0
        assert openai_chat(server, "bob", SECRET) > 100


def test_without_keys_everybody_is_one(tmp_path: Path) -> None:
    build_model(tmp_path / "home", "tiny")
    with running_server(tmp_path / "home", tmp_path) as server:
        assert openai_chat(server, "", SECRET) == 0
        assert openai_chat(server, "", SECRET) > 100
