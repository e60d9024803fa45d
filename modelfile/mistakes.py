"""What was probably meant by text that is not the language: a function for each broken_* rule of the
grammar."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .diagnostics import quoted
from .grammar import Word
from .parameters import PARAMETERS, REMOVED
from .problems import Code
from .source import INVISIBLE
from .suggestion import did_you_mean
from .words import first_line

KEYWORDS = (
    *("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE"),
    *("RENDERER", "PARSER", "DRAFT", "REQUIRES"),
    *("ARG", "LABEL", "COPY", "TEST"),
)
ROLES = ("system", "user", "assistant")


_ELSEWHERE = {
    "ENV": "a Modelfile has no environment; ARG declares a build argument, PARAMETER sets an option",
    "ADD": "COPY puts files into the artifact",
    "RUN": "nothing is run when a model is built; TEST checks its answers",
    "CMD": "a model has no command; lading run starts it",
    "ENTRYPOINT": "a model has no command; lading run starts it",
    "PROMPT": "SYSTEM sets the system message, MESSAGE the first turns",
    "OPTION": "PARAMETER sets an option",
}
"""Instructions of other languages, and what there is instead."""


class Mistake(NamedTuple):
    code: Code
    message: str
    skip: int = 0
    """Characters from where the statement broke to where the caret belongs."""
    length: int = 1
    hint: str | None = None


def explain(rule: str, found: str) -> Mistake:
    """The mistake in `found`, the rest of a line where rule `rule` broke."""
    return _EXPLANATIONS[rule](found)


def found_text(word: Word) -> str:
    """What a REST word holds of its line."""
    return first_line(word.text).replace(INVISIBLE, " ").rstrip()


def unclosed(text: str) -> Mistake:
    """The mistake of a value whose quote is never closed; `text` starts with it."""
    first = first_line(text)
    if text[:4096].replace(INVISIBLE, "").startswith('"""'):
        message = '""" is never closed: expected """ at the end of a line'
        hint = 'text after a closing """ keeps the value open' if first.count('"""') > 1 else None
        return Mistake(Code.UNCLOSED_QUOTE, message, length=3, hint=hint)
    message = 'a quote is never closed: expected " at the end of a line'
    hint = 'to have quotes inside a value, put """ around the value'
    return Mistake(Code.UNCLOSED_QUOTE, message, hint=hint)


def bad_role(role: str) -> Mistake:
    message = f"message role {quoted(role)}: expected system, user or assistant"
    hint = "roles are in lower case" if role.lower() in ROLES else did_you_mean(role, ROLES)
    return Mistake(Code.BAD_ROLE, message, length=len(role), hint=hint)


def unknown_parameter(name: str, skip: int = 0) -> Mistake:
    hint = REMOVED.get(name) or did_you_mean(name.replace("-", "_"), PARAMETERS)
    message = f"unknown parameter {quoted(name)}"
    return Mistake(Code.UNKNOWN_PARAMETER, message, skip, len(name), hint)


def _statement(found: str) -> Mistake:
    word = re.split(r"[ \t]", found, maxsplit=1)[0]
    if word.isascii() and word.upper() in KEYWORDS:
        return Mistake(Code.MISSING_VALUE, f"{word.upper()} needs a value", length=len(word))
    keyword = _leading(r"[A-Za-z]*", word).upper()
    message = f"unknown instruction {quoted(word)}: expected one of {', '.join(KEYWORDS)}"
    if keyword in KEYWORDS:
        hint: str | None = f"put a space after {keyword}"
    else:
        hint = _ELSEWHERE.get(word.upper()) or did_you_mean(word, KEYWORDS)
    if hint is None:
        hint = 'a value that spans lines needs """ around it'
    return Mistake(Code.UNKNOWN_INSTRUCTION, message, length=len(word), hint=hint)


def _parameter(found: str) -> Mistake:
    name = _leading(r"[A-Za-z0-9_-]*", found)
    if not found:
        return Mistake(Code.MISSING_VALUE, "PARAMETER needs a name and a value")
    if "-" in name or not name:
        return unknown_parameter(name or found[0])
    if found == name:
        return Mistake(Code.MISSING_VALUE, f"parameter {name} needs a value", length=len(name))
    message = f"expected a space after parameter {name}, got {quoted(found[len(name)])}"
    return Mistake(Code.BAD_PARAMETER, message, skip=len(name))


def _message(found: str) -> Mistake:
    if not found:
        return Mistake(Code.MISSING_VALUE, "MESSAGE needs a role and a content")
    role = _leading(r"[A-Za-z]*", found)
    if role not in ROLES:
        return bad_role(role or found[0])
    if role == found:
        return Mistake(Code.MISSING_VALUE, f"MESSAGE {role} needs a content", length=len(role))
    message = f"expected a space after role {role}, got {quoted(found[len(role)])}"
    return Mistake(Code.BAD_ROLE, message, skip=len(role))


def _arg(found: str) -> Mistake:
    message = "expected ARG NAME or ARG NAME=default" + _got(found)
    return Mistake(Code.BAD_NAME, message, length=len(found), hint="a name is letters, digits and _")


def _label(found: str) -> Mistake:
    message = "expected LABEL NAME=value" + _got(found)
    hint = "a name is letters and digits, with . _ / and - between them"
    return Mistake(Code.BAD_NAME, message, length=len(found), hint=hint)


def _copy(found: str) -> Mistake:
    message = "expected COPY SOURCE TARGET" + (f", got {quoted(found)} more" if found else "")
    hint = 'such as COPY README.md README.md; put "" around a path with spaces'
    return Mistake(Code.BAD_COPY, message, length=len(found), hint=hint)


def _test(found: str) -> Mistake:
    hint = 'such as TEST contains "Paris" What is the capital of France?'
    return Mistake(Code.BAD_TEST, "expected TEST CHECK EXPECTED PROMPT", length=len(found), hint=hint)


def _got(found: str) -> str:
    return f", got {quoted(found)}" if found else ""


def _leading(pattern: str, text: str) -> str:
    match = re.match(pattern, text)
    return match.group() if match else ""


_EXPLANATIONS: dict[str, Callable[[str], Mistake]] = {
    "broken": _statement,
    "broken_parameter": _parameter,
    "broken_message": _message,
    "broken_arg": _arg,
    "broken_label": _label,
    "broken_copy": _copy,
    "broken_test": _test,
}
