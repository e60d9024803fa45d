"""Each rule of the linter finds what it means, and nothing in files that are fine."""

from __future__ import annotations

import re

import pytest

from lading.modelfile.linter import RULES, lint
from lading.modelfile.syntax import From, Modelfile, Parameter, System, parse

FROM = "FROM llama3.2:3b\n"

FOUND = [
    ("L001", FROM + "PARAMETER low_vram true\n", 2),
    ("L002", FROM + "SYSTEM a\nSYSTEM b\n", 2),
    ("L002", FROM + "PARAMETER seed 1\nPARAMETER seed 2\n", 2),
    ("L002", FROM + "LABEL a=1\nLABEL a=2\n", 2),
    ("L003", FROM + "PARAMETER temperature 7\n", 2),
    ("L003", FROM + "PARAMETER num_ctx 2\n", 2),
    ("L004", FROM + "TEMPLATE {{ .System }}\n", 2),
    ("L005", FROM + "TEMPLATE {{ .Prompt }\n", 2),
    ("L006", "FROM \n", 1),
    ("L007", "FROM https://hf.co/a/b:Q4\n", 1),
    ("L008", "FROM /models/x.gguf\nLICENSE MIT\n", 1),
    ("L008", FROM + "ADAPTER ~/lora.gguf\n", 2),
    ("L009", FROM + "FROM ./x.gguf\nLICENSE MIT\n", 1),
    ("L010", "FROM ./x.gguf\n", 1),
    ("L011", FROM + "SYSTEM use hf_abcdefghijklmnopqrstuvwxyz012345\n", 2),
    ("L011", FROM + "LABEL api_key=x\n", 2),
    ("L011", FROM + "MESSAGE user my password: hunter2hunter2\n", 2),
    ("L012", FROM + "SYSTEM a\u200db\n", 2),
    ("L013", FROM + "PARAMETER system x\n", 2),
    ("L014", FROM + 'SYSTEM """a""" b\nPARAMETER seed 1"""\n', 2),
    ("L014", FROM + 'SYSTEM "a" b\nPARAMETER stop "c"\n', 2),
    ("L015", FROM + "SYSTEM 'hi'\n", 2),
    ("L015", FROM + "SYSTEM a\\nb\n", 2),
    ("L016", "ARG A=1\n" + FROM, 1),
    ("L017", "ARG AB=1\n" + FROM + "SYSTEM ${AB} ${AC}\n", 3),
    ("L018", FROM + "MESSAGE user a\nMESSAGE user b\n", 3),
    ("L018", FROM + "MESSAGE assistant a\n", 2),
    ("L019", FROM + 'SYSTEM ""\n', 2),
    ("L020", FROM + 'PARAMETER stop ""\n', 2),
    ("L021", FROM + "LABEL a=1 b=2\n", 2),
    ("L022", "FROM llama3.2:3b # the base\n", 1),
    ("L023", "FROM llama3.2\n", 1),
    ("L024", "FROM ./x.gguf\nLICENSE MIT\nDRAFT x.gguf\n", 3),
]


@pytest.mark.parametrize(
    ("code", "text", "line"), FOUND, ids=[f"{c}-{i}" for i, (c, _, _) in enumerate(FOUND)]
)
def test_finds(code: str, text: str, line: int) -> None:
    found = lint(parse(text))
    assert [(d.code, d.span.line) for d in found] == [(code, line)]
    assert str(found[0])


def test_every_rule_is_tested_and_explained() -> None:
    assert {code for code, _, _ in FOUND} == set(RULES)
    for rule in RULES.values():
        assert re.fullmatch(r"L\d{3}", rule.code)
        assert rule.meaning and not rule.meaning.endswith(".")
        assert rule.why.endswith(".")


@pytest.mark.parametrize(
    "text",
    [
        FROM + 'SYSTEM """You are "Mario".\nHash # and \'quotes\'."""\n',
        FROM + "TEMPLATE {{ .Prompt }}\nPARAMETER stop #\nPARAMETER stop '\n",
        FROM + "TEMPLATE {{ range .Messages }}{{ .Content }}{{ end }}\n",
        FROM + "TEMPLATE {% for m in messages %}{{ m.content }}{% endfor %}\n",
        "FROM ./model.gguf\nCOPY LICENSE LICENSE\n",
        "FROM ./model-00001-of-00002.gguf\nFROM ./model-00002-of-00002.gguf\nLICENSE MIT\n",
        "FROM hf.co/org/repo:Q4_K_M\n",
        "FROM llama3.2@sha256:" + "0" * 64 + "\n",
        "ARG TAG=3b\nFROM llama3.2:${TAG}\n",
        FROM + "MESSAGE system s\nMESSAGE user a\nMESSAGE assistant b\nMESSAGE user c\n",
        FROM + "PARAMETER num_ctx 0\nPARAMETER num_predict -2\nPARAMETER seed -1\n",
        FROM + 'SYSTEM "one\ntwo"\n',
    ],
)
def test_finds_nothing_in(text: str) -> None:
    assert lint(parse(text)) == []


def test_secrets_are_never_printed() -> None:
    secret = "hf_abcdefghijklmnopqrstuvwxyz012345"
    text = f"FROM x\nSYSTEM {secret}\nSYSTEM a\u200d {secret}\nLABEL token={secret} b=2\n"
    found = lint(parse(text))
    assert {d.code for d in found} >= {"L002", "L011", "L012", "L021"}
    assert secret not in "\n".join(str(d) for d in found)


def test_findings_stand_in_the_order_of_the_text() -> None:
    found = lint(parse("FROM x\nSYSTEM 'a'\nSYSTEM b\nPARAMETER temperature 9\n"))
    assert [d.span.line for d in found] == sorted(d.span.line for d in found)


def test_a_tree_without_a_text_is_linted_too() -> None:
    found = lint(Modelfile((From("x:1"), Parameter("unheard_of", "1"), System(""))))
    assert [d.code for d in found] == ["L019"]
    assert str(found[0]).startswith("Modelfile: warning[L019]")
