"""Fields of other servers' dialects that are known here and not, or not fully, acted upon.

A schema marks such a field with `Ignored`, `Refused` or `Partly` where it declares it::

    metadata: Annotated[Any, Ignored("kept by nobody")] = None

A field without a mark is supported. `refuse_unsupported` is what makes a `Refused` one true; the
documentation reads the same marks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec

from .errors import BadField


@dataclass(frozen=True, slots=True)
class Ignored:
    """The field may be sent and changes nothing; ``why`` completes "ignored: …"."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that gives the field a value other than an empty one is refused; ``why`` says it."""

    why: str


@dataclass(frozen=True, slots=True)
class Partly:
    """Some values are supported, and the others refused; ``what`` says which."""

    what: str


Mark = Ignored | Refused | Partly


@lru_cache(maxsize=64)
def marks_of(kind: type[msgspec.Struct]) -> Mapping[str, Mark]:
    """The marked fields of a request, by the name that they have on the wire."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        hint = hints[field.name]
        extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        mark = next((extra for extra in extras if isinstance(extra, Mark)), None)
        if mark is not None:
            found[field.encode_name] = mark
    return found


def refuse_unsupported(request: msgspec.Struct) -> None:
    """Raises: BadField for the first `Refused` field that asks for something."""
    for name, mark in marks_of(type(request)).items():
        if isinstance(mark, Refused) and _asks(getattr(request, name)):
            raise BadField(f"{name}: {mark.why}", field=name)


def _asks(value: object) -> bool:
    """Whether a value is more than a way of writing nothing; 0 is."""
    if isinstance(value, str | list | dict):
        return bool(value)
    return value is not None and value is not False
