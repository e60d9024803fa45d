"""Reading a JSON request body with the leniency that Ollama's clients rely on.

Any ``Content-Type``; field names in any case; unknown fields, and whatever follows the first JSON value,
ignored; ``null`` means absent. Size and depth are bounded before and while parsing.

Source: Go's encoding/json, whose behaviour (and error texts) Ollama's routes have.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import UnionType
from typing import Any, NoReturn, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from .content_coding import decoded
from .errors import BadBody, BodyTooLarge, MissingBody

MAX_BODY = 32 * 1024 * 1024
"""Bytes of one JSON body, where the settings say nothing else; images travel inside it."""
BODY_LIMIT = "lading.body_limit"
"""Where the request's scope holds the settings' limit."""
MAX_DEPTH = 64
MAX_VALUES = 1_000_000
"""Elements of all lists and objects of a body: while they are read, nothing else is."""

_T = TypeVar("_T", bound=msgspec.Struct)


class BodySource(Protocol):
    """What is needed of a request; Falcon's ASGI request is one."""

    @property
    def content_length(self) -> int | None: ...

    @property
    def stream(self) -> Any: ...

    @property
    def scope(self) -> Mapping[str, Any]: ...


async def read_body(req: BodySource) -> bytes:
    """The whole body. A length announced above the limit is refused before a byte is read.

    Raises:
        BodyTooLarge: more bytes were announced or came, or are in what came compressed.
        UnknownCoding, BadBody: it is compressed in a way that is not known, or not the way it says.
    """
    limit = req.scope.get(BODY_LIMIT, MAX_BODY)
    if (req.content_length or 0) > limit:
        raise BodyTooLarge(limit)
    body = bytearray()
    async for chunk in req.stream:
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(limit)
    return await decoded(bytes(body), req.scope, limit)


async def read_request(req: BodySource, kind: type[_T]) -> _T:
    """The body as a `kind`.

    Raises:
        MissingBody: it is empty.
        BadBody: it is not JSON, not an object, or a field has a wrong type.
        BodyTooLarge: see `read_body`.
    """
    return decode(await read_body(req), kind)


def decode(body: bytes, kind: type[_T]) -> _T:
    """As `read_request`, for bytes at hand."""
    value = parse(body)
    if not isinstance(value, dict):
        raise BadBody(f"expected a JSON object, got {_json_type(value)}")
    try:
        return msgspec.convert(_fit(value, kind), kind, strict=True)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from error


def parse(body: bytes) -> Any:
    """The first JSON value in `body`; what follows it is ignored.

    Raises:
        MissingBody: nothing but white space.
        BadBody: with Go's words for what is wrong.
    """
    decoder = _decoder_for(body)
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise MissingBody()
    try:
        value, _ = decoder.raw_decode(text)
    except json.JSONDecodeError as error:
        _raise_syntax(text, error)
    except (RecursionError, ValueError) as error:
        raise BadBody("expected nesting and numbers of a reasonable size") from error
    _check_depth(value)
    return _without_surrogates(value) if _SURROGATE.search(text) else value


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError("Expecting value", name, 0)


def _integer(text: str) -> int | float:
    """As Go has it where no type says otherwise: what does not fit 64 bits, which is all that other processes
    are sent, is a float."""
    number = int(text)
    return number if -(2**63) <= number < 2**64 else _float(text)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("beyond what a number can be")  # `parse` says it to the client
    return number


_CAREFUL = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float)
_QUICK = json.JSONDecoder(parse_constant=_refuse_constant)
"""Ten times as fast for numbers, which must all be ordinary ones."""
_MANY = 10_000
_LARGE_NUMBER = re.compile(rb"[0-9]{19}|[0-9][eE]\+?[0-9]{3}")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# The standard library's messages -> Go's, of which clients quote the first.
_GO_CONTEXT: Mapping[str, str] = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Illegal trailing comma before end of array": "looking for beginning of value",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": "in \\u hexadecimal character escape",
}


