"""Calls that are calls in Python: ``get_weather(city="Paris", days=2)``."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from typing import Any

from .cursor import Cursor, Mismatch
from .tool_format import CallShape, FoundCall, OfferedTools, ParameterShape, Reading

_MAX_CODE = 64 * 1024
_MAX_DEPTH = 32
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonCalls:
    """``opening CODE closing``, where the code is calls, in a list or one to a line.

    Without ``opening`` a list of calls at the beginning of an answer counts.
    """

    name: str
    opening: str = ""
    closing: str = ""
    listed: bool = True

    @property
    def openings(self) -> tuple[str, ...]:
        return (self.opening,) if self.opening else ()

    @property
    def starts(self) -> tuple[str, ...]:
        return () if self.opening else ("[",)

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.opening, self.closing) if self.opening else ()

    @property
    def shape(self) -> CallShape:
        line = "" if self.listed else "\n"
        return CallShape(
            trigger=self.opening,
            opening=self.opening + line + ("[" if self.listed else ""),
            before_name="",
            after_name="(",
            arguments=ParameterShape(before_key="", after_key="=", between=", "),
            after_arguments=")",
            between=", " if self.listed else "\n",
            closing=("]" if self.listed else "") + line + self.closing,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        yield from cursor.blank()
        is_list = bool((yield from cursor.maybe("[")))
        while True:
            yield from cursor.blank()
            name = yield from cursor.word("(")
            arguments = yield from cursor.balanced("'\"", "([{", ")]}", triple=True)
            yield python_calls(name + arguments, tools)
            yield from cursor.blank()
            if is_list and (yield from cursor.must(",", "]")) == ",":
                continue
            yield from cursor.blank()
            if not self.closing or (yield from cursor.maybe(self.closing)):
                return
            if is_list:
                raise Mismatch
            yield from cursor.maybe(";")


def python_calls(code: str, tools: OfferedTools) -> list[FoundCall]:
    """The calls that Python code consists of; nothing of it is run. Raises: Mismatch: there is more in it."""
    if len(code) > _MAX_CODE:
        raise Mismatch
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            tree = ast.parse(code.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Mismatch from None
    calls: list[FoundCall] = []
    for statement in tree.body:
        if not isinstance(statement, ast.Expr):
            raise Mismatch
        value = statement.value
        items = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        calls += [_call(item, tools) for item in items]
    if not calls:
        raise Mismatch
    return calls


def _call(node: ast.expr, tools: OfferedTools) -> FoundCall:
    if not isinstance(node, ast.Call):
        raise Mismatch
    name = _name(node.func, tools)
    if name == "print" and name not in tools and len(node.args) == 1:  # what models do with a result
        return _call(node.args[0], tools)
    keys = [key for key in tools.properties(name) if key not in {word.arg for word in node.keywords}]
    if len(node.args) > len(keys):
        raise Mismatch
    arguments = {key: _value(value, 0) for key, value in zip(keys, node.args, strict=False)}
    for word in node.keywords:
        if word.arg is None:
            raise Mismatch
        arguments[word.arg] = _value(word.value, 0)
    return FoundCall(name, arguments)


def _name(node: ast.expr, tools: OfferedTools) -> str:
    """``f``, ``module.f``, and ``f.call`` as Llama writes its own tools."""
    if isinstance(node, ast.Name):
        return node.id
    if not isinstance(node, ast.Attribute):
        raise Mismatch
    whole = ast.unparse(node)
    candidates = (whole, node.attr, whole.removesuffix(".call"))
    return next((name for name in candidates if name in tools), whole)


def _value(node: ast.expr, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise Mismatch
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, depth + 1) for item in items]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value, depth + 1) for key, value in zip(keys, values, strict=True)}
    raise Mismatch


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise Mismatch
