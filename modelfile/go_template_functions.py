"""The functions of a template: Go's own and the four that Ollama adds. ``and`` and ``or`` evaluate their
arguments one by one and are in the executor; here is only that they exist.

Source: Go 1.24, text/template/funcs.go; Ollama, template/template.go.
"""

from __future__ import annotations

import html as html_module
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType

from .go_printf import sprint, sprintf, sprintln
from .go_value import Record, Types, Value, json_text, text_of, truth, type_name


class FunctionError(Exception):
    """A function cannot do what it is asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Builtin:
    least: int
    """Fewest arguments."""
    most: int | None
    call: Callable[[Sequence[Value], date], Value]
    """The arguments and the day that counts as today. Raises: FunctionError."""


def _equal(values: Sequence[Value], _: date) -> bool:
    if len(values) < 2:
        raise FunctionError("missing argument for comparison")
    first = values[0]
    return any(_same(first, other) for other in values[1:])


def _same(one: Value, other: Value) -> bool:
    one, other = _single(one), _single(other)
    if one is None or other is None:
        return one is other
    for value in (one, other):
        if isinstance(value, list | dict | Record):
            raise FunctionError(f"non-comparable type {type_name(value)}")
    if _kind(one) != _kind(other):
        raise FunctionError("incompatible types for comparison")
    return bool(one == other)


def _less(one: Value, other: Value) -> bool:
    one, other = _single(one), _single(other)
    for value in (one, other):
        if _kind(value) not in ("number", "string"):
            raise FunctionError("invalid type for comparison")
    if _kind(one) != _kind(other):
        raise FunctionError("incompatible types for comparison")
    return bool(one < other)


def _single(value: Value) -> Value:
    """A schema's type is a list; of one type it compares as that, which is what templates mean."""
    return value[0] if isinstance(value, Types) and len(value) == 1 else value


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    # Numbers of JSON are floats in Go, and integers here where they are whole: so the two compare.
    return "number" if isinstance(value, int | float) else "string" if isinstance(value, str) else "other"


def _length(values: Sequence[Value], _: date) -> int:
    value = values[0]
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict):
        return len(value)
    raise FunctionError(f"len of type {type_name(value)}")


def _index(values: Sequence[Value], _: date) -> Value:
    value = values[0]
    for key in values[1:]:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise FunctionError(f"value has type {type_name(key)}; should be string")
            value = value.get(key)
        elif isinstance(value, list | str):
            items = value.encode() if isinstance(value, str) else value
            value = items[_position(key, len(items) - 1)]
        elif value is None:
            raise FunctionError("index of untyped nil")
        else:
            raise FunctionError(f"can't index item of type {type_name(value)}")
    return value


def _slice(values: Sequence[Value], _: date) -> Value:
    value = values[0]
    if not isinstance(value, list | str):
        raise FunctionError(f"can't slice item of type {type_name(value)}")
    items = value.encode() if isinstance(value, str) else value
    if len(values) == 4 and isinstance(value, str):
        raise FunctionError("cannot 3-index slice a string")
    bounds = [_position(bound, len(items)) for bound in values[1:]]
    start, end = bounds[0] if bounds else 0, bounds[1] if len(bounds) > 1 else len(items)
    if start > end or (len(bounds) == 3 and end > bounds[2]):
        raise FunctionError(f"invalid slice index: {start} > {end}")
    part = items[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _position(value: Value, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise FunctionError(f"cannot index slice/array with type {type_name(value)}")
    if not 0 <= value <= most:
        raise FunctionError(f"index out of range: {value}")
    return value


def _printf(values: Sequence[Value], _: date) -> str:
    if not isinstance(values[0], str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(values[0])}")
    return sprintf(values[0], values[1:])


def _call(values: Sequence[Value], _: date) -> Value:
    raise FunctionError(f"non-function of type {type_name(values[0])}")


def _html(values: Sequence[Value], _: date) -> str:
    text = html_module.escape(_text(values), quote=False).replace("\0", "\ufffd")
    return text.replace('"', "&#34;").replace("'", "&#39;")


_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _js(values: Sequence[Value], _: date) -> str:
    return "".join(_JS.get(c) or (c if c.isprintable() else f"\\u{ord(c):04X}") for c in _text(values))


def _urlquery(values: Sequence[Value], _: date) -> str:
    return urllib.parse.quote_plus(_text(values), safe="", errors="replace")


def _text(values: Sequence[Value]) -> str:
    return values[0] if len(values) == 1 and isinstance(values[0], str) else sprint(values)


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def typescript_type(value: Value) -> str:
    """The TypeScript type of a tool's parameter. Source: Ollama, `ToolProperty.ToTypeScriptType`."""
    if not isinstance(value, Record):
        return "any"
    alternatives = value.fields.get("AnyOf")
    if isinstance(alternatives, list) and alternatives:
        return " | ".join(typescript_type(alternative) for alternative in alternatives)
    types = value.fields.get("Type") or []
    names = [_TYPESCRIPT.get(name, "any") for name in ([types] if isinstance(types, str) else types)]
    return " | ".join(names) if names else "any"


FUNCTIONS: Mapping[str, Builtin] = MappingProxyType(
    {
        "and": Builtin(1, None, lambda values, _: values[-1]),
        "or": Builtin(1, None, lambda values, _: values[-1]),
        "not": Builtin(1, 1, lambda values, _: not truth(values[0])),
        "eq": Builtin(1, None, _equal),
        "ne": Builtin(2, 2, lambda values, _: not _same(values[0], values[1])),
        "lt": Builtin(2, 2, lambda values, _: _less(values[0], values[1])),
        "le": Builtin(2, 2, lambda values, _: not _less(values[1], values[0])),
        "gt": Builtin(2, 2, lambda values, _: _less(values[1], values[0])),
        "ge": Builtin(2, 2, lambda values, _: not _less(values[0], values[1])),
        "len": Builtin(1, 1, _length),
        "index": Builtin(1, None, _index),
        "slice": Builtin(1, 4, _slice),
        "print": Builtin(0, None, lambda values, _: sprint(values)),
        "printf": Builtin(1, None, _printf),
        "println": Builtin(0, None, lambda values, _: sprintln(values)),
        "html": Builtin(0, None, _html),
        "js": Builtin(0, None, _js),
        "urlquery": Builtin(0, None, _urlquery),
        "call": Builtin(1, None, _call),
        # Ollama's.
        "json": Builtin(1, 1, lambda values, _: json_text(values[0])),
        "currentDate": Builtin(0, None, lambda _values, today: today.isoformat()),
        "yesterdayDate": Builtin(0, None, lambda _values, today: (today - timedelta(days=1)).isoformat()),
        "toTypeScriptType": Builtin(1, 1, lambda values, _: typescript_type(values[0])),
    }
)
"""Every function, by name."""

METHODS: Mapping[str, Callable[[Record], Value]] = MappingProxyType(
    {"ToTypeScriptType": typescript_type, "String": text_of}
)
"""What can be asked of a struct like a field."""
