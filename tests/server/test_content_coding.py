"""Compressed bodies: requests within bounds, answers where they are worth it; curl decodes what is sent."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard
from live_server import LiveServer

from lading.server.content_coding import decoded
from lading.server.errors import BadBody, BodyTooLarge, UnknownCoding

LIMIT = 1 << 20
CHAT = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "think": False,
    "stream": False,
}


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def streamed_zstd(data: bytes) -> bytes:
    """Without the size in its header, as programs write that do not know it."""
    coder = zstandard.ZstdCompressor().compressobj()
    return coder.compress(data) + coder.flush()


CODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
    ("zstd", streamed_zstd),
]
EACH = pytest.mark.parametrize(
    ("coding", "code"), CODERS, ids=lambda value: getattr(value, "__name__", value)
)


def read(body: bytes, coding: str) -> bytes:
    return asyncio.run(decoded(body, {"headers": [(b"Content-Encoding", coding.encode())]}, LIMIT))


@EACH
def test_what_was_compressed_is_read_up_to_the_limit(coding: str, code: Callable[[bytes], bytes]) -> None:
    for size in (0, 1, 100_000, LIMIT - 1, LIMIT):
        data = (b"0123456789" * (size // 10 + 1))[:size]
        assert read(code(data), coding) == data
        assert read(code(data), f" {coding.upper()} ") == data
    with pytest.raises(BodyTooLarge):
        read(code(b"0" * (LIMIT + 1)), coding)


@EACH
def test_a_bomb_is_never_held(coding: str, code: Callable[[bytes], bytes]) -> None:
    bomb = code(b"\0" * (64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            read(bomb, coding)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


@EACH
def test_what_is_cut_off_goes_on_or_is_damaged_is_refused(
    coding: str, code: Callable[[bytes], bytes]
) -> None:
    whole = code(b'{"model": "tiny"}' * 50)
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:3], b"", whole + b"x", whole + whole, b"{}"):
        with pytest.raises(BadBody):
            read(broken, coding)


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, gzip", "gzip,deflate", "rot13", "\u00fc"])
def test_other_codings_are_refused(coding: str) -> None:
    with pytest.raises(UnknownCoding):
        asyncio.run(decoded(b"", {"headers": [(b"content-encoding", coding.encode("latin-1"))]}, LIMIT))


def test_a_zstd_window_beyond_the_standards_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    coder = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(BadBody):
        read(coder.compress(b"0" * 1000) + coder.flush(), "zstd")


# On a server


@EACH
def test_a_compressed_question_is_answered(
    server: LiveServer, coding: str, code: Callable[[bytes], bytes]
) -> None:
    headers = {"content-encoding": coding, "content-type": "application/json"}
    answer = server.call("POST", "/api/chat", content=code(json.dumps(CHAT).encode()), headers=headers)
    assert "Paris" in answer.json()["message"]["content"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages", "/tokenize"])
def test_bombs_and_strange_codings_have_the_status_that_clients_expect(server: LiveServer, path: str) -> None:
    bomb = gzip.compress(b" " * (40 << 20))
    assert server.call("POST", path, content=bomb, headers={"content-encoding": "gzip"}).status_code == 413
    assert server.call("POST", path, content=b"x", headers={"content-encoding": "br"}).status_code == 415
    assert server.call("POST", path, content=b"x", headers={"content-encoding": "gzip"}).status_code == 400


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("br, gzip, zstd", "zstd"),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("identity", None),
        ("br", None),
    ],
)
def test_long_descriptions_are_compressed_for_those_who_ask(
    server: LiveServer, accepted: str, coding: str | None
) -> None:
    body = {"model": "tiny", "verbose": True}
    plain = server.call("POST", "/api/show", json=body, headers={"accept-encoding": "identity"})
    answer = server.call("POST", "/api/show", json=body, headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert "accept-encoding" in answer.headers.get_list("vary", split_commas=True)
    assert answer.json() == plain.json()
    if coding is not None:
        assert int(answer.headers["content-length"]) < len(plain.content) / 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_decodes_it(server: LiveServer) -> None:
    url = f"{server.url}/openapi.json"
    done = subprocess.run(["curl", "-sS", "--compressed", "-D", "-", url], capture_output=True, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert re.search(rb"content-encoding: (gzip|zstd)", head.lower())
    assert json.loads(body)["openapi"].startswith("3.1")


def test_streams_answers_blobs_and_small_things_are_not_compressed(server: LiveServer) -> None:
    headers = {"accept-encoding": "gzip, zstd"}
    digest = server.call("GET", "/v2/library/tiny/manifests/latest").json()["layers"][0]["digest"]
    for answer in (
        server.call("POST", "/api/chat", json={**CHAT, "stream": True}, headers=headers),
        server.call("POST", "/v1/chat/completions", json=CHAT, headers=headers),
        server.call("GET", f"/v2/library/tiny/blobs/{digest}", headers=headers),
        server.call("GET", "/api/version", headers=headers),
        server.call("HEAD", "/api/tags", headers=headers),
        server.call("POST", "/api/show", json={"model": "nope"}, headers=headers),
    ):
        assert "content-encoding" not in answer.headers
