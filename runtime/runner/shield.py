"""Keeps the names of control tokens that stand in a conversation from becoming control tokens.

Someone who writes ``<|im_end|>`` in a message, or plants it in a page that a tool reads, must not end the
message. The names in such texts are replaced by marks before the template is rendered; afterwards each mark
is tokenised as the plain text that it stands for.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a prompt; ``is_plain``: names of special tokens in it mean nothing."""

    text: str
    is_plain: bool


class ControlNames:
    """The names of a vocabulary's control tokens."""

    def __init__(self, names: Iterable[str]) -> None:
        # The longest first, so that a name is never taken for a shorter one that it begins with.
        ordered = sorted({name for name in names if len(name) > 1}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def shield(self) -> Shield:
        """A new shield, for one prompt."""
        return Shield(self._pattern)


class Shield:
    """Marks of one prompt. Nobody can guess them, so nobody can write one."""

    def __init__(self, pattern: re.Pattern[str] | None) -> None:
        self._pattern = pattern
        self._nonce = secrets.token_hex(8)
        self._names: list[str] = []

    def text(self, text: str) -> str:
        """``text`` with marks for names."""
        return self._pattern.sub(self._mark, text) if self._pattern else text

    def value(self, value: Any) -> Any:
        """As `text`, for all strings in a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def passages(self, prompt: str) -> list[Passage]:
        """A rendered prompt, taken apart at the marks, which are names again."""
        if not self._names:
            return [Passage(prompt, False)]
        parts = re.split(f"\ue000{self._nonce}:([0-9]+)\ue001", prompt)
        passages = [
            Passage(self._names[int(part)] if i % 2 else part, bool(i % 2)) for i, part in enumerate(parts)
        ]
        return [passage for passage in passages if passage.text]

    def _mark(self, match: re.Match[str]) -> str:
        self._names.append(match[0])
        return f"\ue000{self._nonce}:{len(self._names) - 1}\ue001"
