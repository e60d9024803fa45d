"""`parse`: the text of a Go template to its tree. Lark stays inside.

Source: Go 1.24, text/template/parse. Departures: the body of a comment may hold ``*/`` where no ``}}``
follows; imaginary numbers are refused; nesting, which Go does not bound, is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, cast

from lark import Lark, Token
from lark.exceptions import UnexpectedInput, UnexpectedToken

from .diagnostics import quoted
from .go_literal import BadLiteral, character_of, number_of, string_of
from .go_template_error import SYNTAX, BadTemplate, bad_template
from .go_template_scope import check_scopes
from .go_template_tree import (
    Action,
    Body,
    Break,
    Call,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Function,
    If,
    Literal,
    Nil,
    Operand,
    Pipeline,
    Range,
    Statement,
    Text,
    Tree,
    Variable,
    With,
    statements_of,
)

MAX_SIZE = 256 * 1024
"""Most characters of a template."""
MAX_NESTING = 40
"""Most blocks open at once, and most brackets open at once."""
_SPACE = " \t\r\n"


def parse(text: str) -> Tree:
    """The tree of `text`. Linear in its length, which is bounded.

    Raises: BadTemplate.
    """
    if len(text) > MAX_SIZE:
        message = f"too long: expected at most {MAX_SIZE:,} characters, got {len(text):,}"
        raise bad_template("", SYNTAX, message, 0)
    try:
        tree = cast(_Parsed, _lark().parse(text))
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    except _Wrong as error:
        raise bad_template(text, SYNTAX, str(error), error.at, error.length, error.hint) from None
    result = Tree(text, tree.body, tree.defined)
    check_scopes(result)
    return result


class _Wrong(Exception):
    """What is wrong at some offset; becomes a `BadTemplate`."""

    def __init__(self, message: str, at: int, length: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.at, self.length, self.hint = at, length, hint


# ---- Between lexer and parser

_OPENERS = {"IF": "if", "WITH": "with", "RANGE": "range", "DEFINE": "define", "BLOCK": "block"}
_ELSES = {"_ELSE", "ELSE_IF", "ELSE_WITH"}


class _Blocks:
    """Trims text before ``{{- `` and sees to it that every block and action is closed."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        blocks: list[Token] = []
        text: Token | None = None
        action: Token | None = None
        brackets = 0
        for token in stream:
            if token.type == "TEXT":
                text = token
                continue
            if token[:2] == "{{":
                if text is not None and token[2:3] == "-" and token[3:4] in _SPACE_OR_END:
                    text = text.update(value=text.rstrip(_SPACE))
                if text:
                    yield text
                text = None
                if token.type != "COMMENT":
                    action, brackets = token, 0
                    self._count(token, blocks)
            elif token.type == "_RIGHT":
                action = None
            elif token.type == "_OPEN":
                brackets += 1
                if brackets > MAX_NESTING:
                    raise _Wrong(f"nested too deeply: expected at most {MAX_NESTING} brackets", _at(token))
            elif token.type == "_CLOSE":
                brackets -= 1
            yield token
        if action is not None:
            raise _Wrong("this action is never closed: expected }}", _at(action), 2)
        if blocks:
            keyword = _OPENERS[blocks[-1].type]
            message = f"this {{{{{keyword}}}}} is never closed: expected {{{{end}}}}"
            raise _Wrong(message, _at(blocks[-1]), len(blocks[-1].rstrip()))
        if text:
            yield text

    def _count(self, token: Token, blocks: list[Token]) -> None:
        if token.type in _OPENERS:
            blocks.append(token)
            if len(blocks) > MAX_NESTING:
                raise _Wrong(f"nested too deeply: expected at most {MAX_NESTING} blocks", _at(token), 2)
        elif token.type == "_END":
            if not blocks:
                raise _Wrong("this {{end}} closes nothing", _at(token), len(token))
            blocks.pop()
        elif token.type in _ELSES and not blocks:
            raise _Wrong("this {{else}} belongs to nothing", _at(token), len(token))


_SPACE_OR_END = ("", " ", "\t", "\r", "\n")


# ---- From parser to tree


class _Parsed(NamedTuple):
    body: Body
    defined: dict[str, Body]


class _Define(NamedTuple):
    name: str
    body: Body


class _Declaration(NamedTuple):
    variables: tuple[str, ...]
    declares: bool


class _ToTree:
    """Lark's transformer, called while parsing: each method makes what its rule of the grammar stands for."""

    def template(self, items: list[Any]) -> _Parsed:
        defines = [item for item in items if isinstance(item, _Define)]
        body = self.body([item for item in items if not isinstance(item, _Define)])
        defined: dict[str, Body] = {}
        for part in (body, *(define.body for define in defines)):
            blocks = (s for s in statements_of(part) if isinstance(s, Call) and s.block is not None)
            defined.update({call.name: call.block or () for call in blocks})
        for define in defines:
            # As in Go, the last one counts, but one of nothing but white space replaces none.
            if define.name not in defined or not _is_blank(define.body):
                defined[define.name] = define.body
        return _Parsed(body, defined)

    def body(self, items: list[Any]) -> Body:
        return tuple(
            Text(_at(item), str(item)) if isinstance(item, Token) else item
            for item in items
            if not (isinstance(item, Token) and item.type == "COMMENT")
        )

    def action(self, items: list[Any]) -> Statement:
        return Action(_at(items[0]), items[1])

    def if_(self, items: list[Any]) -> Statement:
        return If(_at(items[0]), *_branches(items))

    def with_(self, items: list[Any]) -> Statement:
        return With(_at(items[0]), *_branches(items))

    def range(self, items: list[Any]) -> Statement:
        return Range(_at(items[0]), items[1], items[2], items[3].body if len(items) > 3 else ())

    def else_(self, items: list[Any]) -> _Define:
        return _Define("", items[0])

    def call(self, items: list[Any]) -> Statement:
        return Call(_at(items[0]), _string(items[1]), items[2] if len(items) > 2 else None)

    def define(self, items: list[Any]) -> _Define:
        return _Define(_string(items[1]), items[2])

    def block(self, items: list[Any]) -> Statement:
        return Call(_at(items[0]), _string(items[1]), items[2], items[3])

    def break_(self, items: list[Any]) -> Statement:
        return Break(_at(items[0]))

    def continue_(self, items: list[Any]) -> Statement:
        return Continue(_at(items[0]))

    def pipeline(self, items: list[Any]) -> Pipeline:
        declaration = items[0] if isinstance(items[0], _Declaration) else _Declaration((), True)
        commands = tuple(item for item in items if isinstance(item, Command))
        return Pipeline(commands[0].at, *declaration, commands)

    def declaration(self, items: list[Any]) -> _Declaration:
        return _Declaration(tuple(str(item) for item in items[:-1]), items[-1].type == "DECLARE")

    def command(self, items: list[Any]) -> Command:
        return Command(items[0].at, tuple(items))

    def operand(self, items: list[Any]) -> Operand:
        first = items[0]
        names = tuple(item[1:] for item in items[1:])
        if isinstance(first, Pipeline):
            return Chain(first.at, first, names) if names else first
        at = _at(first)
        match first.type:
            case "FIELD":
                return Field(at, (first[1:], *names))
            case "VARIABLE":
                return Variable(at, str(first), names)
            case "IDENTIFIER" if first not in ("true", "false", "nil"):
                function = Function(at, str(first))
                return Chain(at, function, names) if names else function
        if names:
            raise _Wrong(f"{quoted(first)} has no fields", at, len(first))
        return Dot(at) if first.type == "DOT" else _literal(first)


def _branches(items: list[Any]) -> tuple[tuple[tuple[Pipeline, Body], ...], Body]:
    """Of ``if`` and ``with``: keyword, pipeline, body, again and again, and perhaps an else."""
    otherwise: Body = items[-1].body if isinstance(items[-1], _Define) else ()
    whole = items[:-1] if isinstance(items[-1], _Define) else items
    return tuple((whole[i + 1], whole[i + 2]) for i in range(0, len(whole), 3)), otherwise


def _literal(token: Token) -> Operand:
    at = _at(token)
    try:
        match token.type:
            case "STRING" | "RAW_STRING":
                return Literal(at, string_of(token))
            case "CHARACTER":
                return Literal(at, character_of(token))
            case "NUMBER":
                return Literal(at, number_of(token))
    except BadLiteral as error:
        raise _Wrong(f"{error}: {quoted(token)}", at, len(token)) from None
    return Nil(at) if token == "nil" else Literal(at, token == "true")


def _string(token: Token) -> str:
    try:
        return string_of(token)
    except BadLiteral as error:
        raise _Wrong(f"{error}: {quoted(token)}", _at(token), len(token)) from None


def _is_blank(body: Body) -> bool:
    return all(isinstance(statement, Text) and not statement.text.strip(_SPACE) for statement in body)


def _at(token: Token) -> int:
    return cast(int, token.start_pos)


# ---- Lark


@cache
def _lark() -> Lark:
    grammar = files("lading.modelfile").joinpath("go_template.lark").read_text("utf-8")
    return Lark(
        grammar,
        start="template",
        parser="lalr",
        lexer="contextual",
        transformer=cast(Any, _ToTree()),
        postlex=cast(Any, _Blocks()),
    )


_EXPECTED = {"_RIGHT": "}}", "_CLOSE": ")", "DECLARE": ":=", "IDENTIFIER": "a value"}
_MISPLACED = {
    "end": "{{end}} closes nothing",
    "else": "{{else}} belongs to nothing",
    "define": "{{define}} must stand outside of all blocks",
}


def _unexpected(text: str, error: UnexpectedInput) -> BadTemplate:
    """Lark's error in the words of the language."""
    accepts: set[str] = set(getattr(error, "expected", None) or getattr(error, "allowed", None) or ())
    at = error.token.start_pos if isinstance(error, UnexpectedToken) else error.pos_in_stream
    at = len(text) if at is None else at + _leading_space(text[at : at + 4096])
    word = re.match(r"\w{1,40}|.", text[at : at + 40], re.DOTALL)
    found = word.group() if word else ""
    if found in _MISPLACED and "IDENTIFIER" in accepts:
        return bad_template(text, SYNTAX, _MISPLACED[found], at, len(found))
    expected = [words for name, words in _EXPECTED.items() if name in accepts]
    if not expected and "STRING" in accepts:
        expected = ["a name in double quotes"]
    words = f": expected {' or '.join(expected)}" if expected else ""
    return bad_template(text, SYNTAX, f"unexpected {quoted(found or 'the end')}{words}", at, len(found))


def _leading_space(text: str) -> int:
    return len(text) - len(text.lstrip(_SPACE))
