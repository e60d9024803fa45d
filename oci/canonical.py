"""JSON, written one way only and read strictly.

Writing: the same value gives the same bytes on every machine, so that it has one digest.
Reading: bytes come from registries and model files. Whatever Python's parser is lenient about
(duplicate keys, NaN, numbers without bound) or fails on in its own way (depth, huge integers, bad
UTF-8) ends in one error, ``BadJson``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

from .errors import BadJson

MAX_DOCUMENT_SIZE = 4 << 20
"""Bytes. What registries must accept for a manifest. Source: OCI distribution-spec 1.1, pushing manifests."""

MAX_DEPTH = 64
"""Nesting of arrays and objects. Real manifests and configs stay below ten."""

_MAX_INT_DIGITS = 20


def canonical_json(value: object) -> bytes:
    """``value`` as compact UTF-8 JSON with sorted keys and no final newline.

    Keys are sorted by code point. Numbers must be finite and keys strings.

    Raises: ValueError, TypeError where a caller passes what JSON cannot say; that is a bug of the caller.

    >>> canonical_json({"b": 1, "a": ["é", None]})
    b'{"a":["\\xc3\\xa9",null],"b":1}'
    """
    _require_string_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def strict_json(
    data: bytes, *, what: str = "JSON", limit: int = MAX_DOCUMENT_SIZE, max_depth: int = MAX_DEPTH
) -> Any:
    """The value that ``data`` holds. ``limit`` is in bytes; ``what`` names the document in errors.

    Integers must fit 64 bits, numbers be finite, keys be unique, text be UTF-8 without a byte order
    mark and without lone surrogates.

    Raises: BadJson.
    """
    if len(data) > limit:
        raise BadJson(what, f"expected at most {limit} bytes, got {len(data)}")
    reader = _StrictReader(what)
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=reader.unique_object,
            parse_int=reader.bounded_int,
            parse_float=reader.finite_float,
            parse_constant=reader.refuse_constant,
        )
        _require_depth(value, max_depth, what)
        if b"\\u" in data:  # only an escape can smuggle in half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise BadJson(what, f"not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise BadJson(what, "a string holds half of a surrogate pair") from error
    except json.JSONDecodeError as error:
        raise BadJson(what, f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise BadJson(what, f"nested deeper than {max_depth}") from error
    return value


class _StrictReader:
    """The hooks that ``json.loads`` calls, bound to the name of the document for their errors."""

    def __init__(self, what: str) -> None:
        self._what = what

    def unique_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            duplicate, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise BadJson(self._what, f"the key {duplicate[:80]!a} appears twice in one object")
        return result

    def bounded_int(self, text: str) -> int:
        if len(text) <= _MAX_INT_DIGITS:
            number = int(text)
            if -(1 << 63) <= number < 1 << 64:
                return number
        raise BadJson(self._what, "an integer does not fit 64 bits")

    def finite_float(self, text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            raise BadJson(self._what, "a number is too large")
        return number

    def refuse_constant(self, text: str) -> NoReturn:
        raise BadJson(self._what, f"{text} is not JSON")


def _require_depth(value: object, max_depth: int, what: str) -> None:
    level = [value]
    for _ in range(max_depth):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise BadJson(what, f"nested deeper than {max_depth}")


def _require_string_keys(value: object) -> None:
    """``json.dumps`` turns the key 1 into "1": two keys could become one. Refuse instead."""
    if isinstance(value, dict):
        for key, child in value.items():
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON: expected string keys, got {key!r}")
            _require_string_keys(child)
    elif isinstance(value, list | tuple):
        for child in value:
            _require_string_keys(child)
