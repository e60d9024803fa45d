"""What a template's names must be, beyond the grammar: functions and variables exist, loops are left in
loops.

Source: Go 1.24, text/template/parse: `Tree.useVar`, `checkPipeline`, `breakControl`.
"""

from __future__ import annotations

from .diagnostics import quoted
from .go_template_error import SYNTAX, BadTemplate, bad_template
from .go_template_functions import FUNCTIONS
from .go_template_tree import (
    Body,
    Break,
    Call,
    Chain,
    Continue,
    Dot,
    Function,
    If,
    Literal,
    Nil,
    Pipeline,
    Range,
    Statement,
    Tree,
    Variable,
    With,
    pipelines_of,
)
from .suggestion import did_you_mean

MAX_VARIABLES = 256
"""Most variables in view at one place."""


def check_scopes(tree: Tree) -> None:
    """Raises: BadTemplate."""
    checker = _Checker(tree.text)
    for body in (tree.body, *tree.defined.values()):
        checker.body(body, ["$"], in_range=False)


class _Checker:
    def __init__(self, text: str) -> None:
        self.text = text

    def wrong(self, message: str, at: int, length: int = 1, hint: str | None = None) -> BadTemplate:
        return bad_template(self.text, SYNTAX, message, at, length, hint)

    def body(self, body: Body, variables: list[str], *, in_range: bool) -> None:
        """Checks `body`; what it declares is dropped from `variables` again."""
        count = len(variables)
        for statement in body:
            self.statement(statement, variables, in_range)
        del variables[count:]

    def statement(self, statement: Statement, variables: list[str], in_range: bool) -> None:
        if isinstance(statement, Break | Continue):
            if not in_range:
                word = type(statement).__name__.lower()
                raise self.wrong(f"{{{{{word}}}}} outside of {{{{range}}}}", statement.at, 2)
            return
        count = len(variables)
        for pipeline in pipelines_of(statement):
            if len(pipeline.variables) > (2 if isinstance(statement, Range) else 1):
                raise self.wrong("two variables can only be declared by {{range}}", pipeline.at)
            self.pipeline(pipeline, variables)
        match statement:
            case If() | With():
                for _, body in statement.branches:
                    self.body(body, variables, in_range=in_range)
                self.body(statement.otherwise, variables, in_range=in_range)
            case Range():
                self.body(statement.body, variables, in_range=True)
                self.body(statement.otherwise, variables, in_range=in_range)
            case Call(block=block) if block is not None:
                pass  # defined on its own, and checked there
            case _:
                return  # what an action declares stays to the end of its body
        del variables[count:]

    def pipeline(self, pipeline: Pipeline, variables: list[str]) -> None:
        for index, command in enumerate(pipeline.commands):
            for operand in command.operands:
                inner = operand.operand if isinstance(operand, Chain) else operand
                if isinstance(inner, Pipeline):
                    if len(inner.variables) > 1:
                        raise self.wrong("two variables can only be declared by {{range}}", inner.at)
                    self.pipeline(inner, variables)
                elif isinstance(inner, Function) and inner.name not in FUNCTIONS:
                    hint = did_you_mean(inner.name, FUNCTIONS)
                    raise self.wrong(
                        f"function {quoted(inner.name)} not defined", inner.at, len(inner.name), hint
                    )
                elif isinstance(inner, Variable) and inner.name not in variables:
                    raise self.wrong(f"undefined variable {quoted(inner.name)}", inner.at, len(inner.name))
            first = command.operands[0]
            if isinstance(first, Nil):
                raise self.wrong("nil is not a command", first.at, 3)
            if index and isinstance(first, Dot | Literal | Pipeline):
                raise self.wrong("a command after | must be a function or a field", first.at)
        if not pipeline.declares:
            for name in pipeline.variables:
                if name not in variables:
                    raise self.wrong(f"undefined variable {quoted(name)}", pipeline.at)
        else:
            variables.extend(pipeline.variables)
            if len(variables) > MAX_VARIABLES:
                raise self.wrong(f"too many variables: expected at most {MAX_VARIABLES}", pipeline.at)
