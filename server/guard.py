"""What stands before the application: request ids, the Host and Origin rules, CORS, and the access log.

Pure ASGI, so that it covers every route, errors and streams, up to a response's last byte. The log has no
query strings, no prompts and no answers; what a handler wants in it goes through `note`.

Rules for editing this file: a request refused here must not have reached the application.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from .origin import HostRules, OriginRules

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FACTS = "lading.facts"
_REQUEST_ID = "lading.request_id"
_BEGAN = "lading.began"
_LIMIT = "lading.request_s"
_GOOD_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

MAX_HEADERS = 32 * 1024
"""Bytes of all headers of a request, as they are written."""

_METHODS = b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS = (
    "authorization",
    "content-type",
    "user-agent",
    "accept",
    "x-requested-with",
    "openai-beta",
    "x-api-key",
)
_HEADER_PREFIXES = ("x-stainless-", "anthropic-")
_MAX_AGE_S = 12 * 3600
_EXPOSED = b"x-request-id,request-id,retry-after,docker-content-digest,link,location"

log = logging.getLogger("lading.access")


def request_id(scope: Scope) -> str:
    return str(scope.get(_REQUEST_ID, ""))


def note(scope: Scope, **facts: object) -> None:
    """Add facts (a model's name, counts; never content) to the request's line in the log."""
    scope.setdefault(_FACTS, {}).update(facts)


def facts_of(scope: Scope) -> MutableMapping[str, Any]:
    """What was noted so far; to be added to."""
    facts: MutableMapping[str, Any] = scope.setdefault(_FACTS, {})
    return facts


def elapsed_s(scope: Scope) -> float:
    """Since the request's headers were there."""
    return time.monotonic() - float(scope.get(_BEGAN, time.monotonic()))


def start_clock(scope: Scope, limit_s: float | None) -> None:
    """A request's headers are there; its answer may take `limit_s`."""
    scope[_BEGAN], scope[_LIMIT] = time.monotonic(), limit_s


def left_s(scope: Scope) -> float | None:
    """How long an answer may still take; None: as long as it wants."""
    limit = scope.get(_LIMIT)
    return None if limit is None else float(limit) - elapsed_s(scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A request that is over."""

    method: str
    path: str
    status: int
    """0: the client left before there was one."""
    seconds: float
    received: int
    """Bytes of the request's body that were read."""
    sent: int
    aborted: bool
    facts: Mapping[str, Any]


class Watcher(Protocol):
    """Is told of every request."""

    def request_began(self, method: str, path: str) -> None: ...

    def request_ended(self, ended: Ended) -> None: ...


class Guard:
    """The ASGI application that wraps another."""

    def __init__(
        self,
        app: Application,
        *,
        hosts: HostRules,
        origins: OriginRules,
        access_log: bool = True,
        watcher: Watcher | None = None,
        request_s: float | None = None,
    ) -> None:
        """`request_s`: how long a model's answer may take, from the request's headers on."""
        self._app = app
        self._hosts = hosts
        self._origins = origins
        self._access_log = access_log
        self._watcher = watcher
        self._request_s = request_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # there is nothing to be had that way, nor a rule for it
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _first_values(scope)
        given = headers.get(b"x-request-id", b"")
        scope[_REQUEST_ID] = given.decode() if _GOOD_ID.fullmatch(given) else secrets.token_hex(8)
        start_clock(scope, self._request_s)
        watched = _Watched(receive, send, self._response_headers(scope, headers))
        if self._watcher is not None:
            self._watcher.request_began(scope["method"], scope["path"])
        try:
            await self._admit(scope, headers, watched.receive, watched)
        finally:
            self._end(scope, watched)

    async def _admit(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if _header_bytes(scope) > MAX_HEADERS:
            await _empty(send, 431, [(b"connection", b"close")])
        elif origin is not None and not self._origins.allows(_text(origin), _text(host)):
            await _refuse(send)
        elif origin is not None and scope["method"] == "OPTIONS":
            await _answer_preflight(headers, send)
        elif not self._hosts.allows(_text(host)):
            await _refuse(send)
        elif scope["path"].startswith("//"):
            await _empty(send, 404, [])  # not a way around rules that go by path
        else:
            await self._app(scope, receive, send)

    def _response_headers(self, scope: Scope, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        extra = [(b"x-request-id", request_id(scope).encode())]
        origin = headers.get(b"origin")
        if origin is not None and self._origins.allows(_text(origin), _text(headers.get(b"host", b""))):
            extra.append((b"access-control-allow-origin", b"*" if self._origins.everything else origin))
            extra.append((b"access-control-expose-headers", _EXPOSED))
            extra.append((b"vary", b"Origin"))
        return extra

    def _end(self, scope: Scope, watched: _Watched) -> None:
        ended = Ended(
            method=scope["method"],
            path=scope["path"],
            status=watched.status,
            seconds=elapsed_s(scope),
            received=watched.received,
            sent=watched.sent,
            aborted=not watched.finished,
            facts=scope.get(_FACTS, {}),
        )
        if self._watcher is not None:
            self._watcher.request_ended(ended)
        if self._access_log:
            _write_line(scope, ended)


def _write_line(scope: Scope, ended: Ended) -> None:
    client = scope.get("client") or ("", 0)
    facts: dict[str, object] = {
        "request_id": request_id(scope),
        "client": client[0],
        "method": ended.method,
        "path": ended.path,
        "status": ended.status,
        "bytes": ended.sent,
        "duration_ms": round(ended.seconds * 1000, 3),
    }
    if ended.aborted:
        facts["aborted"] = True
    log.info("request", extra={"facts": facts | dict(ended.facts)})


class _Watched:
    """A `send` that adds headers, and what came in and went out."""

    def __init__(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self.status = 0
        self.received = 0
        self.sent = 0
        self.finished = False

    async def receive(self) -> MutableMapping[str, Any]:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        await self._send(message)


def _first_values(scope: Scope) -> dict[bytes, bytes]:
    """The headers that are looked at here; of repeated ones, a value that no rule accepts."""
    values: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        lowered = name.lower()
        values[lowered] = b"\x00" if lowered in values and lowered in (b"host", b"origin") else value
    return values


def _header_bytes(scope: Scope) -> int:
    return sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def _text(value: bytes) -> str:
    return value.decode("latin-1")


async def _refuse(send: Send) -> None:
    """403 with an empty body, as Ollama."""
    await _empty(send, 403, [])


async def _answer_preflight(headers: dict[bytes, bytes], send: Send) -> None:
    asked = [
        name.strip().lower() for name in _text(headers.get(b"access-control-request-headers", b"")).split(",")
    ]
    allowed = [name for name in asked if name in _HEADERS or name.startswith(_HEADER_PREFIXES)]
    await _empty(
        send,
        204,
        [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", ",".join(allowed or _HEADERS).encode("latin-1")),
            (b"access-control-max-age", str(_MAX_AGE_S).encode()),
        ],
    )


async def _empty(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    length = [] if status == 204 else [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers + length})
    await send({"type": "http.response.body", "body": b""})
