"""pull, push, create and blobs over REST, between two real servers, one of which is the other's registry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from live_server import TINY_CHAT, LiveServer, running_server

ZEROS = "sha256:" + "0" * 64
QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """An empty store."""
    folder = tmp_path_factory.mktemp("other")
    with running_server(folder / "home", folder) as live:
        yield live


@pytest.fixture
def other_native(other: LiveServer) -> Iterator[ollama.Client]:
    client = ollama.Client(host=other.url)
    yield client
    client._client.close()


def lines(server: LiveServer, path: str, body: Any) -> list[Any]:
    answer = server.post(path, body)
    assert answer.headers["content-type"] == "application/x-ndjson", answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_push_to_another_server_pull_from_there_and_chat(
    server: LiveServer, native: ollama.Client, other: LiveServer, other_native: ollama.Client
) -> None:
    name = f"127.0.0.1:{other.port}/team/moved:v1"
    native.copy("tiny", name)
    statuses = [line.status for line in native.push(name, stream=True)]
    assert statuses[0] == "retrieving manifest" and statuses[-1] == "success"
    assert "pushing manifest" in statuses
    native.delete(name)

    statuses = [line.status for line in native.pull(name, stream=True)]
    assert statuses[0] == "pulling manifest"
    assert statuses[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    digests = {model.model: model.digest for model in native.list().models}
    assert digests[name] == digests["tiny:latest"]
    native.delete(name)
    there = other_native.list().models
    assert [model.digest for model in there] == [digests["tiny:latest"]]
    answer = other_native.chat(there[0].model or "", [QUESTION], think=False)
    assert "Paris" in (answer.message.content or "")


def test_a_pull_that_is_not_streamed_says_success(server: LiveServer, other: LiveServer) -> None:
    name = f"127.0.0.1:{other.port}/team/plain"
    server.post("/api/copy", {"source": "tiny", "destination": name})
    pushed = server.post("/api/push", {"name": name, "stream": False})
    assert (pushed.status_code, pushed.json()) == (200, {"status": "success"})
    pulled = server.post("/api/pull", {"name": name, "stream": False})
    assert (pulled.status_code, pulled.json()) == (200, {"status": "success"})
    assert server.call("DELETE", "/api/delete", json={"name": name}).status_code == 200


def test_progress_lines_have_digests_and_counts(server: LiveServer, other: LiveServer) -> None:
    name = f"127.0.0.1:{other.port}/team/counted"
    server.post("/api/copy", {"source": "tiny", "destination": name})
    assert lines(server, "/api/push", {"model": name})[-1] == {"status": "success"}
    rows = lines(server, "/api/pull", {"model": name})
    counted = [row for row in rows if "digest" in row]
    assert counted
    for row in counted:
        assert row["status"] == f"pulling {row['digest'].removeprefix('sha256:')[:12]}"
        assert row["total"] >= row.get("completed", 0) > -1
    assert all(None not in row.values() for row in rows)


@pytest.mark.parametrize("stream", [True, False])
def test_a_model_that_the_registry_has_not(server: LiveServer, other: LiveServer, stream: bool) -> None:
    body = {"model": f"127.0.0.1:{other.port}/team/nope", "stream": stream}
    answer = server.post("/api/pull", body)
    if stream:
        assert answer.status_code == 200
        first, last = [json.loads(line) for line in answer.text.splitlines()]
        assert first == {"status": "pulling manifest"}
        assert last == {"error": "pull model manifest: file does not exist"}
    else:
        assert answer.status_code == 404
        assert answer.json() == {"error": "pull model manifest: file does not exist"}


def test_a_registry_that_does_not_answer(server: LiveServer) -> None:
    answer = server.post("/api/pull", {"model": "127.0.0.1:9/team/nope", "stream": False})
    assert (answer.status_code, set(answer.json())) == (502, {"error"})


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/pull", {}, 400, "invalid model name"),
        ("/api/pull", {"model": "a b"}, 400, "invalid model name"),
        ("/api/push", {}, 400, "model is required"),
        ("/api/create", {}, 400, "invalid model name"),
        ("/api/create", {"model": "x"}, 400, "neither 'from' or 'files' was specified"),
        ("/api/create", {"model": "x", "from": "/etc/passwd"}, 400, "invalid model name"),
        ("/api/create", {"model": "x", "from": "../x"}, 400, "invalid model name"),
        (
            "/api/create",
            {"model": "x", "files": {"/etc/x": "sha256:" + "0" * 64}},
            400,
            "file path must be relative",
        ),
        (
            "/api/create",
            {"model": "x", "files": {"../x": "sha256:" + "0" * 64}},
            400,
            "file path must be relative",
        ),
        ("/api/create", {"model": "x", "files": {"x": "sha256:12"}}, 400, "invalid digest format"),
        (
            "/api/create",
            {"model": "x", "from": "tiny", "requires": "new"},
            400,
            "requires must be a valid semver (e.g. 0.14.0)",
        ),
        (
            "/api/create",
            {"model": "x", "from": "tiny", "template": "{{ .Prompt"},
            400,
            "template error: template, line 1, column 1: this action is never closed: expected }}",
        ),
        (
            "/api/create",
            {"model": "x", "from": "tiny", "remote_host": "https://ollama.com"},
            400,
            "remote_host: no model runs anywhere else",
        ),
        (
            "/api/create",
            {"model": "x", "from": "tiny", "draft_quantize": "q8_0"},
            400,
            "draft_quantize: a draft model stays as it is",
        ),
        ("/api/push", {"model": "Nope", "stream": False}, 404, "model 'Nope' not found"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_refusals(server: LiveServer, path: str, body: Any, status: int, error: str) -> None:
    answer = server.post(path, body)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_create_from_a_model_with_the_client(native: ollama.Client) -> None:
    try:
        answer = native.create(
            "shouty",
            from_="tiny",
            system="Answer in capital letters.",
            parameters={"stop": ["a", "b"], "top_k": 5},
        )
        assert answer.status == "success"
        shown = native.show("shouty")
        assert "Answer in capital letters." in (shown.modelfile or "")
        assert shown.parameters and 'stop                           "b"' in shown.parameters
        content = native.chat("shouty", [QUESTION], think=False).message.content or ""
        assert content.isupper()
    finally:
        native.delete("shouty")


def test_a_draft_model_among_the_files(server: LiveServer, native: ollama.Client) -> None:
    digest = native.create_blob(TINY_CHAT)
    body = {"model": "drafted", "from": "tiny", "draft_files": {"small.gguf": digest}, "stream": False}
    try:
        assert server.post("/api/create", body).json() == {"status": "success"}
        assert f"\nDRAFT @{digest}\n" in (native.show("drafted").modelfile or "")
    finally:
        native.delete("drafted")


def test_upload_a_file_and_create_from_it(
    native: ollama.Client, other: LiveServer, other_native: ollama.Client
) -> None:
    digest = other_native.create_blob(TINY_CHAT)
    assert digest == f"sha256:{hashlib.sha256(TINY_CHAT.read_bytes()).hexdigest()}"
    assert other.call("HEAD", f"/api/blobs/{digest}").status_code == 200
    statuses = [
        line.status
        for line in other_native.create(
            "fresh", files={"tiny.gguf": digest}, parameters={"temperature": 0}, stream=True
        )
    ]
    assert statuses[-1] == "success"
    answer = other_native.chat("fresh", [QUESTION], think=False)
    assert "Paris" in (answer.message.content or "")


def test_blob_statuses(server: LiveServer) -> None:
    data = b"some bytes " * 1000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    dashed = digest.replace(":", "-")
    assert server.call("HEAD", f"/api/blobs/{digest}").status_code == 404
    assert server.call("POST", f"/api/blobs/{digest}", content=data).status_code == 201
    assert server.call("POST", f"/api/blobs/{dashed}", content=data).status_code == 200
    assert server.call("HEAD", f"/api/blobs/{dashed}").status_code == 200
    bad = server.call("HEAD", "/api/blobs/sha256:12")
    assert bad.status_code == 400


def test_a_blob_that_is_not_what_it_says_leaves_nothing(server: LiveServer) -> None:
    wrong = ZEROS
    answer = server.call("POST", f"/api/blobs/{wrong}", content=b"x" * 3_000_000)
    got = f"sha256:{hashlib.sha256(b'x' * 3_000_000).hexdigest()}"
    assert answer.status_code == 400
    assert answer.json() == {"error": f'digest mismatch, expected "{wrong}", got "{got}"'}
    assert server.call("HEAD", f"/api/blobs/{wrong}").status_code == 404
    assert server.call("HEAD", f"/api/blobs/{got}").status_code == 404
    assert not [
        path for path in Path(server.store_root, "ingest").iterdir() if path.stat().st_size > 1_000_000
    ]


def test_a_chunked_upload_of_unknown_length(server: LiveServer) -> None:
    data = b"y" * 5_000_000

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert server.call("POST", f"/api/blobs/{digest}", content=pieces()).status_code == 201


def test_create_from_a_blob_that_was_never_sent(server: LiveServer) -> None:
    body = {"model": "x", "files": {"x.gguf": ZEROS}, "stream": False}
    answer = server.post("/api/create", body)
    assert answer.status_code in (400, 404)
    assert set(answer.json()) == {"error"}


def test_create_from_a_file_that_is_no_model(server: LiveServer) -> None:
    data = b"not a model at all"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server.call("POST", f"/api/blobs/{digest}", content=data)
    answer = server.post("/api/create", {"model": "x", "files": {"x.gguf": digest}, "stream": False})
    assert (answer.status_code, set(answer.json())) == (400, {"error"})
    assert server.post("/api/show", {"model": "x"}).status_code == 404
