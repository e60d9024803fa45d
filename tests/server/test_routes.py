"""The HTTP surface, byte by byte where clients look: paths, methods, headers, leniency, error texts."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from pictures import picture_file

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
NOT_PULLED = 'model "nope" not found, try pulling it first'
CHAT = {"model": "tiny", "messages": QUESTION, "think": False}
PICTURED = {**QUESTION[0], "images": [base64.b64encode(picture_file("red")).decode()]}


def lines(response: httpx.Response) -> list[Any]:
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_root_says_what_clients_ask_for(server: LiveServer) -> None:
    answer = server.call("GET", "/")
    assert (answer.status_code, answer.text) == (200, "Ollama is running")
    head = server.call("HEAD", "/")
    assert (head.status_code, head.text, head.headers["content-length"]) == (200, "", "17")


def test_the_version_is_three_numbers_and_new_enough_for_clients(server: LiveServer) -> None:
    version = server.call("GET", "/api/version").json()["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert tuple(map(int, version.split("."))) >= (0, 13, 4)
    assert server.call("HEAD", "/api/version").status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_health(server: LiveServer, path: str) -> None:
    answer = server.call("GET", path)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert server.call("HEAD", path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/nowhere", 404, "404 page not found"),
        ("GET", "/api/nowhere", 404, "404 page not found"),
        ("GET", "//api/tags", 404, ""),
        ("GET", "/api/../api/tags/", 404, "404 page not found"),
        ("GET", "/api/chat", 405, "405 method not allowed"),
        ("POST", "/api/tags", 405, "405 method not allowed"),
        ("PUT", "/api/delete", 405, "405 method not allowed"),
    ],
)
def test_unknown_paths_and_methods(
    server: LiveServer, method: str, path: str, status: int, text: str
) -> None:
    answer = server.call(method, path)
    assert (answer.status_code, answer.text) == (status, text)


def test_unknown_openai_paths_answer_in_openais_shape(server: LiveServer) -> None:
    answer = server.call("GET", "/v1/nowhere")
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/chat", b"", 400, "missing request body"),
        ("/api/generate", b"", 400, "missing request body"),
        ("/api/show", b"", 400, "missing request body"),
        ("/api/copy", b"", 400, "missing request body"),
        ("/api/embed", b"", 400, "missing request body"),
        ("/api/chat", b"x", 400, "invalid character 'x' looking for beginning of value"),
        ("/api/chat", b"{}", 400, "model is required"),
        ("/api/generate", b"{}", 404, "model '' not found"),
        ("/api/show", b"{}", 400, "model is required"),
        ("/api/chat", b'{"model":"../x","messages":[{"role":"user"}]}', 400, "invalid model name"),
        ("/api/generate", b'{"model":"a b","prompt":"x"}', 400, "invalid model name"),
        ("/api/show", b'{"model":"http://x"}', 400, "invalid model name"),
        ("/api/chat", b'{"model":"Nope","messages":[{"role":"user"}]}', 404, "model 'Nope' not found"),
        ("/api/embed", b'{"model":"nope","input":"x"}', 404, NOT_PULLED),
        ("/api/embeddings", b'{"model":"nope","prompt":"x"}', 404, NOT_PULLED),
        ("/api/embed", b'{"model":"tiny","input":5}', 400, "invalid input type"),
        ("/api/copy", b'{"source":"","destination":"x"}', 400, 'source "" is invalid'),
        ("/api/copy", b'{"source":"tiny","destination":"a b"}', 400, 'destination "a b" is invalid'),
        ("/api/copy", b'{"source":"nope","destination":"x"}', 404, 'model "nope" not found'),
        ("/api/generate", b'{"model":"tiny","prompt":"x","raw":true,"system":"y"}', 400,
         "raw mode does not support template, system, or context"),
        ("/api/chat", b'{"model":"tiny","top_logprobs":21}', 400, "top_logprobs must be between 0 and 20"),
        ("/api/chat", b'{"model":"tiny","format":"xml"}', 400,
         'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ("/api/generate", b'{"model":"nope","keep_alive":0}', 404, "model 'nope' not found"),
    ],
    ids=lambda value: value.decode()[:40] if isinstance(value, bytes) else None,
)  # fmt: skip
def test_native_error_texts(server: LiveServer, path: str, body: bytes, status: int, error: str) -> None:
    answer = server.call("POST", path, content=body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_delete_errors(server: LiveServer) -> None:
    for body, status, error in [
        (b"", 400, "missing request body"),
        (b"{}", 400, "model is required"),
        (b'{"model":"a b"}', 400, 'name "a b" is invalid'),
        (b'{"name":"nope"}', 404, "model 'nope' not found"),
    ]:
        answer = server.call("DELETE", "/api/delete", content=body)
        assert (answer.status_code, answer.json()) == (status, {"error": error})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "nonsense"},
        {"authorization": "Bearer"},
        {"accept": "application/json"},
    ],
    ids=str,
)
def test_any_content_type_and_stray_headers_are_fine(server: LiveServer, headers: dict[str, str]) -> None:
    body = json.dumps({**CHAT, "stream": False}).encode()
    answer = server.call("POST", "/api/chat", content=body, headers=headers)
    assert "Paris" in answer.json()["message"]["content"]


@pytest.mark.parametrize(
    "extra",
    [
        {"options": None},
        {"options": {"temperature": 0, "top_k": None, "num_gpu": None, "made_up": 3}},
        {"format": ""},
        {"format": None},
        {"tools": []},
        {"tools": None},
        {"keep_alive": 60},
        {"keep_alive": "5m"},
        {"keep_alive": "-1"},
        {"keep_alive": "0s"},
        {"unheard_of": {"a": 1}},
        {"options": {"num_ctx": 131072}},
        {"messages": [{"role": "user", "content": "What is the capital of France?", "images": []}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]},
        {"messages": [{"role": "assistant"}, *QUESTION]},
    ],
    ids=str,
)
def test_sloppy_requests_are_answered(server: LiveServer, extra: dict[str, Any]) -> None:
    answer = server.post("/api/chat", {**CHAT, "stream": False, **extra})
    assert answer.status_code == 200, answer.text
    assert "Paris" in answer.json()["message"]["content"]


def test_the_model_is_named_back_as_it_was_asked_for(server: LiveServer) -> None:
    answer = server.post("/api/chat", {**CHAT, "model": "TINY:Latest", "stream": False}).json()
    assert answer["model"] == "TINY:Latest"
    assert "Paris" in answer["message"]["content"]


def test_a_stream_is_ndjson_with_one_last_line(server: LiveServer) -> None:
    answer = server.post("/api/chat", CHAT)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.text.endswith("}\n") and "\n\n" not in answer.text
    rows = lines(answer)
    assert all(isinstance(row["message"]["content"], str) for row in rows)
    assert all(row["message"]["role"] == "assistant" for row in rows)
    assert [row["done"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert b"null" not in answer.content
    assert set(rows[-1]) == {
        "model", "created_at", "message", "done", "done_reason", "total_duration", "load_duration",
        "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
    }  # fmt: skip


LONG = "hello " * 1100
TOO_LONG = "the prompt is longer than the context length currently available to the model: reading the prompt"


@pytest.mark.parametrize("refusing", [{"truncate": False}, {"shift": False}], ids=str)
@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/generate", {"prompt": LONG}), ("/api/chat", {"messages": [{"role": "user", "content": LONG}]})],
    ids=["generate", "chat"],
)
def test_a_prompt_that_may_not_be_cut_is_refused_in_ollamas_words(
    server: LiveServer, path: str, body: dict[str, Any], refusing: dict[str, bool]
) -> None:
    short = {"model": "tiny", "think": False, "options": {"num_predict": 1}, **body}
    assert server.post(path, short).status_code == 200
    answer = server.post(path, {**short, **refusing})
    assert answer.status_code == 400 and answer.json()["error"].startswith(TOO_LONG)


def test_a_tool_must_be_called_where_the_request_says_so(server: LiveServer) -> None:
    """A field that is not Ollama's; Vercel's provider sends it."""
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {**CHAT, "stream": False, "tools": [tool]}

    def message(choice: Any) -> Any:
        return server.post("/api/chat", {**body, "tool_choice": choice}).json()["message"]

    for choice in ("required", {"type": "function", "function": {"name": "look"}}):
        assert message(choice)["tool_calls"][0]["function"]["name"] == "look"
    for choice in ("none", "auto", "", None):
        assert "Paris" in message(choice)["content"]
    assert server.post("/api/chat", {**body, "tool_choice": "other"}).status_code == 400


def test_a_prompt_can_be_seen_instead_of_an_answer(server: LiveServer) -> None:
    body = {"model": "tiny", "think": False, "_debug_render_only": True}
    for path, asked in (("/api/chat", {"messages": QUESTION}), ("/api/generate", {"prompt": "Hi"})):
        answer = server.post(path, {**body, **asked}).json()
        prompt = answer["_debug_info"]["rendered_template"]
        assert prompt.startswith("<|im_start|>user\n") and prompt.endswith("</think>\n\n")
        assert set(answer) == {"model", "created_at", "_debug_info"}
    shown = server.post("/api/chat", {**body, "model": "seer", "messages": [PICTURED]}).json()
    assert shown["_debug_info"]["image_count"] == 1


def test_load_and_unload_are_plain_json_even_when_streaming(server: LiveServer) -> None:
    loaded = server.post("/api/chat", {"model": "tiny", "messages": []})
    assert loaded.headers["content-type"] == "application/json"
    body = loaded.json()
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "model": "tiny",
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "load",
    }
    unloaded = server.post("/api/chat", {"model": "tiny", "messages": [], "keep_alive": 0}).json()
    assert unloaded["done_reason"] == "unload"


def test_ids_go_through_or_are_made(server: LiveServer) -> None:
    assert server.call("GET", "/", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = server.call("GET", "/", headers={"x-request-id": "a b\tc"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)


def test_the_access_log_has_counts_but_no_words(server: LiveServer) -> None:
    secret = "My secret name is Xyzzy-42."
    messages = [{"role": "user", "content": secret}]
    server.post("/api/chat", {**CHAT, "messages": messages, "stream": False, "options": {"num_predict": 4}})
    server.call("GET", "/api/tags?token=hunter2")
    entries = [json.loads(line) for line in server.log.splitlines()]
    chat = [entry for entry in entries if entry.get("path") == "/api/chat" and "eval_tokens" in entry][-1]
    assert (chat["model"], chat["status"], chat["eval_tokens"], chat["method"]) == ("tiny", 200, 4, "POST")
    assert "Xyzzy" not in server.log and "hunter2" not in server.log


def test_routes_of_the_hosted_service_say_that_there_is_none(server: LiveServer) -> None:
    assert server.call("GET", "/api/status").json() == {"cloud": {"disabled": True, "source": "config"}}
    for method, path in (("POST", "/api/me"), ("DELETE", "/api/user/keys/abc")):
        answer = server.call(method, path)
        assert (answer.status_code, set(answer.json())) == (501, {"error"})


# Shapes


def test_the_shape_of_tags(server: LiveServer) -> None:
    rows = {row["name"]: row for row in server.call("GET", "/api/tags").json()["models"]}
    row = rows["tiny:latest"]
    assert row["model"] == "tiny:latest"
    assert re.fullmatch(r"[0-9a-f]{64}", row["digest"])
    assert row["size"] > 4_000_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", row["modified_at"])
    assert row["details"]["families"] == ["llama"]
    assert {"completion", "tools", "thinking"} <= set(row["capabilities"])
    assert server.call("HEAD", "/api/tags").status_code == 200


def test_the_shape_of_show(server: LiveServer) -> None:
    answer = server.post("/api/show", {"model": "", "name": "team/pirate:v1"})
    body = answer.json()
    info = body["model_info"]
    assert next(key for key in info if "context_length" in key) == "llama.context_length"
    assert info["general.architecture"] == "llama"
    assert info["general.basename"] and info["llama.embedding_length"] == 256
    assert info["tokenizer.ggml.tokens"] == []
    assert "tokenizer.chat_template" not in info and "general.name" not in info
    assert body["system"] == "Answer in capital letters."
    assert body["messages"] == [
        {"role": "user", "content": "What is the capital of Spain?"},
        {"role": "assistant", "content": "MADRID"},
    ]
    assert "tools" in body["template"]
    assert body["tensors"] and set(body["tensors"][0]) == {"name", "type", "shape"}
    assert b"null" not in answer.content


def test_copilot_is_shown_the_name_that_it_asked_for(server: LiveServer) -> None:
    asked = {"headers": {"user-agent": "GitHubCopilotChat/0.30.1"}, "json": {"model": "team/pirate:v1"}}
    info = server.call("POST", "/api/show", **asked).json()["model_info"]
    assert info["general.basename"] == "team/pirate:v1"
    assert server.post("/api/show", {"model": "tiny"}).json()["model_info"]["general.basename"] == "tiny-chat"


def test_parameters_are_lines_that_clients_can_parse(server: LiveServer) -> None:
    text = server.post("/api/show", {"model": "team/pirate:v1"}).json()["parameters"]
    pattern = re.compile(r'^(\S+)\s+((?:".*")|\S+)$')
    rows = [pattern.fullmatch(line).groups() for line in text.split("\n")]  # type: ignore[union-attr]
    assert rows == [("num_ctx", "1024"), ("stop", '"STOP-A"'), ("stop", '"STOP-B"'), ("temperature", "0")]


def test_verbose_show_has_the_long_arrays(server: LiveServer) -> None:
    info = server.post("/api/show", {"model": "tiny", "verbose": True}).json()["model_info"]
    assert len(info["tokenizer.ggml.tokens"]) > 200


def test_the_shape_of_ps(server: LiveServer) -> None:
    server.post("/api/generate", {"model": "tiny", "keep_alive": -1})
    [row] = [row for row in server.call("GET", "/api/ps").json()["models"] if row["name"] == "tiny:latest"]
    assert row["context_length"] == 1024 and row["size"] > 4_000_000 and row["size_vram"] == 0
    assert int(row["expires_at"][:4]) > 2100
    assert re.fullmatch(r"[0-9a-f]{64}", row["digest"])
    server.post("/api/generate", {"model": "tiny", "keep_alive": "5m"})


def test_an_sse_stream(server: LiveServer) -> None:
    body = {"model": "tiny", "messages": QUESTION, "stream": True, "reasoning_effort": "none"}
    answer = server.post("/v1/chat/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])


def test_chat_completions_are_served_without_v1_too(server: LiveServer) -> None:
    answer = server.post("/chat/completions", {"model": "nope", "messages": QUESTION})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


# Bodies that are too much


def test_a_body_that_announces_too_much_is_refused_unread(server: LiveServer) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_deep_body_is_a_bad_request(server: LiveServer) -> None:
    answer = server.call("POST", "/api/chat", content=b'{"a":' + b"[" * 200_000)
    assert answer.status_code == 400


# Host and Origin


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "localhost.evil.example:11434"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "app://obsidian.md"}, 200),
        ({"host": "host.docker.internal:11434"}, 200),
    ],
    ids=str,
)
def test_host_and_origin_rules(server: LiveServer, headers: dict[str, str], status: int) -> None:
    answer = server.call("GET", "/api/tags", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.content == b"" and "access-control-allow-origin" not in answer.headers


def test_a_refused_origin_has_no_effect(server: LiveServer) -> None:
    body = json.dumps({"source": "tiny", "destination": "stolen"})
    headers = {"origin": "https://evil.example", "content-type": "text/plain"}
    assert server.call("POST", "/api/copy", content=body, headers=headers).status_code == 403
    assert server.post("/api/show", {"model": "stolen"}).status_code == 404


def test_a_preflight(server: LiveServer) -> None:
    answer = server.call(
        "OPTIONS",
        "/v1/chat/completions",
        headers={
            "origin": "http://localhost:3000",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-stainless-os,authorization,x-evil",
        },
    )
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-headers"] == "content-type,x-stainless-os,authorization"
    assert "POST" in answer.headers["access-control-allow-methods"]
    refused = server.call("OPTIONS", "/api/chat", headers={"origin": "https://evil.example"})
    assert refused.status_code == 403


def test_cors_headers_are_on_errors_and_streams_too(server: LiveServer) -> None:
    headers = {"origin": "http://localhost:3000"}
    for answer in (
        server.call("GET", "/nowhere", headers=headers),
        server.call("POST", "/api/chat", json=CHAT, headers=headers),
    ):
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


# The registry


def test_the_store_is_a_registry(server: LiveServer) -> None:
    assert server.call("GET", "/v2/").status_code == 200
    accept = {"accept": "application/vnd.oci.image.manifest.v1+json"}
    manifest = server.call("GET", "/v2/library/tiny/manifests/latest", headers=accept)
    assert manifest.status_code == 200
    assert "layers" in manifest.json()
