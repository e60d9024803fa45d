"""The OpenAPI document, made from the table of operations and the types that handlers read and write.

Fields marked `Refused` are left out; `Ignored` and `Partly` ones say so. Every status that an operation can
answer with is listed, and no other: there is no catch-all.

Source: OpenAPI 3.1, whose schemas are JSON Schema 2020-12, as msgspec's are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .field_status import Ignored, Partly, Refused, marks_of
from .operations import Dialect, Operation
from .wire import JSON

_REFERENCE = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{([a-z_]+)\+?\}")

_MEANINGS = {
    400: "the request makes no sense",
    401: "an API key is needed",
    403: "the API key has not the role, or the Host or Origin is not allowed",
    404: "there is no such thing",
    405: "the path has no such method",
    413: "the body is too large",
    415: "the body is encoded in a way that is not understood",
    416: "the range lies outside",
    422: "the request cannot be acted upon",
    429: "the API key has used up what it may",
    500: "the server, or a model's process, failed",
    501: "not on this server",
    502: "a registry did not answer as it should",
    503: "too busy; try again later",
    507: "no room on disk or in memory",
}


class NativeError(msgspec.Struct):
    """An error as Ollama's clients expect it."""

    error: str


class OpenAIErrorDetail(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(msgspec.Struct):
    """An error as OpenAI's clients expect it."""

    error: OpenAIErrorDetail


class AnthropicErrorDetail(msgspec.Struct):
    type: str
    message: str


class AnthropicError(msgspec.Struct, tag_field="type", tag="error"):
    """An error as Anthropic's clients expect it."""

    error: AnthropicErrorDetail
    request_id: str


class RegistryErrorDetail(msgspec.Struct):
    code: str
    message: str


class RegistryError(msgspec.Struct):
    """An error as the distribution specification has it."""

    errors: list[RegistryErrorDetail]


_ERRORS: Mapping[Dialect, type[msgspec.Struct]] = {
    Dialect.NATIVE: NativeError,
    Dialect.OPENAI: OpenAIError,
    Dialect.ANTHROPIC: AnthropicError,
    Dialect.REGISTRY: RegistryError,
    Dialect.OPERATIONS: NativeError,
}


def document(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """The document of these operations; ``version`` is Lading's."""
    types = _types_of(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    for kind in {one.request for one in operations if one.request is not None}:
        _mark(components, schema_of[repr(kind)], kind)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(_PARAMETER.sub(r"{\1}", one.path), {})[one.method.lower()] = _operation(
            one, schema_of
        )
    made = {
        "openapi": "3.1.0",
        "info": {
            "title": "Lading",
            "version": version,
            "description": "Models over the dialects of Ollama, OpenAI, Anthropic and OCI registries.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": str(dialect)} for dialect in Dialect],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }
    return _with_short_names(made)


def _with_short_names(made: dict[str, Any]) -> dict[str, Any]:
    """Types of the same name have that of their module before it: ``lading.server.openai.schema.Usage``
    becomes ``OpenaiUsage``."""
    text = msgspec.json.encode(made).decode()
    for name in made["components"]["schemas"]:
        if "." in name:
            words = name.removeprefix("lading.server.").replace("schema.", "").replace("_", ".").split(".")
            short = "".join(word[:1].upper() + word[1:] for word in words)
            text = text.replace(f'"{name}"', f'"{short}"').replace(f'/{name}"', f'/{short}"')
    renamed: dict[str, Any] = msgspec.json.decode(text)
    return renamed


def _types_of(operations: Iterable[Operation]) -> list[Any]:
    """Every type that is spoken of, once."""
    types: dict[str, Any] = {}
    for one in operations:
        for kind in (one.request, one.answer, _ERRORS[one.dialect]):
            if kind is not None:
                types[repr(kind)] = kind
    return list(types.values())


def _mark(components: dict[str, Any], schema: Mapping[str, Any], kind: type[msgspec.Struct]) -> None:
    properties = components[schema["$ref"].rpartition("/")[2]]["properties"]
    for name, mark in marks_of(kind).items():
        match mark:
            case Refused():
                del properties[name]
            case Ignored():
                properties[name] = {**properties[name], "description": f"Ignored: {mark.why}."}
            case Partly():
                properties[name] = {
                    **properties[name],
                    "description": f"{mark.what[:1].upper()}{mark.what[1:]}.",
                }


def _operation(one: Operation, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _identifier(one),
        "summary": one.does.replace("`", ""),
        "tags": [str(one.dialect)],
        "responses": {
            str(status): _response(one, status, schema_of) for status in (*one.statuses, *one.errors)
        },
    }
    if parameters := _parameters(one):
        described["parameters"] = parameters
    if one.request is not None:
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of[repr(one.request)]}},
        }
    elif one.body is not None:
        binary = {"type": "string", "format": "binary"}
        described["requestBody"] = {"content": {one.body: {"schema": binary}}}
    if not one.public:
        ways: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"header": []}]
        described["security"] = [*ways, {"basic": []}] if one.dialect is Dialect.REGISTRY else ways
        described["x-role"] = str(one.role) if one.role is not None else "any"
    return described


def _parameters(one: Operation) -> list[dict[str, Any]]:
    schema = {"type": "string", "minLength": 1}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name in _PARAMETER.findall(one.path)
    ]
    in_query = [
        {"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in one.query
    ]
    return in_path + in_query


def _response(one: Operation, status: int, schema_of: Mapping[str, Any]) -> dict[str, Any]:
    if status not in one.statuses and not (one.public and status == 503):
        described: dict[str, Any] = {"description": _MEANINGS[status]}
        if one.method != "HEAD":
            described["content"] = {JSON: {"schema": schema_of[repr(_ERRORS[one.dialect])]}}
            if status == 405 or (status == 404 and one.dialect is Dialect.NATIVE):
                described["content"]["text/plain"] = {"schema": {"type": "string"}}
        return described
    described = {"description": "done" if status < 400 else "not now"}
    if one.method == "HEAD" or status == 204:
        return described
    content: dict[str, Any] = {}
    if one.answer is not None:
        content[JSON] = {"schema": schema_of[repr(one.answer)]}
    elif one.media != JSON and status in (200, 206):
        content[one.media] = {"schema": {"type": "string"}}
    if one.stream is not None:
        content[one.stream] = {"schema": {"type": "string"}}
    if content:
        described["content"] = content
    return described


def _identifier(one: Operation) -> str:
    words = re.findall(r"[A-Za-z0-9]+", one.path) or ["root"]
    return "_".join((one.method.lower(), *words))
