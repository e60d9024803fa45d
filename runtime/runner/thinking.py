"""Telling thoughts from content in a stream of text, whatever the chunks it arrives in.

A thought is what stands between an opening and a closing tag at the very start of an answer; white space
around the tags belongs to neither. An answer that starts with anything else has no thoughts: its text passes
as it is.

Source: Ollama's thinking/parser.go, whose observable behaviour this reproduces.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from .answer import Content, Piece, Thought, overlap


@dataclass(frozen=True, slots=True)
class ThinkingTags:
    """What stands around a thought and, with some models, around the answer that follows it."""

    opening: str
    closing: str
    answer_opening: str = ""
    answer_closing: str = ""
    is_prose: bool = False
    """The tags are words, which nothing but a model's own habit makes into tags."""


GRANITE = ThinkingTags("<think>", "</think>", "<response>", "</response>")
KNOWN_TAGS = (
    GRANITE,
    ThinkingTags("<think>", "</think>"),
    ThinkingTags("[THINK]", "[/THINK]"),
    ThinkingTags("<seed:think>", "</seed:think>"),
    ThinkingTags("<mm:think>", "</mm:think>"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ThinkingTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ThinkingTags("<|channel>thought", "<channel|>"),
    ThinkingTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ThinkingTags("Here is my thought process:", "Here is my response:", is_prose=True),
    ThinkingTags(
        "Here are my reasoning steps:",
        "[BEGIN FINAL RESPONSE]",
        answer_closing="[END FINAL RESPONSE]",
        is_prose=True,
    ),
    ThinkingTags("<thinking>", "</thinking>"),
    ThinkingTags("<thought>", "</thought>"),
    ThinkingTags("<reasoning>", "</reasoning>"),
)
"""The first whose texts a template has is the template's."""


def tags_of_template(template: str) -> ThinkingTags | None:
    """The tags that a chat template itself writes or looks for; None where it knows of no thinking."""
    return next((tags for tags in KNOWN_TAGS if _has(template, tags)), None)


def _has(template: str, tags: ThinkingTags) -> bool:
    if tags is GRANITE:  # others put the results of tools between these
        return "<response></response>" in template
    if tags.is_prose:
        return tags.opening in template and tags.closing in template
    return all(text in template for text in (tags.closing, tags.answer_opening, tags.answer_closing))


class Splitter(Protocol):
    """Tells thoughts from content."""

    @property
    def is_thinking(self) -> bool:
        """Whether what comes next is expected to belong to a thought."""
        ...

    def push(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]: ...


class _State(Enum):
    START = auto()  # only white space so far
    AFTER_OPENING = auto()
    THINKING = auto()
    AFTER_CLOSING = auto()
    CONTENT = auto()
    AFTER_ANSWER = auto()


class ThinkingSplitter:
    """Feed text with `push`, end with `finish`. ``primed``: the prompt ended with the opening tag already."""

    def __init__(self, tags: ThinkingTags, *, primed: bool = False) -> None:
        self.tags = tags
        self._held = ""
        self.primed = primed
        self._state = _State.AFTER_OPENING if primed else _State.START
        self._in_answer_tags = False

    @property
    def is_thinking(self) -> bool:
        return self._state in (_State.AFTER_OPENING, _State.THINKING)

    def push(self, text: str) -> list[Piece]:
        if self._state is _State.CONTENT and not self._in_answer_tags:
            return [Content(text)]
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back in case it became a tag."""
        text, self._held = self._held, ""
        if not text or self._state in (_State.AFTER_OPENING, _State.AFTER_CLOSING, _State.AFTER_ANSWER):
            return [Content(text)] if text.strip() else []  # else the white space beside a tag
        return [Thought(text) if self._state is _State.THINKING else Content(text)]

    def _step(self, pieces: list[Piece]) -> bool:
        """Take one step; False once more text is needed."""
        match self._state:
            case _State.START:
                return self._start()
            case _State.THINKING:
                return self._thinking(pieces)
            case _State.AFTER_OPENING:
                self._held = self._held.lstrip()
                if self._held:
                    self._state = _State.THINKING
                return bool(self._held)
            case _State.AFTER_CLOSING:
                return self._after_closing()
            case _State.CONTENT:
                return self._content(pieces)
            case _State.AFTER_ANSWER:
                if self._held.strip():
                    self._state = _State.CONTENT
                return bool(self._held.strip())

    def _start(self) -> bool:
        text = self._held.lstrip()
        for opening in (self.tags.opening, self.tags.answer_opening):
            if opening and text.startswith(opening):
                is_thought = opening == self.tags.opening
                self._held = text.removeprefix(opening) if is_thought else text
                self._state = _State.AFTER_OPENING if is_thought else _State.AFTER_CLOSING
                return True
        if self.tags.opening.startswith(text) or self.tags.answer_opening.startswith(text):
            return False  # white space, or a part of a tag
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

    def _after_closing(self) -> bool:
        self._held = self._held.lstrip()
        opening = self.tags.answer_opening
        if not self._held:
            return False
        if opening and not self._in_answer_tags:
            if self._held.startswith(opening):
                self._held = self._held.removeprefix(opening)
                self._in_answer_tags = True
                return True  # white space may follow here too
            if opening.startswith(self._held):
                return False
        self._in_answer_tags = self._in_answer_tags or bool(self.tags.answer_closing and not opening)
        self._state = _State.CONTENT
        return True

    def _content(self, pieces: list[Piece]) -> bool:
        """Up to the tag that ends the answer, where there was one that began it."""
        if not self._in_answer_tags:
            pieces.append(Content(self._held))
            self._held = ""
            return False
        text, tag, rest = self._held.partition(self.tags.answer_closing)
        if tag:
            pieces.append(Content(text.rstrip()))
            self._held = rest
            self._in_answer_tags = False
            self._state = _State.AFTER_ANSWER
            return True
        visible = text[: len(text) - overlap(text, self.tags.answer_closing)].rstrip()
        pieces.append(Content(visible))
        self._held = text[len(visible) :]
        return False
