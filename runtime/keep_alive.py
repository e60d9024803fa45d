"""``keep_alive``: how long a model stays loaded once its last request has ended.

A JSON number is seconds, a string a Go duration with units, a negative value for ever. Kept in seconds as a
float, with ``math.inf`` for ever.

Source: Ollama's api/types.go (``Duration``), envconfig (``OLLAMA_KEEP_ALIVE``) and Go's time.ParseDuration.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal

from .errors import BadKeepAlive

FOREVER = math.inf

_UNITS_NS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PIECE = re.compile(r"([0-9]*)(?:(\.)([0-9]*))?([^0-9.]*)")
_MAX_NS = 2**63 - 1
_MAX_TEXT = 64


def parse_duration(text: str) -> float:
    """Seconds in ``text``, as Go's time.ParseDuration reads it: ``"1h30m"``, ``"-1.5s"``, ``"0"``.

    Raises: BadKeepAlive, with Go's own sentence, which clients know.
    """
    quoted = f'"{text[:_MAX_TEXT]}"'
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return 0.0
    if not body or len(text) > _MAX_TEXT:
        raise BadKeepAlive(text, f"time: invalid duration {quoted}")
    total, at = Decimal(0), 0
    while at < len(body):
        piece = _PIECE.match(body, at)
        assert piece is not None  # every part of the pattern may be empty
        whole, _, fraction, unit = piece.groups()
        if not whole and not fraction:
            raise BadKeepAlive(text, f"time: invalid duration {quoted}")
        if not unit:
            raise BadKeepAlive(text, f"time: missing unit in duration {quoted}")
        if unit not in _UNITS_NS:
            raise BadKeepAlive(text, f'time: unknown unit "{unit}" in duration {quoted}')
        total += Decimal(f"{whole or '0'}.{fraction or '0'}") * _UNITS_NS[unit]
        at = piece.end()
    if total > _MAX_NS:
        raise BadKeepAlive(text, f"time: invalid duration {quoted}")
    return sign * float(total) / 1e9


def parse_keep_alive(value: object) -> float:
    """Seconds, or ``FOREVER``, from the JSON value of a request's ``keep_alive``.

    Raises: BadKeepAlive for a string without a unit, a boolean or anything else.
    """
    if isinstance(value, str):
        return _or_forever(parse_duration(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:  # not NaN
        return _or_forever(float(min(max(value, -1), _MAX_NS)))
    raise BadKeepAlive(value, f"keep_alive: expected seconds or a duration, got {_kind(value)}")


def parse_keep_alive_setting(text: str) -> float:
    """Seconds, or ``FOREVER``, from a setting or flag, where a bare integer is seconds too.

    Raises: BadKeepAlive.
    """
    stripped = text.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,18}", stripped):
        return _or_forever(float(stripped))
    return _or_forever(parse_duration(stripped))


def format_keep_alive(seconds: float) -> str:
    """A duration that `parse_keep_alive` reads back as ``seconds``."""
    return "-1s" if math.isinf(seconds) else f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _or_forever(seconds: float) -> float:
    return FOREVER if seconds < 0 or seconds * 1e9 >= _MAX_NS else seconds


def _kind(value: object) -> str:
    names: dict[type, str] = {bool: "a boolean", dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value), "something else")
