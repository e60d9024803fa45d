"""Properties of the language: any text is read or refused with our error, as Ollama reads it, in time; and
what the formatter writes is read back."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ollama_modelfile import Refused, read

from lading.modelfile.arguments import substitute
from lading.modelfile.diagnostics import ModelfileError
from lading.modelfile.formatter import UnwritableValue, display_modelfile, format_modelfile
from lading.modelfile.linter import lint
from lading.modelfile.parameters import PARAMETERS, BadParameter, parse_value
from lading.modelfile.source import visible
from lading.modelfile.syntax import (
    Adapter,
    Arg,
    Copy,
    Draft,
    From,
    Instruction,
    Label,
    License,
    Message,
    Modelfile,
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Template,
    Test,
    parse,
)

relaxed = settings(deadline=None, max_examples=300)

# ---- Texts that are nearly Modelfiles

_PIECES = st.sampled_from(
    [
        *(
            "FROM",
            "from ",
            "PARAMETER ",
            "MESSAGE ",
            "SYSTEM ",
            "TEMPLATE ",
            "LICENSE ",
            "REQUIRES ",
            "Draft ",
        ),
        *("ARG ", "LABEL ", "COPY ", "TEST ", "parameter stop ", "message user ", "system", "model ", "x"),
        *(
            '"',
            '""',
            '"""',
            "'",
            "#",
            "\\",
            "=",
            "${A}",
            "$${A}",
            "A",
            "a=b",
            "1",
            "0.5",
            "v1.2.3",
            "contains ",
        ),
        *(
            " ",
            "  ",
            "\t",
            "\n",
            "\n",
            "\n",
            "\r\n",
            "\r",
            "\xa0",
            "\u200d",
            "\x00",
            "\ufeff",
            "\u2028",
            "é",
            "🙂",
        ),
    ]
)
almost_modelfiles = st.lists(_PIECES, max_size=40).map("".join)
texts = st.one_of(almost_modelfiles, almost_modelfiles.map(lambda s: "FROM x\n" + s), st.text())


def _parse(data: str | bytes) -> Modelfile | None:
    try:
        return parse(data)
    except ModelfileError as error:
        assert error.diagnostics
        assert str(error)
        assert all(d.excerpt.isprintable() and d.message.isprintable() for d in error.diagnostics)
        return None


@given(st.one_of(texts, st.text(st.characters(codec=None))))
@relaxed
@example("FROM \ud800")
def test_any_text_is_read_or_refused(text: str) -> None:
    _parse(text)


@given(
    st.one_of(
        st.binary(),
        texts.map(lambda s: s.encode("utf-8", "surrogatepass")),
        texts.map(lambda s: b"\xff\xfe" + s.encode("utf-16-le", "surrogatepass")),
        st.binary().map(lambda b: b"\xfe\xff" + b),
    )
)
@relaxed
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    _parse(data)


@given(texts)
@settings(deadline=None, max_examples=400)
@example('FROM x\nSYSTEM "\u200b"')
@example('FROM x\nSYSTEM """"\n"""\n#')
@example("FROM x\nPARAMETER model y\nPARAMETER message user: x")
def test_whatever_ollama_accepts_means_the_same(text: str) -> None:
    try:
        expected = read(text.removeprefix("\ufeff"))
    except Refused:
        return
    if any(not _is_known(name, argument) for name, argument in expected):
        return  # Ollama's reader takes it, and what uses its result refuses it, as we do
    assert [_as_ollama(instruction) for instruction in parse(text)] == expected


def _is_known(name: str, argument: str) -> bool:
    if name == "requires":
        return _parse(f'FROM x\nREQUIRES """{argument}"""') is not None
    if name == "message":
        return argument.partition(": ")[0] in ("system", "user", "assistant") and ": " in argument
    if name in ("model", "template", "system", "adapter", "license", "renderer", "parser", "draft"):
        return True
    try:
        parse_value(name, argument)
    except BadParameter:
        return False
    return True


def _as_ollama(instruction: Instruction) -> tuple[str, str]:
    match instruction:
        case From(text):
            return "model", text
        case Parameter(name, text):
            return name, text
        case Message(role, text):
            return "message", f"{role}: {text}"
        case Template(text) | System(text) | License(text) | Renderer(text) | Parser(text):
            return type(instruction).__name__.lower(), text
        case Adapter(text) | Draft(text) | Requires(text):
            return type(instruction).__name__.lower(), text
    raise AssertionError(instruction)


# ---- The formatter


@given(texts)
@settings(deadline=None, max_examples=400)
def test_what_was_read_is_written_and_read_back(text: str) -> None:
    modelfile = _parse(text)
    if modelfile is None:
        return
    written = format_modelfile(modelfile)
    again = parse(written)
    assert again == modelfile
    assert again.comments == modelfile.comments
    assert format_modelfile(again) == written
    assert parse(written.encode("utf-8")) == modelfile
    assert display_modelfile(modelfile) == written
    assert [d.code for d in lint(modelfile)] == [d.code for d in lint(modelfile)]


_values = st.one_of(
    st.text(max_size=20), st.lists(_PIECES, max_size=8).map("".join), st.sampled_from(["", " ", '"', "\n"])
)
_names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z").filter(str.isascii)
_numbers = st.integers(-(2**63), 2**63 - 1).map(str)
instructions = st.one_of(
    st.builds(From, _values),
    st.builds(System, _values),
    st.builds(Template, _values),
    st.builds(License, _values),
    st.builds(Adapter, _values),
    st.builds(Draft, _values),
    st.builds(Renderer, _values),
    st.builds(Parser, _values),
    st.builds(Requires, st.sampled_from(["0.14.0", "v1", "1.2.3-rc.1+build"])),
    st.builds(Parameter, st.just("stop"), _values),
    st.builds(Parameter, st.just("seed"), _numbers),
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), _values),
    st.builds(Arg, _names, st.one_of(st.none(), _values)),
    st.builds(Label, st.from_regex(r"\A[a-z0-9]([a-z0-9._/-]{0,8}[a-z0-9])?\Z"), _values),
    st.builds(Copy, _values, _values),
    st.builds(Test, st.sampled_from(["contains", "excludes", "equals", "matches"]), _values, _values),
)


