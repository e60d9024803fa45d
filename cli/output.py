"""Data on stdout: aligned tables for people, JSON and templates for programs.

Columns are separated by four spaces without rules, as Ollama's are: scripts split them with awk.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..modelfile.errors import UsageError

Row = Mapping[str, Any]
"""One listed thing, by field name. Values are what JSON prints; ``cells`` turns them into text."""

_PLACEHOLDER = re.compile(r"\{\{\s*(json\s+)?\.([A-Za-z_]*)\s*\}\}")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}


class BadFormat(UsageError):
    """``--format`` names a field or a form that does not exist."""

    def __init__(self, text: str, problem: str, fields: Sequence[str]) -> None:
        self.text = text
        self.fields = tuple(fields)
        super().__init__(
            f"reading --format {text!r}: {problem}",
            hint="use table, json, or a template such as '{{."
            + fields[0]
            + "}}'; fields: "
            + ", ".join(fields),
        )


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned columns, four spaces apart; the headers are printed even when there is nothing to list."""
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        print("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_json(value: object) -> None:
    """Pretty on a terminal, one line in a pipe; always UTF-8 text with a final newline."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def print_rows(form: str, rows: Sequence[Row], table: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Print ``rows`` as ``form`` asks.

    ``form`` is ``table``, ``json`` (an array) or a template with ``{{.field}}`` and ``{{json .}}``,
    printed once for each row. ``table`` maps each header to a function from row to cell.
    ``fields`` are the names that a template may use.

    Raises: BadFormat.
    """
    if form == "table":
        print_table(list(table), [[str(cell(row)) for cell in table.values()] for row in rows])
    elif form == "json":
        print_json(list(rows))
    else:
        render = compile_template(form, fields)
        for row in rows:
            print(render(row))


def compile_template(text: str, fields: Sequence[str]) -> Any:
    """A function from row to text. The template is checked whole before anything is printed."""
    if "{{" not in text:
        raise BadFormat(text, "expected table, json or a template with {{.field}}", fields)
    if unknown := [m[2] for m in _PLACEHOLDER.finditer(text) if m[2] and m[2].lower() not in fields]:
        raise BadFormat(text, f"no field {unknown[0]!r}", fields)
    if "{{" in _PLACEHOLDER.sub("", text):
        raise BadFormat(text, "expected only {{.field}} and {{json .}} between braces", fields)
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)

    def render(row: Row) -> str:
        def value(match: re.Match[str]) -> str:
            found = row.get(match[2].lower()) if match[2] else dict(row)
            if match[1] or isinstance(found, (dict, list)):
                return json.dumps(found, ensure_ascii=False)
            return "" if found is None else str(found)

        return _PLACEHOLDER.sub(value, text)

    return render
