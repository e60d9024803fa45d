"""`parse`: the text of a Modelfile to its instructions, or to all of its problems.

The language is described in modelfile.lark. What is accepted and what it means is a superset of Ollama: a
file that Ollama accepts means the same here. Known departures, where Ollama accepts and we do not: text that
is not valid UTF-8, more than 16 MiB, more than 100,000 instructions, parameter values NaN and Inf, and values
of the mirostat parameters, which Ollama ignores, that are no numbers.

`PARAMETER system x` is SYSTEM x, for `system` and the other keywords below: Ollama keeps keywords and
parameters in one namespace, and files may rely on it. The linter says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from .diagnostics import Diagnostic, ModelfileError, Span
from .grammar import Statement, Word, read_statements
from .instructions import (
    Adapter,
    Arg,
    Check,
    Comment,
    Copy,
    Draft,
    From,
    Instruction,
    Label,
    License,
    Message,
    MessageRole,
    Modelfile,
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Template,
    Test,
)
from .mistakes import KEYWORDS, ROLES, Mistake, bad_role, explain, found_text, unclosed, unknown_parameter
from .parameters import PARAMETERS
from .problems import Code
from .references import references
from .source import Source
from .validity import flaw_of
from .words import name_of, path_of, value_of, written

__all__ = [
    "KEYWORDS",
    "Adapter",
    "Arg",
    "Comment",
    "Copy",
    "Draft",
    "From",
    "Instruction",
    "Label",
    "License",
    "Message",
    "Modelfile",
    "Parameter",
    "Parser",
    "Renderer",
    "Requires",
    "System",
    "Template",
    "Test",
    "parse",
]

MAX_PROBLEMS = 100
"""Problems reported of one file."""


def parse(text: str | bytes, *, filename: str = "Modelfile") -> Modelfile:
    """The instructions of `text`. `filename` is for diagnostics.

    Linear in the length of the text, which is bounded (source.py), and in the number of its instructions,
    which is too: roughly 50 ns a character and 12 µs an instruction.
    Raises: ModelfileError, with every problem of the file (the first 100).
    """
    return _Reading(Source.read(text, filename=filename)).modelfile()


# One value each.
_WITH_VALUE: dict[str, Callable[[str, Span], Instruction]] = {
    "from_": From,
    "template": Template,
    "system": System,
    "adapter": Adapter,
    "license": License,
    "renderer": Renderer,
    "parser": Parser,
    "draft": Draft,
    "requires": Requires,
}
# The names that PARAMETER shares with the instructions. In Ollama FROM is called `model` inside.
_KEYWORD_PARAMETERS = {"model": "from_"} | {rule: rule for rule in _WITH_VALUE if rule != "from_"}


class _TooManyProblems(Exception):
    """There is no use in reading on."""


class _Reading:
    """One file while it is read."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.instructions: list[Instruction] = []
        self.comments: list[Comment] = []
        self.problems: list[Diagnostic] = []
        self.declared: set[str] = set()
        self.may_have_from = False  # or has one

    def modelfile(self) -> Modelfile:
        statements, cut_at = read_statements(self.source.plain)
        end = 0
        try:
            for statement in statements:
                self._read_comments(end, statement.start)
                end = self._read_statement(statement)
            if cut_at is None:
                self._read_comments(end, len(self.source.text))
            self._check_whole(cut_at)
        except _TooManyProblems:
            pass
        if self.problems:
            raise ModelfileError(self.problems)
        return Modelfile(tuple(self.instructions), comments=tuple(self.comments), source=self.source)

    # ---- Problems

    def _problem(self, code: Code, message: str, start: int, end: int, hint: str | None = None) -> None:
        self.problems.append(self.source.diagnose(code, message, start, max(end, start + 1), hint=hint))
        if len(self.problems) >= MAX_PROBLEMS:
            message = f"more than {MAX_PROBLEMS} problems: only the first are reported"
            self.problems.append(self.source.diagnose(Code.TOO_LARGE, message, start, start + 1))
            raise _TooManyProblems

    def _mistake(self, mistake: Mistake, start: int) -> None:
        start += mistake.skip
        self._problem(mistake.code, mistake.message, start, start + mistake.length, mistake.hint)

    def _check_whole(self, cut_at: int | None) -> None:
        if cut_at is not None:
            self._problem(Code.TOO_LARGE, "too many instructions: expected a Modelfile", cut_at, cut_at + 1)
        elif not self.may_have_from:
            hint = "say what the model is made from, such as FROM llama3.2 or FROM ./model.gguf"
            self._problem(Code.NO_FROM, "no FROM line", 0, 1, hint)

    # ---- Statements

    def _read_statement(self, statement: Statement) -> int:
        """Takes the statement in, or its problem. Returns the offset of its end."""
        rule, start, words = statement
        last = words[-1]
        if last.kind == "REST":
            found = found_text(last)
            self._mistake(explain(rule, found), last.start)
            self.may_have_from |= re.match(r"F\w{2}M|FR\w{2}", found, re.IGNORECASE) is not None
            return last.start + len(found)
        if last.kind == "UNCLOSED":
            self._mistake(unclosed(last.text), last.start)
            self.may_have_from = True  # it may stand in what the quote has swallowed
            return last.start + len(last.text)
        text = written(last)
        end = last.start + len(text)
        instruction = self._instruction(rule, words, text, self.source.span(start, end))
        if instruction is not None:
            self._check(instruction, words)
            self.instructions.append(instruction)
        return end

    def _instruction(self, rule: str, words: tuple[Word, ...], text: str, span: Span) -> Instruction | None:
        """What the statement says; None where it has a problem that keeps it from saying anything."""
        last = words[-1]
        make = _WITH_VALUE.get(rule)
        if make is not None:
            return make(value_of(last.kind, text), span)
        name = name_of(words[0])
        match rule:
            case "parameter":
                return self._parameter(name, words, text, span)
            case "message":
                return self._message(name, words[0].start, value_of(last.kind, text), span)
            case "arg":
                return Arg(name, None if last.kind == "ARG_NAME" else value_of(last.kind, text), span)
            case "label":
                return Label(name, value_of(last.kind, text), span)
            case "copy":
                return Copy(path_of(words[0]), path_of(last), span)
            case _:
                check = cast(Check, name.lower())
                return Test(check, path_of(words[1]), value_of(last.kind, text), span)

    def _parameter(self, name: str, words: tuple[Word, ...], text: str, span: Span) -> Instruction | None:
        if name in PARAMETERS:
            return Parameter(name, value_of(words[-1].kind, text), span)
        if name in _KEYWORD_PARAMETERS:
            return self._instruction(_KEYWORD_PARAMETERS[name], words[-1:], text, span)
        if name == "message":
            # Ollama keeps a message as "role: content", and takes this for one.
            role, _, content = value_of(words[-1].kind, text).partition(": ")
            return self._message(role, words[-1].start, content, span)
        self._mistake(unknown_parameter(name), words[0].start)
        return None

    def _message(self, role: str, role_start: int, content: str, span: Span) -> Message | None:
        if role in ROLES:
            return Message(cast(MessageRole, role), content, span)
        self._mistake(bad_role(role), role_start)
        return None

    def _check(self, instruction: Instruction, words: tuple[Word, ...]) -> None:
        if type(instruction) is From:
            self.may_have_from = True
        elif type(instruction) is Arg:
            self.declared.add(instruction.name)
        if self.declared and references(instruction) & self.declared:
            return  # its values are known when it is built
        flaw = flaw_of(instruction)
        if flaw is not None:
            word = words[0] if flaw.part == "name" else words[-1]
            self._problem(flaw.code, flaw.message, word.start, word.start + len(written(word)), flaw.hint)

    # ---- Comments

    def _read_comments(self, start: int, end: int) -> None:
        """Takes in the comments between two statements."""
        plain = self.source.plain
        if plain.find("#", start, end) < 0:
            return
        block: list[str] = []
        for match in _LINE.finditer(plain, start, end):
            text = match.group().strip(" \t\xa0\r\n")
            if text.startswith("#"):
                begin = match.start() + match.group().index("#") + 1
                block.append(self.source.text[begin : begin + len(text) - 1])
            elif block:
                self.comments.append(Comment(tuple(block), len(self.instructions), detached=True))
                block = []
        if block:
            self.comments.append(Comment(tuple(block), len(self.instructions), detached=False))
        elif end > len(self.source.text) - 1 and self.comments:
            self.comments[-1] = self.comments[-1]._replace(detached=False)  # nothing follows


_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
