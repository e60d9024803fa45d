"""The Modelfile's grammar, run: text to statements. Lark stays inside."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, cast

from lark import Lark, Token

MAX_STATEMENTS = 100_000
MAX_BROKEN = 100
"""After so many statements that are none, reading stops: the file is something else."""


class Word(NamedTuple):
    """A token: the terminal's name, its text and its offset."""

    kind: str
    text: str
    start: int


class Statement(NamedTuple):
    """A line of the grammar's table: the rule's name and its words, without the keyword."""

    rule: str
    start: int
    """Offset of the keyword, or of what stands where one should."""
    words: tuple[Word, ...]


class Statements(NamedTuple):
    found: list[Statement]
    cut_at: int | None
    """Offset at which reading stopped because there was too much; None: all was read."""


def read_statements(text: str) -> Statements:
    """All statements of `text`, which is `Source.plain`. Any text has some; never raises."""
    parser = _lark().parse_interactive(text)
    statements = broken = 0
    cut_at = None
    for token in parser.iter_parse():
        if broken >= MAX_BROKEN or statements >= MAX_STATEMENTS:
            # iter_parse has not fed this token yet, and the one before it ended a statement: REST always
            # does, and statements are counted by what begins one.
            cut_at = token.start_pos
            break
        if token.type == "REST":
            broken += 1
        elif token.type in _STATEMENT_ENDS:
            statements += 1
    found = parser.feed_eof()  # type: ignore[no-untyped-call]  # lark leaves it untyped
    return Statements(cast(list[Statement], found), cut_at)


_STATEMENT_ENDS = frozenset({"BARE", "_END"})


class _ToStatements:
    """Lark's transformer: each rule named in the grammar becomes one `Statement`."""

    def __getattr__(self, rule: str) -> Any:
        if rule.startswith("_") or rule.isupper() or rule not in _RULES:
            raise AttributeError(rule)

        def to_statement(tokens: list[Token]) -> Statement:
            # Plain tuples at once: however many there are, they cost the garbage collector nothing.
            rest = tokens if rule == "broken" else tokens[1:]
            words = tuple([Word(t.type, str(t), t.start_pos or 0) for t in rest])
            return Statement(rule, tokens[0].start_pos or 0, words)

        return to_statement

    def modelfile(self, statements: list[Statement]) -> list[Statement]:
        return statements


_PLAIN_RULES = (
    *("from_", "template", "system", "adapter", "license", "renderer", "parser", "draft", "requires"),
    *("parameter", "message", "arg", "label", "copy", "test"),
)
_BROKEN_RULES = (
    *("broken", "broken_parameter", "broken_message"),
    *("broken_arg", "broken_label", "broken_copy", "broken_test"),
)
_RULES = frozenset(_PLAIN_RULES + _BROKEN_RULES)


@cache
def _lark() -> Lark:
    grammar = files("lading.modelfile").joinpath("modelfile.lark").read_text("utf-8")
    return Lark(
        grammar,
        start="modelfile",
        parser="lalr",
        lexer="contextual",
        transformer=cast(Any, _ToStatements()),
        g_regex_flags=re.ASCII,  # else "SYSTEM"i would match the long s of U+017F
    )
