"""`parse`: the text of a Modelfile to its instructions, or to all of its problems.

The language is described in modelfile.lark. What is accepted and what it means is a superset of Ollama: a
file that Ollama accepts means the same here. Known departures, where Ollama accepts and we do not: text that
is not valid UTF-8, more than 16 MiB, more than 200,000 instructions, parameter values NaN and Inf, and values
of the mirostat parameters, which Ollama ignores, that are no numbers.

`PARAMETER system x` is SYSTEM x, for `system` and the other keywords below: Ollama keeps keywords and
parameters in one namespace, and files may rely on it. The linter says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import cast

from .diagnostics import Diagnostic, ModelfileError, quoted
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
from .parameters import PARAMETERS
from .problems import Code
from .references import references
from .source import INVISIBLE, Source
from .suggestion import did_you_mean
from .validity import Flaw, flaw_of

__all__ = [
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

KEYWORDS = (
    "FROM",
    "PARAMETER",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "LICENSE",
    "MESSAGE",
    "RENDERER",
    "PARSER",
    "DRAFT",
    "REQUIRES",
    "ARG",
    "LABEL",
    "COPY",
    "TEST",
)
ROLES = ("system", "user", "assistant")
MAX_PROBLEMS = 100
"""Problems reported of one file."""


def parse(text: str | bytes, *, filename: str = "Modelfile") -> Modelfile:
    """The instructions of `text`. `filename` is for diagnostics.

    Linear in the length of the text, which is bounded (source.py).
    Raises: ModelfileError, with every problem of the file (the first 100).
    """
    return _Reading(Source.read(text, filename=filename)).modelfile()


# One value each.
_WITH_VALUE: dict[str, Callable[..., Instruction]] = {
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
        self.has_from = False
        self.may_have_from = False  # in something that could not be read

    def modelfile(self) -> Modelfile:
        statements, cut_at = read_statements(self.source.plain)
        end = 0
        try:
            for statement in statements:
                self._read_comments(end, statement.start)
                end = self._read_statement(statement)
            if cut_at is None:
                self._read_comments(end, len(self.source.plain) - 1)
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

    def _check_whole(self, cut_at: int | None) -> None:
        if cut_at is not None:
            self._problem(Code.TOO_LARGE, "too many instructions: expected a Modelfile", cut_at, cut_at + 1)
        elif not self.has_from and not self.may_have_from:
            hint = "say what the model is made from, such as FROM llama3.2 or FROM ./model.gguf"
            self._problem(Code.NO_FROM, "no FROM line", 0, 1, hint)

    # ---- Statements

    def _read_statement(self, statement: Statement) -> int:
        """Takes the statement in, or its problem. Returns the offset of its end."""
        rule, start, words = statement
        if rule.startswith("broken"):
            return self._read_broken(rule, words)
        last = words[-1]
        if last.kind == "UNCLOSED":
            self._unclosed(last)
            return last.start + len(last.text)
        end = last.start + len(_trimmed(last))
        instruction = self._instruction(rule, start, words)
        if instruction is None:
            return end
        if type(instruction) is From:
            self.has_from = True
        elif type(instruction) is Arg:
            self.declared.add(instruction.name)
        self._check(instruction, words)
        self.instructions.append(instruction)
        return end

    def _instruction(self, rule: str, start: int, words: tuple[Word, ...]) -> Instruction | None:
        last = words[-1]
        span = self.source.span(start, last.start + len(_trimmed(last)))
        if rule in _WITH_VALUE:
            return _WITH_VALUE[rule](_value(last), span)
        name = _word(words[0])
        if rule == "parameter":
            return self._parameter(name, words, start)
        if rule == "message":
            return self._message(name, words[0], last, start)
        if rule == "arg":
            return Arg(name, None if last.kind == "ARG_NAME" else _value(last), span)
        if rule == "label":
            return Label(name, _value(last), span)
        if rule == "copy":
            return Copy(name, _word(last), span)
        return Test(cast(Check, name.lower()), _word(words[1]), _value(last), span)

    def _parameter(self, name: str, words: tuple[Word, ...], start: int) -> Instruction | None:
        value = words[-1]
        if name in _KEYWORD_PARAMETERS:
            return self._instruction(_KEYWORD_PARAMETERS[name], start, words[-1:])
        if name == "message":
            # Ollama keeps a message as "role: content", and takes this for one.
            role, _, content = _value(value).partition(": ")
            return self._message(role, value, value, start, content)
        return Parameter(name, _value(value), self.source.span(start, value.start + len(_trimmed(value))))

    def _message(
        self, role: str, role_word: Word, last: Word, start: int, content: str | None = None
    ) -> Message | None:
        if role not in ROLES:
            message = f"message role {quoted(role)}: expected system, user or assistant"
            hint = "roles are in lower case" if role.lower() in ROLES else did_you_mean(role, ROLES)
            self._problem(Code.BAD_ROLE, message, role_word.start, role_word.start + len(role), hint)
            return None
        text = _value(last) if content is None else content
        return Message(
            cast(MessageRole, role), text, self.source.span(start, last.start + len(_trimmed(last)))
        )

    def _check(self, instruction: Instruction, words: tuple[Word, ...]) -> None:
        if self.declared and references(instruction) & self.declared:
            return  # its values are known when it is built
        flaw = flaw_of(instruction)
        if flaw is not None:
            word = self._blamed(flaw, words)
            self._problem(
                flaw.code, flaw.message, word.start, word.start + len(_trimmed(word)), hint=flaw.hint
            )

    @staticmethod
    def _blamed(flaw: Flaw, words: tuple[Word, ...]) -> Word:
        return words[0] if flaw.part == "name" else words[-1]

    # ---- What is not the language

    def _unclosed(self, value: Word) -> None:
        self.may_have_from = True  # it may stand in what the quote has swallowed
        first_line = _first_line(value.text)
        if _is_triple(value.text):
            message = '""" is never closed: expected """ at the end of a line'
            hint = 'text after a closing """ keeps the value open' if first_line.count('"""') > 1 else None
            length = 3
        else:
            message = 'a quote is never closed: expected " at the end of a line'
            hint = 'to write quotes inside a value, put """ around the value, or nothing'
            length = 1
        self._problem(Code.UNCLOSED_QUOTE, message, value.start, value.start + length, hint)

    def _read_broken(self, rule: str, words: tuple[Word, ...]) -> int:
        rest = words[-1]
        line = _first_line(rest.text)
        end = rest.start + len(line)
        found = line.replace(INVISIBLE, " ").strip()
        getattr(self, "_" + rule)(found, rest.start, end, words)
        return end

    def _broken(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        word = re.split(r"[ \t]", found, maxsplit=1)[0]
        letters = cast(re.Match[str], re.match(r"[A-Za-z]*", word)).group()
        if word.upper() in KEYWORDS:
            self._problem(Code.MISSING_VALUE, f"{word.upper()} needs a value", start, start + len(word))
            self.may_have_from |= word.upper() == "FROM"
            return
        if letters.upper() in KEYWORDS:
            hint: str | None = f"put a space after {letters.upper()}"
        else:
            hint = did_you_mean(word, KEYWORDS)
        self.may_have_from |= hint is not None and "FROM" in hint
        if hint is None and self.instructions:
            hint = 'a value that spans lines needs """ around it'
        message = f"unknown instruction {quoted(word)}: expected one of {', '.join(KEYWORDS)}"
        self._problem(Code.UNKNOWN_INSTRUCTION, message, start, start + len(word), hint)

    def _broken_parameter(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        name = cast(re.Match[str], re.match(r"[A-Za-z0-9_-]*", found)).group()
        known = name.replace("-", "_")
        if not found:
            self._problem(Code.MISSING_VALUE, "PARAMETER needs a name and a value", start - 1, end)
        elif found == name and known == name:
            self._problem(Code.MISSING_VALUE, f"parameter {name} needs a value", start, end)
        elif known == name:
            message = f"expected a space after parameter {name}, got {quoted(found[len(name)])}"
            self._problem(Code.BAD_PARAMETER, message, start + len(name), start + len(name) + 1)
        else:
            message = f"unknown parameter {quoted(name)}"
            near = (
                f"did you mean {quoted(known)}?" if known in PARAMETERS else did_you_mean(known, PARAMETERS)
            )
            self._problem(Code.UNKNOWN_PARAMETER, message, start, start + len(name), near)

    def _broken_message(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        if not found:
            self._problem(Code.MISSING_VALUE, "MESSAGE needs a role and a content", start - 1, end)
        elif found in ROLES:
            self._problem(Code.MISSING_VALUE, f"MESSAGE {found} needs a content", start, end)
        else:
            role = cast(re.Match[str], re.match(r"[A-Za-z]*", found)).group()
            message = (
                f"message role {quoted(found.split()[0])}: expected system, user or assistant and a space"
            )
            self._problem(Code.BAD_ROLE, message, start + len(role), start + len(role) + 1)

    def _broken_arg(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        message = "expected ARG NAME or ARG NAME=default" + (f", got {quoted(found)}" if found else "")
        hint = "a name is letters, digits and _"
        self._problem(Code.BAD_NAME, message, start, start + len(found), hint)

    def _broken_label(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        message = "expected LABEL NAME=value" + (f", got {quoted(found)}" if found else "")
        hint = "a name is letters and digits, with . _ / and - between them"
        self._problem(Code.BAD_NAME, message, start, start + len(found), hint)

    def _broken_copy(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        message = "expected COPY SOURCE TARGET" + (f", got {quoted(found)} more" if found else "")
        hint = 'such as COPY README.md README.md; put "" around a path with spaces'
        self._problem(Code.BAD_COPY, message, start, start + len(found), hint)

    def _broken_test(self, found: str, start: int, end: int, _: tuple[Word, ...]) -> None:
        hint = 'such as TEST contains "Paris" What is the capital of France?'
        message = "expected TEST CHECK EXPECTED PROMPT"
        self._problem(Code.BAD_TEST, message, start, start + len(found), hint)

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


# ---- Words to values


def _value(word: Word) -> str:
    text = _trimmed(word)
    if word.kind == "BARE":
        return text.replace(INVISIBLE, "").strip(" \t")
    size = 3 if word.kind == "TRIPLE" else 1
    return text.replace(INVISIBLE, "")[size:-size]


def _word(word: Word) -> str:
    """The text of a word of the language: a name, a check, a path, an expectation."""
    text = word.text.replace(INVISIBLE, "").strip(" \t=" if word.kind.endswith("_EQUALS") else " \t")
    if word.kind not in ("WORD", "EXPECTED") or not text.startswith('"'):
        return text
    if word.kind == "EXPECTED" and len(text) >= 6 and text.startswith('"""') and text.endswith('"""'):
        return text[3:-3]
    return text[1:-1] if len(text) >= 2 and text.endswith('"') else text


def _trimmed(word: Word) -> str:
    """The text of a word without the blanks, the newline and the comments that follow it."""
    text = _first_line(word.text) if word.kind == "BARE" else word.text
    return text.rstrip(" \t\xa0")


def _first_line(text: str) -> str:
    return text.partition("\n")[0].partition("\r")[0]


def _is_triple(text: str) -> bool:
    return text[:4096].replace(INVISIBLE, "").startswith('"""')
