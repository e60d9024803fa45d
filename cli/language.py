"""The Modelfile as a text: ``fmt`` and ``lint``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .building import parse_modelfile
from .exit_code import ExitCode
from .output import print_json

FilesArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Modelfiles; ./Modelfile by default.")
]


def fmt(
    files: FilesArgument = None,
    write: Annotated[bool, typer.Option("--write", "-w", help="Rewrite the files in place.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a file would change.")
    ] = False,
) -> None:
    """Print Modelfiles in canonical form."""
    from ..modelfile.formatter import format_modelfile

    changed = False
    for path in files or [Path("Modelfile")]:
        modelfile, _folder = parse_modelfile(path)
        text = format_modelfile(modelfile)
        differs = str(path) == "-" or path.read_text("utf-8") != text
        changed |= differs
        if check and differs:
            print(f"{path}: not in canonical form", file=sys.stderr)
        elif write and differs:
            path.write_text(text, "utf-8")
            print(path)
        elif not check and not write:
            print(text, end="")
    if check and changed:
        raise typer.Exit(ExitCode.FAILURE)


def lint(
    files: FilesArgument = None,
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
) -> None:
    """Explain what is doubtful in Modelfiles.

    Exits with 1 if there is a warning; notes alone are no failure.
    """
    from ..modelfile.diagnostics import Severity
    from ..modelfile.linter import lint as lint_modelfile

    found = []
    for path in files or [Path("Modelfile")]:
        modelfile, _folder = parse_modelfile(path)
        found += [(path, diagnostic) for diagnostic in lint_modelfile(modelfile)]
    if form == "json":
        print_json(
            [
                {
                    "file": str(path),
                    "line": diagnostic.span.line,
                    "column": diagnostic.span.column,
                    "code": diagnostic.code,
                    "severity": diagnostic.severity.value,
                    "message": diagnostic.message,
                    "hint": diagnostic.hint,
                }
                for path, diagnostic in found
            ]
        )
    else:
        for _path, diagnostic in found:
            print(diagnostic)
    if any(diagnostic.severity is not Severity.NOTE for _path, diagnostic in found):
        raise typer.Exit(ExitCode.FAILURE)


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("fmt")(fmt)
    app.command("lint")(lint)
