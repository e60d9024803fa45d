"""JSON bodies: what is forgiven, what is refused, and with which words."""

from __future__ import annotations

import asyncio
import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.modelfile.errors import LadingError
from lading.server.errors import BadBody, BadField, BodyTooLarge, MissingBody
from lading.server.json_body import BODY_LIMIT, MAX_DEPTH, MAX_VALUES, decode, parse, read_body
from lading.server.native.inference import arguments_of
from lading.server.native.schema import ChatRequest, EmbedRequest, GenerateRequest


class FakeRequest:
    """What `read_body` needs of a request: a length and chunks."""

    def __init__(self, chunks: list[bytes], content_length: int | None = None) -> None:
        self.content_length = content_length
        self.scope = {BODY_LIMIT: 4}
        self.chunks_taken = 0
        self._chunks = chunks

    @property
    def stream(self) -> FakeRequest:
        return self

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for chunk in self._chunks:
            self.chunks_taken += 1
            yield chunk


def test_field_names_match_in_any_case_at_every_level() -> None:
    request = decode(b'{"MODEL":"m","Messages":[{"ROLE":"user","Content":"hi"}],"Keep_Alive":5}', ChatRequest)
    assert (request.model, request.messages[0].role, request.messages[0].content) == ("m", "user", "hi")
    assert request.keep_alive == 5


def test_the_last_spelling_of_a_field_wins() -> None:
    assert decode(b'{"model":"a","Model":"b"}', ChatRequest).model == "b"


def test_null_means_absent_everywhere() -> None:
    request = decode(b'{"model":"m","options":null,"messages":[{"role":"user","content":null}]}', ChatRequest)
    assert request.options == {}
    assert request.messages[0].content == ""


def test_unknown_fields_and_what_follows_the_object_are_ignored() -> None:
    assert decode(b'  {"model":"m","strange":{"a":[1]}} {"model":"other"}', ChatRequest).model == "m"


def test_keys_inside_options_are_left_as_they_are() -> None:
    request = decode(b'{"options":{"Temperature":null,"num_ctx":8}}', GenerateRequest)
    assert request.options == {"Temperature": None, "num_ctx": 8}


def test_lone_surrogates_become_replacement_characters() -> None:
    request = decode(rb'{"prompt":"a\ud800b","model":"\ud83d\ude00"}', GenerateRequest)
    assert (request.prompt, request.model) == ("a\ufffdb", "\U0001f600")


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert decode(b'{"prompt":"a\xffb"}', GenerateRequest).prompt == "a\ufffdb"


@pytest.mark.parametrize("body", [b"", b"  \r\n\t"], ids=["empty", "blank"])
def test_an_empty_body_is_missing(body: bytes) -> None:
    with pytest.raises(MissingBody, match=r"^missing request body$"):
        decode(body, ChatRequest)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b"nonsense", "invalid character 'o' in literal null (expecting 'u')"),
        (b'{"model":tiny}', "invalid character 'i' in literal true (expecting 'r')"),
        (b'{"a":fals', "unexpected EOF"),
        (b"{", "unexpected EOF"),
        (b'{"a":', "unexpected EOF"),
        (b'{"a":"b', "unexpected EOF"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 2}', "invalid character '2' after object key:value pair"),
        (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        (b'{"a":-Infinity}', "invalid character '-' looking for beginning of value"),
        (b'{"a":"\n"}', "invalid character '\\n' in string literal"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b"[1]", "expected a JSON object, got array"),
        (b'"text"', "expected a JSON object, got string"),
        (b"null", "expected a JSON object, got null"),
        (b'{"model":1}', "field model: expected str, got int"),
        (b'{"messages":[{"role":[]}]}', "field messages[0].role: expected str, got array"),
        (b'{"messages":{}}', "field messages: expected array, got object"),
        (b'{"stream":"yes"}', "field stream: expected bool, got str"),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_what_is_wrong_is_said_as_go_says_it(body: bytes, words: str) -> None:
    with pytest.raises(BadBody) as caught:
        decode(body, ChatRequest)
    assert caught.value.message == words


@pytest.mark.parametrize("depth", [MAX_DEPTH + 2, 100_000], ids=["just too deep", "absurdly deep"])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(BadBody, match="nesting"):
        parse(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


def test_nesting_up_to_the_limit_passes() -> None:
    parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_a_number_with_too_many_digits_is_refused() -> None:
    with pytest.raises(BadBody):
        parse(b'{"a":' + b"9" * 100_000 + b"}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775809", -(2.0**63)),
        ("8814131553483426365440", 8814131553483426365440.0),
        ("1e308", 1e308),
    ],
)
def test_whole_numbers_beyond_64_bits_are_floats_which_other_processes_can_be_sent(
    text: str, value: float
) -> None:
    options = decode(f'{{"options": {{"x": {text}}}}}'.encode(), GenerateRequest).options
    assert options == {"x": value} and type(options["x"]) is type(value)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(options)) == options