_GO_LITERALS: Mapping[str, str] = {"t": "true", "f": "false", "n": "null"}


def _raise_syntax(text: str, error: json.JSONDecodeError) -> NoReturn:
    at = error.pos if error.doc is text or error.doc == text else text.find(error.doc)
    if at >= len(text) or error.msg.startswith("Unterminated string"):
        raise BadBody("unexpected EOF") from error
    literal = _GO_LITERALS.get(text[at]) if error.msg.startswith("Expecting value") else None
    if literal is not None:
        _raise_in_literal(text[at:], literal)
    context = next((go for ours, go in _GO_CONTEXT.items() if error.msg.startswith(ours)), "in JSON")
    raise BadBody(f"invalid character {_go_quoted(text[at])} {context}") from error


def _raise_in_literal(text: str, literal: str) -> NoReturn:
    """`text` begins as `literal` does, and is none."""
    for got, expected in zip(text, literal, strict=False):
        if got != expected:
            raise BadBody(
                f"invalid character {_go_quoted(got)} in literal {literal} (expecting '{expected}')"
            )
    raise BadBody("unexpected EOF")


def _go_quoted(char: str) -> str:
    special = {"'": "'\\''", '"': "'\"'", "\n": "'\\n'", "\r": "'\\r'", "\t": "'\\t'"}
    return special.get(char, f"'{char}'" if char.isprintable() else f"'\\x{ord(char):02x}'")


def _decoder_for(body: bytes) -> json.JSONDecoder:
    """Looks into the body only as closely as its size demands. Raises: BadBody: it has too many values."""
    count = _elements(body)
    if count > MAX_VALUES and _elements(_STRING.sub(b"", body)) > MAX_VALUES:
        raise BadBody(f"expected at most {MAX_VALUES} values")
    return _QUICK if count > _MANY and not _LARGE_NUMBER.search(body) else _CAREFUL


def _elements(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise BadBody(f"expected at most {MAX_DEPTH} levels of nesting")
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
        depth += 1


def _without_surrogates(value: Any) -> Any:
    """Lone surrogates become U+FFFD, as in Go; they could not be encoded again."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def _json_type(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _wrong_type(text: str) -> BadBody:
    """msgspec's ``Expected `str`, got `int` - at `$.model``` as ``field model: expected str, got int``."""
    what, _, path = text.partition(" - at ")
    where = path.strip("`").removeprefix("$").lstrip(".")
    what = what.replace("`", "")
    what = what[:1].lower() + what[1:]
    return BadBody(f"field {where}: {what}", field=where) if where else BadBody(what)


# Field names: the shape of a struct, worked out once for each type.


@dataclass(frozen=True, slots=True)
class _Shape:
    names: Mapping[str, str]
    """Lower-case name -> the name that the struct has."""
    inner: Mapping[str, Any]
    """Name -> struct type of the field or of its list's items."""


@lru_cache(maxsize=256)
def _shape(kind: type) -> _Shape:
    hints = get_type_hints(kind)
    names, inner = {}, {}
    for field in msgspec.structs.fields(kind):
        names[field.encode_name.lower()] = field.encode_name
        struct = _struct_in(hints[field.name])
        if struct is not None:
            inner[field.encode_name] = struct
    return _Shape(names, inner)


def _struct_in(hint: Any) -> type | None:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    if get_origin(hint) in (list, tuple, Union, UnionType):
        return next((found for arg in get_args(hint) if (found := _struct_in(arg))), None)
    return None


def _fit(value: Any, kind: type) -> Any:
    """`value` with the names that `kind` knows, without nulls and strangers; later spellings win."""
    if isinstance(value, list):
        return [_fit(item, kind) for item in value]
    if not isinstance(value, dict):
        return value
    shape = _shape(kind)
    fitted: dict[str, Any] = {}
    for key, item in value.items():
        name = shape.names.get(key.lower())
        if name is None or item is None:
            continue
        fitted[name] = _fit(item, shape.inner[name]) if name in shape.inner else item
    return fitted
