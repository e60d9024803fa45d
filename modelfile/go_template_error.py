"""`BadTemplate`: a Go template has no meaning, or asks for too much."""

from __future__ import annotations

from .diagnostics import Diagnostic, Severity
from .errors import InputError
from .source import Source

SYNTAX = "T001"
"""The text is not a template."""
EXECUTION = "T002"
"""The template asks for what its data does not have, or takes too long."""


class BadTemplate(InputError):
    """A template cannot be parsed or executed. The message is one sentence; `str()` shows the place."""

    diagnostic: Diagnostic

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        span = diagnostic.span
        where = f", line {span.line}, column {span.column}" if span.line else ""
        super().__init__(f"{diagnostic.filename}{where}: {diagnostic.message}", hint=diagnostic.hint)

    def __str__(self) -> str:
        return str(self.diagnostic)


def bad_template(
    text: str, code: str, message: str, start: int, length: int = 1, hint: str | None = None
) -> BadTemplate:
    """The error about the characters of `text` from offset `start`."""
    source = Source(text, "template")
    start = min(start, len(text))
    span = source.span(start, min(start + max(1, length), max(len(text), start + 1)))
    return BadTemplate(source.diagnose_at(code, message, span, hint=hint, severity=Severity.ERROR))
