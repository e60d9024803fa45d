"""Making models: ``create``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..modelfile.errors import InputError, NotFoundError, UsageError
from .progress import show_progress
from .session import InsecureOption, Session, session_of

if TYPE_CHECKING:
    from ..modelfile.syntax import Modelfile
    from ..oci.building.quantising import Quantising
    from ..oci.manifest import Manifest
    from ..oci.progress import ProgressSink
    from ..oci.reference import Reference

MAX_MODELFILE_SIZE = 16 << 20
"""Bytes of a Modelfile that are read at most."""


class ModelfileNotFound(NotFoundError):
    """There is no Modelfile where the command looked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"reading the Modelfile: no file at {path}", hint="name one with -f, or `-f -` for standard input"
        )


class UnreadableModelfile(InputError):
    """The Modelfile cannot be read, or is too large to be one."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"reading the Modelfile {path}: {problem}")


def read_modelfile(path: Path) -> tuple[bytes, Path]:
    """The bytes of a Modelfile and the folder its paths are relative to; ``-`` is standard input.

    Raises: ModelfileNotFound, UnreadableModelfile.
    """
    if str(path) == "-":
        return sys.stdin.buffer.read(MAX_MODELFILE_SIZE + 1), Path.cwd()
    if path.is_dir():
        path = path / "Modelfile"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MODELFILE_SIZE + 1)
    except FileNotFoundError:
        raise ModelfileNotFound(path) from None
    except OSError as error:
        raise UnreadableModelfile(path, (error.strerror or str(error)).lower()) from error
    if len(data) > MAX_MODELFILE_SIZE:
        raise UnreadableModelfile(path, f"expected at most {MAX_MODELFILE_SIZE} bytes")
    return data, path.absolute().parent


def parse_modelfile(path: Path) -> tuple[Modelfile, Path]:
    """The parsed Modelfile at ``path`` and the folder its paths are relative to.

    Raises: ModelfileNotFound, UnreadableModelfile, ModelfileError.
    """
    from ..modelfile.syntax import parse

    data, folder = read_modelfile(path)
    return parse(data, filename=str(path)), folder


def parse_build_arguments(pairs: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` texts as a mapping.

    Raises: UsageError.
    """
    arguments = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"reading --build-arg {pair!r}: expected NAME=VALUE")
        arguments[name] = value
    return arguments


def _complete_type(incomplete: str) -> list[str]:
    from ..oci.gguf.quantisation import QUANTISATIONS

    found = [name for name in QUANTISATIONS if name.startswith(incomplete.upper())]
    return [name.lower() for name in found] if incomplete.islower() else found


def create(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name to give it.")],
    file: Annotated[Path, typer.Option("--file", "-f", help="The Modelfile; - is standard input.")] = Path(
        "Modelfile"
    ),
    build_arg: Annotated[
        list[str] | None, typer.Option("--build-arg", metavar="NAME=VALUE", help="A value for an ARG.")
    ] = None,
    quantize: Annotated[
        str | None,
        typer.Option(
            *("--quantize", "-q"),
            metavar="TYPE",
            help="Quantise the weights: Q4_K_M, Q8_0, …",
            autocompletion=_complete_type,
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the result.")] = False,
    insecure: InsecureOption = False,
) -> None:
    """Build a model from a Modelfile.

    Prints the manifest's digest. The same inputs give the same digest on any machine.
    """
    from ..oci.building.build import build

    session = session_of(context)
    reference = session.reference(model)
    quantising = _quantising(session, quantize) if quantize is not None else None
    modelfile, folder = parse_modelfile(file)
    arguments = parse_build_arguments(build_arg or [])
    with show_progress(quiet=quiet, interrupted="The model was not created.") as progress:
        result = build(
            modelfile,
            context=folder,
            store=session.store(),
            reference=reference,
            base=lambda base: _base_model(session, base, progress, insecure=insecure),
            args=arguments,
            source_date_epoch=_source_date_epoch(session),
            parse_reference=session.reference,
            quantising=quantising,
            progress=progress,
        )
    print(result.manifest.descriptor.digest)


def _quantising(session: Session, type_name: str) -> Quantising:
    """Raises: UsageError."""
    from ..oci.building.quantising import Quantising
    from ..oci.gguf.quantisation import UnknownQuantisation, parse_quantisation
    from ..runtime.quantiser import SandboxedQuantiser

    if type_name.startswith("-"):
        raise UsageError(
            f"reading --quantize: expected a type, got {type_name}", hint="here -q is short for --quantize"
        )
    try:
        type_ = parse_quantisation(type_name)
    except UnknownQuantisation as error:
        raise UsageError(error.message) from error
    return Quantising(type_, SandboxedQuantiser(session.runtime_settings()))


def _base_model(
    session: Session, reference: Reference, progress: ProgressSink, *, insecure: bool
) -> Manifest:
    """The manifest of a FROM model, pulled where it is not in the store."""
    from ..oci.errors import ModelNotFound

    store = session.store()
    try:
        return store.resolve(reference)
    except ModelNotFound:
        from ..oci.transfer import pull

        client = session.registry_client(insecure=insecure, reference=reference)
        return pull(store, client, reference, progress=progress)


def _source_date_epoch(session: Session) -> int | None:
    text = session.settings.read("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise UsageError(f"reading SOURCE_DATE_EPOCH: expected seconds since 1970, got {text!r}")
    return int(text)


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("create")(create)
    app.command("build", hidden=True)(create)
