"""The syntax tree of a Go template. Each node's `at` is its offset in the text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

# ---- Operands


@dataclass(frozen=True, slots=True)
class Dot:
    at: int


@dataclass(frozen=True, slots=True)
class Nil:
    at: int


@dataclass(frozen=True, slots=True)
class Literal:
    at: int
    value: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Field:
    """``.A.B``"""

    at: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``$x.A.B``; `name` includes the ``$``."""

    at: int
    name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    at: int
    name: str


@dataclass(frozen=True, slots=True)
class Chain:
    """``(…).A.B``, or a function's value's field."""

    at: int
    operand: Pipeline | Function
    names: tuple[str, ...]


Operand: TypeAlias = "Dot | Nil | Literal | Field | Variable | Function | Chain | Pipeline"


@dataclass(frozen=True, slots=True)
class Command:
    at: int
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """``$x, $y := command | command``; `declares` False: the variables are assigned to."""

    at: int
    variables: tuple[str, ...]
    declares: bool
    commands: tuple[Command, ...]


# ---- Statements


@dataclass(frozen=True, slots=True)
class Text:
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class Action:
    at: int
    pipeline: Pipeline


@dataclass(frozen=True, slots=True)
class If:
    at: int
    branches: tuple[tuple[Pipeline, Body], ...]
    otherwise: Body


@dataclass(frozen=True, slots=True)
class With:
    at: int
    branches: tuple[tuple[Pipeline, Body], ...]
    otherwise: Body


@dataclass(frozen=True, slots=True)
class Range:
    at: int
    pipeline: Pipeline
    body: Body
    otherwise: Body


@dataclass(frozen=True, slots=True)
class Call:
    """``{{template "name" pipeline}}``, or ``{{block "name" pipeline}}``, which also defines it."""

    at: int
    name: str
    pipeline: Pipeline | None
    block: Body | None = None


@dataclass(frozen=True, slots=True)
class Break:
    at: int


@dataclass(frozen=True, slots=True)
class Continue:
    at: int


Statement: TypeAlias = "Text | Action | If | With | Range | Call | Break | Continue"
Body: TypeAlias = "tuple[Statement, ...]"


def bodies_of(statement: Statement) -> Iterator[Body]:
    """The bodies inside of `statement`, in the order of the text."""
    match statement:
        case If() | With():
            for _, body in statement.branches:
                yield body
            yield statement.otherwise
        case Range():
            yield statement.body
            yield statement.otherwise
        case Call(block=block) if block is not None:
            yield block


def pipelines_of(statement: Statement) -> Iterator[Pipeline]:
    """The pipelines that stand in `statement` itself."""
    match statement:
        case If() | With():
            for pipeline, _ in statement.branches:
                yield pipeline
        case Action() | Range():
            yield statement.pipeline
        case Call(pipeline=pipeline) if pipeline is not None:
            yield pipeline


def operands_of(pipeline: Pipeline) -> Iterator[Operand]:
    """All operands of `pipeline`, those in brackets too."""
    for command in pipeline.commands:
        for operand in command.operands:
            yield operand
            inner = operand.operand if isinstance(operand, Chain) else operand
            if isinstance(inner, Pipeline):
                yield from operands_of(inner)
            elif inner is not operand:
                yield inner


def statements_of(body: Body) -> Iterator[Statement]:
    """All statements of `body`, those inside others too, in the order of the text."""
    for statement in body:
        yield statement
        for inner in bodies_of(statement):
            yield from statements_of(inner)


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed template: the body at the top and the bodies that ``define`` and ``block`` name."""

    text: str
    body: Body
    defined: dict[str, Body]
