"""The key that a request comes with.

Source: RFC 6750 and RFC 7617; ``x-api-key`` is Anthropic's; registry clients send Basic, with any user.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

MAX_CREDENTIAL = 4096
"""Bytes of a header that are looked at."""


def presented_secret(headers: Iterable[tuple[bytes, bytes]], *, basic: bool) -> str | None:
    """The secret; "" where there is something that cannot be one, None where there is nothing.

    ``basic``: a password of Basic authorisation is one. Keys are never looked for in a URL, which logs keep.
    """
    found: set[str] = set()
    seen: set[bytes] = set()
    for name, value in headers:
        lowered = name.lower()
        if lowered not in (b"authorization", b"x-api-key"):
            continue
        found.add("" if lowered in seen or len(value) > MAX_CREDENTIAL else _secret(lowered, value, basic))
        seen.add(lowered)
    if not found:
        return None
    # Some clients of Anthropic send their key both ways. Two different ones are a riddle, not a key.
    return found.pop() if len(found) == 1 else ""


def _secret(name: bytes, value: bytes, basic: bool) -> str:
    text = value.decode("latin-1").strip()
    if name == b"x-api-key":
        return _ascii(text)
    scheme, _, rest = text.partition(" ")
    if scheme.lower() == "bearer":
        return _ascii(rest.strip())
    if scheme.lower() == "basic" and basic:
        try:
            pair = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return ""
        return _ascii(pair.partition(":")[2])
    return ""


def _ascii(text: str) -> str:
    return text if text.isascii() else ""
