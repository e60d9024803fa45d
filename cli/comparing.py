"""Models side by side: ``diff``, ``df``."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..modelfile.errors import UsageError
from .exit_code import ExitCode
from .human import format_size
from .output import print_json, print_rows
from .session import FormatOption, Session, complete_model, session_of

if TYPE_CHECKING:
    from ..oci.comparison import Change, Comparison, LayerChange
    from ..oci.model import Model
    from ..oci.usage import StoreUsage

SHOWN_TENSORS = 20
"""Tensors that the text lists one by one; JSON has them all."""
SHOWN_VALUE = 200
"""Characters of a value that the text shows."""

USAGE_FIELDS = ("name", "digest", "size", "shared", "exclusive", "damaged")


def diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help="A model.", autocompletion=complete_model)],
    after: Annotated[str, typer.Argument(metavar="B", help="Another.", autocompletion=complete_model)],
    form: Annotated[str, typer.Option("--format", metavar="FORM", help="text or json.")] = "text",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if they differ, as diff does.")
    ] = False,
) -> None:
    """Show what differs between two models.

    Layers, parameters, template, system prompt, messages and licence, and what the headers of the weights
    say: metadata and tensors. No weights are read.
    """
    from ..oci.comparison import compare

    if form not in ("text", "json"):
        raise UsageError(f"reading --format {form!r}: expected text or json")
    session = session_of(context)
    found = compare(_model(session, before), _model(session, after))
    if form == "json":
        print_json(_as_json(found))
    else:
        for line in _as_text(found):
            print(line)
    if exit_code and not found.same:
        raise typer.Exit(ExitCode.FAILURE)


def _model(session: Session, name: str) -> Model:
    from ..oci.model import read_model

    return read_model(session.store(), session.resolve(name))


def _as_json(found: Comparison) -> dict[str, Any]:
    def pairs(changes: Mapping[str, Change] | None) -> dict[str, Any] | None:
        if changes is None:
            return None
        return {name: {"a": change.before, "b": change.after} for name, change in changes.items()}

    return {
        "same": found.same,
        "shared_size": found.shared,
        "layers": [
            {
                "role": str(change.role),
                "path": change.path,
                "a": str(change.before) if change.before else None,
                "b": str(change.after) if change.after else None,
            }
            for change in found.layers
        ],
        "details": pairs(found.details),
        "parameters": pairs(found.parameters),
        "texts": pairs(found.texts),
        "metadata": pairs(found.metadata),
        "tensors": pairs(found.tensors),
    }


def _as_text(found: Comparison) -> Iterator[str]:
    """Sections of what differs, each line marked as diff does; one line where nothing does."""
    if found.same:
        yield "no difference"
        return
    yield from _section("Layers", [line for change in found.layers for line in _layer_lines(change)])
    yield from _section("Details", _value_lines(found.details))
    yield from _section("Parameters", _value_lines(found.parameters))
    for name, change in found.texts.items():
        yield from _section(name.capitalize(), _text_lines(change))
    if found.metadata is None or found.tensors is None:
        yield from _section("Metadata", ["  not compared: the weights are no GGUF files"])
        return
    yield from _section("Metadata", _value_lines(found.metadata))
    shown = dict(list(found.tensors.items())[:SHOWN_TENSORS])
    rest = len(found.tensors) - len(shown)
    yield from _section(
        "Tensors", [*_value_lines(shown), *([f"  and {rest} more: --format json"] if rest else [])]
    )


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {_printable(line)}" for line in lines)] if lines else []


def _layer_lines(change: LayerChange) -> list[str]:
    name = f"{change.role:14} {change.path}".rstrip()
    sides = (("-", change.before), ("+", change.after))
    return [f"{sign} {digest.short}  {name}" for sign, digest in sides if digest is not None]


def _value_lines(changes: Mapping[str, Change]) -> list[str]:
    return [
        f"{sign} {name} {_shown(value)}"
        for name, change in changes.items()
        for sign, value in (("-", change.before), ("+", change.after))
        if value is not None
    ]


def _text_lines(change: Change) -> list[str]:
    before, after = ((text or "").splitlines() for text in (change.before, change.after))
    lines = difflib.unified_diff(before, after, lineterm="", n=2)
    return [line for line in lines if not line.startswith(("---", "+++"))] or ["(line ends only)"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"[{value['count']} values of {value['type']}]"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"


def _printable(line: str) -> str:
    """What a model says cannot steer the terminal: characters that do not print are shown as escapes."""
    return "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)


def usage(
    context: typer.Context,
    form: FormatOption = "table",
) -> None:
    """Show how much room the models take, and share.

    EXCLUSIVE is what `lading rm` and `lading gc` would free; SHARED is needed by other names, too.
    """
    from ..oci.usage import measure

    session = session_of(context)
    found = measure(session.store())
    rows = [
        {
            "name": session.display(model.reference),
            "digest": str(model.digest),
            "size": model.size,
            "shared": model.shared,
            "exclusive": model.exclusive,
            "damaged": model.damaged,
        }
        for model in found.models
    ]
    if form == "json":
        store = {
            "path": str(session.settings.home),
            "blobs": found.blobs,
            "size": found.size,
            "reclaimable": found.reclaimable,
        }
        print_json({"models": rows, "store": store})
        return
    table = {
        "NAME": lambda row: row["name"],
        "SIZE": lambda row: format_size(row["size"]),
        "SHARED": lambda row: format_size(row["shared"]),
        "EXCLUSIVE": lambda row: format_size(row["exclusive"]),
    }
    print_rows(form, rows, table, USAGE_FIELDS)
    if form == "table":
        _print_totals(found)
    for row in rows:
        if row["damaged"]:
            print(f"{row['name']} is damaged: {row['damaged']}", file=sys.stderr)


def _print_totals(found: StoreUsage) -> None:
    free = "unknown" if found.reclaimable is None else format_size(found.reclaimable)
    print(f"\n{format_size(found.size)} in {found.blobs} blobs; reclaimable by `lading gc`: {free}")


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("diff")(diff)
    app.command("df")(usage)
    app.command("du", hidden=True)(usage)
