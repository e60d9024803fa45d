"""JSON that stays on one line for every client, and times as Go writes them."""

from __future__ import annotations

import datetime
import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.server.wire import json_bytes, ndjson_line, rfc3339, rfc3339_of, sse_event


@given(st.text())
def test_an_ndjson_line_is_one_line_for_httpx_and_reads_back(text: str) -> None:
    data = ndjson_line({"text": text})
    response = httpx.Response(200, content=data)
    lines = list(response.iter_lines())
    assert len(lines) == 1
    assert json.loads(lines[0]) == {"text": text}


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029"], ids=ascii)
def test_characters_at_which_clients_cut_lines_are_escaped(char: str) -> None:
    assert json_bytes(f"a{char}b") == f'"a\\u{ord(char):04x}b"'.encode()


def test_an_sse_event_is_data_and_an_empty_line() -> None:
    assert sse_event({"a": "x\ny"}) == b'data: {"a":"x\\ny"}\n\n'
    assert sse_event({}, event="done") == b"event: done\ndata: {}\n\n"


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_789_000_000_123_456_789, "2026-09-10T00:26:40.123456789Z"),
        (1_789_000_000_120_000_000, "2026-09-10T00:26:40.12Z"),
    ],
)
def test_times_have_nanoseconds_without_trailing_zeros(nanoseconds: int, text: str) -> None:
    assert rfc3339(nanoseconds) == text


def test_a_datetime_of_any_zone_is_written_in_utc() -> None:
    zone = datetime.timezone(datetime.timedelta(hours=2))
    moment = datetime.datetime(2026, 1, 1, 1, 0, 0, 500_000, tzinfo=zone)
    assert rfc3339_of(moment) == "2025-12-31T23:00:00.5Z"
