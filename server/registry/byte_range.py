"""The Range header of requests, for one range of bytes. Source: RFC 9110, sections 14.1 and 14.2."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` up to, not including, `end`; never empty."""

    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first


class Unsatisfiable(Exception):
    """The range lies outside of the content."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that is asked for, cut to the content's size; None for all of it: where none is asked
    for, where the header makes no sense, and for several ranges, which servers may decline.

    Raises: Unsatisfiable.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header is not None else None
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = min(int(match[2]), size)
        first, end = size - length, size
    else:
        first = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
    if first >= end:
        raise Unsatisfiable
    return ByteRange(first, end)
