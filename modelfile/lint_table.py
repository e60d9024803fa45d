"""The linter's rules in words: the table that the linter and the documentation share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .diagnostics import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One row of the table. A code is stable: it is never given another meaning."""

    code: str
    severity: Severity
    meaning: str
    why: str
    hint: str | None = None


_WARNING, _NOTE = Severity.WARNING, Severity.NOTE


def _rule(code: str, severity: Severity, meaning: str, why: str, hint: str | None = None) -> Rule:
    return Rule(code=code, severity=severity, meaning=meaning, why=why, hint=hint)


_TABLE = (
    _rule(
        "L001",
        _WARNING,
        "a parameter has no effect",
        "Ollama once had it, accepts it, and ignores it; so does Lading.",
        "remove the line",
    ),
    _rule(
        "L002",
        _WARNING,
        "an instruction is overridden by a later one",
        "Of most instructions only the last counts; the earlier one does nothing.",
        "remove the one that does not count",
    ),
    _rule(
        "L003",
        _WARNING,
        "a parameter's value is outside the sensible range",
        "It is accepted, as Ollama accepts it, and does something other than its author may expect.",
    ),
    _rule(
        "L004",
        _WARNING,
        "a TEMPLATE never puts the user's text in",
        "Without .Prompt or .Messages the model does not see what it is asked.",
    ),
    _rule(
        "L005",
        _WARNING,
        "a TEMPLATE is not a valid Go template",
        "Building with it fails.",
    ),
    _rule(
        "L006",
        _WARNING,
        "FROM is empty",
        "It then means the directory of the Modelfile, which is rarely meant.",
        "write FROM . to mean the directory",
    ),
    _rule(
        "L007",
        _WARNING,
        "FROM names a web address",
        "FROM takes a model's reference or a path; an address is read as a strange reference.",
        "leave the scheme out: hf.co/organisation/repository:Q4_K_M",
    ),
    _rule(
        "L008",
        _NOTE,
        "a path exists on this machine only",
        "An absolute path, or one from a home directory, builds nowhere else.",
        "use a path relative to the Modelfile",
    ),
    _rule(
        "L009",
        _WARNING,
        "FROM mixes a model and files",
        "Several FROM are for the files of one model; Ollama ignores the files here without a word.",
    ),
    _rule(
        "L010",
        _NOTE,
        "weights from a file come without a LICENSE",
        "Whoever pulls the model cannot know what they may do with it.",
        'add LICENSE """…""" or COPY the licence',
    ),
    _rule(
        "L011",
        _WARNING,
        "a value looks like a secret",
        "Everything in a Modelfile is readable by everyone who pulls the model.",
        "remove it, and have it revoked if it was ever pushed",
    ),
    _rule(
        "L012",
        _WARNING,
        "a value has characters that are dropped",
        "Characters that do not print, such as no-break spaces and zero-width joiners, are dropped "
        "from values, as Ollama drops them.",
    ),
    _rule(
        "L013",
        _WARNING,
        "PARAMETER is used for another instruction",
        "Ollama reads PARAMETER system as SYSTEM, and so does Lading.",
        "write the instruction itself",
    ),
    _rule(
        "L014",
        _WARNING,
        "a quoted value goes on after its closing quotes",
        "Quotes close a value only at the end of a line; otherwise they are text and the value goes on.",
        "put the closing quotes at the end of the line",
    ),
    _rule(
        "L015",
        _WARNING,
        "a value has quotes that are kept",
        "Only double quotes around the whole value are taken off; there are no single quotes and no escapes.",
    ),
    _rule(
        "L016",
        _WARNING,
        "an ARG is never used",
        "Giving it a value changes nothing.",
        "remove it, or use it as ${NAME} after its ARG",
    ),
    _rule(
        "L017",
        _WARNING,
        "a reference names no ARG declared before it",
        "It is text then, and stays as it is.",
    ),
    _rule(
        "L018",
        _NOTE,
        "messages do not alternate between user and assistant",
        "Most chat templates expect that they do; some refuse anything else.",
    ),
    _rule(
        "L019",
        _WARNING,
        "an empty SYSTEM has no effect",
        "The base model's system message stays; there is no way to clear it.",
        "remove the line, or write a system message",
    ),
    _rule(
        "L020",
        _WARNING,
        "a stop text is empty",
        "An empty text is found everywhere, or never heeded.",
        "remove the line",
    ),
    _rule(
        "L021",
        _WARNING,
        "a LABEL looks like several",
        "A LABEL is one name and one value; the rest of the line is part of the value.",
        "write one LABEL a line",
    ),
    _rule(
        "L022",
        _WARNING,
        "a comment is part of a value",
        "A # starts a comment only at the start of a line.",
        "put the comment on a line of its own",
    ),
    _rule(
        "L023",
        _NOTE,
        "FROM names a model without tag and digest",
        "The name can mean another model tomorrow; a digest cannot.",
        "add a tag, or the digest: name@sha256:…",
    ),
    _rule(
        "L024",
        _WARNING,
        "DRAFT and FROM are the same file",
        "A model that drafts for itself gains nothing; Ollama refuses it.",
    ),
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.code: rule for rule in _TABLE})
"""Every rule, by code."""
