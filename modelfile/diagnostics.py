"""Diagnostics: what is wrong with a text, where, what was expected, and what to do about it.

Parser, linter and templates all speak in `Diagnostic`. Each is complete in itself: it carries the piece of
the source line that it points at, so that it can be printed, sent or stored after the text is gone. What it
prints holds no control characters, whatever the source held.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from .errors import InputError

_EXCERPT_BEFORE = 60
_EXCERPT_WIDTH = 96


class Span(NamedTuple):
    """A piece of a source text. Lines and columns count from 1; a column is one character, whatever its width
    on screen; the end is exclusive. CR LF is one line break; so is CR or LF alone."""

    line: int
    column: int
    end_line: int
    end_column: int


NOWHERE = Span(0, 0, 0, 0)
"""The span of what did not come from a text."""


class Severity(StrEnum):
    ERROR = "error"
    """The text has no meaning."""
    WARNING = "warning"
    """It has one that is probably not the author's."""
    NOTE = "note"
    """It works, and could be better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem. `str()` is the form that compilers use, three or four lines with a caret."""

    code: str
    """Stable; the table is `CODES` in problems.py and `RULES` in linter.py."""
    severity: Severity
    message: str
    """Lower case, no full stop; says what was expected where something else was found."""
    span: Span = NOWHERE
    hint: str | None = None
    """What to do about it, where that is known."""
    filename: str = "Modelfile"
    excerpt: str = ""
    """The source line of `span`'s start, or the part of it around the span: printable, at most 96
    characters."""
    excerpt_column: int = 0
    """Column within `excerpt` of the caret, from 0."""
    excerpt_length: int = 1
    """Characters of `excerpt` to underline, at least 1."""

    def __str__(self) -> str:
        name = printable(self.filename)
        where = f"{name}:{self.span.line}:{self.span.column}" if self.span.line else name
        lines = [f"{where}: {self.severity}[{self.code}]: {self.message}"]
        if self.span.line:
            gutter = f"{self.span.line:>5} | "
            pad = " " * (len(gutter) - 2) + "| " + " " * _width(self.excerpt[: self.excerpt_column])
            marked = self.excerpt[self.excerpt_column : self.excerpt_column + self.excerpt_length]
            lines.append((gutter + self.excerpt).rstrip())
            lines.append(pad + "^" * max(1, _width(marked)))
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class ModelfileError(InputError):
    """A Modelfile has no meaning. Carries every problem that was found, in the order of the text.

    The message is one sentence for one line of output; `str()` is all problems with their carets.
    """

    diagnostics: tuple[Diagnostic, ...]

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        first = self.diagnostics[0]
        name = printable(first.filename)
        where = f"{name}, line {first.span.line}" if first.span.line else name
        more = len(self.diagnostics) - 1
        also = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
        super().__init__(f"{where}: {first.message}{also}", hint=first.hint)

    def __str__(self) -> str:
        return "\n".join(str(diagnostic) for diagnostic in self.diagnostics)


def excerpt(line: str, column: int, length: int) -> tuple[str, int, int]:
    """The printable part of `line` around `column` (from 0): the text, the caret's column in it, its
    length."""
    begin = max(0, column - _EXCERPT_BEFORE) if len(line) > _EXCERPT_WIDTH else 0
    text = printable(line[begin : begin + _EXCERPT_WIDTH])
    if begin:
        text = "…" + text[1:]
    if begin + _EXCERPT_WIDTH < len(line):
        text = text[:-1] + "…"
    return text, column - begin, max(1, min(length, len(text) - (column - begin)))


def printable(text: str) -> str:
    """`text` with a space for each tab and a `·` for each other character that does not print."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c == "\t" else "·" for c in text)


def quoted(text: str, limit: int = 40) -> str:
    """`text` in double quotes for a message: printable, cut after `limit` characters."""
    return f'"{printable(text[:limit])}{"…" if len(text) > limit else ""}"'


def _width(text: str) -> int:
    """Columns that `text` takes on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )
