"""What a Modelfile means: Ollama's vectors, where we are more lenient, and our own instructions."""

from __future__ import annotations

import pytest

from lading.modelfile.diagnostics import ModelfileError, Span
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
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Template,
    Test,
    parse,
)

FOO = From("foo")

ACCEPTED: list[tuple[str, str, list[Instruction]]] = [
    # Vectors of Ollama's reader.
    ("hash in value", "FROM foo # bar\n", [From("foo # bar")]),
    ("quoted FROM", 'FROM "FOO  BAR  "\n', [From("FOO  BAR  ")]),
    ("trimmed", "FROM     FOOO BAR    \n", [From("FOOO BAR")]),
    ("empty FROM", "FROM \n", [From("")]),
    ("no newline at the end", "FROM foo", [FOO]),
    ("empty stop", "FROM foo\nPARAMETER stop \n", [FOO, Parameter("stop", "")]),
    (
        "blank kept in quotes",
        'FROM foo\nPARAMETER stop "### User: "\n',
        [FOO, Parameter("stop", "### User: ")],
    ),
    ("blank lost without", "FROM foo\nPARAMETER stop ### User: \n", [FOO, Parameter("stop", "### User:")]),
    (
        "quotes over lines",
        'FROM foo\nSYSTEM "line1\nline2"\nPARAMETER seed 1\n',
        [FOO, System("line1\nline2"), Parameter("seed", "1")],
    ),
    (
        "text after closing quotes keeps the value open",
        'FROM foo\nSYSTEM """a""" b\nPARAMETER stop x"""\n',
        [FOO, System('a""" b\nPARAMETER stop x')],
    ),
    ("empty triple", 'FROM foo\nSYSTEM """"""\n', [FOO, System("")]),
    ("empty quotes", 'FROM foo\nSYSTEM ""\n', [FOO, System("")]),
    ("newlines kept", 'FROM foo\nSYSTEM """\ntext\n"""\n', [FOO, System("\ntext\n")]),
    (
        "quotes in quotes",
        'FROM foo\nSYSTEM """\'\'"\'""\'""\'"\'\'\'\'\'""\'""\'"""\n',
        [FOO, System("''\"'\"\"'\"\"'\"'''''\"\"'\"\"'")],
    ),
    (
        "invisible characters dropped",
        "FROM foo\nSYSTEM a\tb\xa0c\u200dd\n",
        [FOO, System("a\tbcd")],
    ),
    ("CR kept in quotes", 'FROM foo\nSYSTEM """a\r\nb"""', [FOO, System("a\r\nb")]),
    (
        "message",
        'FROM foo\nMESSAGE system """\nx\n"""',
        [FOO, Message("system", "\nx\n")],
    ),
    ("any case", "from foo\nSyStEm x\n", [FOO, System("x")]),
    ("indented, comments", "# c\n  # d\n\n  FROM foo\n#e", [FOO]),
    ("CR LF", "FROM foo\r\nSYSTEM x\r\n", [FOO, System("x")]),
    ("CR", "FROM foo\rSYSTEM x\r", [FOO, System("x")]),
    ("empty at the end", "FROM foo\nSYSTEM ", [FOO, System("")]),
    ("backslash is text", "FROM foo\nSYSTEM hello\\\n", [FOO, System("hello\\")]),
    ("one quote in a value", 'FROM foo\nSYSTEM 5" disk\n', [FOO, System('5" disk')]),
    ("quotes on the next line", 'FROM foo\nSYSTEM "\n"\n', [FOO, System("\n")]),
    ("four quotes", 'FROM foo\nSYSTEM """"\nx"""\n', [FOO, System('"\nx')]),
    ("five quotes", 'FROM foo\nSYSTEM """""\nx"""\n', [FOO, System('""\nx')]),
    ("quote in quotes", 'FROM foo\nSYSTEM ""x""\n', [FOO, System('"x"')]),
    (
        "every instruction of Ollama",
        "FROM foo\nADAPTER a\nDRAFT d\nLICENSE l\nTEMPLATE t\nRENDERER r\nPARSER p\nREQUIRES v0.14.0\n",
        [
            *(FOO, Adapter("a"), Draft("d"), License("l"), Template("t")),
            *(Renderer("r"), Parser("p"), Requires("v0.14.0")),
        ],
    ),
    # PARAMETER and the instructions share their names.
    ("PARAMETER system", "FROM foo\nPARAMETER system x\n", [FOO, System("x")]),
    ("PARAMETER model", "PARAMETER model foo\n", [FOO]),
    ("PARAMETER message", "FROM foo\nPARAMETER message user: hi: x\n", [FOO, Message("user", "hi: x")]),
    # Where we accept more than Ollama.
    ("two blanks, name", "FROM foo\nPARAMETER  \t seed   1\n", [FOO, Parameter("seed", "1")]),
    ("two blanks, role", "FROM foo\nMESSAGE  user  hi\n", [FOO, Message("user", "hi")]),
    (
        "no-break spaces between words",
        "\xa0FROM\xa0foo\nPARAMETER\xa0seed\xa01\n\xa0\n",
        [FOO, Parameter("seed", "1")],
    ),
    ("dropped inside quotes", 'FROM foo\nSYSTEM "\u200b""a"""\xa0\n', [FOO, System("a")]),
    # Ours.
    ("ARG", "FROM foo\nARG A\nARG B=\nARG C = c d \n", [FOO, Arg("A"), Arg("B", ""), Arg("C", "c d")]),
    ("ARG quoted", 'FROM foo\nARG A=" x "\n', [FOO, Arg("A", " x ")]),
    ("LABEL", "FROM foo\nLABEL org.x/y=z=1\n", [FOO, Label("org.x/y", "z=1")]),
    ("LABEL over lines", 'FROM foo\nLABEL a="""1\n2"""\n', [FOO, Label("a", "1\n2")]),
    ("COPY", "FROM foo\nCOPY README.md docs/README.md\n", [FOO, Copy("README.md", "docs/README.md")]),
    ("COPY quoted", 'FROM foo\nCOPY "a b" "c d" \n', [FOO, Copy("a b", "c d")]),
    (
        "TEST",
        'FROM foo\nTEST Contains "Paris, France" What is the capital of France?\n',
        [FOO, Test("contains", "Paris, France", "What is the capital of France?")],
    ),
    (
        "TEST quotes",
        'FROM foo\nTEST equals """"a" b""" """\nq\n"""\n',
        [FOO, Test("equals", '"a" b', "\nq\n")],
    ),
    ("several FROM", "FROM a.gguf\nFROM b.gguf\n", [From("a.gguf"), From("b.gguf")]),
    ("deferred value", "FROM foo\nARG N\nPARAMETER seed ${N}\n", [FOO, Arg("N"), Parameter("seed", "${N}")]),
]


