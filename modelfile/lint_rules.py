"""The linter's rules in code: each yields what it finds. What they mean is in lint_table.py."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from .diagnostics import NOWHERE, Span, quoted
from .go_template import BadTemplate, parse_template
from .instructions import (
    Adapter,
    Arg,
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
from .parameters import PARAMETERS, BadParameter, ParameterType, parse_value
from .references import references
from .source import is_invisible
from .suggestion import did_you_mean


class Finding(NamedTuple):
    code: str
    message: str
    span: Span = NOWHERE
    hint: str | None = None
    """In place of the rule's."""
    hides_line: bool = False
    """Whether the source line must not be printed, by no finding."""


_Finder: TypeAlias = Callable[[Modelfile], Iterator[Finding]]

# ---- Parameters


def _parameters(modelfile: Modelfile) -> Iterator[Finding]:
    for parameter in modelfile.all(Parameter):
        spec = PARAMETERS.get(parameter.name)
        if spec is None:
            continue  # not read from a text
        if spec.deprecated is not None:
            yield Finding("L001", f"parameter {spec.name} has no effect: {spec.deprecated}", parameter.span)
            continue
        if spec.type is ParameterType.STRINGS:
            if not parameter.value:
                yield Finding("L020", f"an empty {spec.name} text", parameter.span)
            continue
        try:
            value = parse_value(spec.name, parameter.value)
        except BadParameter:
            continue  # it names a build argument
        if not spec.is_sensible(value):
            message = f"{spec.name} {parameter.value}: expected {spec.range}"
            yield Finding("L003", message, parameter.span, hint=f"{spec.name}: {spec.meaning}")


