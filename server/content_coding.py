"""Bodies that are compressed: requests that come so, within bounds, and answers that are worth it.

The owner of `zstandard`.

Source: RFC 9110, section 8.4; RFC 8878 for the window that a decoder must have, and need not exceed.
"""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from .errors import BadBody, BodyTooLarge, UnknownCoding
from .guard import Application, Receive, Scope, Send
from .operations import find_operation

CODINGS = ("gzip", "deflate", "zstd")
MIN_COMPRESSED = 1024
"""Bytes of an answer that is not worth compressing."""
_MAX_WINDOW = 8 * 1024 * 1024
_PIECE = 64
_CUT = "the compressed body ends too early, or goes on after its end"
_IN_THREAD = 256 * 1024
"""Bytes above which the event loop is not kept waiting for a coder."""


async def decoded(body: bytes, scope: Mapping[str, Any], limit: int) -> bytes:
    """The body without the coding that its request names.

    Raises: UnknownCoding; BadBody where it is not what its coding says; BodyTooLarge where it would grow
        beyond ``limit`` bytes, at the first byte that is too many.
    """
    coding = coding_of(scope)
    if not coding or coding == "identity":
        return body
    decode = _DECODERS.get(coding)
    if decode is None:
        raise UnknownCoding(coding, CODINGS)
    # A small body can take as long as a large one: what counts is what it grows to.
    whole = await asyncio.to_thread(decode, body, limit)
    if len(whole) > limit:
        raise BodyTooLarge(limit)
    return whole


def coding_of(scope: Mapping[str, Any]) -> str:
    """What the request's ``Content-Encoding`` says, in lower case."""
    given = [value for name, value in scope.get("headers", ()) if name.lower() == b"content-encoding"]
    return b",".join(given).decode("latin-1").strip().lower()


def _gunzip(body: bytes, limit: int) -> bytes:
    return _inflate(zlib.decompressobj(wbits=31), body, limit)


def _inflate_any(body: bytes, limit: int) -> bytes:
    """zlib's format, as the standard says, or bare deflate, as many clients think it says."""
    wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _inflate(zlib.decompressobj(wbits=15 if wrapped else -15), body, limit)


def _inflate(decoder: Any, body: bytes, limit: int) -> bytes:
    try:
        whole: bytes = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadBody("the body is not compressed as its Content-Encoding says") from error
    if len(whole) <= limit and (not decoder.eof or decoder.unused_data):
        raise BadBody(_CUT)
    return whole


def _unzstd(body: bytes, limit: int) -> bytes:
    """One frame. It goes in by small pieces: a block of four bytes can become 128 KiB, and no more, so that
    two mebibytes beyond the limit are the most that is ever held."""
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
    whole, start = bytearray(), 0
    try:
        for start in range(0, len(body), _PIECE):
            if decoder.eof:
                break
            whole += decoder.decompress(body[start : start + _PIECE])
            if len(whole) > limit:
                return bytes(whole)
    except zstandard.ZstdError as error:
        raise BadBody("the body is not compressed as its Content-Encoding says") from error
    if not decoder.eof or decoder.unused_data or start + _PIECE < len(body):
        raise BadBody(_CUT)
    return bytes(whole)


_DECODERS: Mapping[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzip,
    "x-gzip": _gunzip,
    "deflate": _inflate_any,
    "zstd": _unzstd,
}


class Compression:
    """The ASGI application that wraps another: compresses whole answers of the operations that say so."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            operation = find_operation(scope["method"], scope["path"])
            if operation is not None and operation.compressed:
                await self._app(scope, receive, _Compressed(send, _accepted(scope)))
                return
        await self._app(scope, receive, send)


class _Compressed:
    """A `send` that holds the beginning back until it has seen the body. Without a ``coding`` it only says
    that there might have been one."""

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._start: MutableMapping[str, Any] | None = None

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            body = message.get("body", b"")
            worth_it = len(body) >= MIN_COMPRESSED and not message.get("more_body")
            if self._coding and start["status"] == 200 and worth_it:
                body = await _encoded(body, self._coding)
                message = {**message, "body": body}
                kept = [one for one in start.get("headers", ()) if one[0].lower() != b"content-length"]
                kept.append((b"content-encoding", self._coding.encode()))
                kept.append((b"content-length", str(len(body)).encode()))
                start = {**start, "headers": kept}
            vary = (b"vary", b"accept-encoding")
            await self._send({**start, "headers": [*start.get("headers", ()), vary]})
        await self._send(message)


def _accepted(scope: Scope) -> str:
    """The best coding that the client takes; "" for none."""
    given = b",".join(value for name, value in scope["headers"] if name.lower() == b"accept-encoding")
    taken = set()
    for one in given.decode("latin-1").lower().split(","):
        name, _, weight = one.partition(";")
        if weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000"):
            taken.add(name.strip())
    return next((coding for coding in ("zstd", "gzip") if coding in taken), "")


async def _encoded(body: bytes, coding: str) -> bytes:
    encode = _zstd if coding == "zstd" else _gzip
    return encode(body) if len(body) < _IN_THREAD else await asyncio.to_thread(encode, body)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=4, mtime=0)


def _zstd(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(body)
