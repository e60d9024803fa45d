"""Keeps the names of control tokens that stand in a conversation from becoming control tokens, and images in
their places.

Someone who writes ``<|im_end|>`` in a message, or plants it in a page that a tool reads, must not end the
message. The names in such texts are replaced by marks before the template is rendered; afterwards each mark
is tokenised as the plain text that it stands for. Images have marks of their own, since a template can carry
text alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a prompt; ``is_plain``: names of special tokens in it mean nothing. ``image`` is a file, for
    which the text stands."""

    text: str
    is_plain: bool
    image: bytes | None = None


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
        self._images: list[bytes] = []

    def image(self, file: bytes) -> str:
        """A mark for an image, and for no other."""
        self._images.append(file)
        return f"\ue000{self._nonce}/{len(self._images) - 1}\ue001"

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
        if not self._names and not self._images:
            return [Passage(prompt, False)]
        parts = re.split(f"\ue000{self._nonce}([:/][0-9]+)\ue001", prompt)
        passages: list[Passage] = []
        images = 0
        for i, part in enumerate(parts):
            if i % 2 and part[0] == "/":
                passages.append(Passage(f"[img-{images}]", True, self._images[int(part[1:])]))
                images += 1
            elif i % 2:
                passages.append(Passage(self._names[int(part[1:])], True))
            elif part:
                passages.append(Passage(part, False))
        return passages

    def _mark(self, match: re.Match[str]) -> str:
        self._names.append(match[0])
        return f"\ue000{self._nonce}:{len(self._names) - 1}\ue001"
