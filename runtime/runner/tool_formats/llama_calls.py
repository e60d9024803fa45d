"""Calls as Llama 3 writes them: JSON at the beginning of an answer or behind a tag, where its own tools are
called in Python."""

from __future__ import annotations

from dataclasses import dataclass

from .cursor import Cursor
from .json_calls import JsonCalls
from .python_calls import python_calls
from .tool_format import CallShape, OfferedTools, Reading

_JSON = JsonCalls(name="llama-3", others=("<|python_tag|>",), bare=True, keys=("name", "parameters"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCalls:
    """``{"name": …, "parameters": {…}}``, with ``<|python_tag|>`` before it or not, and
    ``<|python_tag|>NAME.call(KEY=VALUE)``."""

    name: str = "llama-3"

    @property
    def openings(self) -> tuple[str, ...]:
        return _JSON.openings

    @property
    def starts(self) -> tuple[str, ...]:
        return _JSON.starts

    @property
    def markers(self) -> tuple[str, ...]:
        return _JSON.openings

    @property
    def shape(self) -> CallShape:
        return _JSON.shape

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        yield from cursor.blank()
        if opening not in self.openings or cursor.rest.startswith(("{", "[")):
            yield from _JSON.read(cursor, opening, tools)
            return
        name = yield from cursor.word("(")
        arguments = yield from cursor.balanced("'\"", "([{", ")]}")
        yield python_calls(name + arguments, tools)
