"""Telling thoughts from content in a stream of text, whatever the chunks it arrives in.

A thought is what stands between an opening and a closing tag at the very start of an answer; white space
around the tags belongs to neither. An answer that starts with anything else has no thoughts: its text passes
as it is.

Source: Ollama's thinking/parser.go, whose observable behaviour this reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from .answer import Content, Piece, Thought, overlap


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    opening: str
    closing: str


KNOWN_TAGS = (
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("<thought>", "</thought>"),
)


def tags_of_template(template: str) -> ThinkingTags | None:
    """The tags that a chat template itself writes or looks for; None where it knows of no thinking."""
    return next((tags for tags in KNOWN_TAGS if tags.closing in template), None)


class _State(Enum):
    START = auto()  # only white space so far
    AFTER_OPENING = auto()
    THINKING = auto()
    AFTER_CLOSING = auto()
    CONTENT = auto()


class ThinkingSplitter:
    """Feed text with `push`, end with `finish`. ``primed``: the prompt ended with the opening tag already."""

    def __init__(self, tags: ThinkingTags, *, primed: bool = False) -> None:
        self.tags = tags
        self._held = ""
        self.primed = primed
        self._state = _State.AFTER_OPENING if primed else _State.START

    def push(self, text: str) -> list[Piece]:
        if self._state is _State.CONTENT:
            return [Content(text)]
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back in case it became a tag."""
        text, self._held = self._held, ""
        if not text or self._state in (_State.AFTER_OPENING, _State.AFTER_CLOSING):
            return []  # the white space beside a tag
        return [Thought(text) if self._state is _State.THINKING else Content(text)]

    def _step(self, pieces: list[Piece]) -> bool:
        """Take one step; False once more text is needed."""
        match self._state:
            case _State.START:
                return self._start(pieces)
            case _State.THINKING:
                return self._thinking(pieces)
            case _State.AFTER_OPENING | _State.AFTER_CLOSING:
                self._held = self._held.lstrip()
                if not self._held:
                    return False
                after_opening = self._state is _State.AFTER_OPENING
                self._state = _State.THINKING if after_opening else _State.CONTENT
                return True
            case _State.CONTENT:
                pieces.append(Content(self._held))
                self._held = ""
                return False

    def _start(self, pieces: list[Piece]) -> bool:
        text = self._held.lstrip()
        if text.startswith(self.tags.opening):
            self._held = text.removeprefix(self.tags.opening)
            self._state = _State.AFTER_OPENING
            return True
        if self.tags.opening.startswith(text):
            return False  # white space, or a part of the tag
        self._state = _State.CONTENT
        return True

    def _thinking(self, pieces: list[Piece]) -> bool:
        thought, tag, rest = self._held.partition(self.tags.closing)
        if tag:
            pieces.append(Thought(thought.rstrip()))
            self._held = rest
            self._state = _State.AFTER_CLOSING
            return True
        # White space before the closing tag is not part of the thought, so it waits as well.
        visible = thought[: len(thought) - overlap(thought, self.tags.closing)].rstrip()
        pieces.append(Thought(visible))
        self._held = thought[len(visible) :]
        return False
