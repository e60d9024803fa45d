"""Build arguments: ARG and ``${NAME}``. Where they may stand is in references.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from re import Match
from typing import Any, cast

from .diagnostics import Diagnostic, ModelfileError, Severity, quoted
from .instructions import Arg, Instruction, Modelfile
from .problems import Code
from .references import FIELDS, REFERENCE, references
from .source import visible
from .suggestion import did_you_mean
from .validity import flaw_of


def substitute(modelfile: Modelfile, given: Mapping[str, str]) -> Modelfile:
    """`modelfile` with a value for each build argument, and without ARG. `given` counts before the defaults.

    A value is put in as it is: it is not itself searched for references, except that the default of an ARG
    may name arguments declared before it. Characters that a Modelfile cannot hold are dropped from given
    values.

    Raises: ModelfileError, with all problems: an argument that no ARG declares, one without a value, and
    values that are not what their instruction needs.
    """
    return _Substitution(modelfile, given).result()


class _Substitution:
    def __init__(self, modelfile: Modelfile, given: Mapping[str, str]) -> None:
        self.modelfile = modelfile
        self.given = given
        self.values: dict[str, str | None] = {}
        self.problems: list[Diagnostic] = []

    def result(self) -> Modelfile:
        declared = {arg.name for arg in self.modelfile.all(Arg)}
        for name in self.given:
            if name not in declared:
                message = f"build argument {quoted(name)} is not declared by any ARG"
                self._problem(Code.BAD_ARGUMENT, message, hint=did_you_mean(name, declared))
        kept: list[Instruction] = []
        moved = {0: 0}  # index of an instruction before -> after
        for index, instruction in enumerate(self.modelfile):
            if isinstance(instruction, Arg):
                self._declare(instruction)
            else:
                kept.append(self._replace(instruction))
            moved[index + 1] = len(kept)
        if self.problems:
            raise ModelfileError(self.problems)
        comments = tuple(c._replace(before=moved[c.before]) for c in self.modelfile.comments)
        return replace(self.modelfile, instructions=tuple(kept), comments=comments)

    def _declare(self, arg: Arg) -> None:
        if arg.name in self.given:
            self.values[arg.name] = visible(self.given[arg.name])
            return
        if arg.default is None:
            hint = f"give it a value when building, or a default here: ARG {arg.name}=…"
            self._problem(Code.BAD_ARGUMENT, f"build argument {arg.name} has no value", arg, hint)
        self.values[arg.name] = None if arg.default is None else self._put_in(arg.default)

    def _replace(self, instruction: Instruction) -> Instruction:
        names = references(instruction) & self.values.keys()
        if not names:
            return instruction
        fields = {field: self._put_in(getattr(instruction, field)) for field in FIELDS[type(instruction)]}
        result = cast(Instruction, replace(cast(Any, instruction), **fields))
        flaw = flaw_of(result)
        if flaw is not None and all(self.values[name] is not None for name in names):
            self._problem(flaw.code, flaw.message, instruction, flaw.hint)
        return result

    def _put_in(self, text: str) -> str:
        def value(match: Match[str]) -> str:
            escape, name = match.groups()
            if name not in self.values:
                return match.group()
            return match.group()[1:] if escape else self.values[name] or ""

        return REFERENCE.sub(value, text) if "${" in text else text

    def _problem(
        self, code: Code, message: str, at: Instruction | None = None, hint: str | None = None
    ) -> None:
        source = self.modelfile.source
        error = Severity.ERROR
        if at is not None and at.span.line and source is not None:
            self.problems.append(source.diagnose_at(code.value, message, at.span, hint=hint, severity=error))
        else:
            self.problems.append(Diagnostic(code=code.value, severity=error, message=message, hint=hint))