@given(st.lists(instructions, max_size=6))
@settings(deadline=None, max_examples=400)
def test_what_was_built_is_written_and_read_back_or_refused(listed: list[Instruction]) -> None:
    modelfile = Modelfile((From("x"), *listed))
    display_modelfile(modelfile)
    lint(modelfile)
    try:
        written = format_modelfile(modelfile)
    except UnwritableValue as error:
        # Only what no text can say is refused.
        assert (
            visible(error.value) != error.value
            or "\n" in error.value
            or "\r" in error.value
            or '"' in error.value
        )
        return
    again = _parse(written)
    if again is not None:  # paths, patterns and the like are checked when read
        assert again == modelfile
    else:
        assert any(isinstance(i, Copy | Test) for i in listed)


@given(st.lists(instructions, max_size=6), st.dictionaries(_names, _values, max_size=3))
@relaxed
def test_arguments_are_put_in_or_refused(listed: list[Instruction], given_: dict[str, str]) -> None:
    modelfile = Modelfile((From("x"), *listed))
    try:
        result = substitute(modelfile, given_)
    except ModelfileError:
        return
    assert not result.all(Arg)
    assert substitute(result, {}) == result
    if not modelfile.all(Arg):
        assert result == modelfile


@given(st.sampled_from(sorted(PARAMETERS)), st.text())
@relaxed
def test_any_parameter_value_is_read_or_refused(name: str, text: str) -> None:
    try:
        parse_value(name, text)
    except BadParameter as error:
        assert error.name == name


# ---- Time

_MIB = 1024 * 1024


def _big(size: int) -> dict[str, str]:
    return {
        "parameters": "FROM x\n" + "PARAMETER stop x\n" * (size // 17),
        "shortest instructions": "FROM x\n" * (size // 7),
        "quoted": "FROM x\n" + 'SYSTEM ""\n' * (size // 10),
        "comments": "FROM x\n" + "#\n" * (size // 2),
        "comment blocks": "FROM x\n" + "#\n\n" * (size // 3),
        "blank lines": "FROM x\n" + "\n" * size,
        "wrong parameters": "PARAMETER foo x\n" * (size // 16),
        "not a Modelfile": "x\n" * (size // 2),
        "giant value": 'FROM x\nSYSTEM """' + "a" * size + '"""\n',
        "giant value, dropped characters": 'FROM x\nSYSTEM """' + "a\xa0" * (size // 2) + '"""\n',
        "giant line": "FROM x\nSYSTEM " + "a " * (size // 2),
        "only quotes": "FROM x\nSYSTEM " + '"' * size,
        "closings that close nothing": 'FROM x\nSYSTEM """' + '""" x' * (size // 5),
        "closings on every line": 'FROM x\nSYSTEM """' + '"""x\n' * (size // 5),
        "quotes and blanks": 'FROM x\nSYSTEM "' + ('"' + " " * 1000) * (size // 1001) + "x",
        "quotes and dropped characters": 'FROM x\nSYSTEM "' + ('"' + "\xa0" * 1000) * (size // 1001) + "x",
        "unclosed on every line": 'FROM x\nSYSTEM "' + 'SYSTEM "x\n' * (size // 10),
        "expectations": "FROM x\nTEST contains " + '"""' * (size // 3),
        "copies": "FROM x\nCOPY " + '""' * (size // 2),
        "label": "FROM x\nLABEL " + "a." * (size // 2),
        "references": "FROM x\nARG A=1\nSYSTEM " + "${A}" * (size // 4),
        "opened references": "FROM x\nARG A=1\nSYSTEM " + "${" * (size // 2),
        "long name": "FROM x\nPARAMETER " + "a" * size + " 1",
        "long number": "FROM x\nPARAMETER seed " + "1" * size,
        "long version": "FROM x\nREQUIRES 1.0.0-" + "a." * (size // 2),
        "long pattern": "FROM x\nTEST matches " + "(" * size + " x",
    }


def _takes(task: Callable[[], object], seconds: float) -> bool:
    """Whether `task` takes less processor time than that; it may try again, as the machine may be busy."""
    gc.collect()
    gc.freeze()  # what the test run holds is not walked through on the account of what is measured
    try:
        for _ in range(4):
            begin = time.process_time()
            task()
            if time.process_time() - begin < seconds:
                return True
        return False
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("text", _big(_MIB).values(), ids=_big(1).keys())
def test_a_megabyte_is_read_in_two_seconds(text: str) -> None:
    # These two have more instructions than are read: it must not take long to say so.
    seconds = 4 if text in (_big(_MIB)["shortest instructions"], _big(_MIB)["quoted"]) else 2
    assert _takes(lambda: _parse(text), seconds)


@pytest.mark.parametrize("text", _big(_MIB // 4).values(), ids=_big(1).keys())
def test_a_large_file_is_linted_and_formatted_in_time(text: str) -> None:
    modelfile = _parse(text)
    if modelfile is None:
        return
    assert _takes(lambda: (format_modelfile(modelfile), lint(modelfile), substitute(modelfile, {})), 3)
