"""Credentials for registries: ``login`` and ``logout``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ..modelfile.errors import InputError, UsageError
from .session import InsecureOption, Session, session_of

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..oci.registry.credential_store import CredentialStore

MAX_PASSWORD = 64 * 1024
"""Bytes. Tokens of cloud registries have a few KiB."""

HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="The registry's host, and port if any.")]


def login(
    context: typer.Context,
    host: HostArgument,
    username: Annotated[
        str | None, typer.Option("--username", "-u", metavar="NAME", help="Asked for where not given.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password or token from standard input.")
    ] = False,
    password: Annotated[str | None, typer.Option("--password", "-p", hidden=True)] = None,
    insecure: InsecureOption = False,
) -> None:
    """Log in to a registry, and keep the credentials.

    The registry is asked first; then they are kept as Docker keeps them, in its config.json or the helper
    that this file names, and count for `docker`, `skopeo` and `oras`, too.
    """
    if password is not None:
        raise UsageError(
            "logging in: a password among the arguments can be read by every user of this machine",
            hint="lading login --username NAME --password-stdin < FILE, or let yourself be asked",
        )
    session = session_of(context)
    reference = _registry(host)
    username, secret = _ask(reference.registry, username, from_stdin=password_stdin)
    with session.registry_client(insecure=insecure, reference=reference) as client:
        found = client.log_in(reference.registry, username, secret)
        where = _store(session).save(client.origin(reference.registry).netloc, found.credential)
    if not found.verified:
        print(f"{reference.registry} lets everybody in: the password was not checked", file=sys.stderr)
    print(f"logged in to {reference.registry} as {username}; kept in {where}")


def logout(context: typer.Context, host: HostArgument) -> None:
    """Forget the credentials for a registry."""
    from ..oci.registry.origin import Origin

    session = session_of(context)
    registry = _registry(host).registry
    kept_as = Origin.of(f"https://{registry}/").netloc
    known = _store(session).erase(kept_as)
    left = session.credential_files().find(kept_as).credential
    if left is not None:
        print(f"credentials for {registry} are still in {left.source}", file=sys.stderr)
    print(f"logged out of {registry}" if known else f"was not logged in to {registry}")


def _store(session: Session) -> CredentialStore:
    from ..oci.registry.credential_store import CredentialStore

    files = session.credential_files()
    return CredentialStore(path=files.paths[0], helpers=files.helpers)


def _registry(text: str) -> Reference:
    """Some reference at the registry that ``text`` names: a host, or a URL of one as registries print it.

    Raises: BadReference.
    """
    from ..oci.reference import Reference

    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = host.removesuffix("/v1").removesuffix("/v2").lower()
    return Reference(host, "any", "latest")


def _ask(registry: str, username: str | None, *, from_stdin: bool) -> tuple[str, str]:
    """User name and password, from the options and standard input, else from the terminal.

    Raises: UsageError where there is no terminal to ask at; InputError for what is no name or password.
    """
    if from_stdin and username is None:
        raise UsageError("reading the password: expected the user's name, too", hint="add --username NAME")
    if not from_stdin and not sys.stdin.isatty():
        raise UsageError(
            "asking for the password: standard input is no terminal",
            hint="lading login --username NAME --password-stdin < FILE",
        )
    if username is None:
        username = typer.prompt(f"User name for {registry}", err=True)
    if from_stdin:
        secret = _read_password()
    else:
        secret = typer.prompt(f"Password or token of {username}", hide_input=True, err=True)
    if not username or ":" in username or not username.isprintable():
        raise InputError("logging in: a user name has at least one character, and no colon")
    if not secret or "\0" in secret or "\n" in secret:
        raise InputError("logging in: expected a password of one line")
    return username, secret


def _read_password() -> str:
    """What standard input holds, without the end of its line. Raises: InputError."""
    data = sys.stdin.buffer.read(MAX_PASSWORD + 1)
    if len(data) > MAX_PASSWORD:
        raise InputError(f"reading the password: expected at most {MAX_PASSWORD} bytes")
    try:
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise InputError("reading the password: expected UTF-8 text") from None


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    app.command("login")(login)
    app.command("logout")(logout)
