"""A model's parameters as ``/api/show`` writes them: a name, padding, a value, one line for each item of a
list.

Clients read these lines with a pattern (name, blanks, a quoted string or a word), so strings are quoted and
numbers are plain.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

NAME_WIDTH = 30


def parameter_text(parameters: Mapping[str, Any]) -> str:
    """The lines, sorted by name, without a final line end. Nulls are left out."""
    return "\n".join(_lines(parameters))


def _lines(parameters: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(parameters):
        value = parameters[name]
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None:
                yield f"{name:<{NAME_WIDTH}} {_shown(item)}"


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
