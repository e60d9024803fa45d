"""Limits on what one request may bring: each at one less, at the limit, and at one more."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer, build_model, running_server

from lading.modelfile.errors import LadingError
from lading.runtime.inference import InferenceEvent
from lading.runtime.protocol import Text
from lading.server.access.allowance import DEFAULT_AT_ONCE, Allowances
from lading.server.access.api_key import key_of
from lading.server.errors import TookTooLong, TooManyRequests
from lading.server.guard import MAX_HEADERS, Scope, start_clock
from lading.server.settings import Limits
from lading.server.streaming import noted

BODY = 4096
LIMITS = {"messages": 4, "tools": 3, "stops": 3, "stop_length": 8, "images": 2, "image": 70, "choices": 3}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Takes bodies of four kibibytes and little of everything."""
    folder: Path = tmp_path_factory.mktemp("small")
    build_model(folder / "home", "tiny")
    with running_server(folder / "home", folder, limits={"body": BODY, **LIMITS}) as live:
        yield live


def test_no_field_of_a_log_is_as_long_as_its_client_likes(small: LiveServer) -> None:
    head = {"x-request-id": "long-name"}
    small.call("POST", "/api/show", json={"model": "x" * (BODY - 100)}, headers=head)
    deadline = time.monotonic() + 10  # a line is written when its answer has gone out
    lines: list[dict[str, Any]] = []
    while not lines and time.monotonic() < deadline:
        whole = small.log.rpartition("\n")[0].splitlines()
        lines = [one for one in map(json.loads, whole) if one.get("request_id") == "long-name"]
    [line] = lines
    assert len(line["model"]) <= 1024


@pytest.fixture(scope="module")
def hurried(small: LiveServer) -> Iterator[LiveServer]:
    """Gives answers of models no time."""
    with running_server(small.store_root, small.log_path.parent, limits={"request_s": 1e-6}) as live:
        yield live


def body_of(size: int) -> bytes:
    shell = json.dumps({"model": "nope", "x": ""}).encode()
    return json.dumps({"model": "nope", "x": "y" * (size - len(shell))}).encode()


@pytest.mark.parametrize(
    "path", ["/api/show", "/v1/chat/completions", "/v1/messages", "/tokenize", "/rerank"]
)
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_bodies(small: LiveServer, path: str, chunked: bool) -> None:
    for size, refused in ((BODY - 1, False), (BODY, False), (BODY + 1, True)):
        body = body_of(size)
        assert len(body) == size
        content: Any = iter([body[:100], body[100:]]) if chunked else body
        status = small.call("POST", path, content=content).status_code
        assert (status == 413) is refused, (size, status)
        assert status < 500


def test_blobs_and_the_registry_have_no_such_limit(small: LiveServer) -> None:
    data = os.urandom(BODY * 3)
    begun = small.call("POST", "/v2/a/blobs/uploads/")
    assert small.call("PATCH", begun.headers["location"], content=data).status_code == 202


