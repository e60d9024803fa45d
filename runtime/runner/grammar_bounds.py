"""What a format may ask for: bounds that keep compiling and following it quick, whatever it says.

Everything here is told from the text alone; what remains is tried in the renderer's process (see
`renderer`) before the runner compiles it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import BadFormat

MAX_SIZE = 64 * 1024
"""Characters of a schema or grammar."""
MAX_DEPTH = 32
MAX_VALUES = 2000
MAX_ENUM = 1000
MAX_OPTIONAL = 400
"""Properties of one object that may be left out: each may follow all those before it."""
MAX_GROUPS = 64
"""Depth of groups in a regular expression."""
MAX_REPEATS = 100_000
"""``(a{100}){1000}``: counts of nested repetitions, multiplied."""
_SHORTEN = "ask for less, or say it in the prompt"


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises: BadFormat."""
    size = len(json.dumps(schema))
    if size > MAX_SIZE:
        raise _refusal(f"expected a schema of at most {MAX_SIZE} characters, got {size}")
    for number, value in enumerate(_values(schema), 1):
        if number > MAX_VALUES:
            raise _refusal(f"expected at most {MAX_VALUES} values in the schema")
        if isinstance(value, Mapping):
            _check_keywords(value)


def check_regex(pattern: str) -> None:
    """Raises: BadFormat."""
    if len(pattern) > MAX_SIZE:
        raise _refusal(f"expected a pattern of at most {MAX_SIZE} characters, got {len(pattern)}")
    repeats = [1]  # the most repeated thing in each group that is open
    last = 1  # … and in what stands before
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "\\":
            at, last = at + 1, 1
        elif char == "[":
            at, last = _after_class(pattern, at), 1
        elif char == "(":
            repeats.append(1)
            if len(repeats) > MAX_GROUPS:
                raise _refusal(f"expected groups in the pattern to be nested at most {MAX_GROUPS} deep")
        elif char == ")" and len(repeats) > 1:
            last = repeats.pop()
            repeats[-1] = max(repeats[-1], last)
        elif char == "{":
            count, at = _count(pattern, at)
            last *= count
            repeats[-1] = max(repeats[-1], last)
            if last > MAX_REPEATS:
                raise _refusal(f"expected the pattern to repeat nothing more than {MAX_REPEATS} times")
        elif char not in "*+?":
            last = 1


def check_grammar(definition: str) -> None:
    """Raises: BadFormat."""
    if len(definition) > MAX_SIZE:
        raise _refusal(f"expected a grammar of at most {MAX_SIZE} characters, got {len(definition)}")
    if not definition.strip():
        raise _refusal("the grammar is empty")


def _values(schema: Mapping[str, Any]) -> Iterator[Any]:
    """All values in a schema, level by level. Raises: BadFormat: nested too deeply."""
    level: list[Any] = [schema]
    for _depth in range(MAX_DEPTH):
        yield from level
        level = [
            inner
            for value in level
            if isinstance(value, Mapping | list)
            for inner in (value.values() if isinstance(value, Mapping) else value)
        ]
        if not level:
            return
    raise _refusal(f"the schema is nested more than {MAX_DEPTH} deep")


def _check_keywords(schema: Mapping[str, Any]) -> None:
    """Of what may be a schema, or else an object that looks like one, which does no harm."""
    values = schema.get("enum")
    if isinstance(values, list) and len(values) > MAX_ENUM:
        raise _refusal(f"expected at most {MAX_ENUM} values of an enum, got {len(values)}")
    properties, required = schema.get("properties"), schema.get("required")
    if isinstance(properties, Mapping):
        needed = required if isinstance(required, list) else []
        optional = len(properties) - len({name for name in needed if isinstance(name, str)} & set(properties))
        if optional > MAX_OPTIONAL:
            raise _refusal(
                f"expected at most {MAX_OPTIONAL} optional properties of an object, got {optional}"
            )
    patterns = schema.get("patternProperties")
    for pattern in (schema.get("pattern"), *(patterns if isinstance(patterns, Mapping) else ())):
        if isinstance(pattern, str):
            check_regex(pattern)


def _after_class(pattern: str, at: int) -> int:
    """Where a character class ends that began before ``at``."""
    depth = 1
    first = True
    while at < len(pattern) and depth:
        char = pattern[at]
        at += 1
        if char == "\\":
            at += 1
        elif char == "[":
            depth += 1
        elif char == "]" and not first:
            depth -= 1
        first = first and char == "^"
    return at


def _count(pattern: str, at: int) -> tuple[int, int]:
    """How often ``{m,n}`` repeats at most, and where it ends; 1 where it is no repetition."""
    end = pattern.find("}", at)
    numbers = pattern[at:end].split(",") if 0 <= end <= at + 32 else []
    if not numbers or len(numbers) > 2 or not numbers[0].strip().isdecimal():
        return 1, at
    return max(1, *(int(number) for number in numbers if number.strip().isdecimal())), end + 1


def _refusal(what: str) -> BadFormat:
    return BadFormat(f"compiling the format: {what}", hint=_SHORTEN)
