"""What can go wrong when a model is built from a valid Modelfile.

InputError
└── BuildError               an instruction cannot be carried out
    ├── SourceNotFound       FROM, ADAPTER, DRAFT or COPY names a file that is not there
    ├── InsecurePath         a path leads out of the folder that it must stay in
    └── NeedsConversion      the weights are in another format than GGUF
"""

from __future__ import annotations

from ...modelfile.errors import InputError
from ...modelfile.formatter import format_instruction
from ...modelfile.instructions import Instruction
from ..errors import quoted


class BuildError(InputError):
    """An instruction cannot be carried out. ``line`` is where it stands in the Modelfile, 0 if not known."""

    def __init__(self, instruction: Instruction | None, reason: str, *, hint: str | None = None) -> None:
        self.line = instruction.span.line if instruction is not None else 0
        where = f"Modelfile, line {self.line}: " if self.line else ""
        what = f"{_shown(instruction)}: " if instruction is not None else ""
        super().__init__(f"{where}{what}{reason}", hint=hint)


class SourceNotFound(BuildError):
    """A local file that an instruction names does not exist."""


class InsecurePath(BuildError):
    """A path leads, through a symbolic link, out of the folder it must stay in."""


class NeedsConversion(BuildError):
    """The weights are not in GGUF format."""


def _shown(instruction: Instruction) -> str:
    """The instruction on one line: its keyword and the start of its values."""
    text = format_instruction(instruction).strip()
    line, newline, _ = text.partition("\n")
    shown = quoted(line, limit=120)[1:-1]
    return shown + "…" if newline else shown