@pytest.mark.parametrize("text", ["1e309", "-1e999", "1" * 400])
def test_numbers_beyond_what_floats_hold_are_refused(text: str) -> None:
    with pytest.raises(BadBody, match="reasonable size"):
        parse(f'{{"x": {text}}}'.encode())


def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert asyncio.run(read_body(FakeRequest([b"ab", b"cd"]))) == b"abcd"


def test_a_body_that_grows_beyond_the_limit_is_cut_off() -> None:
    request = FakeRequest([b"ab"] * 1000)
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(request))
    assert request.chunks_taken == 3


def test_an_announced_length_above_the_limit_is_refused_unread() -> None:
    request = FakeRequest([b"a"], content_length=5)
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(request))
    assert request.chunks_taken == 0


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_errors(body: bytes) -> None:
    with contextlib.suppress(LadingError):
        decode(body, EmbedRequest)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["model", "messages", "Role", "tools", "options", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_no_json_raises_anything_but_our_errors(value: object) -> None:
    import json

    with contextlib.suppress(LadingError):
        decode(json.dumps(value).encode(), ChatRequest)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ('{"a": "\\ud800"}', {"a": "\ufffd"}),
        ('{"a": 123456789012345678901}', {"a": 123456789012345678901.0}),
        ('{"a": NaN}', None),
        ('{"a": 1e999}', None),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", None),
        ("[1]", None),
        ("{", None),
    ],
    ids=range(8),
)
def test_arguments_of_calls_that_come_as_text_are_read_like_bodies(
    text: str, arguments: dict[str, object] | None
) -> None:
    if arguments is None:
        with pytest.raises(BadField, match="expected arguments to be a JSON object"):
            arguments_of(text)
    else:
        assert arguments_of(text) == arguments


def test_as_many_values_as_there_may_be_are_read_and_no_more() -> None:
    def numbers(count: int) -> bytes:
        return b'{"context":[' + b",".join([b"7"] * count) + b"]}"

    most = MAX_VALUES - 1  # the object and the list are two, the commas one less than the numbers
    assert decode(numbers(most), GenerateRequest).context == [7] * most
    for body in (numbers(MAX_VALUES), b"[" + b"[]," * MAX_VALUES, b"{" + b'"a":1,' * MAX_VALUES):
        with pytest.raises(BadBody, match="at most 1000000 values"):
            parse(body)
    text = ',[{"' * MAX_VALUES
    assert decode(json.dumps({"prompt": text}).encode(), GenerateRequest).prompt == text


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**63) - 1, 10**25, 1e5, -1.5, 1e200])
def test_numbers_among_many_are_read_as_they_are_among_few(number: float) -> None:
    text = json.dumps(number)
    [few], many = parse(f"[{text}]".encode()), parse(f"[{','.join([text] * 20_000)}]".encode())
    assert {(type(one), one) for one in many} == {(type(few), few)}


def test_a_number_beyond_floats_is_refused_among_many_too() -> None:
    for text in ("1e999", "-1E+400", "9" * 400):
        with pytest.raises(BadBody):
            parse(f"[{','.join(['1'] * 20_000)},{text}]".encode())
