"""The tables of api.md, from the schemas and the error table that the server works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from lading.server.access.role import Role
from lading.server.anthropic import schema as anthropic_schema
from lading.server.errors import TABLE
from lading.server.field_status import Ignored, Mark, Partly, Refused, marks_of
from lading.server.llama import schema as llama_schema
from lading.server.metrics import ASKED, COUNTED
from lading.server.native import schema as native_schema
from lading.server.openai import responses_schema
from lading.server.openai import schema as openai_schema
from lading.server.operations import OPERATIONS, Operation

Table = Callable[[Sequence[str], Iterable[Sequence[object]]], str]
Routes = Mapping[str, type[msgspec.Struct]]

NATIVE: Routes = {
    "chat": native_schema.ChatRequest,
    "generate": native_schema.GenerateRequest,
    "embed": native_schema.EmbedRequest,
    "embeddings": native_schema.EmbeddingsRequest,
    "show": native_schema.ShowRequest,
    "create": native_schema.CreateRequest,
    "pull, push": native_schema.TransferRequest,
    "copy": native_schema.CopyRequest,
    "delete": native_schema.DeleteRequest,
}
OPENAI: Routes = {
    "chat/completions": openai_schema.ChatCompletionRequest,
    "completions": openai_schema.CompletionRequest,
    "embeddings": openai_schema.EmbeddingRequest,
}
RESPONSES: Routes = {"responses": responses_schema.ResponsesRequest}
ANTHROPIC: Routes = {
    "messages": anthropic_schema.MessagesRequest,
    "messages/count_tokens": anthropic_schema.CountTokensRequest,
}
LLAMA: Routes = {
    "tokenize": llama_schema.TokenizeRequest,
    "detokenize": llama_schema.DetokenizeRequest,
    "rerank": llama_schema.RerankRequest,
}

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


def field_table(routes: Routes, table: Table) -> str:
    """Every field that any of the routes knows, its type, what becomes of it, and which routes have it."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for route, kind in routes.items():
        marks = marks_of(kind)
        for name, type_words in _fields(kind).items():
            rows.setdefault((name, type_words, status_of(marks.get(name))), []).append(route)
    written = sorted(rows.items(), key=lambda row: row[0][2].partition(":")[0] != "supported")
    if len(routes) == 1:
        return table(
            ("field", "type", "status"), ((f"`{n}`", kind, status) for (n, kind, status), _ in written)
        )
    return table(
        ("field", "type", "status", "of"),
        (
            (f"`{name}`", kind, status, "all" if len(where) == len(routes) else ", ".join(where))
            for (name, kind, status), where in written
        ),
    )


def status_of(mark: Mark | None) -> str:
    match mark:
        case Ignored():
            return f"ignored: {mark.why}"
        case Refused():
            return f"refused: {mark.why}"
        case Partly():
            return f"supported: {mark.what}"
    return "supported"


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


def route_table(table: Table) -> str:
    """Every route, its methods, and the role that a key needs for it."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in OPERATIONS:
        rows.setdefault((one.path, one.does, _role(one)), []).append(one.method)
    return table(
        ("method", "path", "role", "does"),
        ((", ".join(methods), f"`{path}`", role, does) for (path, does, role), methods in rows.items()),
    )


def _role(operation: Operation) -> str:
    if operation.public:
        return "none"
    return f"`{operation.role}`" if operation.role is not None else "any"


def role_table(table: Table) -> str:
    """What the roles of keys allow."""
    return table(("role", "allows to"), ((f"`{role}`", role.meaning) for role in Role))


def metric_table(table: Table) -> str:
    """What ``/metrics`` shows."""
    return table(
        ("name", "kind", "labels", "what it is"),
        (
            (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.means)
            for one in (*COUNTED, *ASKED)
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
