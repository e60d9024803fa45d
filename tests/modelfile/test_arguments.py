"""Build arguments: where they are put in, where not, and what is wrong with them."""

from __future__ import annotations

import pytest

from lading.modelfile.arguments import substitute
from lading.modelfile.diagnostics import ModelfileError
from lading.modelfile.syntax import From, Label, License, Message, Parameter, System, Template, Test, parse


def _instructions(text: str, **given: str) -> list[object]:
    return list(substitute(parse(text), given))


def test_values_are_put_in() -> None:
    text = """
ARG BASE=llama3.2
ARG TAG=${BASE}-mine
FROM ${BASE}:3b
PARAMETER num_ctx ${N}
ARG N
PARAMETER num_ctx ${N}
SYSTEM I am ${TAG}, not $${TAG}, $TAG or ${OTHER}.
MESSAGE user ${N}
LABEL name=${TAG}
TEST contains ${N} How many? ${N}
"""
    text = text.replace("PARAMETER num_ctx ${N}\nARG N", "ARG N")
    assert _instructions(text, N="4096") == [
        From("llama3.2:3b"),
        Parameter("num_ctx", "4096"),
        System("I am llama3.2-mine, not ${TAG}, $TAG or ${OTHER}."),
        Message("user", "4096"),
        Label("name", "llama3.2-mine"),
        Test("contains", "4096", "How many? 4096"),
    ]


def test_templates_and_licences_are_left_alone() -> None:
    text = "ARG A=1\nFROM x\nTEMPLATE ${A}{{ .Prompt }}\nLICENSE ${A}\n"
    assert _instructions(text) == [From("x"), Template("${A}{{ .Prompt }}"), License("${A}")]


def test_given_values_count_before_defaults_and_are_not_searched() -> None:
    text = "ARG A=1\nARG B=2\nFROM x\nSYSTEM ${A}${B}\n"
    assert _instructions(text, A="${B}") == [From("x"), System("${B}2")]


def test_without_arg_nothing_is_touched() -> None:
    text = "FROM ${A}\nSYSTEM $${A}\n"
    assert _instructions(text) == [From("${A}"), System("$${A}")]


def test_only_from_the_line_of_the_arg_on() -> None:
    assert _instructions("FROM ${A}\nARG A=1\nSYSTEM ${A}\n") == [From("${A}"), System("1")]


def test_invisible_characters_of_given_values_are_dropped() -> None:
    assert _instructions("ARG A\nFROM x${A}\n", A="\u200b1\x00") == [From("x1")]


def test_comments_stay_where_they_are() -> None:
    modelfile = substitute(parse("# a\nARG A=1\n# b\nFROM x\n# c\n"), {})
    assert [(c.lines, c.before) for c in modelfile.comments] == [((" a",), 0), ((" b",), 0), ((" c",), 1)]


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("ARG A\nFROM x\n", {}, [("M014", 1)]),
        ("ARG NAME=1\nFROM x\n", {"NAEM": "1"}, [("M014", 0)]),
        ("ARG A\nFROM x\nPARAMETER seed ${A}\n", {"A": "x"}, [("M005", 3)]),
        ("ARG A\nFROM x\nREQUIRES ${A}\nCOPY ${A} b\n", {"A": ".."}, [("M008", 3), ("M011", 4)]),
        ("ARG A\nARG B\nFROM x\nPARAMETER seed ${A}\n", {}, [("M014", 1), ("M014", 2)]),
    ],
    ids=["no value", "undeclared", "type", "several", "no follow-up problems"],
)
def test_problems(text: str, given: dict[str, str], expected: list[tuple[str, int]]) -> None:
    with pytest.raises(ModelfileError) as caught:
        substitute(parse(text), given)
    assert [(d.code, d.span.line) for d in caught.value.diagnostics] == expected


def test_undeclared_argument_gets_a_hint() -> None:
    with pytest.raises(ModelfileError) as caught:
        substitute(parse("ARG NAME=1\nFROM x\n"), {"NAEM": "1"})
    assert caught.value.hint == 'did you mean "NAME"?'
