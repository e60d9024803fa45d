"""Requests and the answers that they should get, as text files: ``tests/server/golden``.

    What this shows, in as many lines as it takes.

    POST /api/chat
    user-agent: one/1.0

    {"model": "tiny"}

    HTTP 404
    content-type: application/json

    {"error":"model 'tiny' not found"}

A blank line stands before a body; a line of its own, ``HTTP`` and a status, begins an answer; ``---`` the
next request. An answer's body is as it was sent, with placeholders (see `placeholders`), and a line end
behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from live_server import LiveServer
from placeholders import Placeholders

SHOWN_HEADERS = ("content-type", "transfer-encoding", "cache-control", "allow", "retry-after", "request-id")
"""Of an answer; and ``content-length`` where there is no body to see: 0, or <n> of what a GET would bring."""
_NEXT = re.compile(r"^---\n", re.MULTILINE)
_ANSWER = re.compile(r"^HTTP \d{3}$", re.MULTILINE)
_REQUEST_LINE = re.compile(r"([A-Z]+) (/\S*)")


@dataclass(frozen=True)
class Exchange:
    """A request, and the text of its answer from its status on; "" where none was recorded."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: str
    answer: str

    @property
    def text(self) -> str:
        lines = [f"{self.method} {self.path}", *(f"{name}: {value}" for name, value in self.headers)]
        body = f"\n{self.body}\n" if self.body else ""
        return "\n".join(lines) + f"\n{body}\n{self.answer}"


@dataclass(frozen=True)
class Conversation:
    """The exchanges of one file, in order."""

    title: str
    exchanges: tuple[Exchange, ...]

    @property
    def text(self) -> str:
        return f"{self.title}\n\n" + "---\n".join(exchange.text for exchange in self.exchanges)


def read_conversation(path: Path) -> Conversation:
    title, _, rest = path.read_text("utf-8").partition("\n\n")
    return Conversation(title, tuple(_exchange(part) for part in _NEXT.split(rest)))


def held(conversation: Conversation, server: LiveServer) -> Conversation:
    """The same requests, with the answers that the server gives now."""
    hidden = Placeholders(server.port)
    answered = (_answered(exchange, server, hidden) for exchange in conversation.exchanges)
    return replace(conversation, exchanges=tuple(answered))


def _exchange(text: str) -> Exchange:
    begins = _ANSWER.search(text)
    request, answer = (text[: begins.start()], text[begins.start() :]) if begins else (text, "")
    head, _, body = request.strip("\n").partition("\n\n")
    first, *headers = head.split("\n")
    line = _REQUEST_LINE.fullmatch(first)
    assert line is not None, f"expected a method and a path, got {first!r}"
    pairs = tuple((name, value) for name, _, value in (header.partition(": ") for header in headers))
    return Exchange(line[1], line[2], pairs, body, answer)


def _answered(exchange: Exchange, server: LiveServer, hidden: Placeholders) -> Exchange:
    answer = server.call(
        exchange.method,
        hidden.fill(exchange.path),
        content=hidden.fill(exchange.body).encode(),
        headers={"x-request-id": "golden", "accept-encoding": "identity", **dict(exchange.headers)},
    )
    return replace(exchange, answer=hidden.hide(_written(answer)))


def _written(answer: httpx.Response) -> str:
    headers = [f"{name}: {answer.headers[name]}\n" for name in SHOWN_HEADERS if name in answer.headers]
    if answer.content:
        rest = f"\n{answer.content.decode()}\n"
    else:
        length = answer.headers["content-length"]
        rest = f"content-length: {'0' if length == '0' else '<n>'}\n"
    return f"HTTP {answer.status_code}\n{''.join(headers)}{rest}"
