"""The canonical form of a Modelfile: `parse(format_modelfile(m)) == m`.

Instructions keep their order. Keywords are in capitals, one space parts words, a value is quoted only where
it must be. A blank line stands between instructions of different kinds and around values of several lines.
Comments stay where they are; lines end in LF.
"""

from __future__ import annotations

from .diagnostics import quoted
from .errors import InputError
from .instructions import (
    Adapter,
    Arg,
    Comment,
    Copy,
    Draft,
    From,
    Instruction,
    Label,
    License,
    Message,
    Modelfile,
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Template,
    Test,
)
from .quoting import quote_expectation, quote_path, quote_value


class UnwritableValue(InputError):
    """No Modelfile can say this value: the language has no escapes. Only values that come from elsewhere than
    a Modelfile are affected: those that hold an invisible character, or \"\"\" at the end of a line."""

    value: str

    def __init__(self, instruction: str, value: str) -> None:
        super().__init__(
            f"writing {instruction}: expected a value that a Modelfile can hold, got {quoted(value)}",
            hint='invisible characters, and """ at the end of a line, have no form in a Modelfile',
        )
        self.value = value


def format_modelfile(modelfile: Modelfile) -> str:
    """The canonical text of `modelfile`, with a newline at its end.

    Raises: UnwritableValue. Never for a Modelfile that was parsed.
    """
    return _layout(modelfile, [format_instruction(instruction) for instruction in modelfile])


def display_modelfile(modelfile: Modelfile) -> str:
    """The same, for people to read: what cannot be written is shown as near as possible. Never raises."""
    return _layout(modelfile, [_text(instruction, exact=False) for instruction in modelfile])


def format_instruction(instruction: Instruction) -> str:
    """The canonical text of one instruction, without a newline at its end. Raises: UnwritableValue."""
    return _text(instruction, exact=True)


def _text(instruction: Instruction, *, exact: bool) -> str:
    keyword = type(instruction).__name__.upper()

    def value(text: str) -> str:
        return check(quote_value(text), text, f'"""{text}"""')

    def check(quoted_: str | None, text: str, nearest: str) -> str:
        if quoted_ is not None:
            return quoted_
        if exact:
            raise UnwritableValue(keyword, text)
        return nearest

    match instruction:
        case Parameter(name, text):
            return f"PARAMETER {name} {value(text)}"
        case Message(role, text):
            return f"MESSAGE {role} {value(text)}"
        case Arg(name, None):
            return f"ARG {name}"
        case Arg(name, str(text)) | Label(name, text):
            return f"{keyword} {name}={value(text)}"
        case Copy(source, target):
            words = [check(quote_path(path), path, f'"{path}"') for path in (source, target)]
            return f"COPY {words[0]} {words[1]}"
        case Test(test, expected, prompt):
            return f"TEST {test} {check(quote_expectation(expected), expected, expected)} {value(prompt)}"
        case From(text) | Adapter(text) | Draft(text) | Requires(text) | Renderer(text) | Parser(text):
            return f"{keyword} {value(text)}"
        case Template(text) | System(text) | License(text):
            return f"{keyword} {value(text)}"
    raise AssertionError(instruction)


def _layout(modelfile: Modelfile, texts: list[str]) -> str:
    comments: dict[int, list[Comment]] = {}
    for comment in modelfile.comments:
        comments.setdefault(comment.before, []).append(comment)
    lines: list[str] = []
    kind: type[Instruction] | None = None
    for index, (instruction, text) in enumerate(zip(modelfile, texts, strict=True)):
        group = type(instruction) if "\n" not in text else None
        apart = kind is None or group is not kind
        kind = group
        if apart or index in comments:
            _add_blank(lines)
        _add_comments(lines, comments.get(index, []))
        lines.append(text)
    if len(texts) in comments:
        _add_blank(lines)
        _add_comments(lines, comments[len(texts)])
    return "\n".join(lines).rstrip("\n") + "\n"


def _add_comments(lines: list[str], blocks: list[Comment]) -> None:
    for block in blocks:
        lines.extend("#" + line for line in block.lines)
        if block.detached:
            _add_blank(lines)


def _add_blank(lines: list[str]) -> None:
    if lines and lines[-1]:
        lines.append("")
