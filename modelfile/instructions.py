"""The instructions of a Modelfile: its syntax tree.

Two instructions are equal where they say the same, wherever they stand: spans take no part. Values are as the
author meant them: quotes taken off, invisible characters dropped, ``${NAME}`` not yet replaced
(arguments.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias, TypeVar

from .diagnostics import NOWHERE, Span
from .source import Source

MessageRole: TypeAlias = Literal["system", "user", "assistant"]
Check: TypeAlias = Literal["contains", "excludes", "equals", "matches"]


@dataclass(frozen=True, slots=True)
class From:
    """What the model is made from: a model's reference, or a path. Empty: the directory of the Modelfile."""

    ref: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting; `value` is text, checked against its type but for ``${NAME}`` (parameters.py)."""

    name: str
    value: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Template:
    """A Go text/template; the last one counts."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class System:
    """The default system message; the last one counts; empty: the base model's stays."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter's path; the last one counts."""

    ref: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class License:
    """The text of a licence; all count, and add to the base model's."""

    text: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that every chat begins with; all count, and replace the base model's."""

    role: MessageRole
    content: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Renderer:
    """The name of a built-in prompt renderer; the last one counts."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Parser:
    """The name of a built-in output parser; the last one counts."""

    name: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Draft:
    """The path of a draft model for speculative decoding; there can be one."""

    ref: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Requires:
    """The least version that runs the model: a semantic version, with or without `v`; the last one counts."""

    version: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Arg:
    """A build argument, from here on ``${name}``; `default` None: the build must give it a value."""

    name: str
    default: str | None = None
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Label:
    """A name and value that go with the artifact; the last of one name counts."""

    name: str
    value: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file or directory that goes into the artifact: documentation, a model card. Both are relative POSIX
    paths without ``..``: `source` to the build context, `target` to the artifact's root."""

    source: str
    target: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Test:
    """An assertion on what the model answers to `prompt`, at temperature 0."""

    check: Check
    expected: str
    prompt: str
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    __test__ = False  # not a test case to collect


Instruction: TypeAlias = (
    From
    | Parameter
    | Template
    | System
    | Adapter
    | License
    | Message
    | Renderer
    | Parser
    | Draft
    | Requires
    | Arg
    | Label
    | Copy
    | Test
)

_Kind = TypeVar("_Kind", bound=Instruction)


class Comment(NamedTuple):
    """A block of comment lines, for the formatter."""

    lines: tuple[str, ...]
    """Each without its `#` and without blanks at its end."""
    before: int
    """Index of the instruction that follows; the number of instructions at the end of the file."""
    detached: bool
    """Whether blank lines part it from what follows."""


@dataclass(frozen=True, slots=True)
class Modelfile:
    """A Modelfile that exists is valid, but for what depends on build arguments."""

    instructions: tuple[Instruction, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)
    source: Source | None = field(default=None, compare=False, repr=False)
    """The text it was read from, for the linter's carets."""

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def all(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """The instructions of one kind, in order."""
        return tuple(i for i in self.instructions if isinstance(i, kind))

    def last(self, kind: type[_Kind]) -> _Kind | None:
        """The instruction of one kind that counts, where only the last does."""
        return next((i for i in reversed(self.instructions) if isinstance(i, kind)), None)
