"""What is wrong with a GGUF file: one problem, and the error that carries all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ...modelfile.errors import InputError
from ..errors import quoted as quoted_text

# A hostile file can be wrong in 65,536 places; the message stays readable.
SHOWN_PROBLEMS = 20
_SHOWN_SIZE = 400


class ProblemCode(StrEnum):
    """The class of a problem, for programs."""

    NOT_GGUF = "not_gguf"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNSUPPORTED_ARCHITECTURE = "unsupported_architecture"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    BAD_METADATA = "bad_metadata"
    BAD_TENSOR = "bad_tensor"
    BAD_LAYOUT = "bad_layout"
    BAD_VOCABULARY = "bad_vocabulary"
    BAD_SPLIT = "bad_split"
    WRONG_KIND = "wrong_kind"


@dataclass(frozen=True, slots=True)
class Problem:
    """One violated rule: where it is (``key 'x'``, ``tensor 'y'``, empty for the file) and what is wrong."""

    code: ProblemCode
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class BadGguf(InputError):
    """A file is not a GGUF file that can be loaded safely. ``problems`` holds every violation found.

    The message names the file and lists the problems, the first of them on the first line when alone.
    """

    def __init__(self, name: str, problems: Iterable[Problem], *, hint: str | None = None) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(_message(name, self.problems), hint=hint or _hint(self.codes))

    @property
    def codes(self) -> frozenset[ProblemCode]:
        return frozenset(problem.code for problem in self.problems)


_HINTS = (
    (ProblemCode.NOT_GGUF, None),  # the message says what it is instead
    (ProblemCode.TRUNCATED, "the file is not complete: get it again"),
    (ProblemCode.UNSUPPORTED_VERSION, "convert the model again with a current llama.cpp"),
    (ProblemCode.UNSUPPORTED_ARCHITECTURE, "a newer version of Lading may support it"),
    (ProblemCode.WRONG_KIND, None),
)


def _hint(codes: frozenset[ProblemCode]) -> str | None:
    """What to do, by the gravest of the problems."""
    for code, hint in _HINTS:
        if code in codes:
            return hint
    return "the file is damaged or not made by llama.cpp's tools: get it again, or convert the model again"


def quoted(text: str | bytes) -> str:
    """Text out of an untrusted file, fit for a message: one line, escaped, bounded."""
    if isinstance(text, bytes):
        text = text[:_SHOWN_SIZE].decode("utf-8", "backslashreplace")
    return quoted_text(text)


def _message(name: str, problems: tuple[Problem, ...]) -> str:
    if len(problems) == 1:
        return f"checking {name}: {problems[0]}"
    lines = [f"checking {name}: {len(problems)} problems"]
    lines += [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
