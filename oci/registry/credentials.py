"""Registry credentials, from where users already keep them: Docker's and Podman's files and helpers.

Precedence inside a file, as Docker's: ``credHelpers[host]``, then ``credsStore``, then the entry in
``auths``. Between files: the first that knows the host. A source that fails leaves a note and the next is
asked; credentials of one host are never used for another.

Source: docker/cli ``cli/config/configfile``; containers/image ``containers-auth.json(5)`` (keys may name a
repository or a path above it; the longest match wins).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...modelfile.errors import LadingError
from ..canonical import strict_json
from .credential_helper import HelperFailed, HelperSettings, ask_helper
from .settings import DOCKER_HUB, DOCKER_HUB_API

MAX_FILE_SIZE = 1024 * 1024

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", DOCKER_HUB_API})
IDENTITY_USER = "<token>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What proves who we are to one registry. The secret never shows in its repr.

    identity_token: the secret is a refresh token for the registry's token service, not a password.
    bearer: the secret is itself what the registry wants as a bearer token.
    source: where it came from, for messages.
    """

    username: str
    secret: str = field(repr=False)
    identity_token: bool = False
    bearer: bool = False
    source: str

    def basic(self) -> str:
        """The value of an ``Authorization`` header of the Basic scheme. Source: RFC 7617."""
        pair = f"{self.username}:{self.secret}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


@dataclass(frozen=True, slots=True)
class Found:
    """The credential for a repository, if any, and what went wrong while looking (never a secret)."""

    credential: Credential | None = None
    notes: tuple[str, ...] = ()


class Credentials(Protocol):
    """Where credentials come from. Safe to call from several threads."""

    def find(self, registry: str, repository: str = "") -> Found:
        """The credential for ``registry/repository``, where `registry` is ``host[:port]``."""
        ...


class NoCredentials:
    """Always anonymous."""

    def find(self, registry: str, repository: str = "") -> Found:
        return Found()


@dataclass(frozen=True, slots=True)
class GivenCredentials:
    """Credentials that the user gave for this one run, for exactly one registry; then `others`."""

    registry: str
    credential: Credential
    others: Credentials = field(default_factory=NoCredentials)

    def find(self, registry: str, repository: str = "") -> Found:
        if registry == self.registry:
            return Found(self.credential)
        return self.others.find(registry, repository)


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFiles:
    """Docker's and Podman's credential files, asked in order. Files are read at every call, so that a
    login in another terminal counts at once."""

    paths: tuple[Path, ...]
    helpers: HelperSettings = field(default_factory=HelperSettings)

    def find(self, registry: str, repository: str = "") -> Found:
        notes: list[str] = []
        for path in self.paths:
            try:
                content = read_file(path)
            except LadingError as error:
                notes.append(error.message)
                continue
            if content is None:
                continue
            found = _find_in(content, path, registry, repository, self.helpers)
            notes.extend(found.notes)
            if found.credential is not None:
                return Found(found.credential, tuple(notes))
        return Found(None, tuple(notes))


