"""Stop strings, thoughts and tool calls in text that arrives in any chunks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.runtime.protocol import TokenLogprob
from lading.runtime.runner.answer import Call, Content, Piece, Thought, merged
from lading.runtime.runner.output import AnswerReader
from lading.runtime.runner.stops import StopMatcher
from lading.runtime.runner.thinking import GRANITE, ThinkingSplitter, ThinkingTags
from lading.runtime.runner.thinking import tags_of_template as thinking_tags
from lading.runtime.runner.tool_formats.parser import ToolCallParser
from lading.runtime.runner.tool_formats.registry import FORMATS
from lading.runtime.runner.tool_formats.tool_format import OfferedTools

THINK = ThinkingTags("<think>", "</think>")


def chunks_of(text: str, sizes: Sequence[int]) -> list[str]:
    """``text`` in chunks of the sizes given, the rest in one."""
    chunks, at = [], 0
    for size in sizes:
        chunks.append(text[at : at + size])
        at += size
    return [*chunks, text[at:]]


def read(reader: AnswerReader, chunks: Sequence[bytes]) -> list[Piece]:
    pieces: list[Piece] = []
    for chunk in chunks:
        pieces += reader.push(chunk)
        if reader.stopped_by:
            break
    return merged([*pieces, *reader.finish()])


# Stop strings


@pytest.mark.parametrize(
    ("stops", "chunks", "visible", "matched"),
    [
        pytest.param(["END"], ["abcENDdef"], "abc", "END", id="in one chunk"),
        pytest.param(["END"], ["abcE", "N", "D"], "abc", "END", id="over three chunks"),
        pytest.param(["END"], ["abcE", "N", "x"], "abcENx", "", id="almost"),
        pytest.param(["END"], ["abcEN"], "abcEN", "", id="the beginning of one at the end"),
        pytest.param(["b", "abc"], ["xabc"], "x", "abc", id="the one that starts first wins"),
        pytest.param(["ab", "abc"], ["xabc"], "x", "abc", id="of two at one place the longer"),
        pytest.param(["aab"], ["aaab"], "a", "aab", id="overlapping with itself"),
        pytest.param(["\n\n"], ["a\n", "b\n", "\nc"], "a\nb", "\n\n", id="line ends"),
        pytest.param(["é"], ["caf", "é!"], "caf", "é", id="not ASCII"),
        pytest.param(["", "x"], ["axb"], "a", "x", id="an empty one never matches"),
        pytest.param([], ["abc"], "abc", "", id="none"),
    ],
)
def test_stop_strings_never_show(stops: list[str], chunks: list[str], visible: str, matched: str) -> None:
    matcher = StopMatcher(stops)
    text = "".join(matcher.push(chunk) for chunk in chunks) + matcher.finish()
    assert (text, matcher.matched) == (visible, matched)


@given(
    text=st.text(alphabet="abE", max_size=40),
    stops=st.lists(st.text(alphabet="abE", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.lists(st.integers(0, 5), max_size=20),
)
def test_stop_strings_do_not_depend_on_chunks(text: str, stops: list[str], sizes: list[int]) -> None:
    matcher = StopMatcher(stops)
    visible = ""
    for chunk in chunks_of(text, sizes):
        visible += matcher.push(chunk)
        if matcher.matched:
            break
    visible += matcher.finish()
    hits = [text.find(stop) for stop in stops if stop in text]
    # A longer stop string that begins earlier may only be complete after a shorter one has ended the answer.
    if matcher.matched:
        assert text.startswith(visible + matcher.matched)
        assert not any(stop in visible for stop in stops)
    else:
        assert not hits
        assert visible == text


# Thoughts


@pytest.mark.parametrize(
    ("chunks", "pieces"),
    [
        # Ollama's thinking parser, as described in its tests.
        pytest.param(["  abc", "def"], [Content("  abcdef")], id="no thoughts"),
        pytest.param(["  abc <think>x</think>"], [Content("  abc <think>x</think>")], id="text came first"),
        pytest.param(["  <th", "in", "k>a"], [Thought("a")], id="tag in three chunks"),
        pytest.param(["<think>abc</th", "ink>def"], [Thought("abc"), Content("def")], id="closing tag cut"),
        pytest.param(
            ["<think>abc</th", "ing>def", "ghi</thi", "nk>jkl"],
            [Thought("abc</thing>defghi"), Content("jkl")],
            id="almost a closing tag",
        ),
        pytest.param(
            ["<think>abc</think>", "\n\ndef"], [Thought("abc"), Content("def")], id="white space after"
        ),
        pytest.param(
            ["<think>a</think><think>b</think>c"],
            [Thought("a"), Content("<think>b</think>c")],
            id="only the first",
        ),
        pytest.param(["<think>\nabc\n</think>\n"], [Thought("abc")], id="white space inside"),
        pytest.param(["<think>abc"], [Thought("abc")], id="never closed"),
        pytest.param(["<thi"], [Content("<thi")], id="never opened"),
        pytest.param(["<think>a</thi"], [Thought("a</thi")], id="half a closing tag at the end"),
        pytest.param(["<think></think>x"], [Content("x")], id="empty thought"),
    ],
)
def test_thoughts(chunks: list[str], pieces: list[Piece]) -> None:
    splitter = ThinkingSplitter(THINK)
    found = [piece for chunk in chunks for piece in splitter.push(chunk)]
    assert merged([*found, *splitter.finish()]) == pieces


def test_thoughts_where_the_prompt_has_opened_them() -> None:
    splitter = ThinkingSplitter(THINK, primed=True)
    found = merged([*splitter.push("\nhm"), *splitter.push("</think>\n\nyes"), *splitter.finish()])
    assert found == [Thought("hm"), Content("yes")]


@given(sizes=st.lists(st.integers(0, 6), max_size=30))
def test_thoughts_do_not_depend_on_chunks(sizes: list[int]) -> None:
    text = " <think>\none </thin two\n\n</think>\n\n three <think>"
    splitter = ThinkingSplitter(THINK)
    found = [piece for chunk in chunks_of(text, sizes) for piece in splitter.push(chunk)]
    assert merged([*found, *splitter.finish()]) == [Thought("one </thin two"), Content("three <think>")]


@pytest.mark.parametrize(
    ("tags", "text", "pieces"),
    [
        pytest.param(
            GRANITE,
            "<think>hm</think>\n<response>\nyes\n</response>\n",
            [Thought("hm"), Content("yes")],
            id="answer between tags",
        ),
        pytest.param(GRANITE, "<think>hm</think> yes", [Thought("hm"), Content("yes")], id="answer without"),
        pytest.param(GRANITE, "<response>yes</response>", [Content("yes")], id="no thought"),
        pytest.param(
            GRANITE, "<response>a</response> b", [Content("a b")], id="text behind the answer is not lost"
        ),
        pytest.param(GRANITE, "<think>hm</think><resp", [Thought("hm"), Content("<resp")], id="half a tag"),
        pytest.param(
            GRANITE, "<response>a</respo", [Content("a</respo")], id="half a closing tag of an answer"
        ),
        pytest.param(GRANITE, "<thing> is", [Content("<thing> is")], id="another tag"),
        pytest.param(
            ThinkingTags("Here is my thought process:", "Here is my response:", is_prose=True),
            "Here is my thought process:\n\nHm. Here is what\n\nHere is my response:\n\nYes.",
            [Thought("Hm. Here is what"), Content("Yes.")],
            id="tags in words",
        ),
        pytest.param(
            ThinkingTags("Steps:", "[BEGIN]", answer_closing="[END]"),
            "Steps: a\n[BEGIN] b\n[END]",
            [Thought("a"), Content("b")],
            id="an end without a beginning",
        ),
        pytest.param(
            ThinkingTags("<|channel>thought", "<channel|>"),
            "<|channel>thought\nhm<channel|>yes",
            [Thought("hm"), Content("yes")],
            id="a channel",
        ),
    ],
)
def test_thoughts_of_other_formats_wherever_they_are_cut(
    tags: ThinkingTags, text: str, pieces: list[Piece]
) -> None:
    for chunks in ([text], list(text), *([text[:at], text[at:]] for at in range(1, len(text)))):
        splitter = ThinkingSplitter(tags)
        found = [piece for chunk in chunks for piece in splitter.push(chunk)]
        assert merged([*found, *splitter.finish()]) == pieces, chunks


@given(
    parts=st.lists(
        st.sampled_from(["<think>", "</think>", "<response>", "</response>", "w", "<", "/", " ", "\n"]),
        max_size=12,
    ),
    size=st.integers(1, 7),
)
def test_no_word_beside_thoughts_is_lost(parts: list[str], size: int) -> None:
    text = "".join(parts)
    for tags in (THINK, GRANITE):
        for primed in (False, True):
            splitter = ThinkingSplitter(tags, primed=primed)
            found = [p for at in range(0, len(text), size) for p in splitter.push(text[at : at + size])]
            said = "".join(
                piece.text for piece in [*found, *splitter.finish()] if not isinstance(piece, Call)
            )
            assert said.count("w") == text.count("w")
            dropped = len("".join(text.split())) - len("".join(said.split()))
            assert dropped <= sum(
                len(tag) for tag in (tags.opening, tags.closing, tags.answer_opening, tags.answer_closing)
            )


def test_thoughts_that_nobody_asked_for_are_hidden_and_counted() -> None:
    reader = AnswerReader([], ThinkingSplitter(THINK), hermes(), hides_thoughts=True)
    assert read(reader, [b"<think>", b"hm", b"</think>", b"yes"]) == [Content("yes")]
    assert reader.thinking_tokens == 3


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        ("{{ '<think>' }}…</think>", "<think>"),
        ("[THINK][/THINK]", "[THINK]"),
        ("{{ messages }}", None),
        ("between <think></think>, then <response></response>", "<think>"),
        ("<response>{{ result }}</response>", None),
        ("Here is my thought process: … Here is my response:", "Here is my thought process:"),
    ],
)
def test_thinking_tags_are_seen_in_the_template(template: str, opening: str | None) -> None:
    tags = thinking_tags(template)
    assert (tags.opening if tags else None) == opening


CALL = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
PARIS = Call("get_weather", {"city": "Paris"})


def hermes() -> ToolCallParser:
    return ToolCallParser(FORMATS["hermes"], OfferedTools([{"name": "get_weather"}]))


# All of it


def test_characters_are_never_split() -> None:
    text = "naïve 日本語 🎉 \u0915\u094d\u0937"
    reader = AnswerReader()
    pieces = [reader.push(bytes([byte])) for byte in text.encode()]
    assert all("\ufffd" not in piece.text for step in pieces for piece in step if isinstance(piece, Content))
    assert merged([p for step in pieces for p in step] + reader.finish()) == [Content(text)]


def test_bytes_that_are_no_character_are_replaced() -> None:
    assert read(AnswerReader(), [b"a\xff", b"b\xe6\x97"]) == [Content("a\ufffdb\ufffd")]


def test_a_stop_string_ends_thoughts_as_well() -> None:
    reader = AnswerReader(["STOP"], ThinkingSplitter(THINK))
    assert read(reader, [b"<think>a S", b"TOP b</think>c"]) == [Thought("a ")]
    assert reader.stopped_by == "STOP"


def test_thoughts_then_calls() -> None:
    reader = AnswerReader([], ThinkingSplitter(THINK), hermes())
    text = f"<think>which city?</think>\n\nOK.\n<tool_call>\n{CALL}\n</tool_call>"
    pieces = read(reader, [text[at : at + 4].encode() for at in range(0, len(text), 4)])
    assert pieces == [Thought("which city?"), Content("OK."), PARIS]


def test_calls_in_thoughts_are_thoughts() -> None:
    reader = AnswerReader([], ThinkingSplitter(THINK), hermes())
    assert read(reader, [f"<think>{json.dumps('<tool_call>')}</think>x".encode()]) == [
        Thought('"<tool_call>"'),
        Content("x"),
    ]


def test_logprobs_come_with_their_text_and_never_for_a_stop_string() -> None:
    reader = AnswerReader(["END"])
    given_up: list[str] = []
    released: list[int] = []
    for token in ("a", "b E", "N", "x", "é"[:1], " c", "E", "N", "D"):
        pieces = reader.push(token.encode(), TokenLogprob(token=token, logprob=-1.0, bytes=()))
        given_up += [logprob.token for logprob in reader.take_logprobs()]
        released.append(sum(len(piece.text) for piece in pieces if isinstance(piece, Content)))
    reader.finish()
    assert given_up + [logprob.token for logprob in reader.take_logprobs()] == [
        "a",
        "b E",
        "N",
        "x",
        "é",
        " c",
    ]
    assert released == [1, 2, 0, 3, 1, 2, 0, 0, 0]
