"""API keys: what they look like, and the file in which their hashes are kept.

    {"version": 1, "keys": [{"id": "1f0c9a2b", "name": "ci", "sha256": "1f0c…", "roles": ["push"], …}]}

The file has no secrets: a key is 256 random bits, so that its SHA-256 tells nothing of it. It is replaced in
one step, with mode 0600, while its folder is locked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from ...modelfile.errors import InputError, NotFoundError, ResourceError
from ...oci.store.disk import replace_durably
from .role import Role, rights_of

PREFIX = "lading_"
"""Of keys that are made here: scanners for leaked secrets can look for it."""
MAX_FILE_SIZE = 1 << 20
MAX_NAME = 64
MIN_GIVEN = 16
"""Characters of a key that somebody else has thought up."""


class BadKeyFile(InputError):
    """The file of keys cannot be read as one."""

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"reading the keys in {path}: {reason}", hint=hint)
        self.path = path


class KeysNotKept(ResourceError):
    """The file of keys cannot be written; it is as it was."""


class NoSuchKey(NotFoundError):
    """No key, or more than one, has this name or id."""

    def __init__(self, name: str, matches: int) -> None:
        found = "there is none" if not matches else f"{matches} keys have it"
        hint = "`lading apikey ls` lists them" if not matches else "name it by its id"
        super().__init__(f"looking for the key {name!r}: {found}", hint=hint)
        self.name = name


class BadKey(InputError):
    """A key, or what is said of one, cannot be used."""


Count = Annotated[int, msgspec.Meta(ge=1)]


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is known of a key: enough to recognise it, not enough to use it."""

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8}$")]
    """The first eight digits of its hash; logs have it."""
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    roles: tuple[Role, ...]
    created: str
    """RFC 3339, UTC."""
    expires: float | None = None
    """Unix time, seconds."""
    per_minute: Count | None = None
    """Requests that it may make in a minute."""
    at_once: Count | None = None
    """Requests of it that may be under way; None: as many as for most."""

    @property
    def rights(self) -> frozenset[Role]:
        return rights_of(self.roles)


class _KeyFile(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    keys: list[ApiKey]


def new_secret() -> str:
    """A key, to be shown once and kept nowhere."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def key_of(secret: str, *, name: str, roles: tuple[Role, ...], created: str) -> ApiKey:
    """What is kept of a secret."""
    digest = hash_of(secret)
    return ApiKey(id=digest[:8], name=name, sha256=digest, roles=roles, created=created)


def given_key(secret: str) -> ApiKey:
    """A key that came with the settings; it may do everything.

    Raises: BadKey.
    """
    if len(secret) < MIN_GIVEN or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise BadKey(
            f"reading the setting api_key: expected {MIN_GIVEN} or more ASCII characters without blanks",
            hint="`openssl rand -hex 32` makes a good one",
        )
    return key_of(secret, name="of the settings", roles=(Role.ADMIN,), created="")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file at `path`, which need not exist."""

    path: Path

    def read(self) -> tuple[ApiKey, ...]:
        """The keys in their order; none where there is no file.

        Raises: BadKeyFile.
        """
        try:
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(MAX_FILE_SIZE + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise BadKeyFile(self.path, error.strerror or str(error)) from error
        if mode & 0o022:
            raise BadKeyFile(
                self.path,
                "other users can write to it",
                hint=f"chmod 600 {self.path}, and look at what it has",
            )
        if len(data) > MAX_FILE_SIZE:
            raise BadKeyFile(self.path, f"expected at most {MAX_FILE_SIZE} bytes")
        try:
            return tuple(msgspec.json.decode(data, type=_KeyFile).keys)
        except msgspec.MsgspecError as error:
            raise BadKeyFile(self.path, str(error).replace("`", "")) from error

    def add(self, key: ApiKey) -> None:
        """Keep one more. Raises: BadKeyFile, KeysNotKept, BadKey for a name that is taken."""

        def change(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
            if any(key.name == other.name for other in keys):
                raise BadKey(
                    f"making a key: there is one of the name {key.name!r}", hint="choose another name"
                )
            return (*keys, key)

        self._change(change)

    def remove(self, name: str) -> ApiKey:
        """Forget a key by its id or name. Raises: BadKeyFile, KeysNotKept, NoSuchKey."""
        found: list[ApiKey] = []

        def change(keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
            found[:] = [key for key in keys if key.id == name] or [key for key in keys if key.name == name]
            if len(found) != 1:
                raise NoSuchKey(name, len(found))
            return tuple(key for key in keys if key is not found[0])

        self._change(change)
        return found[0]

    def _change(self, change: Callable[[tuple[ApiKey, ...]], tuple[ApiKey, ...]]) -> None:
        path = self.path.resolve()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise KeysNotKept(f"writing {self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = change(self.read())
            content = msgspec.json.encode(_KeyFile(version=1, keys=list(keys)))
            replace_durably(path, msgspec.json.format(content) + b"\n", scratch=path.parent, mode=0o600)
        except OSError as error:
            raise KeysNotKept(f"writing {self.path}: {error.strerror or error}") from error
        finally:
            os.close(folder)
