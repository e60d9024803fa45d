"""The application: its commands, and the one place where errors become text and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from .. import __version__
from ..modelfile.errors import InternalError, LadingError
from . import (
    apikeys,
    attesting,
    benchmarking,
    building,
    comparing,
    conversion,
    importing,
    language,
    login,
    offline,
    registries,
    serving,
    signing,
    storage,
)
from .exit_code import ExitCode, exit_code_of
from .session import COMPLETION_VARIABLE, Session
from .settings import read_settings

HELP = """Docker for models: build models from a Modelfile into OCI artifacts, push, pull and serve them.

Packaging commands work on the local store and need no server. `run` uses a server where one answers.
"""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lading version {__version__}")
        raise typer.Exit


def _start(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", "-D", help="Log in detail; show tracebacks of our own bugs.")
    ] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", "-v", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    context.obj = Session(read_settings({"debug": True if debug else None}))


def create_app() -> typer.Typer:
    """The application, with every command."""
    # No rich markup: plain help starts three times as fast, and reads the same in a pipe.
    app = typer.Typer(
        name="lading",
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode=None,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_start)
    for group in (
        building,
        conversion,
        importing,
        registries,
        login,
        offline,
        storage,
        comparing,
        serving,
        benchmarking,
        apikeys,
        signing,
        attesting,
        language,
    ):
        group.register(app)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Everything that can go wrong is printed here, and only here."""
    command = typer.main.get_command(create_app())
    if COMPLETION_VARIABLE in os.environ:
        # Typer registers its shells only for an application with its own --install-completion.
        from typer.completion import completion_init  # type: ignore[attr-defined]  # not re-exported

        completion_init()
    debug = "--debug" in arguments or "-D" in arguments
    try:
        code = command.main(
            list(arguments), prog_name="lading", complete_var=COMPLETION_VARIABLE, standalone_mode=False
        )
        sys.stdout.flush()
    except LadingError as error:
        return _report(error, debug=debug)
    except TyperException as error:
        _print_error(error.format_message(), f"see `{_command_path(error)} --help`")
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`lading ls | head -1`): no error, but nothing may be flushed now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        return _report_bug(error, debug=debug)
    return code if isinstance(code, int) else ExitCode.OK


def _command_path(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "lading"


def _report(error: LadingError, *, debug: bool) -> ExitCode:
    _print_error(str(error), error.hint)
    if debug and isinstance(error, InternalError):
        traceback.print_exception(error)
    return exit_code_of(error)


def _report_bug(error: Exception, *, debug: bool) -> ExitCode:
    _print_error(
        f"internal error: {type(error).__name__}: {error}",
        "this is a bug of ours; please report it with the output of the same command with --debug",
    )
    if debug:
        traceback.print_exception(error)
    return ExitCode.FAILURE


def _print_error(message: str, hint: str | None) -> None:
    print(f"Error: {message}", file=sys.stderr)
    if hint and f"hint: {hint}" not in message:  # a diagnostic carries its hint beside its line
        print(f"hint: {hint}", file=sys.stderr)
