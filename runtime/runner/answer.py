"""The pieces that an answer's text falls into once stop strings, thoughts and tool calls have been found in
it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Content:
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


Piece = Content | Thought | Call


def merged(pieces: Iterable[Piece]) -> list[Piece]:
    """The same pieces, without empty texts, neighbours of one kind joined."""
    result: list[Piece] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(piece, Call):
            result.append(piece)
        elif not piece.text:
            continue
        elif isinstance(piece, Content) and isinstance(last, Content):
            result[-1] = Content(last.text + piece.text)
        elif isinstance(piece, Thought) and isinstance(last, Thought):
            result[-1] = Thought(last.text + piece.text)
        else:
            result.append(piece)
    return result


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``marker``, but not all of it.

    >>> overlap("say <thi", "<think>")
    4
    """
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:size]):
            return size
    return 0
