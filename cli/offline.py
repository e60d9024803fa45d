"""Models as files, for places without a registry: ``save``, ``load``."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ..modelfile.errors import InputError, NotFoundError, UsageError
from .progress import show_progress
from .session import QuietOption, complete_model, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM = Path("-")


def save(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Models' names.", autocompletion=complete_model),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; else standard output.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Write models to a tar archive.

    What they share is in it once. The same models give the same bytes. `lading load` reads it, and so do
    skopeo and Podman, as oci-archive:FILE.
    """
    from ..oci.offline.archive import packing
    from ..oci.offline.archive import save as save_models

    if output in (None, STREAM) and sys.stdout.isatty():
        raise UsageError("saving: a terminal is no place for an archive", hint="add -o FILE, or a pipe")
    session = session_of(context)
    store = session.store()
    with (
        packing(store, [session.reference(model) for model in models]) as packed,
        _written(output, packed.size) as out,
        show_progress(quiet=quiet) as progress,
    ):
        save_models(store, packed, out, progress=progress)


def load(
    context: typer.Context,
    source: Annotated[
        Path | None, typer.Option("--input", "-i", metavar="FILE", help="The archive; else standard input.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Call the model so; for archives of one.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Take the models of a tar archive into the store.

    Every byte is verified; no model gets its name before all of them are complete.
    """
    from ..oci.offline.archive import load as load_models

    session = session_of(context)
    reference = session.reference(name) if name else None
    with _opened(source) as file, show_progress(quiet=quiet) as progress:
        try:
            report = load_models(
                session.store(), file, policy=session.signature_policy(), name=reference, progress=progress
            )
        except OSError as error:
            raise InputError(f"reading the archive: {error.strerror or error}") from error
    for tagged in report.tagged:
        print(f"{session.display(tagged.reference)}@{tagged.descriptor.digest}")
    if report.unnamed:
        print(f"{report.unnamed} more in the archive have no name, and were left out", file=sys.stderr)


@contextmanager
def _written(output: Path | None, size: int) -> Iterator[BinaryIO]:
    """The file that is to hold the archive, or standard output.

    Raises: DiskFull, OutputNotWritten; BrokenPipeError where the reader has left.
    """
    from ..oci.offline.output_file import OutputNotWritten, output_file

    if output is not None and output != STREAM:
        with output_file(output, size=size) as out:
            yield out
        return
    try:
        yield sys.stdout.buffer
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise OutputNotWritten(Path("standard output"), error.strerror or str(error)) from error


@contextmanager
def _opened(source: Path | None) -> Iterator[BinaryIO]:
    """The archive to read. Raises: UsageError for a terminal; NotFoundError, InputError for a bad file."""
    if source is None or source == STREAM:
        if sys.stdin.isatty():
            raise UsageError("loading: a terminal is no archive", hint="add -i FILE, or a pipe")
        yield sys.stdin.buffer
        return
    try:
        file = source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"no such file: {source}") from None
    except OSError as error:
        raise InputError(f"reading {source}: {error.strerror or error}") from error
    with file:
        yield file


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("save")(save)
    app.command("load")(load)
