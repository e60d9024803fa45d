"""What the text of a template tells about its model, and where a response goes in it.

Source: Ollama, template/template.go (`Identifiers`, `deleteNode`), thinking/template.go (`InferTags`),
tools/template.go (`parseTag`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .go_template_tree import (
    Action,
    Body,
    Call,
    Chain,
    Command,
    Field,
    If,
    Operand,
    Pipeline,
    Range,
    Statement,
    Text,
    Tree,
    Variable,
    With,
    bodies_of,
    operands_of,
    pipelines_of,
    statements_of,
)


def identifiers(tree: Tree) -> set[str]:
    """Every name of a field or variable, in lower case."""
    names: set[str] = set()
    for body in (tree.body, *tree.defined.values()):
        for statement in statements_of(body):
            for pipeline in pipelines_of(statement):
                for operand in operands_of(pipeline):
                    names.update(name.lower() for name in _names(operand))
    return names


def _names(operand: Operand) -> tuple[str, ...]:
    match operand:
        case Field(_, names) | Chain(_, _, names):
            return names
        case Variable(_, name, names):
            return (name, *names)
    return ()


def _mentions(pipeline: Pipeline, name: str) -> bool:
    return any(name in _names(operand) for operand in operands_of(pipeline))


# ---- Thinking


def thinking_tags(tree: Tree) -> tuple[str, str] | None:
    """The texts at the two ends of the body that writes ``.Thinking``, in a loop over the messages."""
    found: list[tuple[str, str]] = []
    for body in (tree.body, *tree.defined.values()):
        _find_thinking(body, False, found)
    opening = next((tags[0] for tags in reversed(found) if tags[0]), "")
    closing = next((tags[1] for tags in reversed(found) if tags[1]), "")
    return (opening, closing) if opening and closing else None


def _find_thinking(body: Body, in_messages: bool, found: list[tuple[str, str]]) -> None:
    for statement in body:
        if in_messages and any(_mentions(pipeline, "Thinking") for pipeline in pipelines_of(statement)):
            first, last = body[0], body[-1]
            found.append(
                (
                    first.text.strip() if isinstance(first, Text) else "",
                    last.text.strip() if isinstance(last, Text) else "",
                )
            )
        inside = _mentions(statement.pipeline, "Messages") if isinstance(statement, Range) else in_messages
        for inner in bodies_of(statement):
            _find_thinking(inner, inside, found)


# ---- Tool calls


def tool_call_tag(tree: Tree) -> str:
    """The text that comes first where tool calls are written, up to a ``{``; ``{`` where there is none."""
    for body in (tree.body, *tree.defined.values()):
        for statement in statements_of(body):
            if not isinstance(statement, If):
                continue
            for pipeline, inner in statement.branches:
                if _mentions(pipeline, "ToolCalls"):
                    text = (_first_text(inner) or "").partition("{")[0].strip()
                    return text or "{"
    return "{"


def _first_text(body: Body) -> str | None:
    """The first text of `body` that is not blank; empty where an action comes before any; None: neither."""
    for statement in body:
        if isinstance(statement, Text):
            if statement.text.strip():
                return statement.text
        elif isinstance(statement, Action):
            return ""
        else:
            for inner in bodies_of(statement):
                found = _first_text(inner)
                if found is not None:
                    return found
    return None


# ---- The cut


def cut_after_response(tree: Tree) -> Tree:
    """`tree` without all that comes after the first mention of the response in the order of the text. The
    mention stays; conditions of blocks are not looked at."""
    return replace(tree, body=_Cut().body(tree.body))


class _Cut:
    def __init__(self) -> None:
        self.done = False

    def body(self, body: Body) -> Body:
        kept: list[Statement] = []
        for statement in body:
            if self.done:
                break
            kept.append(self.statement(statement))
        return tuple(kept)

    def statement(self, statement: Statement) -> Statement:
        match statement:
            case Action(pipeline=pipeline):
                return replace(statement, pipeline=self.pipeline(pipeline))
            case If() | With():
                # A condition stays: it is what decides whether the rest is written.
                branches = tuple((pipeline, self.body(body)) for pipeline, body in statement.branches)
                changed: Any = replace(statement, branches=branches, otherwise=self.body(statement.otherwise))
                return changed  # type: ignore[no-any-return]
            case Range():
                return replace(
                    statement, body=self.body(statement.body), otherwise=self.body(statement.otherwise)
                )
            case Call(pipeline=pipeline) if pipeline is not None and _mentions(pipeline, "Response"):
                self.done = True
        return statement

    def pipeline(self, pipeline: Pipeline) -> Pipeline:
        """Within an action what follows the mention goes too: ``{{ .Response .Other }}``."""
        commands: list[Command] = []
        for command in pipeline.commands:
            if self.done:
                break
            operands: list[Operand] = []
            for operand in command.operands:
                if self.done:
                    break
                operands.append(operand)
                self.done = "Response" in _names(operand) or (
                    isinstance(operand, Pipeline) and _mentions(operand, "Response")
                )
            commands.append(replace(command, operands=tuple(operands)))
        return replace(pipeline, commands=tuple(commands))
