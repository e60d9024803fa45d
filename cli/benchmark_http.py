"""A `Speaker` over HTTP: OpenAI's chat completions, as a stream.

Written on bare asyncio streams, for whoever measures must not be slower than what is measured: reading an
event costs some ten microseconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from ..modelfile.errors import LadingError
from .benchmark import Question, Trace

_MAX_LINE = 1 << 24


class PeerFailure(LadingError):
    """A server answers with an error, or not as OpenAI's API does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSpeaker:
    """``url`` is that of the server, without ``/v1``; ``fields`` go into each request."""

    url: str
    model: str
    fields: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    tls: SSLContext | None = None
    """For https; None: the system's authorities."""

    async def ask(self, question: Question, arrived: Callable[[Trace], None] | None = None) -> Trace:
        body = {
            "model": self.model,
            "messages": _messages(question),
            "max_tokens": question.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.fields,
        }
        if question.schema is not None:
            json_schema = {"name": "answer", "schema": question.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        trace = Trace()
        async for data in self._events("/v1/chat/completions", body):
            if data == b"[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                raise PeerFailure(f"asking {self.url}: {event['error']}")
            choices = event.get("choices")
            if choices and (text := choices[0]["delta"].get("content")):
                trace.note(text)
                if arrived is not None:
                    arrived(trace)
            if usage := event.get("usage"):
                trace.tokens = usage["completion_tokens"]
                trace.prompt_tokens = usage["prompt_tokens"]
                trace.cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        trace.ended_s = time.perf_counter()
        return trace

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One JSON answer. Raises: PeerFailure, OSError."""
        data = b"".join([part async for part in self._body(method, path, body)])
        return json.loads(data) if data else None

    async def _events(self, path: str, body: object) -> AsyncIterator[bytes]:
        rest = b""
        async for part in self._body("POST", path, body):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if line.startswith(b"data:"):
                    yield line[5:].strip()

    async def _body(self, method: str, path: str, body: object) -> AsyncIterator[bytes]:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        reader, writer = await asyncio.open_connection(
            parts.hostname,
            parts.port or (443 if secure else 80),
            ssl=(self.tls or True) if secure else None,
            limit=_MAX_LINE,
        )
        try:
            data = json.dumps(body).encode() if body is not None else b""
            extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
            writer.write(
                f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
                f"{extra}Connection: close\r\n\r\n".encode()
                + data
            )
            status, headers = await _head(reader)
            content = (
                _chunks(reader) if headers.get("transfer-encoding") == "chunked" else _rest(reader, headers)
            )
            if status >= 400:
                text = b"".join([part async for part in content])[:500].decode("utf-8", "replace")
                raise PeerFailure(f"asking {self.url}: it answered {status}: {text}")
            async for part in content:
                yield part
        finally:
            writer.close()


def _messages(question: Question) -> list[dict[str, str]]:
    system = [{"role": "system", "content": question.system}] if question.system else []
    return [*system, {"role": "user", "content": question.text}]


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = head.rstrip().split("\r\n")
        pairs = (field.partition(":") for field in fields)
        return int(line.split()[1]), {name.lower(): value.strip().lower() for name, _, value in pairs}
    except (asyncio.IncompleteReadError, ValueError, IndexError) as error:
        raise PeerFailure("reading an answer: it is no HTTP") from error


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while size := int((await reader.readline()).split(b";")[0], 16):
            yield (await reader.readexactly(size + 2))[:-2]
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise PeerFailure("reading an answer: it broke off") from error


async def _rest(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    left = int(headers.get("content-length", -1))
    while left and (part := await reader.read(65536)):
        left -= len(part)
        yield part
