"""The tools that may be called, and what is enforced of the schemas of their arguments.

Schemas of tools are taken as the widely used clients mean them. Annotations are left out; so is, unless a
tool is ``strict``, what llguidance cannot enforce (see its ``lenient``). And an object whose properties are
listed has no others, unless it says so: a model that makes one up is never right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BadFormat, BadRequest
from .grammar_bounds import MAX_DEPTH, check_schema

MAX_SCHEMAS = 512 * 1024
"""Characters of all tools' schemas, descriptions not counted."""
_MAX_NAME = 128
_NOT_IN_NAMES = frozenset("\"'<>{}[]()\\`")

_ANNOTATIONS = frozenset(
    ("$comment", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title")
)
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value has a schema for each name."""
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
_COMBINING = frozenset(("$ref", "anyOf", "oneOf", "if", "dependentSchemas"))
_OPEN = frozenset(("additionalProperties", "patternProperties"))
_LOOKS_AROUND = re.compile(r"\(\?<?[=!]|\\[1-9bB]")
"""What no automaton can do, and JavaScript's regular expressions can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallableTool:
    name: str
    schema: Mapping[str, Any]
    """Of the arguments, as far as it is enforced."""
    is_strict: bool = False


def callable_tools(tools: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> list[CallableTool]:
    """The tools among those offered, in OpenAI's shape, that may be called: those in ``names``, or all.

    Raises: BadRequest: a tool has no proper name or schema, or there is too much of them.
    """
    found = [_callable(tool) for tool in tools]
    size = sum(len(json.dumps(tool.schema)) for tool in found)
    if size > MAX_SCHEMAS:
        raise BadRequest(f"reading tools: expected schemas of at most {MAX_SCHEMAS} characters, got {size}")
    return [tool for tool in found if not names or tool.name in names]


def _callable(tool: Mapping[str, Any]) -> CallableTool:
    function = tool.get("function", tool)
    if not isinstance(function, Mapping):
        raise BadRequest("reading tools: expected a function to be an object")
    name = function.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise BadRequest(f"reading tools: expected every tool to have a name of 1 to {_MAX_NAME} characters")
    if not name.isprintable() or any(char.isspace() or char in _NOT_IN_NAMES for char in name):
        raise BadRequest(f"reading tools: expected no spaces, quotes and brackets in the name {name!r}")
    is_strict = function.get("strict") is True
    try:
        schema = _schema(function.get("parameters"), is_strict=is_strict)
    except BadFormat as error:
        raise BadRequest(f"reading the tool {name}: {error.message}", hint=error.hint) from error
    return CallableTool(name=name, schema=schema, is_strict=is_strict)


def _schema(given: object, *, is_strict: bool) -> dict[str, Any]:
    if given is None:
        return {"type": "object"}
    if not isinstance(given, Mapping) or given.get("type", "object") != "object":
        raise BadFormat("expected its parameters to be a JSON Schema of type object")
    schema = {"type": "object", **_essence(given, is_strict=is_strict, depth=0)}
    check_schema(schema)
    return schema if is_strict or _combines(schema) else _closed(schema)


def _essence(schema: Any, *, is_strict: bool, depth: int) -> Any:
    """``schema`` without annotations and, unless strict, without patterns that cannot be enforced."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:  # too deep: it is refused for that afterwards
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _OF_NAMES and isinstance(value, Mapping):
            value = {name: _essence(one, is_strict=is_strict, depth=depth + 1) for name, one in value.items()}
        elif key in _LISTS and isinstance(value, list):
            value = [_essence(one, is_strict=is_strict, depth=depth + 1) for one in value]
        elif key in _SCHEMAS:
            value = _essence(value, is_strict=is_strict, depth=depth + 1)
        elif key in _ANNOTATIONS or (key == "pattern" and not is_strict and _LOOKS_AROUND.search(str(value))):
            continue
        result[key] = value
    return result


def _combines(value: Any) -> bool:
    """Whether properties of one object are listed in several places: none of them lists them all."""
    if isinstance(value, list):
        return any(map(_combines, value))
    if not isinstance(value, Mapping):
        return False
    is_combined = "properties" in value and not _COMBINING.isdisjoint(value)
    return "allOf" in value or is_combined or any(map(_combines, value.values()))


def _closed(schema: Any) -> Any:
    """``schema`` without properties that it does not list."""
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for key, value in schema.items():
        if key in _OF_NAMES and isinstance(value, Mapping):
            result[key] = {name: _closed(one) for name, one in value.items()}
        elif key in _LISTS and isinstance(value, list):
            result[key] = [_closed(one) for one in value]
        elif key == "items":
            result[key] = _closed(value)
    if "properties" in schema and _OPEN.isdisjoint(schema):
        result["additionalProperties"] = False
    return result
