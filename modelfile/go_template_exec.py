"""`execute`: a template's tree over data, to text. Bounded in steps, depth and what it makes.

Source: Go 1.24, text/template/exec.go, with the option missingkey=zero as Ollama sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum, auto

from .go_template_error import EXECUTION, BadTemplate, bad_template
from .go_template_functions import FUNCTIONS, METHODS, FunctionError
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
)
from .go_value import Record, Value, text_of, truth, type_name

MAX_STEPS = 500_000
"""Most statements and commands executed, and so many elements looped over."""
MAX_OUTPUT = 4 * 1024 * 1024
"""Most characters written, and most characters that functions make on the way."""
_MAX_DEPTH = 110  # of statements, brackets and calls inside one another: a few frames of Python each


def execute(tree: Tree, data: Value, *, today: date) -> str:
    """What `tree` writes about `data`.

    Raises: BadTemplate, where the data has not what the template asks for, or it takes too much.
    """
    execution = _Execution(tree, today)
    try:
        execution.body(tree.body, data, _Scope([_Binding("$", data)]))
    except RecursionError:
        raise bad_template(tree.text, EXECUTION, "nested too deeply", 0) from None
    return "".join(execution.parts)


class _Next(Enum):
    """What comes after a statement."""

    GO_ON = auto()
    BREAK = auto()
    CONTINUE = auto()


@dataclass(slots=True)
class _Binding:
    name: str
    value: Value


class _Scope:
    """The variables in view, innermost last."""

    __slots__ = ("bindings",)

    def __init__(self, bindings: list[_Binding]) -> None:
        self.bindings = bindings

    def find(self, name: str) -> _Binding:
        return next(binding for binding in reversed(self.bindings) if binding.name == name)

    def declare(self, name: str, value: Value) -> None:
        self.bindings.append(_Binding(name, value))


_NOTHING = object()  # no value is piped in


class _Execution:
    def __init__(self, tree: Tree, today: date) -> None:
        self.tree = tree
        self.today = today
        self.parts: list[str] = []
        self.written = self.made = self.steps = self.depth = 0

    # ---- Limits and errors

    def wrong(self, message: str, at: int) -> BadTemplate:
        return bad_template(self.tree.text, EXECUTION, message, at)

    def step(self, at: int, count: int = 1) -> None:
        self.steps += count
        if self.steps > MAX_STEPS:
            raise self.wrong(f"takes too long: more than {MAX_STEPS:,} steps", at)

    def descend(self, at: int) -> None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.wrong("nested too deeply", at)

    def write(self, text: str, at: int) -> None:
        self.written += len(text)
        if self.written > MAX_OUTPUT:
            raise self.wrong(f"writes too much: more than {MAX_OUTPUT:,} characters", at)
        self.parts.append(text)

    def count_made(self, value: Value, at: int) -> None:
        """What functions make stays bounded in sum, whatever becomes of it."""
        if isinstance(value, str):
            self.made += len(value)
            if self.made > MAX_OUTPUT:
                raise self.wrong(f"makes too much text: more than {MAX_OUTPUT:,} characters", at)
        elif isinstance(value, list):
            self.step(at, len(value) // 32)

    # ---- Statements

    def body(self, body: Body, dot: Value, scope: _Scope) -> _Next:
        """Executes `body`; what it declares is forgotten after it."""
        count = len(scope.bindings)
        following = _Next.GO_ON
        for statement in body:
            self.step(statement.at)
            following = self.statement(statement, dot, scope)
            if following is not _Next.GO_ON:
                break
        del scope.bindings[count:]
        return following

    def statement(self, statement: Statement, dot: Value, scope: _Scope) -> _Next:
        match statement:
            case Text(at, text):
                self.write(text, at)
            case Action(at, pipeline):
                value = self.pipeline(pipeline, dot, scope)
                if not pipeline.variables:
                    self.write("<no value>" if value is None else text_of(value), at)
            case If() | With() | Range() | Call():
                self.descend(statement.at)
                count = len(scope.bindings)
                following = self.block(statement, dot, scope)
                del scope.bindings[count:]
                self.depth -= 1
                return following
            case Break():
                return _Next.BREAK
            case Continue():
                return _Next.CONTINUE
        return _Next.GO_ON

    def block(self, statement: If | With | Range | Call, dot: Value, scope: _Scope) -> _Next:
        match statement:
            case If(_, branches, otherwise) | With(_, branches, otherwise):
                for pipeline, body in branches:
                    value = self.pipeline(pipeline, dot, scope)
                    if truth(value):
                        return self.body(body, value if isinstance(statement, With) else dot, scope)
                return self.body(otherwise, dot, scope)
            case Range():
                return self.range(statement, dot, scope)
            case Call(at, name, pipeline_):
                value = None if pipeline_ is None else self.pipeline(pipeline_, dot, scope)
                body_ = self.tree.defined.get(name)
                if body_ is None:
                    raise self.wrong(f"template {name!r} not defined", at)
                self.body(body_, value, _Scope([_Binding("$", value)]))
        return _Next.GO_ON

    def range(self, statement: Range, dot: Value, scope: _Scope) -> _Next:
        pipeline = statement.pipeline
        value = self.pipeline(pipeline, dot, scope, bind=False)
        pairs = self.pairs(value, statement.at)
        is_empty = True
        count = len(scope.bindings)
        for key, item in pairs:
            is_empty = False
            self.step(statement.at)
            self.bind_range(pipeline, key, item, scope, isinstance(value, int))
            following = self.body(statement.body, item, scope)
            del scope.bindings[count:]
            if following is _Next.BREAK:
                break
        return self.body(statement.otherwise, dot, scope) if is_empty else _Next.GO_ON

    def pairs(self, value: Value, at: int) -> Iterable[tuple[Value, Value]]:
        match value:
            case None:
                return ()
            case bool():
                pass
            case int():
                return ((i, i) for i in range(value))
            case list():
                return enumerate(value)
            case dict():
                return sorted(value.items())
        raise self.wrong(f"range can't iterate over a value of type {type_name(value)}", at)

    def bind_range(self, pipeline: Pipeline, key: Value, item: Value, scope: _Scope, is_count: bool) -> None:
        names = pipeline.variables
        values = (key, item) if len(names) == 2 else (item,)
        for name, value in zip(names, values, strict=False):
            if pipeline.declares:
                scope.declare(name, value)
            else:
                scope.find(name).value = value

    # ---- Values

    def pipeline(self, pipeline: Pipeline, dot: Value, scope: _Scope, *, bind: bool = True) -> Value:
        value: Value = _NOTHING
        for command in pipeline.commands:
            value = self.command(command, dot, scope, value)
        if bind:
            for name in pipeline.variables:
                if pipeline.declares:
                    scope.declare(name, value)
                else:
                    scope.find(name).value = value
        return value

    def command(self, command: Command, dot: Value, scope: _Scope, piped: Value) -> Value:
        self.step(command.at)
        first = command.operands[0]
        if isinstance(first, Function):
            return self.function(first, command.operands[1:], dot, scope, piped)
        if len(command.operands) > 1 or piped is not _NOTHING:
            raise self.wrong("only a function takes arguments", first.at)
        return self.operand(first, dot, scope)

    def operand(self, operand: Operand, dot: Value, scope: _Scope) -> Value:
        match operand:
            case Dot():
                return dot
            case Nil():
                return None
            case Literal(_, value):
                return value
            case Field(at, names):
                return self.fields(dot, names, at)
            case Variable(at, name, names):
                return self.fields(scope.find(name).value, names, at)
            case Function():
                return self.function(operand, (), dot, scope, _NOTHING)
            case Chain(at, inner, names):
                return self.fields(self.operand(inner, dot, scope), names, at)
            case Pipeline(at):
                self.descend(at)
                value = self.pipeline(operand, dot, scope)
                self.depth -= 1
                return value
        raise AssertionError(operand)

    def fields(self, value: Value, names: Sequence[str], at: int) -> Value:
        for name in names:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, Record) and name in value.fields:
                value = value.fields[name]
            elif isinstance(value, Record) and name in METHODS:
                value = METHODS[name](value)
                self.count_made(value, at)
            elif value is None:
                raise self.wrong(f"nil pointer evaluating .{name}", at)
            else:
                raise self.wrong(f"can't evaluate field {name} in type {type_name(value)}", at)
        return value

    def function(
        self, function: Function, operands: Sequence[Operand], dot: Value, scope: _Scope, piped: Value
    ) -> Value:
        builtin = FUNCTIONS[function.name]
        count = len(operands) + (piped is not _NOTHING)
        if count < builtin.least or (builtin.most is not None and count > builtin.most):
            wanted = str(builtin.least) if builtin.most == builtin.least else f"at least {builtin.least}"
            if builtin.most is not None and count > builtin.most:
                wanted = str(builtin.most)
            message = f"wrong number of arguments for {function.name}: want {wanted}, got {count}"
            raise self.wrong(message, function.at)
        if function.name in ("and", "or"):
            return self.and_or(function.name, operands, dot, scope, piped)
        values = [self.operand(operand, dot, scope) for operand in operands]
        if piped is not _NOTHING:
            values.append(piped)
        try:
            value = builtin.call(values, self.today)
        except FunctionError as error:
            raise self.wrong(f"error calling {function.name}: {error}", function.at) from None
        self.count_made(value, function.at)
        return value

    def and_or(
        self, name: str, operands: Sequence[Operand], dot: Value, scope: _Scope, piped: Value
    ) -> Value:
        value: Value = None
        for operand in operands:
            value = self.operand(operand, dot, scope)
            if truth(value) is (name == "or"):
                return value
        return value if piped is _NOTHING else piped
