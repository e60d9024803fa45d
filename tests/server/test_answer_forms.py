"""Answers of a given form and calls that must be made, asked for in every dialect's words."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from live_server import LiveServer

GRAMMAR = {"syntax": "regex", "definition": "(Paris|Rome)!"}
ANSWER = re.compile(r"(Paris|Rome)!")
GBNF = 'root ::= ("Paris" | "Rome") "!"'
LARK = '%llguidance {}\nstart: ("Paris" | "Rome") "!"'
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
BOOK = {
    "type": "object",
    "properties": {
        "cabin": {"enum": ["first", "second"]},
        "seats": {"type": "integer", "minimum": 1, "maximum": 4},
    },
    "required": ["cabin", "seats"],
}
TOOL = {"type": "function", "function": {"name": "book", "parameters": BOOK}}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        pytest.param("/api/chat", {"grammar": GRAMMAR}, id="chat"),
        pytest.param("/api/chat", {"grammar": GBNF}, id="GBNF"),
        pytest.param("/api/chat", {"grammar": LARK}, id="Lark"),
        pytest.param("/api/generate", {"grammar": GRAMMAR}, id="generate"),
        pytest.param("/v1/chat/completions", {"grammar": GRAMMAR}, id="chat/completions"),
        pytest.param("/v1/completions", {"grammar": GRAMMAR}, id="completions"),
        pytest.param(
            "/v1/chat/completions", {"response_format": {"type": "grammar", **GRAMMAR}}, id="response_format"
        ),
        pytest.param(
            "/v1/chat/completions",
            {"response_format": {"type": "grammar", "grammar": GBNF}},
            id="response_format, a text",
        ),
        pytest.param(
            "/v1/chat/completions", {"structured_outputs": {"choice": ["Paris!", "Rome!"]}}, id="choice"
        ),
        pytest.param(
            "/v1/chat/completions",
            {"structured_outputs": {"regex": GRAMMAR["definition"]}},
            id="vLLM's regex",
        ),
        pytest.param("/v1/responses", {"text": {"format": {"type": "grammar", **GRAMMAR}}}, id="responses"),
    ],
)
def test_a_grammar_in_every_dialect(server: LiveServer, path: str, fields: dict[str, Any]) -> None:
    asked = {"input": "Where?"} if "responses" in path else {"messages": QUESTION}
    if path in ("/api/generate", "/v1/completions"):
        asked = {"prompt": "The capital of France is"}
    response = server.post(path, {"model": "tiny", "stream": False, **asked, **fields})
    assert response.status_code == 200, response.text
    assert ANSWER.fullmatch(text_of(response.json())), response.text


def text_of(answer: dict[str, Any]) -> str:
    match answer:
        case {"response": str(text)} | {"message": {"content": str(text)}}:
            return text
        case {"choices": [{"message": {"content": str(text)}}]} | {"choices": [{"text": str(text)}]}:
            return text
    (message,) = (item for item in answer["output"] if item["type"] == "message")
    return str(message["content"][0]["text"])


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ("/api/chat", {"grammar": {"syntax": "regex", "definition": "("}}, "unclosed group"),
        ("/api/chat", {"grammar": {"syntax": "yaml", "definition": "x"}}, "grammar: expected"),
        ("/api/chat", {"grammar": GRAMMAR, "format": "json"}, "got both"),
        ("/api/chat", {"format": {"not": {}}}, "cannot be enforced"),
        (
            "/v1/chat/completions",
            {"grammar": GRAMMAR, "response_format": {"type": "json_object"}},
            "got both",
        ),
        ("/v1/chat/completions", {"guided_regex": "a"}, "use structured_outputs"),
        ("/v1/chat/completions", {"structured_outputs": {"regex": "a", "choice": ["b"]}}, "expected one of"),
        ("/v1/chat/completions", {"response_format": {"type": "yaml"}}, "response_format: expected"),
        ("/v1/completions", {"guided_json": {"type": "object"}}, "structured_outputs"),
        (
            "/v1/chat/completions",
            {"tools": [{"function": {"name": "f", "parameters": {"$ref": "#/x"}}}]},
            "tool f",
        ),
    ],
)
def test_a_form_that_cannot_be_followed_is_a_bad_request(
    server: LiveServer, path: str, fields: dict[str, Any], message: str
) -> None:
    asked = {"prompt": "x"} if path == "/v1/completions" else {"messages": QUESTION}
    response = server.post(path, {"model": "tiny", "stream": False, **asked, **fields})
    assert response.status_code == 400, response.text
    assert message in response.text


@pytest.mark.parametrize("seed", [1, 2])
def test_a_required_call_in_every_dialect(server: LiveServer, seed: int) -> None:
    warm = {
        "model": "tiny",
        "stream": False,
        "options": {"temperature": 1.0, "seed": seed, "top_k": 0, "top_p": 1.0},
    }
    chat = server.post(
        "/v1/chat/completions", {**warm, "messages": QUESTION, "tools": [TOOL], "tool_choice": "required"}
    )
    calls = [call["function"] for call in chat.json()["choices"][0]["message"]["tool_calls"]]
    flat = {"type": "function", "name": "book", "parameters": BOOK}
    named = {"type": "function", "name": "book"}
    responses = server.post(
        "/v1/responses", {**warm, "input": "Hello", "tools": [flat], "tool_choice": named}
    )
    calls += [item for item in responses.json()["output"] if item["type"] == "function_call"]
    messages = server.post(
        "/v1/messages",
        {
            **warm,
            "messages": QUESTION,
            "max_tokens": 200,
            "tools": [{"name": "book", "input_schema": BOOK}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        },
    )
    assert messages.json()["stop_reason"] == "tool_use"
    (used,) = (block for block in messages.json()["content"] if block["type"] == "tool_use")
    found = [*(json.loads(call["arguments"]) for call in calls), used["input"]]
    assert len(found) >= 3
    for arguments in found:
        jsonschema.validate(arguments, BOOK)
