"""Keys that a server asks for: ``apikey create``, ``ls``, ``revoke``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from ..modelfile.errors import InputError, UsageError
from .listening import key_file_path
from .output import print_rows
from .session import FormatOption, QuietOption, session_of

if TYPE_CHECKING:
    from ..server.access.api_key import KeyFile
    from ..server.access.role import Role

MAX_NAME = 64


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; logs show its id, not this.")],
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            "-r",
            metavar="ROLE",
            help="infer, pull, push, manage, metrics or admin; may be given again. Without: infer.",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="DURATION", help="How long it is good for, such as 720h."),
    ] = None,
    per_minute: Annotated[
        int | None,
        typer.Option("--per-minute", metavar="N", min=1, help="Requests that it may make in a minute."),
    ] = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", metavar="N", min=1, help="Requests that may be under way.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Make a key, and print it. It is shown this once; only its hash is kept.

    As soon as there is a key, servers of these settings ask for one.
    """  # fmt: skip
    import msgspec

    from ..server.access.api_key import key_of, new_secret

    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InputError(
            f"making a key: expected a name of 1 to {MAX_NAME} printable characters, got {name!r}"
        )
    now = datetime.now(UTC)
    secret = new_secret()
    key = key_of(secret, name=name, roles=_roles(role or ["infer"]), created=_date(now))
    key = msgspec.structs.replace(
        key, expires=_expiry(expires, now.timestamp()), per_minute=per_minute, at_once=at_once
    )
    file = _file(context)
    file.add(key)
    if not quiet:
        print(f"made key {key.id} ({', '.join(key.roles)}), kept as a hash in {file.path}", file=sys.stderr)
    print(secret)


def ls(context: typer.Context, quiet: QuietOption = False, form: FormatOption = "table") -> None:
    """List the keys; never their secrets."""
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "roles": list(key.roles),
            "created": key.created,
            "expires": None if key.expires is None else _date(datetime.fromtimestamp(key.expires, UTC)),
            "per_minute": key.per_minute,
            "at_once": key.at_once,
        }
        for key in _file(context).read()
    ]  # fmt: skip
    table = {
        "ID": lambda row: row["id"],
        "NAME": lambda row: row["name"],
        "ROLES": lambda row: ",".join(row["roles"]),
        "CREATED": lambda row: row["created"],
        "EXPIRES": lambda row: row["expires"] or "never",
    }
    fields = ("id", "name", "roles", "created", "expires", "per_minute", "at_once")
    print_rows("{{.id}}" if quiet else form, rows, table, fields)


def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="ID|NAME", help="Of the key; see `lading apikey ls`.")],
) -> None:
    """Make a key worthless, at once, also for servers that are running."""
    key = _file(context).remove(name)
    print(f"revoked {key.id} ({key.name})")


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _file(context: typer.Context) -> KeyFile:
    from ..server.access.api_key import KeyFile

    return KeyFile(key_file_path(session_of(context).settings))


def _roles(names: list[str]) -> tuple[Role, ...]:
    from ..server.access.role import Role

    known = [str(role) for role in Role]
    split = [one.strip() for name in names for one in name.split(",")]
    for name in split:
        if name not in known:
            raise UsageError(f"reading --role {name!r}: expected {', '.join(known)}")
    return tuple(Role(name) for name in dict.fromkeys(split))


def _expiry(text: str | None, now: float) -> float | None:
    from ..runtime.keep_alive import parse_keep_alive_setting

    if text is None:
        return None
    seconds = parse_keep_alive_setting(text)
    if not 0 < seconds < 100 * 365 * 86400:
        raise UsageError(f"reading --expires {text!r}: expected a duration such as 720h")
    return now + seconds


def register(app: typer.Typer) -> None:
    """Add this module's commands to ``app``."""
    keys = typer.Typer(help="Make, list and revoke the keys that a server asks for.", rich_markup_mode=None)
    keys.command("create")(create)
    keys.command("ls")(ls)
    keys.command("list", hidden=True)(ls)
    keys.command("revoke")(revoke)
    keys.command("rm", hidden=True)(revoke)
    app.add_typer(keys, name="apikey")