def test_an_endless_body_is_cut_off(small: LiveServer) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as connection:
        connection.sendall(
            b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sender = threading.Thread(target=send_for_ever, args=(connection,), daemon=True)
        sender.start()
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    sender.join(60)
    assert not sender.is_alive()


def send_for_ever(connection: socket.socket) -> None:
    try:
        while True:
            connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
    except OSError:
        pass  # cut off


def header_status(server: LiveServer, headers: list[tuple[str, str]], target: str = "/") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_size_of_all_headers(small: LiveServer) -> None:
    for size, status in ((MAX_HEADERS - 1, 200), (MAX_HEADERS, 200), (MAX_HEADERS + 1, 431)):
        headers, left = [("Host", "localhost")], size - len("Host: localhost\r\n")
        while left > 0:
            name = f"X-{len(headers):04}"
            length = min(left, 8000)
            if 0 < left - length < 20:
                length -= 100  # so that the last one has room for its name
            headers.append((name, "v" * (length - len(name) - 4)))
            left -= length
        assert sum(len(name) + len(value) + 4 for name, value in headers) == size
        assert header_status(small, headers) == status


def test_the_number_and_length_of_headers_and_of_the_first_line(small: LiveServer) -> None:
    host = ("Host", "localhost")
    for count, fits in ((63, True), (64, True), (65, False)):
        headers = [host, *((f"X-{number}", "v") for number in range(count - 1))]
        assert (header_status(small, headers) == 200) is fits, count
    for length, fits in ((8000, True), (8190, False)):
        assert (header_status(small, [host, ("X-Long", "v" * length)]) == 200) is fits
    for length, fits in ((4000, True), (4094, False)):
        assert (header_status(small, [host], "/?" + "q" * length) == 200) is fits


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: 0x10\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"X-A: b\x00c\r\n",
        b"X-A : b\r\n",
        b" folded\r\n",
        b"Host: other\r\n",
    ],
    ids=repr,
)
def test_ambiguous_requests_are_refused(small: LiveServer, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as connection:
        connection.sendall(b"POST /api/show HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\nhello")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 501", b"HTTP/1.1 403"), answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("path", ["/", "/v2/", "/v1/models/tiny", "/api/chat"])
def test_there_is_no_websocket(small: LiveServer, path: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    head += f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")
    assert "Traceback" not in small.log


def test_a_log_has_one_line_for_each_request_whatever_is_in_it(small: LiveServer) -> None:
    target = "/nowhere/%0a%7b%22forged%22:1%7d%0d%1b[31m%e2%80%a8"
    small.call("GET", target, headers={"user-agent": "a", "x-request-id": "odd-path"})
    small.post("/api/show", {"model": 'x"\n{"forged": 2}\x1b[31m\u2028'})
    lines = [json.loads(line) for line in small.log.split("\n") if line]
    assert not any("forged" in line for line in lines)
    [line] = [line for line in lines if line.get("request_id") == "odd-path"]
    assert line["path"].startswith('/nowhere/\n{"forged"')
    assert "\x1b" not in small.log and "\u2028" not in small.log


def test_an_answer_whose_time_is_over_is_refused_in_every_dialect(hurried: LiveServer) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    for stream in (False, True):
        for path, body in (
            ("/api/generate", {"prompt": "1"}),
            ("/api/chat", {"messages": messages}),
            ("/v1/completions", {"prompt": "1"}),
            ("/v1/chat/completions", {"messages": messages}),
            ("/v1/responses", {"input": "1"}),
            ("/v1/messages", {"messages": messages, "max_tokens": 1}),
        ):
            answer = hurried.post(path, {"model": "tiny", "stream": stream, **body})
            assert answer.status_code == 503 and "longer than the server allows" in answer.text, (
                path,
                answer.text,
            )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {}),  # which only loads it
        ("/api/embed", {"input": ["x"]}),
        ("/api/embeddings", {"prompt": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/rerank", {"query": "x", "documents": ["y"]}),
        ("/tokenize", {"content": "x"}),
        ("/detokenize", {"tokens": [1]}),
    ],
)
def test_so_is_one_that_is_not_text(hurried: LiveServer, path: str, body: dict[str, Any]) -> None:
    answer = hurried.post(path, {"model": "tiny", **body})
    assert answer.status_code == 503 and "longer than the server allows" in answer.text, answer.text


def test_an_answer_whose_time_runs_out_ends_with_an_error_and_is_given_up() -> None:
    given_up = []

    async def events() -> AsyncGenerator[InferenceEvent, None]:
        try:
            yield Text(id=0, text="first")
            await asyncio.get_running_loop().create_future()  # for ever
        finally:
            given_up.append(True)

    async def read() -> list[InferenceEvent]:
        scope: Scope = {}
        start_clock(scope, 0.01)
        seen = []
        with pytest.raises(TookTooLong):
            async for event in noted(events(), scope):
                seen.append(event)
        return seen

    assert [event.text for event in asyncio.run(read()) if isinstance(event, Text)] == ["first"]
    assert given_up == [True]


def test_the_defaults_are_those_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
    limits = Limits()
    assert limits.body == 32 << 20 and "32 MiB | `max_body`" in text
    for seconds, setting in (
        (limits.header_s, "header_timeout"),
        (limits.body_progress_s, "body_timeout"),
        (limits.write_stall_s, "write_timeout"),
    ):
        assert f"{seconds:.0f} s | `{setting}`" in text
    assert limits.request_s == 3600 and "1 h | `request_timeout`" in text
    assert f"{limits.connections:,}; {limits.connections_per_ip} | `max_connections`" in text
    assert f"{limits.messages:,}; {limits.tools} | `max_messages`, `max_tools`" in text
    assert f"{limits.stops}; {limits.stop_length} | `max_stops`" in text
    assert limits.image == 10 << 20 and f"{limits.images}; 10 MiB | `max_images`" in text
    assert f"| {limits.choices} | `max_choices`" in text
    assert f"{DEFAULT_AT_ONCE} | `lading apikey create --at-once`" in text
    assert f"{MAX_HEADERS // 1024} KiB, 8,190 bytes, 64" in text


# What one request may bring, in the words of each dialect

HELLO = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


def picture(size: int = 9) -> str:
    return base64.b64encode(b"x" * size).decode()


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [HELLO], **fields}


def claude(**fields: Any) -> dict[str, Any]:
    return chat(max_tokens=1, **fields)


def parts(*files: str) -> dict[str, Any]:
    """A message with pictures, in OpenAI's words."""
    urls = [{"url": f"data:image/png;base64,{file}"} for file in files]
    return {"role": "user", "content": [{"type": "image_url", "image_url": url} for url in urls]}


def blocks(*files: str) -> dict[str, Any]:
    """The same in Anthropic's."""
    sources = [{"type": "base64", "media_type": "image/png", "data": file} for file in files]
    return {"role": "user", "content": [{"type": "image", "source": source} for source in sources]}


