"""How problems look: golden texts, carets under wide and hidden characters, and what is never printed."""

from __future__ import annotations

import pickle

import pytest

from lading.modelfile.diagnostics import Diagnostic, ModelfileError, Severity
from lading.modelfile.problems import Code
from lading.modelfile.syntax import parse


def _errors(text: str | bytes, filename: str = "Modelfile") -> ModelfileError:
    with pytest.raises(ModelfileError) as caught:
        parse(text, filename=filename)
    return caught.value


def test_all_problems_are_shown_with_their_carets() -> None:
    error = _errors('FROM x\nPARAMETER temprature 1\nMESSAGE User hi\nSYSTEM "a" b\n', "models/Modelfile")
    assert str(error) == (
        'models/Modelfile:2:11: error[M004]: unknown parameter "temprature"\n'
        "    2 | PARAMETER temprature 1\n"
        "      |           ^^^^^^^^^^\n"
        '  hint: did you mean "temperature"?\n'
        'models/Modelfile:3:9: error[M006]: message role "User": expected system, user or assistant\n'
        "    3 | MESSAGE User hi\n"
        "      |         ^^^^\n"
        "  hint: roles are in lower case\n"
        'models/Modelfile:4:8: error[M003]: a quote is never closed: expected " at the end of a line\n'
        '    4 | SYSTEM "a" b\n'
        "      |        ^\n"
        '  hint: to have quotes inside a value, put """ around the value'
    )
    assert error.message == 'models/Modelfile, line 2: unknown parameter "temprature" (and 2 more problems)'


@pytest.mark.parametrize(
    ("line", "excerpt", "caret"),
    [
        ("\tPARAMETER\tsee 1", " PARAMETER see 1", "           ^^^"),
        ("PARAMETER seed 東京", "PARAMETER seed 東京", "               ^^^^"),
        ("PARAMETER seed a\u0301b", "PARAMETER seed a\u0301b", "               ^^"),
        ("PARAMETER seed a\x1b[31m", "PARAMETER seed a·[31m", "               ^^^^^^"),
    ],
    ids=["tabs", "wide", "combining", "terminal escape"],
)
def test_the_caret_stands_under_what_it_means(line: str, excerpt: str, caret: str) -> None:
    shown = str(_errors(f"FROM x\n{line}\n")).splitlines()
    assert shown[1] == "    2 | " + excerpt
    assert shown[2] == "      | " + caret


def test_long_lines_are_shown_around_the_caret() -> None:
    (diagnostic,) = _errors("FROM x\nPARAMETER seed " + "x" * 500 + "\nSYSTEM y\n").diagnostics
    assert len(diagnostic.excerpt) == 96
    assert diagnostic.excerpt.endswith("…")
    assert len(str(diagnostic).splitlines()[2]) <= 8 + 96

    (diagnostic,) = _errors("FROM x\nCOPY " + "a" * 300 + " b/../../c\n").diagnostics
    assert diagnostic.excerpt.startswith("…")
    column = diagnostic.excerpt_column
    assert diagnostic.excerpt[column : column + 9] == "b/../../c"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("FORM x", 'did you mean "FROM"?'),
        ("FROM:x", "put a space after FROM"),
        ("ADD a b", "COPY puts files into the artifact"),
        ("You are Mario.", 'a value that spans lines needs """ around it'),
        ("MESSAGE User x", "roles are in lower case"),
        ("MESSAGE asistant x", 'did you mean "assistant"?'),
        ("PARAMETER top-k 1", 'did you mean "top_k"?'),
        ("PARAMETER numa 1", "Ollama removed it; remove the line"),
        ('SYSTEM """a""" b', 'text after a closing """ keeps the value open'),
    ],
)
def test_hints(text: str, hint: str) -> None:
    assert _errors("FROM x\n" + text + "\n").hint == hint


def test_no_source_no_caret() -> None:
    shown = str(Diagnostic(code="M000", severity=Severity.ERROR, message="m", hint="h"))
    assert shown == "Modelfile: error[M000]: m\n  hint: h"


def test_error_survives_pickling() -> None:
    error = _errors("FORM x\n")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.diagnostics == error.diagnostics


def test_codes_are_unique_and_explained() -> None:
    assert len({code.value for code in Code}) == len(Code)
    assert all(code.meaning for code in Code)