def default_files(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """The files that Docker and Podman would read, in the order in which we ask them; they need not exist."""
    docker = Path(environment["DOCKER_CONFIG"]) if environment.get("DOCKER_CONFIG") else home / ".docker"
    found = [docker / "config.json"]
    if environment.get("REGISTRY_AUTH_FILE"):
        found.append(Path(environment["REGISTRY_AUTH_FILE"]))
    elif environment.get("XDG_RUNTIME_DIR"):
        found.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
    config = environment.get("XDG_CONFIG_HOME") or home / ".config"
    found.append(Path(config) / "containers" / "auth.json")
    return tuple(found)


class CredentialFileUnreadable(LadingError):
    """A credential file exists but cannot be used."""


def read_file(path: Path) -> dict[str, Any] | None:
    """The file's JSON object; None where there is no such file. Raises: CredentialFileUnreadable."""
    try:
        # Non-blocking, so that a FIFO in its place cannot hang us.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CredentialFileUnreadable(f"reading {path}: expected a regular file")
            data = file.read(MAX_FILE_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CredentialFileUnreadable(f"reading {path}: {error.strerror or error}") from error
    try:
        content = strict_json(data, limit=MAX_FILE_SIZE)
    except LadingError as error:
        raise CredentialFileUnreadable(f"reading {path}: not a JSON object that can be used") from error
    if not isinstance(content, dict):
        raise CredentialFileUnreadable(f"reading {path}: expected a JSON object")
    return content


def _find_in(
    content: dict[str, Any], path: Path, registry: str, repository: str, helpers: HelperSettings
) -> Found:
    server = server_name(registry)
    helper = helper_for(content, registry)
    notes: tuple[str, ...] = ()
    if helper is not None:
        try:
            answer = ask_helper(helper, server, helpers)
        except HelperFailed as error:
            notes = (f"{error.message} (named in {path})",)
        else:
            if answer is not None:
                return Found(_of_helper(answer.username, answer.secret, f"the helper {helper!r} ({path})"))
    auths = content.get("auths")
    if isinstance(auths, dict):
        for key in auth_keys(auths, registry, repository):
            credential = _of_entry(auths[key], f"{path}")
            if credential is not None:
                return Found(credential, notes)
    return Found(None, notes)


def server_name(registry: str) -> str:
    """What files and helpers call a registry: its host, except for Docker Hub."""
    return DOCKER_HUB_KEY if registry in _DOCKER_HUB_NAMES else registry


def helper_for(content: dict[str, Any], registry: str) -> str | None:
    """The name of the helper that a file appoints for a registry."""
    by_host = content.get("credHelpers")
    if isinstance(by_host, dict):
        for name in _names(registry):
            helper = by_host.get(name)
            if isinstance(helper, str) and helper:
                return helper
    store = content.get("credsStore")
    return store if isinstance(store, str) and store else None


def _names(registry: str) -> Iterator[str]:
    yield registry
    if registry in _DOCKER_HUB_NAMES:
        yield DOCKER_HUB_KEY
        yield from sorted(_DOCKER_HUB_NAMES - {registry})


def auth_keys(auths: dict[str, Any], registry: str, repository: str) -> list[str]:
    """The keys that mean this repository, most specific first."""
    wanted: list[str] = []
    parts = [part for part in repository.split("/") if part]
    for host in _names(registry):
        wanted.extend("/".join([host, *parts[:length]]) for length in range(len(parts), 0, -1))
    found = [key for key in wanted if key in auths]
    # Then the host itself, however it is written: "https://host/v1/" and "host" are the same key.
    hosts = set(_names(registry))
    found.extend(key for key in auths if _host_of(key) in hosts and key not in found)
    return found


def _host_of(key: str) -> str | None:
    """The host that an ``auths`` key stands for; None for a key that names a repository path."""
    if key == DOCKER_HUB_KEY:
        return key
    for scheme in ("https://", "http://"):
        if key.startswith(scheme):
            return key.removeprefix(scheme).partition("/")[0]
    host, _, path = key.partition("/")
    return host if path.strip("/") in {"", "v1", "v2"} else None


def _of_entry(entry: object, source: str) -> Credential | None:
    if not isinstance(entry, dict):
        return None
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credential(username=IDENTITY_USER, secret=token, identity_token=True, source=source)
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            pair = base64.b64decode(auth, validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return None
        username, colon, secret = pair.partition(":")
        secret = secret.rstrip("\0")  # Docker writes it so
        return Credential(username=username, secret=secret, source=source) if colon and secret else None
    username, secret = entry.get("username", ""), entry.get("password", "")
    if isinstance(username, str) and isinstance(secret, str) and username and secret:
        return Credential(username=username, secret=secret, source=source)
    return None


def _of_helper(username: str, secret: str, source: str) -> Credential:
    return Credential(
        username=username, secret=secret, identity_token=username == IDENTITY_USER, source=source
    )
