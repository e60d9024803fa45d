"""A place in text that is still arriving, for formats to read from.

The methods that read are generators which yield None for as long as they need more text; a format says
``yield from cursor.json()`` and is written as if all the text were there.
"""

from __future__ import annotations

from collections.abc import Generator

Wait = Generator[None, None, str]

MAX_NAME = 128
"""Characters of a tool's or an argument's name."""


class Mismatch(Exception):
    """What stands here is no call after all."""


class Cursor:
    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        """Everything before it has been read."""
        self.ended = False
        """No more text will come."""

    @property
    def rest(self) -> str:
        return self.text[self.at :]

    def drop(self) -> str:
        """Take what has been read off the text."""
        read, self.text, self.at = self.text[: self.at], self.text[self.at :], 0
        return read

    def blank(self) -> Wait:
        """Skip white space, of which there may be none."""
        start = self.at
        while True:
            while self.at < len(self.text) and self.text[self.at].isspace():
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[start : self.at]
            yield None

    def maybe(self, *options: str) -> Wait:
        """Read the longest of ``options`` that stands here; "" where none does."""
        while True:
            rest = self.text[self.at : self.at + max(map(len, options))]
            if not self.ended and any(option != rest and option.startswith(rest) for option in options):
                yield None
                continue
            found = max((option for option in options if rest.startswith(option)), key=len, default="")
            self.at += len(found)
            return found

    def must(self, *options: str) -> Wait:
        """Read one of ``options``. Raises: Mismatch."""
        found = yield from self.maybe(*options)
        if not found:
            raise Mismatch
        return found

    def until(self, *stops: str, most: int | None = None) -> Wait:
        """Read up to the first of ``stops``, which is not read. Raises: Mismatch: none comes, or not within
        ``most`` characters."""
        overlap = max(map(len, stops)) - 1
        searched = self.at
        while True:
            found = [at for stop in stops if (at := self.text.find(stop, searched)) >= 0]
            end = min(found, default=-1)
            if end < 0:
                searched = max(self.at, len(self.text) - overlap)
            size = (end if end >= 0 else searched) - self.at
            if (end < 0 and self.ended) or (most is not None and size > most):
                raise Mismatch
            if end >= 0:
                text, self.at = self.text[self.at : end], end
                return text
            yield None

    def word(self, *stops: str) -> Wait:
        """Read a name up to one of ``stops``, and drop the white space around it. Raises: Mismatch."""
        name = yield from self.until(*stops, most=MAX_NAME)
        if not name.strip() or "\n" in name.strip():
            raise Mismatch
        return name.strip()

    def balanced(
        self, quotes: str = '"', opening: str = "{[", closing: str = "}]", *, triple: bool = False
    ) -> Wait:
        """Read one value in brackets to its end; brackets in strings do not count. ``triple``: strings may
        stand between three quotes, as in Python.

        Raises: Mismatch: no bracket stands here, one too many is closed, or the text ends before.
        """
        start, depth, quote, escaped = self.at, 0, "", False
        at = start
        while True:
            while at < len(self.text):
                char = self.text[at]
                if triple and char in quotes and not escaped and len(quote) != 1:
                    run = self.text[at : at + 3]
                    if len(run) < 3 and run == char * len(run) and not self.ended:
                        break  # one quote, or the first of three
                    char = run if run == char * 3 else char
                at += len(char)
                if quote:
                    if escaped:
                        escaped = False
                    elif char == "\\":
                        escaped = True
                    elif char == quote:
                        quote = ""
                elif char in opening:
                    depth += 1
                elif depth == 0:
                    raise Mismatch
                elif char[0] in quotes:
                    quote = char
                elif char in closing:
                    depth -= 1
                    if depth == 0:
                        self.at = at
                        return self.text[start:at]
            if self.ended:
                raise Mismatch
            yield None