@pytest.mark.parametrize(
    ("text", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_means(text: str, expected: list[Instruction]) -> None:
    assert list(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("\ufeffFROM é\n", "utf-8"), ("\ufeffFROM é\n", "utf-16-le"), ("\ufeffFROM é\n", "utf-16-be")],
    ids=["UTF-8 with mark", "UTF-16 LE", "UTF-16 BE"],
)
def test_encodings_mean_the_same(text: str, encoding: str) -> None:
    assert list(parse(text.encode(encoding))) == [From("é")]
    assert list(parse(text)) == [From("é")]


REFUSED: list[tuple[str, str | bytes, list[tuple[str, int, int]]]] = [
    # Ollama's vectors.
    ("empty", "", [("M007", 1, 1)]),
    ("no FROM", "PARAMETER seed 1\n", [("M007", 1, 1)]),
    ("FROM without value", "FROM\n", [("M002", 1, 1)]),
    ("no space", "FROM2 x\n", [("M001", 1, 1)]),
    ("unknown", "\nFROM foo\nBADCOMMAND p v\n", [("M001", 3, 1)]),
    ("CR LF is one line", "FROM foo\r\nBAD x\r\n", [("M001", 2, 1)]),
    ("case of a parameter", 'FROM foo\n  # c\n  parameter Stop "x"\n', [("M004", 3, 13)]),
    ("parameter without value", "FROM foo\nPARAMETER stop\n", [("M002", 2, 11)]),
    ("never closed", 'FROM foo\nSYSTEM "a" b\nPARAMETER x 1\n', [("M003", 2, 8)]),
    ("two quotes close no three", 'FROM foo\nSYSTEM """x""\n', [("M003", 2, 8)]),
    ("no continuation", "FROM foo\nSYSTEM hello\\\nworld x\n", [("M001", 3, 1)]),
    ("role in capitals", "FROM foo\nMESSAGE User hi\n", [("M006", 2, 9)]),
    ("message without content", "FROM foo\nMESSAGE user\n", [("M002", 2, 9)]),
    # The rest.
    ("keyword at the end", "FROM foo\nSYSTEM", [("M002", 2, 1)]),
    ("parameter alone", "FROM foo\nPARAMETER\nPARAMETER \n", [("M002", 2, 1), ("M002", 3, 11)]),
    ("unknown parameter", "FROM foo\nPARAMETER temprature 1\n", [("M004", 2, 11)]),
    ("bad characters in a name", "FROM foo\nPARAMETER top-p 1\n", [("M004", 2, 11)]),
    ("equals sign", "FROM foo\nPARAMETER seed=1\n", [("M005", 2, 15)]),
    ("value of another type", "FROM foo\nPARAMETER seed 1.5\n", [("M005", 2, 16)]),
    ("removed parameter", "FROM foo\nPARAMETER tfs_z 1\n", [("M004", 2, 11)]),
    ("version", "FROM foo\nREQUIRES soon\n", [("M008", 2, 10)]),
    ("tool role", "FROM foo\nMESSAGE tool x\n", [("M006", 2, 9)]),
    ("role of PARAMETER message", "FROM foo\nPARAMETER message x\n", [("M006", 2, 19)]),
    ("ARG name", "FROM foo\nARG 1=2\n", [("M012", 2, 5)]),
    ("LABEL without value", "FROM foo\nLABEL a\n", [("M012", 2, 7)]),
    ("COPY one word", "FROM foo\nCOPY a\n", [("M011", 2, 7)]),
    ("COPY three words", "FROM foo\nCOPY a b c\n", [("M011", 2, 10)]),
    ("COPY climbs", "FROM foo\nCOPY ../a b\nCOPY a b/../../c\n", [("M011", 2, 6), ("M011", 3, 8)]),
    ("COPY absolute", "FROM foo\nCOPY /etc/passwd b\nCOPY a C:/b\n", [("M011", 2, 6), ("M011", 3, 8)]),
    ("TEST check", "FROM foo\nTEST says x y\n", [("M013", 2, 6)]),
    ("TEST without prompt", "FROM foo\nTEST contains x\n", [("M013", 2, 15)]),
    ("TEST pattern", "FROM foo\nTEST matches ( y\n", [("M013", 2, 16)]),
    ("bytes", b"FROM foo\nSYSTEM \xff\n", [("M009", 2, 8)]),
    ("UTF-16, half a character", b"\xff\xfeF\0R\0O", [("M009", 1, 3)]),
    ("half a surrogate pair", "FROM \ud800", [("M009", 1, 6)]),
    ("ligature of s", "FROM foo\nSY\u017fTEM x\n", [("M001", 2, 1)]),
    (
        "all at once",
        'PARAMETER tempeature 1\nMESSAGE bot hi\nSYTEM x\nREQUIRES 1.x\nSYSTEM "a" b',
        [("M004", 1, 11), ("M006", 2, 9), ("M001", 3, 1), ("M008", 4, 10), ("M003", 5, 8)],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refuses(text: str | bytes, expected: list[tuple[str, int, int]]) -> None:
    with pytest.raises(ModelfileError) as caught:
        parse(text)
    assert [(d.code, d.span.line, d.span.column) for d in caught.value.diagnostics] == expected


def test_broken_from_is_not_also_missing() -> None:
    with pytest.raises(ModelfileError) as caught:
        parse("FORM llama3.2\n")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.hint == 'did you mean "FROM"?'


def test_spans_reach_from_keyword_to_end_of_value() -> None:
    first, second = parse('# c\n  FROM  foo  \nSYSTEM """a\r\nb""" \n')
    assert first.span == Span(2, 3, 2, 12)
    assert second.span == Span(3, 1, 4, 5)


def test_instructions_are_equal_wherever_they_stand() -> None:
    assert parse("FROM a") == parse("\n\n  from   a  # not a comment".replace("  # not a comment", ""))
    assert parse("FROM a") != parse("FROM b")


def test_accessors() -> None:
    modelfile = parse("FROM a\nFROM b\nSYSTEM x\nSYSTEM y\n")
    assert [source.ref for source in modelfile.all(From)] == ["a", "b"]
    last = modelfile.last(System)
    assert last is not None and last.text == "y"
    assert modelfile.last(Template) is None


def test_many_problems_are_cut() -> None:
    with pytest.raises(ModelfileError) as caught:
        parse("FROM a\n" + "PARAMETER foo 1\n" * 1000)
    assert len(caught.value.diagnostics) == 101
    assert caught.value.diagnostics[-1].code == "M010"


def test_other_files_are_given_up_early() -> None:
    with pytest.raises(ModelfileError) as caught:
        parse("FROM a\n" + "lorem ipsum\n" * 50_000)
    assert len(caught.value.diagnostics) <= 102


@pytest.mark.parametrize(
    "data", [b"#" * (16 * 1024 * 1024 + 1), "#" * (16 * 1024 * 1024 + 1)], ids=["b", "s"]
)
def test_too_large_is_refused_unread(data: bytes | str) -> None:
    with pytest.raises(ModelfileError, match="too large"):
        parse(data)


def test_too_many_instructions_are_refused() -> None:
    with pytest.raises(ModelfileError, match="too many instructions"):
        parse("FROM a\n" * 100_001)
