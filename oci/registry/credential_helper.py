"""Credential helpers: the ``docker-credential-NAME`` programs that keep secrets outside of files.

The protocol: run with the one argument ``get``, the server's name on standard input, an answer of
``{"Username": …, "Secret": …}`` on standard output; the user name ``<token>`` says that the secret is an
identity token. "credentials not found" on a non-zero exit is an answer, not a failure. ``store`` takes
``{"ServerURL": …, "Username": …, "Secret": …}`` on standard input, ``erase`` the server's name.
Source: docker/docker-credential-helpers, README and ``client/client.go``.

A configuration file may name any helper, and a helper may do anything, so: the name is checked before a
path is made of it, the program is found on absolute folders only, it gets a fixed environment, ten
seconds and one mebibyte of output, and its whole process group ends with it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO

from ...modelfile.errors import LadingError
from ..canonical import canonical_json, strict_json

MAX_OUTPUT = 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SERVER = re.compile(r"[\x21-\x7e]{1,512}")
_NOT_FOUND = "credentials not found"
_KEPT_VARIABLES = (
    "HOME",
    "USER",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
)


class HelperFailed(LadingError):
    """A helper gave no usable answer. The message never holds its output: that may be a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperSettings:
    """Where helpers are looked for, and what they are run with.

    environment: the caller's variables; only the few that helpers need, and those whose name starts with
    one of `prefixes`, are handed on.
    """

    search_path: str = "/usr/local/bin:/usr/bin:/bin"
    environment: Mapping[str, str] = field(default_factory=dict)
    prefixes: tuple[str, ...] = (
        "AWS_",
        "AZURE_",
        "GOOGLE_",
        "CLOUDSDK_",
        "GCLOUD_",
        "PASSWORD_STORE_",
        "GNUPG",
    )
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class HelperAnswer:
    """What a helper knows about a server."""

    username: str
    secret: str = field(repr=False)


def ask_helper(name: str, server: str, settings: HelperSettings) -> HelperAnswer | None:
    """What the helper `name` knows about `server`; None where it knows nothing.

    Raises: HelperFailed, for a bad name, a missing program, a failure, silence or junk.
    """
    code, output = _run(name, "get", server, server.encode() + b"\n", settings)
    if code != 0:
        if _says_not_found(output):
            return None
        raise HelperFailed(f"running {_program(name)}: exit code {code}")
    return _parse_answer(_program(name), output)


def store_in_helper(name: str, server: str, username: str, secret: str, settings: HelperSettings) -> None:
    """Hands a user name and secret to the helper `name`, in place of what it has for `server`.

    Raises: HelperFailed; then what it has kept is unknown.
    """
    value = {"ServerURL": server, "Username": username, "Secret": secret}
    code, _ = _run(name, "store", server, canonical_json(value) + b"\n", settings)
    if code != 0:
        raise HelperFailed(
            f"running {_program(name)}: exit code {code} when it was asked to store",
            hint="it may need to be unlocked or set up first",
        )


def erase_from_helper(name: str, server: str, settings: HelperSettings) -> None:
    """Lets the helper `name` forget `server`; no matter whether it knows it. Raises: HelperFailed."""
    code, output = _run(name, "erase", server, server.encode() + b"\n", settings)
    if code != 0 and not _says_not_found(output):
        raise HelperFailed(f"running {_program(name)}: exit code {code} when it was asked to erase")


def _says_not_found(output: bytes) -> bool:
    return output[:200].decode("utf-8", "replace").strip().lower().startswith(_NOT_FOUND)


def _program(name: str) -> str:
    return f"docker-credential-{name}"


def _run(name: str, action: str, server: str, data: bytes, settings: HelperSettings) -> tuple[int, bytes]:
    """Exit code and output of one call. Raises: HelperFailed, also for names that no call is made with."""
    if not _NAME.fullmatch(name):
        raise HelperFailed(f"running a credential helper: expected a plain name, got {name!r}")
    if not _SERVER.fullmatch(server):
        raise HelperFailed("running a credential helper: expected a plain server name")
    program = _program(name)
    folders = [f for f in settings.search_path.split(os.pathsep) if f.startswith("/")]  # never "." or ""
    path = shutil.which(program, path=os.pathsep.join(folders)) if folders else None
    if path is None:
        raise HelperFailed(f"running {program}: not found on the search path")
    variables = {
        key: value
        for key, value in settings.environment.items()
        if key in _KEPT_VARIABLES or key.startswith(settings.prefixes)
    }
    try:
        process = subprocess.Popen(
            [path, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**variables, "PATH": settings.search_path},
            cwd="/",
            start_new_session=True,  # so that its children can be ended with it
        )
    except OSError as error:
        raise HelperFailed(f"running {program}: {error.strerror or error}") from error
    with process:
        try:
            output = _converse(process, program, data, settings.timeout_s)
            return process.wait(), output
        finally:
            _end(process)


def _converse(process: subprocess.Popen[bytes], program: str, data: bytes, timeout_s: float) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(data)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it may answer without having read
    deadline = time.monotonic() + timeout_s
    output = _read_until(process.stdout, program, deadline, timeout_s)
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise HelperFailed(f"running {program}: no answer within {timeout_s:g} s") from None
    return output


def _read_until(stream: IO[bytes], program: str, deadline: float, timeout_s: float) -> bytes:
    """Everything up to end of file, bounded in size and time."""
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise HelperFailed(f"running {program}: no answer within {timeout_s:g} s")
            piece = os.read(stream.fileno(), 64 * 1024)
            if not piece:
                return bytes(output)
            output += piece
            if len(output) > MAX_OUTPUT:
                raise HelperFailed(f"running {program}: expected at most {MAX_OUTPUT} bytes of output")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kills the helper and its children, unless it has ended by itself. Until it has been waited for, its
    number cannot be given to another process; hence no poll() here, which would wait."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _parse_answer(program: str, output: bytes) -> HelperAnswer:
    try:
        answer = strict_json(output, limit=MAX_OUTPUT)
    except LadingError:
        raise HelperFailed(f"running {program}: expected a JSON answer") from None
    if not isinstance(answer, dict):
        raise HelperFailed(f"running {program}: expected a JSON object")
    username, secret = answer.get("Username"), answer.get("Secret")
    if not isinstance(username, str) or not isinstance(secret, str) or not secret:
        raise HelperFailed(f"running {program}: expected Username and Secret in the answer")
    return HelperAnswer(username, secret)
