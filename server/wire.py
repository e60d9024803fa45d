"""Bytes of the dialects: JSON bodies, NDJSON lines and server-sent events.

Source: clients' readers. httpx cuts lines at U+0085, U+2028 and U+2029 too, which would split a JSON object
in two; so these three are always escaped.
"""

from __future__ import annotations

import datetime
import functools
import time

import msgspec

NDJSON = "application/x-ndjson"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"

SSE_DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder(order=None)


def json_bytes(value: object) -> bytes:
    """Compact UTF-8 JSON that stays on one line for every client."""
    data = _encoder.encode(value)
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    if b"\xe2\x80\xa8" in data or b"\xe2\x80\xa9" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def ndjson_line(value: object) -> bytes:
    return json_bytes(value) + b"\n"


def sse_event(value: object, *, event: str = "") -> bytes:
    """One server-sent event; no comments, for some clients cut six bytes off every line."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + json_bytes(value) + b"\n\n"


def rfc3339(time_ns: int | None = None) -> str:
    """A moment in UTC as Go prints it: nanoseconds without trailing zeros, ``Z``."""
    seconds, nanos = divmod(time.time_ns() if time_ns is None else time_ns, 1_000_000_000)
    fraction = f".{nanos:09d}".rstrip("0").rstrip(".")
    return f"{_to_the_second(seconds)}{fraction}Z"


@functools.lru_cache(maxsize=8)
def _to_the_second(seconds: int) -> str:
    """The same for all the lines of a second, and half the cost of a line."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_of(moment: datetime.datetime) -> str:
    """As `rfc3339`, for an aware datetime."""
    whole = moment.astimezone(datetime.UTC)
    seconds = int(whole.replace(microsecond=0).timestamp())
    return rfc3339(seconds * 1_000_000_000 + whole.microsecond * 1000)
