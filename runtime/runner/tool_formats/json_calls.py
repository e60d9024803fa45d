"""Calls that are JSON objects with a name and arguments in them, alone or in a list, between tags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cursor import Cursor, Mismatch, Wait
from .tool_format import CallShape, Found, FoundCall, OfferedTools, Reading

_FIRST_KEY = re.compile(r'[\s\[{]*"([^"\\]*)"')
_BEFORE_KEY = re.compile(r'[\s\[{]*(?:"[^"\\]*)?')
_NAMES = ("name", "tool_name", "function_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_KEYS = frozenset((*_NAMES, *_ARGUMENTS, "function", "id", "type", "tool_call_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonCalls:
    """``opening JSON … closing``; every ``JSON`` is a call or a list of calls.

    Without ``opening`` an answer is calls if it begins with JSON. Several in a row may be parted by commas,
    semicolons or white space. A missing ``closing`` is forgiven: what follows the JSON is content.
    """

    name: str
    opening: str = ""
    closing: str = ""
    others: tuple[str, ...] = ()
    """What models write in place of ``opening`` at times."""
    bare: bool = False
    """JSON at the beginning of an answer is calls as well."""
    keys: tuple[str, str] = ("name", "arguments")
    """As this format writes them; all spellings are read. Empty: the name is the key of the arguments."""
    listed: bool = False
    """Calls are written in a list, even one."""

    @property
    def openings(self) -> tuple[str, ...]:
        return tuple(text for text in (self.opening, *self.others) if text)

    @property
    def starts(self) -> tuple[str, ...]:
        return ("{", "[") if self.bare or not self.opening else ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.openings, self.closing) if self.closing else self.openings

    @property
    def shape(self) -> CallShape:
        name, arguments = self.keys
        break_ = "\n" if self.closing and not self.listed else ""
        tags = self.opening + break_, break_ + self.closing
        item = (f'{{"{name}": "', f'", "{arguments}": ', "}") if name else ('{"', '": ', "}")
        if self.listed:
            return CallShape(
                trigger=self.opening,
                opening=tags[0] + "[",
                before_name=item[0],
                after_name=item[1],
                after_arguments=item[2],
                between=", ",
                closing="]" + tags[1],
            )
        return CallShape(
            trigger=self.opening,
            before_name=tags[0] + item[0],
            after_name=item[1],
            after_arguments=item[2] + tags[1],
            between="\n" if self.closing else None,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        is_tagged = opening in self.openings
        closings = (self.closing, opening.replace("<", "</", 1)) if is_tagged and self.closing else ()
        if not is_tagged:
            yield from _expect_call(cursor, tools)
        first = True
        while True:
            yield from cursor.blank()
            if not first and closings and (yield from cursor.maybe(*closings)):
                return
            start = cursor.at
            if not first:
                yield from cursor.maybe(",", ";")
                yield from cursor.blank()
                if not cursor.rest.startswith(("{", "[")):
                    cursor.at = start
                    return
            found: Found = None
            try:
                for found in read_json_calls(cursor, tools):
                    yield found
            except Mismatch:
                if first or found:
                    raise
                cursor.at = start  # whatever it is, the calls before it were calls
                return
            first = False


def read_json_calls(cursor: Cursor, tools: OfferedTools) -> Reading:
    """Read a call, or a list of calls, each of which is passed on as soon as it is whole."""
    if not cursor.rest.startswith("["):
        yield json_call(json_value((yield from cursor.balanced())), tools)
        return
    cursor.at += 1
    while True:
        yield from cursor.blank()
        yield json_call(json_value((yield from cursor.balanced())), tools)
        yield from cursor.blank()
        if (yield from cursor.must(",", "]")) == "]":
            return


def _expect_call(cursor: Cursor, tools: OfferedTools) -> Wait:
    """Look at the first key of a JSON value; most answers in JSON are no calls, and need not wait for their
    end. Raises: Mismatch."""
    while True:
        if found := _FIRST_KEY.match(cursor.text, cursor.at):
            if found[1] in _KEYS or found[1] in tools:
                return ""
            raise Mismatch
        if cursor.ended or not _BEFORE_KEY.fullmatch(cursor.text, cursor.at):
            raise Mismatch
        yield None


def json_call(value: object, tools: OfferedTools) -> FoundCall:
    """The call that a JSON value stands for, whichever of the usual keys it uses. Raises: Mismatch."""
    if not isinstance(value, Mapping):
        raise Mismatch
    inner = value.get("function")
    if isinstance(inner, Mapping):
        value = inner
    name = next((value[key] for key in _NAMES if key in value), inner)
    if not isinstance(name, str):
        return _keyed_call(value, tools)
    arguments = arguments_of(next((value[key] for key in _ARGUMENTS if key in value), {}))
    if arguments is None:
        raise Mismatch
    return FoundCall(name, arguments)


def _keyed_call(value: Mapping[str, Any], tools: OfferedTools) -> FoundCall:
    """``{"get_weather": {"city": "Paris"}}``"""
    if len(value) == 1:
        ((name, arguments),) = value.items()
        if name in tools and isinstance(arguments, dict):
            return FoundCall(name, arguments)
    raise Mismatch


def arguments_of(value: object) -> dict[str, Any] | None:
    """Arguments, which may be a text of JSON, and null where there are none."""
    if isinstance(value, str):
        value = json_value(value) if value.strip() else {}
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def json_value(text: str) -> object:
    """Raises: Mismatch: not JSON."""
    try:
        return json.loads(text, strict=False)  # models write line ends into strings as they are
    except (ValueError, RecursionError):
        raise Mismatch from None
