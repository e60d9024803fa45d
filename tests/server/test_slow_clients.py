"""Slow and greedy clients, each guard of `web_worker` on a real server with short limits.

They rest on private parts of gunicorn; this file is what to run when its version is raised.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import LiveServer, build_model, running_server

from lading.oci.store import Store
from lading.server.web_worker import counted_peer

LIMITS = {"header_s": 1.0, "body_progress_s": 1.0, "write_stall_s": 1.0, "connections": 40}
GENERATE = {
    "model": "tiny",
    "prompt": "1",
    "raw": True,
    "options": {"logit_bias": {"1269": -100, "1271": -100}, "temperature": 5, "num_predict": 100_000},
    "logprobs": True,
    "top_logprobs": 20,
}
"""An endless answer with long lines, so that a socket is soon full."""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("strict")
    build_model(folder / "home", "tiny")
    with running_server(folder / "home", folder, limits=LIMITS) as live:
        yield live


def connect(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def is_closed_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side hangs up; what it sends before is read and dropped."""
    connection.settimeout(seconds)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            if not connection.recv(65536):
                return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return False


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "],
    ids=["silent", "line", "header"],
)
def test_headers_that_do_not_come_end_the_connection(strict: LiveServer, sent: bytes) -> None:
    with connect(strict) as connection:
        connection.sendall(sent)
        assert is_closed_within(connection, 4)


def test_headers_byte_by_byte_end_the_connection(strict: LiveServer) -> None:
    with connect(strict) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # reset or broken pipe
            for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 1000:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 5


def test_a_body_that_trickles_ends_the_connection(strict: LiveServer) -> None:
    with connect(strict) as connection:
        connection.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n")
        began = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() - began < 8:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 5


def test_a_body_that_is_slow_but_moves_is_read(strict: LiveServer) -> None:
    body = json.dumps({"model": "nope", "messages": [{"role": "user", "content": "x" * 8000}]}).encode()
    with connect(strict) as connection:
        connection.sendall(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        for start in range(0, len(body), 1000):
            connection.sendall(body[start : start + 1000])
            time.sleep(0.25)
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_a_client_that_stops_reading_is_cut_off_and_its_generation_stops(strict: LiveServer) -> None:
    body = json.dumps(GENERATE).encode()
    with connect(strict) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(
            b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        deadline = time.monotonic() + 40
        while '"aborted": true' not in strict.log and time.monotonic() < deadline:
            time.sleep(0.2)
    assert '"aborted": true' in strict.log
    short = {**GENERATE, "stream": False, "options": {"num_predict": 3}}
    assert strict.post("/api/generate", short).json()["done"] is True


def test_many_silent_connections_do_not_hold_up_others(strict: LiveServer) -> None:
    silent = [connect(strict) for _ in range(30)]
    try:
        began = time.monotonic()
        assert strict.call("GET", "/").status_code == 200
        assert time.monotonic() - began < 1
        assert all(is_closed_within(connection, 4) for connection in silent)
    finally:
        for connection in silent:
            connection.close()


def test_connections_above_the_limit_are_turned_away_and_places_come_back(strict: LiveServer) -> None:
    held = [connect(strict) for _ in range(LIMITS["connections"])]  # type: ignore[call-overload]
    try:
        time.sleep(0.2)
        with connect(strict) as one_more:
            assert one_more.recv(4096).startswith(b"HTTP/1.1 503 ")
            assert is_closed_within(one_more, 2)
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.3)
    assert strict.call("GET", "/").status_code == 200


def own_address() -> str:
    """One of this machine's that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_connections_of_one_address_are_limited_and_those_of_loopback_are_not(
    host: str, tmp_path: Path
) -> None:
    Store.open(tmp_path / "home")
    if host == "::" and not (socket.has_ipv6 and socket.has_dualstack_ipv6()):
        pytest.skip("this machine has no IPv6")
    limits = {**LIMITS, "connections_per_ip": 3}
    with running_server(tmp_path / "home", tmp_path, host=host, insecure_no_auth=True, limits=limits) as live:

        def answers(address: str) -> list[bytes]:
            held = [socket.create_connection((address, live.port), timeout=10) for _ in range(5)]
            for connection in held:
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            found = [connection.recv(4096)[9:12] for connection in held]
            for connection in held:
                connection.close()
            return found

        assert answers("127.0.0.1") == [b"200"] * 5
        assert sorted(answers(own_address())) == [b"200"] * 3 + [b"503"] * 2


@pytest.mark.parametrize(
    ("peer", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:127.0.0.1", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
    ],
)
def test_what_is_counted_is_whoever_can_have_that_address(peer: str, counted: str) -> None:
    assert counted_peer((peer, 1234, 0, 0)) == counted


def test_an_idle_kept_alive_connection_is_closed_in_the_end(strict: LiveServer) -> None:
    with connect(strict) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        time.sleep(2)  # longer than the limit for headers, which is for the first request
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        assert is_closed_within(connection, 8)
