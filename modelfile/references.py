"""Where an instruction may name a build argument: the one place that says it.

``${NAME}`` stands for a build argument in every value but TEMPLATE and LICENSE (a template has a language of
its own, a licence is quoted), and only from the line after its ARG on. A file without ARG, which is every
file that Ollama accepts, is never touched. ``$${NAME}`` stands for the characters ``${NAME}``.
"""

from __future__ import annotations

import re

from .instructions import (
    Adapter,
    Arg,
    Copy,
    Draft,
    From,
    Instruction,
    Label,
    Message,
    Parameter,
    Parser,
    Renderer,
    Requires,
    System,
    Test,
)

REFERENCE = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)

FIELDS: dict[type[Instruction], tuple[str, ...]] = {
    From: ("ref",),
    Parameter: ("value",),
    System: ("text",),
    Adapter: ("ref",),
    Message: ("content",),
    Renderer: ("name",),
    Parser: ("name",),
    Draft: ("ref",),
    Requires: ("version",),
    Arg: ("default",),
    Label: ("value",),
    Copy: ("source", "target"),
    Test: ("expected", "prompt"),
}
"""The fields of each instruction that build arguments are put into."""


def references(instruction: Instruction) -> set[str]:
    """The names that `instruction` mentions as ``${NAME}`` or ``$${NAME}``, declared or not."""
    names: set[str] = set()
    for field in FIELDS.get(type(instruction), ()):
        text = getattr(instruction, field)
        if text and "${" in text:
            names.update(match.group(2) for match in REFERENCE.finditer(text))
    return names
