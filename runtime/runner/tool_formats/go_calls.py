"""Calls in the form that a Go template implies: after a tag, a tool's name and a JSON object.

Source: Ollama, tools/tools.go, whose way of finding them this follows: the first name of an offered tool,
then the first JSON object that belongs to it. Departure: text that belongs to no call is content, never
lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .cursor import Cursor, Mismatch, Wait
from .json_calls import arguments_of, json_value
from .tool_format import CallShape, FoundCall, OfferedTools, Reading

_CLOSING = re.compile(r"(?:\s|[\]})>,;`]|</?[^<>\s]{1,64}>|\[/[^\[\]\s]{1,64}\])*")
"""What may stand after a call and means nothing."""
_PROSE = re.compile(r"\w")
_SYNTAX = re.compile(
    r"""<[^<>]*>|\[/?[A-Z_]+\]|```\w*|["'](?:name|function|tool_name|type|id|arguments|parameters)["']"""
)
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class GoCalls:
    """``tag`` is what the template writes before its calls; ``{`` or ``[`` where it writes nothing."""

    tag: str
    name: str = "go"

    @property
    def openings(self) -> tuple[str, ...]:
        return () if self.tag in ("{", "[", "") else (self.tag,)

    @property
    def starts(self) -> tuple[str, ...]:
        return () if self.openings else ("{", "[")

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.openings, *re.findall(r"^(?:\[\w+\]|<[^<>\s]+>)", self.tag))

    @property
    def shape(self) -> CallShape | None:
        return None  # the template only says how a call begins

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        names = re.compile("|".join(re.escape(name) for name in sorted(tools.names, key=len, reverse=True)))
        while True:
            start = cursor.at
            name, value = yield from self._call(cursor, names, tools)
            call = FoundCall(name, _arguments(value, name))
            before = cursor.text[start : cursor.at].partition(name)[0]
            if prose := _prose(before):
                yield prose
            yield call
            yield from self._closing(cursor)
            if not _another(cursor, names):
                return

    def _call(self, cursor: Cursor, names: re.Pattern[str], tools: OfferedTools) -> Any:
        """The next name, and the object that it stands in or that follows it."""
        start = cursor.at
        while True:
            found = names.search(cursor.text, start)
            if found and (found.end() < len(cursor.text) or cursor.ended):
                break
            if cursor.ended:
                cursor.at = len(cursor.text)
                raise Mismatch
            yield None
        opened = cursor.text.find("{", start, found.start())
        cursor.at = opened if opened >= 0 else found.end()
        if opened < 0:
            yield from cursor.until("{")
        text = yield from cursor.balanced()
        return found[0], json_value(text)

    def _closing(self, cursor: Cursor) -> Wait:
        """Skip brackets and tags that close what the call stood in."""
        while True:
            found = _CLOSING.match(cursor.text, cursor.at)
            assert found
            if found.end() < len(cursor.text) and "<" not in cursor.text[found.end() : found.end() + 1]:
                break
            if cursor.ended or len(cursor.text) - found.end() > 64:
                break
            yield None
        cursor.at = found.end()
        return ""


def _another(cursor: Cursor, names: re.Pattern[str]) -> bool:
    return cursor.text.startswith(("{", "["), cursor.at) or names.match(cursor.text, cursor.at) is not None


def _prose(text: str) -> str:
    """``text`` if there is more than syntax in it."""
    return text.strip() if _PROSE.search(_SYNTAX.sub("", text)) else ""


def _arguments(value: object, name: str) -> dict[str, Any]:
    """The arguments within an object: those of the object in it that has the name, or else all of it."""
    for item in _objects(value, 0):
        for key in ("name", "tool_name", "function"):
            if item.get(key) == name:
                found = next((item[k] for k in ("arguments", "parameters") if k in item), None)
                if (arguments := arguments_of(found)) is not None:
                    return arguments
        if isinstance(item.get(name), dict):
            return dict(item[name])
    if not isinstance(value, dict):
        raise Mismatch
    return value


def _objects(value: object, depth: int) -> Iterator[Mapping[str, Any]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, depth + 1)
