"""What the documentation says of each field is true: what is refused is, what is ignored does no harm, and
what is supported is at least looked at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from live_server import LiveServer

import lading.server
from lading.server.anthropic import schema as anthropic_schema
from lading.server.errors import BadField
from lading.server.field_status import Ignored, Mark, Refused, marks_of, refuse_unsupported
from lading.server.llama import schema as llama_schema
from lading.server.native import schema as native_schema
from lading.server.openai import responses_schema
from lading.server.openai import schema as openai_schema

QUESTION = [{"role": "user", "content": "Hello!"}]
SHORT = {"model": "tiny", "messages": QUESTION, "max_tokens": 1}
ROUTES: dict[str, tuple[type[msgspec.Struct], dict[str, Any]]] = {
    "/api/chat": (native_schema.ChatRequest, {"model": "tiny", "messages": []}),
    "/api/generate": (native_schema.GenerateRequest, {"model": "tiny", "prompt": "x", "stream": False}),
    "/api/show": (native_schema.ShowRequest, {"model": "tiny"}),
    "/api/create": (native_schema.CreateRequest, {"model": "copy", "from": "tiny"}),
    "/v1/chat/completions": (openai_schema.ChatCompletionRequest, SHORT),
    "/v1/completions": (openai_schema.CompletionRequest, {"model": "tiny", "prompt": "x", "max_tokens": 1}),
    "/v1/responses": (
        responses_schema.ResponsesRequest,
        {"model": "tiny", "input": "Hello!", "max_output_tokens": 1},
    ),
    "/v1/messages": (anthropic_schema.MessagesRequest, SHORT),
    "/v1/messages/count_tokens": (anthropic_schema.CountTokensRequest, SHORT),
    "/tokenize": (llama_schema.TokenizeRequest, {"model": "tiny", "content": "x"}),
}


def marked(kind: type[Mark]) -> Iterator[Any]:
    for route, (schema, body) in ROUTES.items():
        for name, mark in marks_of(schema).items():
            if isinstance(mark, kind):
                yield pytest.param(route, body, name, id=f"{route} {name}")


@pytest.mark.parametrize(("route", "body", "name"), list(marked(Refused)))
def test_what_is_refused_is(server: LiveServer, route: str, body: dict[str, Any], name: str) -> None:
    answer = server.post(route, {**body, name: "x"})
    assert answer.status_code == 400
    assert name in answer.text
    if "error" in answer.json() and "param" in answer.json()["error"]:
        assert answer.json()["error"]["param"] == name


@pytest.mark.parametrize(("route", "body", "name"), list(marked(Ignored)))
def test_what_is_ignored_does_no_harm(
    server: LiveServer, route: str, body: dict[str, Any], name: str
) -> None:
    answer = server.post(route, {**body, name: {"a": ["b"]}})
    assert answer.status_code == 200, answer.text


def requests() -> Iterator[type[msgspec.Struct]]:
    for module in (anthropic_schema, llama_schema, native_schema, openai_schema, responses_schema):
        waiting: list[Any] = [module.Request]
        while waiting:
            kind = waiting.pop()
            waiting += kind.__subclasses__()
            yield kind


def test_what_is_supported_is_read_somewhere() -> None:
    [folder] = lading.server.__path__
    read = set()
    for path in Path(folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
    unread = [
        f"{kind.__module__}.{kind.__name__}.{field.name}"
        for kind in requests()
        for field in msgspec.structs.fields(kind)
        if field.encode_name not in marks_of(kind) and field.name not in read
    ]
    assert unread == []


@pytest.mark.parametrize("value", [None, False, "", [], {}], ids=repr)
def test_an_empty_value_asks_for_nothing(value: object) -> None:
    refuse_unsupported(responses_schema.ResponsesRequest(background=value))


@pytest.mark.parametrize("value", [True, 0, "x", [1]], ids=repr)
def test_any_other_value_is_refused(value: object) -> None:
    with pytest.raises(BadField) as caught:
        refuse_unsupported(responses_schema.ResponsesRequest(background=value))
    assert caught.value.field == "background"