def _disguised(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        if (
            not isinstance(instruction, Parameter)
            and _text(modelfile, instruction)[:9].upper() == "PARAMETER"
        ):
            keyword = type(instruction).__name__.upper()
            yield Finding("L013", f"this PARAMETER is {keyword}", instruction.span)


# ---- One instruction against another


def _overridden(modelfile: Modelfile) -> Iterator[Finding]:
    seen: dict[object, Instruction] = {}
    for instruction in modelfile:
        match instruction:
            case Parameter(name) if name != "stop":
                key: object = (Parameter, name)
                what = f"PARAMETER {name}"
            case Label(name):
                key, what = (Label, name), f"LABEL {name}"
            case Template() | System() | Adapter() | Renderer() | Parser() | Requires():
                key = type(instruction)
                what = type(instruction).__name__.upper()
            case _:
                continue
        earlier = seen.get(key)
        if earlier is not None:
            line = f" of line {instruction.span.line}" if instruction.span.line else ""
            yield Finding("L002", f"this {what} does not count: the later one{line} does", earlier.span)
        seen[key] = instruction


def _messages(modelfile: Modelfile) -> Iterator[Finding]:
    previous = None
    for message in modelfile.all(Message):
        if message.role == "system":
            continue
        if message.role == previous:
            yield Finding("L018", f"two messages of {message.role} in a row", message.span)
        elif previous is None and message.role == "assistant":
            yield Finding("L018", "the first message is the assistant's", message.span)
        previous = message.role


def _arguments(modelfile: Modelfile) -> Iterator[Finding]:
    args = modelfile.all(Arg)
    if not args:
        return  # then ${NAME} is text
    names = {arg.name for arg in args}
    used: set[str] = set()
    declared: set[str] = set()
    for instruction in modelfile:
        mentioned = references(instruction)
        used |= mentioned & declared
        for name in sorted(mentioned - declared):
            late = f"ARG {name} comes later" if name in names else None
            hint = late or did_you_mean(name, declared)
            yield Finding("L017", f"${{{name}}} is no build argument here", instruction.span, hint)
        if isinstance(instruction, Arg):
            declared.add(instruction.name)
    for arg in args:
        if arg.name not in used:
            yield Finding("L016", f"build argument {arg.name} is never used", arg.span)


# ---- FROM and paths

_FILE = re.compile(r"(?:\.{1,2}/|/|~)|.*\.(?:gguf|safetensors|bin|pth|pt)$|\.{1,2}$", re.IGNORECASE)
_ABSOLUTE = re.compile(r"/|~|[A-Za-z]:[\\/]|\\\\")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def _from(modelfile: Modelfile) -> Iterator[Finding]:
    sources = modelfile.all(From)
    for source in sources:
        if not source.ref:
            yield Finding("L006", "FROM is empty", source.span)
        elif _SCHEME.match(source.ref):
            yield Finding("L007", "FROM names a web address", source.span)
        elif not _FILE.match(source.ref) and not re.search(r"[:@$]", source.ref.rpartition("/")[2]):
            yield Finding("L023", "this FROM has no tag and no digest", source.span)
    files = [source for source in sources if not source.ref or _FILE.match(source.ref)]
    if files and len(files) < len(sources):
        model = next(source for source in sources if source not in files)
        message = "this FROM names a model, and another one files"
        yield Finding("L009", message, model.span, hint="keep either the model or the files")
    if (
        any(source.ref for source in files)
        and not modelfile.all(License)
        and not any(_is_licence(copy) for copy in modelfile.all(Copy))
    ):
        yield Finding("L010", "no LICENSE for weights from a file", files[0].span)
    for draft in modelfile.all(Draft):
        if any(_same_path(draft.ref, source.ref) for source in files):
            yield Finding("L024", "DRAFT and FROM are the same file", draft.span)


def _paths(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        match instruction:
            case From(ref) | Adapter(ref) | Draft(ref) if _ABSOLUTE.match(ref):
                yield Finding("L008", "this path exists on this machine only", instruction.span)


def _is_licence(copy: Copy) -> bool:
    return re.search(r"licen[cs]e|copying", copy.target, re.IGNORECASE) is not None


def _same_path(one: str, other: str) -> bool:
    return one.removeprefix("./") == other.removeprefix("./")


# ---- Texts


def _templates(modelfile: Modelfile) -> Iterator[Finding]:
    for template in modelfile.all(Template):
        if "{%" in template.text:  # Jinja
            names = {"messages"} if "messages" in template.text else set()
        else:
            try:
                names = set(parse_template(template.text).identifiers)
            except BadTemplate as error:
                at = error.diagnostic.span
                message = f"line {at.line} of this TEMPLATE: {error.diagnostic.message}"
                yield Finding("L005", message, template.span, error.hint)
                continue
        if not names & {"prompt", "messages"}:
            yield Finding("L004", "this TEMPLATE mentions neither .Prompt nor .Messages", template.span)


def _systems(modelfile: Modelfile) -> Iterator[Finding]:
    for system in modelfile.all(System):
        if not system.text:
            yield Finding("L019", "this SYSTEM is empty", system.span)


def _labels(modelfile: Modelfile) -> Iterator[Finding]:
    for label in modelfile.all(Label):
        more = re.search(r"\s([A-Za-z0-9._/-]{1,64})=", label.value[:4096])
        if more:
            message = f"{quoted(more.group(1) + '=')} is part of the value of LABEL {label.name}"
            yield Finding("L021", message, label.span)


def _comments_in_values(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        match instruction:
            case Parameter("stop") | Message() | System() | Template() | License() | Test():
                continue  # texts, where # is at home
            case Parameter(_, value) | From(value) | Adapter(value) | Draft(value) | Label(_, value):
                if re.search(r"\s#\s", value):
                    yield Finding("L022", "the value has what looks like a comment", instruction.span)


# Each is the shape of one issuer's tokens, or a word that says what follows it is secret.
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{20,}|\bgh[pousr]_[A-Za-z0-9]{30,}|\bglpat-[A-Za-z0-9_-]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----"
    r"|\b(?:password|passwd|secret|api[_-]?key|access[_-]?token)[ \t]{0,8}[=:][ \t]{0,8}[^\s\"'${}]{8,}"
    r"|://[^\s/:@]{1,256}:[^\s/@]{1,256}@",
    re.IGNORECASE,
)


def _secrets(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        named = isinstance(instruction, Arg | Label) and _SECRET_NAME.search(instruction.name) is not None
        value = getattr(instruction, "default" if isinstance(instruction, Arg) else "value", None)
        if (named and value) or any(_SECRET.search(text) for text in _values(instruction)):
            keyword = type(instruction).__name__.upper()
            yield Finding(
                "L011", f"the value of this {keyword} looks like a secret", instruction.span, hides_line=True
            )


_SECRET_NAME = re.compile(r"password|passwd|secret|api[_-]?key|token$", re.IGNORECASE)


def _values(instruction: Instruction) -> Iterator[str]:
    match instruction:
        case Arg(_, default):
            yield default or ""
        case Parameter(_, value) | Label(_, value) | Message(_, value):
            yield value
        case Test(_, expected, prompt):
            yield expected
            yield prompt
        case Copy(source, target):
            yield source
            yield target
        case Template(value) | System(value) | License(value) | Renderer(value) | Parser(value):
            yield value
        case From(value) | Adapter(value) | Draft(value) | Requires(value):
            yield value


# ---- What only the source shows


def _invisible(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        text = _text(modelfile, instruction)
        if text.isprintable():
            continue
        dropped = {c for c in set(text) if is_invisible(c)}
        if dropped:
            names = ", ".join(sorted(_character(c) for c in dropped)[:3])
            more = ", …" if len(dropped) > 3 else ""
            yield Finding("L012", f"dropped from this value: {names}{more}", instruction.span)


def _character(character: str) -> str:
    name = unicodedata.name(character, "control character").lower()
    return f"U+{ord(character):04X} ({name})"


_OPENING = re.compile(r'[^"\r\n]*?[ \t=]("""|")')


def _quotes(modelfile: Modelfile) -> Iterator[Finding]:
    for instruction in modelfile:
        if isinstance(instruction, Copy | Test):
            continue
        value = next(_values(instruction), "")
        opening = _OPENING.match(_text(modelfile, instruction))
        if opening and "\n" in value:
            # A closing mark in the first line of a value of several: what follows it was swallowed.
            first = value.partition("\n")[0]
            if opening.group(1) in first:
                yield Finding("L014", f"the value goes on after {opening.group(1)}", instruction.span)
        elif not opening and len(value) > 1 and value[0] == value[-1] == "'":
            yield Finding("L015", "single quotes around the value are part of it", instruction.span)
        elif '\\"' in value or ("\\n" in value and not isinstance(instruction, Template | License)):
            hint = "write line breaks as they are, in a value in triple quotes"
            yield Finding("L015", "a backslash is text here, not an escape", instruction.span, hint)


def _text(modelfile: Modelfile, instruction: Instruction) -> str:
    """The source of `instruction`; empty where there is none."""
    source, span = modelfile.source, instruction.span
    if source is None or not span.line:
        return ""
    return source.text[source.offset(span.line, span.column) : source.offset(span.end_line, span.end_column)]


FINDERS: tuple[_Finder, ...] = (
    _parameters,
    _disguised,
    _overridden,
    _messages,
    _arguments,
    _from,
    _paths,
    _templates,
    _systems,
    _labels,
    _comments_in_values,
    _secrets,
    _invisible,
    _quotes,
)
