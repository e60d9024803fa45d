"""keep_alive as Ollama's clients send it, and Go's durations."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.runtime.errors import BadKeepAlive
from lading.runtime.keep_alive import (
    FOREVER,
    format_keep_alive,
    parse_duration,
    parse_keep_alive,
    parse_keep_alive_setting,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(300, 300.0, id="number is seconds"),
        pytest.param(0.5, 0.5, id="fraction"),
        pytest.param(0, 0.0, id="zero"),
        pytest.param(-1, FOREVER, id="negative number"),
        pytest.param(-0.25, FOREVER, id="negative fraction"),
        pytest.param(10**400, FOREVER, id="absurdly large"),
        pytest.param(math.inf, FOREVER, id="infinity"),
        pytest.param("10m", 600.0, id="minutes"),
        pytest.param("1h30m", 5400.0, id="two units"),
        pytest.param("1.5h", 5400.0, id="fraction of a unit"),
        pytest.param("100ms", 0.1, id="milliseconds"),
        pytest.param("2\u00b5s", 2e-6, id="micro sign"),
        pytest.param(".5s", 0.5, id="no whole part"),
        pytest.param("1.s", 1.0, id="no fraction digits"),
        pytest.param("+3s", 3.0, id="plus sign"),
        pytest.param("0", 0.0, id="zero needs no unit"),
        pytest.param("-0", 0.0, id="minus zero"),
        pytest.param("-1m", FOREVER, id="negative duration"),
    ],
)
def test_reads_what_clients_send(value: object, seconds: float) -> None:
    assert parse_keep_alive(value) == seconds


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        pytest.param("300", 'time: missing unit in duration "300"', id="number as text"),
        pytest.param("-1", 'time: missing unit in duration "-1"', id="negative number as text"),
        pytest.param("", 'time: invalid duration ""', id="empty"),
        pytest.param("-", 'time: invalid duration "-"', id="sign only"),
        pytest.param(".s", 'time: invalid duration ".s"', id="dot only"),
        pytest.param("m5", 'time: invalid duration "m5"', id="unit first"),
        pytest.param("5d", 'time: unknown unit "d" in duration "5d"', id="days"),
        pytest.param("1e3s", 'time: unknown unit "e" in duration "1e3s"', id="exponent"),
        pytest.param("5 m", 'time: unknown unit " m" in duration "5 m"', id="space"),
        pytest.param("\u0665m", 'time: invalid duration "\u0665m"', id="digits that are not ASCII"),
        pytest.param("9999999999h", 'time: invalid duration "9999999999h"', id="longer than Go can hold"),
        pytest.param(True, "keep_alive: expected seconds or a duration, got a boolean", id="boolean"),
        pytest.param(None, "keep_alive: expected seconds or a duration, got null", id="null"),
        pytest.param([5], "keep_alive: expected seconds or a duration, got an array", id="array"),
        pytest.param(math.nan, "keep_alive: expected seconds or a duration, got something else", id="nan"),
    ],
)
def test_refuses_what_ollama_refuses(value: object, sentence: str) -> None:
    with pytest.raises(BadKeepAlive) as caught:
        parse_keep_alive(value)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300", 300.0), (" 0 ", 0.0), ("-1", FOREVER), ("5m", 300.0), ("-1s", FOREVER), ("24h", 86400.0)],
)
def test_a_setting_may_be_bare_seconds(text: str, seconds: float) -> None:
    assert parse_keep_alive_setting(text) == seconds


@given(st.text(max_size=80))
def test_any_text_is_a_duration_or_our_error(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except BadKeepAlive:
        return
    assert math.isfinite(seconds)


@given(st.one_of(st.just(FOREVER), st.integers(0, 10**6).map(float)))
def test_format_is_read_back(seconds: float) -> None:
    assert parse_keep_alive(format_keep_alive(seconds)) == seconds
