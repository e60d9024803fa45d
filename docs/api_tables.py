"""The tables of api.md, from the schemas and the error table that the server works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from lading.server import native_schema, openai_schema
from lading.server.errors import TABLE

Table = Callable[[Sequence[str], Iterable[Sequence[object]]], str]

_JSON_NAMES = {
    "StrType": "text",
    "IntType": "integer",
    "FloatType": "number",
    "BoolType": "true or false",
    "ListType": "list",
    "DictType": "object",
    "StructType": "object",
    "AnyType": "any",
}


def native_fields(table: Table) -> str:
    """Chat's and generate's fields, and which of the two has them."""
    chat, generate = (_fields(kind) for kind in (native_schema.ChatRequest, native_schema.GenerateRequest))
    rows = []
    for name in dict.fromkeys((*chat, *generate)):
        where = [route for route, fields in (("chat", chat), ("generate", generate)) if name in fields]
        rows.append((f"`{name}`", chat.get(name) or generate[name], ", ".join(where)))
    return table(("field", "type", "of"), rows)


def openai_fields(table: Table) -> str:
    fields = _fields(openai_schema.ChatCompletionRequest)
    return table(("field", "type"), ((f"`{name}`", kind) for name, kind in fields.items()))


def error_table(table: Table) -> str:
    """Statuses and codes, in the order in which they are looked up."""
    rows = {(row.status, row.code): row.kind for row in reversed(TABLE)}
    return table(
        ("status", "code", "when"),
        (
            (status, f"`{code}`", (kind.__doc__ or "").strip().splitlines()[0].rstrip("."))
            for (status, code), kind in sorted(rows.items(), key=lambda item: item[0])
        ),
    )


def _fields(kind: type[msgspec.Struct]) -> dict[str, str]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: _words(field.type) for field in info.fields}


def _words(kind: Any) -> str:
    if isinstance(kind, msgspec.inspect.UnionType):
        names = [_words(one) for one in kind.types if not isinstance(one, msgspec.inspect.NoneType)]
        return " or ".join(dict.fromkeys(names))
    if isinstance(kind, msgspec.inspect.ListType) and not isinstance(kind.item_type, msgspec.inspect.AnyType):
        return f"list of {_words(kind.item_type)}s"
    return _JSON_NAMES.get(type(kind).__name__, "any")
