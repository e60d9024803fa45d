"""What a server does at its start and while models load: preloading, pinning, readiness, leaving clients."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command import Lading
from live_server import LiveServer, build_model, running_server
from load_gate import LoadGate
from server_processes import runners, wait_until

from lading.runtime.runner import landlock

SAY_HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    build_model(home, "tiny")
    return home


@pytest.fixture
def gate(tmp_path: Path) -> LoadGate:
    folder = tmp_path / "gate"
    folder.mkdir()
    return LoadGate(folder)


# Readiness


def test_readiness_tells_what_confines_runners(server: LiveServer) -> None:
    def tested() -> bool:
        return bool(server.call("GET", "/readyz").json()["sandbox"]["level"] != "testing")

    wait_until(tested)
    answer = server.call("GET", "/readyz")
    body = answer.json()
    assert (answer.status_code, body["status"], body["store"], body["keeper"]) == (200, "ok", "ok", "ok")
    sandbox = body["sandbox"]
    expected = {"rlimits", "no_new_privs", "not_dumpable", "pdeathsig", "landlock", "seccomp"}
    assert set(sandbox["layers"]) == expected
    absent = {layer for layer, state in sandbox["layers"].items() if state == "absent"}
    assert set(sandbox["layers"].values()) <= {"holds", "absent"}
    assert ("landlock" in absent) == (landlock.version() == 0)
    assert sandbox.get("landlock_abi", 0) == landlock.version()
    assert sandbox["level"] == ("reduced" if absent else "full")
    assert "preload" not in body
    assert server.call("GET", "/health").json() == {"status": "ok"}


def test_a_server_is_ready_once_its_models_are_loaded(home: Path, tmp_path: Path, gate: LoadGate) -> None:
    build_model(home, "other", "PARAMETER num_ctx 256")
    seen: list[httpx.Response] = []

    def watch() -> None:
        """See the server unready before letting it load, while the other side waits for it to be ready."""
        wait_until(lambda: list(tmp_path.glob("server-*.log")))
        [log] = tmp_path.glob("server-*.log")
        url = f"http://127.0.0.1:{log.stem.partition('-')[2]}/readyz"

        def is_loading() -> bool:
            try:
                answer = httpx.get(url)
            except httpx.TransportError:
                return False
            if "loading" in answer.text:
                seen.append(answer)
            return bool(seen)

        wait_until(is_loading)
        gate.open()

    watcher = threading.Thread(target=watch)
    watcher.start()
    runtime = {"environment": gate.environment, "pinned": ("other",), "grant_grace_s": 0.0}
    with running_server(home, tmp_path, preload=("absent", "tiny"), runtime=runtime) as server:
        watcher.join()
        assert seen[0].status_code == 503
        assert seen[0].json()["status"] == "loading"
        first, *rest = seen[0].json()["preload"]
        assert first == {"model": "other", "state": "loading", "pinned": True}
        assert [row["state"] for row in rest] == ["waiting", "waiting"]
        assert server.call("GET", "/readyz").json()["preload"] == [
            {"model": "other", "state": "ready", "pinned": True},
            {"model": "absent", "state": "failed", "error": "model 'absent:latest' not found"},
            {"model": "tiny", "state": "ready"},
        ]
        rows = server.call("GET", "/api/ps").json()["models"]
        assert {row["name"]: row.get("pinned") for row in rows} == {"other:latest": True, "tiny:latest": None}
        assert len(runners(server)) == 1, "which serves both"
        assert "loading absent at the start" in server.log
        _never_goes(server)
        refused = server.post("/api/generate", {"model": "other", "keep_alive": 0})
        assert refused.status_code == 400
        assert refused.json()["error"].startswith("stopping other:latest: it is pinned")


def _never_goes(server: LiveServer) -> None:
    [before] = runners(server)
    body = {"model": "tiny", "messages": SAY_HELLO, "stream": False, "keep_alive": 0}
    assert server.post("/api/chat", body).status_code == 200
    assert "Forever (pinned)" in Lading(server.store_root, {"LADING_HOST": server.url}).ok("ps")
    before.kill()
    # A request that reaches it while it is dying gets an error; those that come after load the model again.
    wait_until(lambda: server.post("/api/chat", body).status_code == 200)
    assert server.call("GET", "/api/ps").json()["models"][0]["pinned"] is True


# Clients that go


@pytest.fixture
def gated(home: Path, tmp_path: Path, gate: LoadGate) -> Iterator[LiveServer]:
    with running_server(home, tmp_path, runtime={"environment": gate.environment}) as server:
        yield server


def send(server: LiveServer, path: str, body: dict[str, Any]) -> socket.socket:
    """A request on its way, whose answer nobody reads."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


REQUESTS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": SAY_HELLO},
    "/api/generate": {"prompt": "Hello!", "stream": False},
    "/v1/chat/completions": {"messages": SAY_HELLO, "stream": True},
    "/v1/responses": {"input": "Hello!", "stream": True},
    "/v1/messages": {"messages": SAY_HELLO, "max_tokens": 20, "stream": True},
}


def test_a_client_that_leaves_ends_the_load_that_only_it_waited_for(
    gated: LiveServer, gate: LoadGate
) -> None:
    for path, body in REQUESTS.items():
        connection = send(gated, path, {"model": "tiny", **body})
        wait_until(lambda: runners(gated))
        connection.close()
        wait_until(lambda: not runners(gated))
        wait_until(lambda: gated.call("GET", "/api/ps").json()["models"] == [])
    first, second = (send(gated, "/api/chat", {"model": "tiny", "messages": SAY_HELLO}) for _ in range(2))
    wait_until(lambda: runners(gated))
    [runner] = runners(gated)
    first.close()
    gate.open()
    assert gated.post("/api/chat", {"model": "tiny", "messages": SAY_HELLO}).status_code == 200
    second.close()
    assert [process.pid for process in runners(gated)] == [runner.pid]
