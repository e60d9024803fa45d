"""A conversation and its tools as a template sees them: structs with Go's field names.

Source: Ollama, api/types.go and template/template.go. What comes from JSON (a request, a stored message) is
taken as far as it has the right shape; the rest is nil or empty, and never an error.
Departure: what a tool's schema says beyond the fields that Ollama knows is kept in the JSON, after them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .go_value import Record, Types, Value

Json = Mapping[str, Any]


def message_record(message: Json) -> Record:
    fields = {
        "Role": _text(message.get("role")),
        "Content": _text(message.get("content")),
        "Thinking": _text(message.get("thinking")),
        "Images": _list(message.get("images")),
        "ToolCalls": [
            _call_record(call) for call in _list(message.get("tool_calls")) if isinstance(call, Mapping)
        ],
        "ToolName": _text(message.get("tool_name") or message.get("name")),
        "ToolCallID": _text(message.get("tool_call_id")),
    }
    names = {
        "Role": "role",
        "Content": "content",
        "Thinking": "thinking",
        "ToolCalls": "tool_calls",
        "ToolName": "tool_name",
        "ToolCallID": "tool_call_id",
    }
    kept = ("Role", "Content")
    return Record("api.Message", fields, {names[k]: fields[k] for k in names if k in kept or fields[k]})


def _call_record(call: Json) -> Record:
    function = _map(call.get("function"))
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        arguments = _parsed(arguments)
    if arguments is None:
        arguments = {}
    index = function.get("index")
    facts = {
        "Index": index if isinstance(index, int) else 0,
        "Name": _text(function.get("name")),
        "Arguments": _plain(arguments),
    }
    inner = Record("api.ToolCallFunction", facts, {"name": facts["Name"], "arguments": facts["Arguments"]})
    identity = _text(call.get("id"))
    as_json = {"id": identity, "function": inner} if identity else {"function": inner}
    return Record("api.ToolCall", {"ID": identity, "Function": inner}, as_json)


def tool_record(tool: Json) -> Record:
    function = _map(tool.get("function"))
    parameters = _map(function.get("parameters"))
    described = {"description": _text(function.get("description"))} if function.get("description") else {}
    schema = _parameters_record(parameters)
    inner = Record(
        "api.ToolFunction",
        {
            "Name": _text(function.get("name")),
            "Description": _text(function.get("description")),
            "Parameters": schema,
        },
        {"name": _text(function.get("name")), **described, "parameters": schema},
    )
    type_ = _text(tool.get("type")) or "function"
    items = _plain(tool.get("items"))
    fields = {"Type": type_, "Items": items, "Function": inner}
    listed = {"items": items} if items is not None else {}
    return Record("api.Tool", fields, {"type": type_, **listed, "function": inner})


def _parameters_record(schema: Json) -> Record:
    properties = _properties(schema.get("properties"))
    type_ = _text(schema.get("type"))
    required = [item for item in _list(schema.get("required")) if isinstance(item, str)]
    known = {"type": type_}
    optional = {
        "$defs": _plain(schema.get("$defs")),
        "items": _plain(schema.get("items")),
        "required": required,
    }
    as_json = known | {key: value for key, value in optional.items() if value} | {"properties": properties}
    fields = {
        "Type": type_,
        "Defs": optional["$defs"],
        "Items": optional["items"],
        "Required": required,
        "Properties": properties,
    }
    return Record("api.ToolFunctionParameters", fields, as_json | _rest(schema, as_json))


def _property_record(schema: Json) -> Record:
    types = schema.get("type")
    fields: dict[str, Value] = {
        "AnyOf": [_property_record(item) for item in _list(schema.get("anyOf")) if isinstance(item, Mapping)],
        "Type": Types([types] if isinstance(types, str) else [t for t in _list(types) if isinstance(t, str)]),
        "Items": _plain(schema.get("items")),
        "Description": _text(schema.get("description")),
        "Enum": _plain(_list(schema.get("enum"))),
        "Properties": _properties(schema.get("properties")),
        "Required": [item for item in _list(schema.get("required")) if isinstance(item, str)],
    }
    names = {
        "anyOf": "AnyOf",
        "type": "Type",
        "items": "Items",
        "description": "Description",
        "enum": "Enum",
        "properties": "Properties",
        "required": "Required",
    }
    as_json = {name: fields[field] for name, field in names.items() if fields[field]}
    return Record("api.ToolProperty", fields, as_json | _rest(schema, names))


def _properties(value: Any) -> dict[str, Value]:
    return {
        str(name): _property_record(schema) if isinstance(schema, Mapping) else _plain(schema)
        for name, schema in _map(value).items()
    }


def _rest(schema: Json, known: Mapping[str, Any]) -> dict[str, Value]:
    handled = {*known, "properties", "required", "items", "$defs"}
    return {str(key): _plain(schema[key]) for key in sorted(schema, key=str) if key not in handled}


def _plain(value: Any) -> Value:
    """A value of JSON, as the template's values are."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item) for item in value]
    return str(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def _map(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}
