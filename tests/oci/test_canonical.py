"""JSON: one way to write, and no leniency when reading."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.oci.canonical import MAX_DEPTH, canonical_json, strict_json
from lading.oci.errors import BadJson

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé\n"), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_reads_back_and_is_written_the_same(value: object) -> None:
    data = canonical_json(value)
    again = strict_json(data)
    assert again == value
    assert canonical_json(again) == data


@given(values)
def test_order_of_keys_does_not_matter(value: object) -> None:
    reordered = json.loads(
        json.dumps(value), object_pairs_hook=lambda pairs: dict(sorted(pairs, reverse=True))
    )
    assert canonical_json(reordered) == canonical_json(value)


@given(st.binary() | st.text(st.characters(exclude_categories=["Cs"])).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        strict_json(data)
    except BadJson as error:
        assert error.message.isprintable()


BAD = {
    "empty": b"",
    "garbage": b"{",
    "trailing": b"{} {}",
    "duplicate key": b'{"a":1,"a":2}',
    "duplicate key deep inside": b'[{"x":[{"a":1,"b":2,"a":1}]}]',
    "duplicate by escape": b'{"a":1,"\\u0061":2}',
    "NaN": b"[NaN]",
    "Infinity": b"[Infinity]",
    "minus Infinity": b"[-Infinity]",
    "1e999": b"[1e999]",
    "64 bits and one": b"[18446744073709551616]",
    "negative 64 bits": b"[-9223372036854775809]",
    "10,000 digits": b"[" + b"9" * 10_000 + b"]",
    "invalid UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "lone surrogate": b'"\\ud800"',
    "lone surrogate as key": b'{"\\udfff":1}',
    "control character": b'"\n"',
    "depth 65": b"[" * 65 + b"]" * 65,
    "depth 2000": b"[" * 2000 + b"]" * 2000,
    "depth 500000": b"[" * 500_000,
    "object depth 100000": b'{"a":' * 100_000,
    "comment": b"{} // x",
    "single quotes": b"{'a':1}",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(BadJson) as caught:
        strict_json(data, what="config")
    assert caught.value.message.startswith("invalid config: ")
    assert len(caught.value.message) < 300


def test_depth_is_counted_exactly() -> None:
    assert strict_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) is not None
    assert strict_json(b"[[1,[]],[]]", max_depth=3) == [[1, []], []]
    with pytest.raises(BadJson):
        strict_json(b"[[1,[]],[]]", max_depth=2)


def test_depth_is_limited_whatever_the_recursion_limit() -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        with pytest.raises(BadJson):
            strict_json(b"[" * 5000 + b"]" * 5000)
    finally:
        sys.setrecursionlimit(limit)


def test_size_is_limited_exactly() -> None:
    assert strict_json(b'"abc"', limit=5) == "abc"
    with pytest.raises(BadJson, match="at most 4 bytes, got 5"):
        strict_json(b'"abc"', limit=4)


@pytest.mark.parametrize(
    ("number", "value"),
    [(b"18446744073709551615", (1 << 64) - 1), (b"-9223372036854775808", -(1 << 63)), (b"-0", 0)],
)
def test_integers_of_64_bits_are_read(number: bytes, value: int) -> None:
    assert strict_json(number) == value


def test_paired_surrogates_are_one_character() -> None:
    assert strict_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: "a"}, [{"a": {2: "b"}}], object()])
def test_what_json_cannot_say_is_a_bug_of_the_caller(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json(value)


def test_canonical_form_is_fixed() -> None:
    value = {"z": [1, 1.5, 1e21, -0.0, True, None], "é": '\u2028\x7f"\\\n', "A": {}}
    expected = '{"A":{},"z":[1,1.5,1e+21,-0.0,true,null],"é":"\u2028\x7f\\"\\\\\\n"}'
    assert canonical_json(value) == expected.encode()
