"""Challenges, by the grammar of RFC 9110."""

from __future__ import annotations

import pytest

from lading.oci.registry.challenge import MAX_CHALLENGES, MAX_HEADER_LENGTH, Challenge, parse_challenges

BEARER = {"realm": "https://a.example/token", "service": "reg", "scope": "repository:x:pull,push"}

CASES: dict[str, tuple[list[str], list[Challenge]]] = {
    "basic": (['Basic realm="x"'], [Challenge("basic", {"realm": "x"})]),
    "bearer": (
        ['Bearer realm="https://a.example/token",service="reg",scope="repository:x:pull,push"'],
        [Challenge("bearer", BEARER)],
    ),
    "spaces everywhere": (
        ['Bearer  realm = "https://a.example/token" ,  service="reg" ,scope="repository:x:pull,push" '],
        [Challenge("bearer", BEARER)],
    ),
    "case of scheme and names": (['BEARER Realm="x"'], [Challenge("bearer", {"realm": "x"})]),
    "tokens without quotes": (
        ["Bearer realm=abc,service=def"],
        [Challenge("bearer", {"realm": "abc", "service": "def"})],
    ),
    "two in one header": (
        ['Basic realm="a", Bearer realm="b",service="c"'],
        [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b", "service": "c"})],
    ),
    "two headers": (
        ['Basic realm="a"', 'Bearer realm="b"'],
        [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b"})],
    ),
    "quoted comma and equals": (['Basic realm="a, b=c"'], [Challenge("basic", {"realm": "a, b=c"})]),
    "quoted challenge inside": (
        ['Basic realm="Bearer realm=evil"'],
        [Challenge("basic", {"realm": "Bearer realm=evil"})],
    ),
    "escaped quote": ([r'Basic realm="a\"b"'], [Challenge("basic", {"realm": 'a"b'})]),
    "no parameters": (["Negotiate"], [Challenge("negotiate", {})]),
    "no parameters, then basic": (
        ['Negotiate, Basic realm="x"'],
        [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})],
    ),
    "token68": (
        ['Negotiate a87421000492aa874209af8bc028==, Basic realm="x"'],
        [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})],
    ),
    "empty list elements": ([', ,Basic realm="x",,'], [Challenge("basic", {"realm": "x"})]),
    "the first of a repeated name wins": (
        ['Bearer realm="https://good/",realm="https://evil/"'],
        [Challenge("bearer", {"realm": "https://good/"})],
    ),
    "unclosed quote": (['Basic realm="x'], [Challenge("basic", {})]),
    "empty": ([""], []),
    "junk": (['"""'], []),
}


@pytest.mark.parametrize(("headers", "expected"), CASES.values(), ids=CASES.keys())
def test_headers_are_read_by_their_grammar(headers: list[str], expected: list[Challenge]) -> None:
    assert list(parse_challenges(headers)) == expected


def test_the_number_of_challenges_is_bounded() -> None:
    assert len(parse_challenges(["Basic, " * 100])) == MAX_CHALLENGES


def test_an_overlong_header_is_left_out() -> None:
    overlong = f'Basic realm="{"x" * MAX_HEADER_LENGTH}"'
    assert parse_challenges([overlong, 'Bearer realm="y"']) == (Challenge("bearer", {"realm": "y"}),)


@pytest.mark.parametrize(
    "text", ["a=" * 4000, 'B r="' + '\\"' * 3900, "a " * 4000, " ," * 4000, "a=b," * 2000]
)
def test_hostile_headers_take_no_time(text: str) -> None:
    parse_challenges([text] * 50)  # the suite's timeout is the assertion