BRINGING: list[tuple[str, str, Callable[[int], dict[str, Any]]]] = [
    ("messages", "/api/chat", lambda n: {"messages": [HELLO] * n}),
    ("messages", "/v1/chat/completions", lambda n: {"messages": [HELLO] * n}),
    ("messages", "/v1/responses", lambda n: {"input": [HELLO] * n}),
    (
        "messages",
        "/v1/messages",
        lambda n: claude(messages=[{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(n)]),
    ),
    ("tools", "/api/chat", lambda n: chat(tools=[FUNCTION] * n)),
    ("tools", "/v1/chat/completions", lambda n: chat(tools=[FUNCTION] * n)),
    ("tools", "/v1/responses", lambda n: {"input": "x", "tools": [{"type": "function", "name": "f"}] * n}),
    ("tools", "/v1/messages", lambda n: claude(tools=[{"name": "f", "input_schema": SCHEMA}] * n)),
    (
        "tools",
        "/v1/messages/count_tokens",
        lambda n: chat(tools=[{"name": "f", "input_schema": SCHEMA}] * n),
    ),
    ("stops", "/api/generate", lambda n: {"prompt": "x", "options": {"stop": ["a"] * n}}),
    ("stops", "/api/chat", lambda n: chat(options={"stop": ["a"] * n})),
    ("stops", "/v1/completions", lambda n: {"prompt": "x", "stop": ["a"] * n}),
    ("stops", "/v1/chat/completions", lambda n: chat(stop=["a"] * n)),
    ("stops", "/v1/messages", lambda n: claude(stop_sequences=["a"] * n)),
    ("stop_length", "/api/generate", lambda n: {"prompt": "x", "options": {"stop": "a" * n}}),
    ("stop_length", "/v1/chat/completions", lambda n: chat(stop="é" * (n // 2) + "a" * (n % 2))),
    ("images", "/api/generate", lambda n: {"prompt": "x", "images": [picture()] * n}),
    ("images", "/api/chat", lambda n: {"messages": [{**HELLO, "images": [picture()]}] * n}),
    ("images", "/v1/chat/completions", lambda n: {"messages": [parts(*[picture()] * n)]}),
    ("images", "/v1/messages", lambda n: claude(messages=[blocks(*[picture()] * n)])),
    ("image", "/api/chat", lambda n: {"messages": [{**HELLO, "images": [picture(), picture(n)]}]}),
    ("image", "/v1/chat/completions", lambda n: {"messages": [parts(picture(n))]}),
    ("choices", "/v1/completions", lambda n: {"prompt": "x", "n": n}),
    ("choices", "/v1/chat/completions", lambda n: chat(n=n)),
]
FIELDS = {"stops": "stop", "stop_length": "stop", "image": "images", "choices": "n"}


@pytest.mark.parametrize(
    ("limit", "path", "make"), BRINGING, ids=[f"{limit} {path}" for limit, path, _ in BRINGING]
)
def test_what_one_request_may_bring(
    small: LiveServer, limit: str, path: str, make: Callable[[int], dict[str, Any]]
) -> None:
    most = LIMITS[limit]
    for count in (most - 1, most, most + 1):
        answer = small.post(path, {"model": "tiny", **make(count)})
        refused = answer.status_code == 400 and f"{FIELDS.get(limit, limit)}: expected" in answer.text
        assert refused is (count > most), (count, answer.text)
        assert refused is (str(most) in answer.text and f"got {most + 1}" in answer.text), answer.text


def test_what_was_said_in_earlier_responses_counts(small: LiveServer) -> None:
    with_time = {"request_s": 60.0, "messages": 4}
    with running_server(small.store_root, small.log_path.parent, limits=with_time) as server:
        last = ""
        for status in (200, 200, 400):  # a question and an answer each
            body = {"model": "tiny", "input": "Hi", "max_output_tokens": 1, "previous_response_id": last}
            answer = server.post("/v1/responses", body)
            assert answer.status_code == status, answer.text
            last = answer.json().get("id", "")
    assert "messages: expected at most 4, got 5" in answer.text


# What one key may do, by a clock of the test's


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def key(**more: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(key_of("secret", name="k", roles=(), created=""), **more)


def test_a_keys_minute_fills_steadily() -> None:
    clock = Clock()
    allowances, mine = Allowances(clock=clock), key(per_minute=6)

    def taken() -> int:
        count = 0
        while True:
            try:
                allowances.enter(mine)
            except TooManyRequests as error:
                assert 1 <= error.wait_s <= 10
                return count
            allowances.leave(mine)
            count += 1

    assert taken() == 6
    clock.now += 9.9
    assert taken() == 0
    clock.now += 0.2
    assert taken() == 1
    clock.now += 3600
    assert taken() == 6


@pytest.mark.parametrize(("share", "places"), [(1, 4), (2, 2), (3, 2), (8, 1)])
def test_workers_share_what_a_key_may_do(share: int, places: int) -> None:
    allowances, mine = Allowances(share), key(at_once=4)
    for _ in range(places):
        allowances.enter(mine)
    with pytest.raises(LadingError):
        allowances.enter(mine)
    allowances.leave(mine)
    allowances.enter(mine)


def test_a_key_without_a_word_has_the_default() -> None:
    allowances, mine = Allowances(), key()
    for _ in range(DEFAULT_AT_ONCE):
        allowances.enter(mine)
    with pytest.raises(TooManyRequests):
        allowances.enter(mine)
