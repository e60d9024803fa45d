"""The same model in other dialects: ``convert``, and what ``push --as`` shares with it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..modelfile.errors import UsageError
from ..oci.dialects.dialect import Dialect
from .session import ModelArgument, session_of

if TYPE_CHECKING:
    from ..oci.dialects.dialect import Written
    from ..oci.manifest import Manifest
    from ..oci.store import Store

AsOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="FORM",
        help=f"Write it in another form: {', '.join(Dialect)}.",
        autocompletion=lambda: [str(dialect) for dialect in Dialect],
    ),
]


def parse_dialect(text: str) -> Dialect:
    """Raises: UsageError."""
    try:
        return Dialect(text.lower())
    except ValueError:
        raise UsageError(f"reading --as {text!r}: expected one of {', '.join(Dialect)}") from None


def written_as(store: Store, manifest: Manifest, dialect: Dialect) -> Manifest:
    """The model in a dialect; what that has no place for is told. The caller holds a lease."""
    from ..oci.conversion import convert as convert_model

    written: Written = convert_model(store, manifest, dialect)
    for note in written.left_out:
        print(f"note: left out, as {dialect}: {note}", file=sys.stderr)
    return written.manifest


def convert(
    context: typer.Context,
    model: ModelArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The name to give it in the new form.")],
    form: AsOption = None,
) -> None:
    """Write a model down in another form, under another name.

    The weights are shared, not copied. What the form has no place for is left out, and said.
    """
    session = session_of(context)
    if form is None:
        raise UsageError("converting: expected --as FORM", hint=f"FORM is one of {', '.join(Dialect)}")
    dialect, source, target = parse_dialect(form), session.reference(model), session.reference(new)
    store = session.store()
    with store.lease():
        manifest = written_as(store, store.resolve(source), dialect)
        store.tag(target, manifest.descriptor)
    print(f"{session.display(target)}@{manifest.digest}")


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("convert")(convert)
