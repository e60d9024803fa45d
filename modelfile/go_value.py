"""The values that a template works on, and how Go writes them.

A value is a Python ``None`` (nil), bool, int, float, str, list, dict with string keys (a map), or a `Record`
(a struct). Maps are ordered by key wherever their order shows, as in Go.

Departure: where Go prints a struct or a map in its own syntax, JSON is written, which is what templates are
after. JSON is not escaped for HTML: models are not trained on ``\\u003c``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""None, bool, int, float, str, list, dict or Record."""


class Record:
    """A struct of Go: fields by their Go names, and what it is as JSON."""

    __slots__ = ("_json", "fields", "kind")

    def __init__(self, kind: str, fields: Mapping[str, Value], as_json: Mapping[str, Value]) -> None:
        self.kind = kind
        self.fields = dict(fields)
        self._json = dict(as_json)

    def items(self) -> Iterator[tuple[str, Value]]:
        """What it has as JSON, in order."""
        yield from self._json.items()


class Types(list[str]):
    """The type of a JSON schema, which may be several: one prints as it is."""


def truth(value: Value) -> bool:
    """Whether ``if`` takes `value` for true. A struct always is."""
    return True if isinstance(value, Record) else bool(value)


def text_of(value: Value) -> str:
    """`value` as ``{{ . }}`` and ``%v`` write it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return float_text(value)
        case Types() if len(value) <= 1:
            return "".join(value)
        case list() if not any(isinstance(item, list | dict | Record) for item in value):
            return "[" + " ".join(text_of(item) for item in value) + "]"
    return json_text(value)


def json_text(value: Value) -> str:
    """`value` as compact JSON, maps in the order of their keys."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value)
        case float():
            return float_text(value) if math.isfinite(value) else "null"
        case Types() if len(value) == 1:
            return json_text(value[0])
        case list():
            return "[" + ",".join(json_text(item) for item in value) + "]"
        case dict():
            pairs: Iterator[tuple[str, Value]] = iter(sorted(value.items()))
        case Record():
            pairs = value.items()
        case _:
            return json.dumps(str(value), ensure_ascii=False)
    return "{" + ",".join(f"{json_text(str(key))}:{json_text(item)}" for key, item in pairs) + "}"


def float_text(value: float) -> str:
    """Go's ``%v``: the shortest digits; an exponent below 1e-4 and from 1e21 on."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return ("-" if math.copysign(1, value) < 0 and value == 0 else "") + str(int(value))
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    return f"{mantissa}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-').zfill(2)}"


def type_name(value: Value) -> str:
    """The name of its type in messages, as in Go."""
    match value:
        case None:
            return "nil"
        case bool():
            return "bool"
        case str():
            return "string"
        case int():
            return "int"
        case float():
            return "float64"
        case list():
            return "[]interface {}"
        case dict():
            return "map[string]interface {}"
        case Record():
            return str(value.kind)
    return type(value).__name__
