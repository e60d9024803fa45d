"""Whether this machine confines a runner as it should: ``python -m lading.runtime.runner.self_test FILE
FOLDER``.

The process confines itself as a runner does, then tries what a runner must not be able to do, and prints what
came of it as JSON: for each layer ``holds``, ``absent`` (the kernel lacks it) or ``broken`` (it is said to be
in force, and something got through). FILE is one that it may not read, FOLDER one for sockets.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping

from . import landlock
from .sandbox import confine, die_with_parent, forbid_privileges

_PR_GET_PDEATHSIG = 2
_PR_GET_DUMPABLE = 3
_PR_GET_NO_NEW_PRIVS = 39
_SIGNALS_SINCE = 6
"""The version of Landlock that keeps a process from signalling others."""

Attempt = Callable[[], object]


def main(secret: str, folder: str) -> dict[str, object]:
    """What was found. This process is good for nothing else afterwards."""
    parent = os.getppid()
    die_with_parent(parent)
    in_force = {name.partition("_")[0] for name in confine_as_runner(folder)}
    abi = landlock.version()
    layers = {
        "rlimits": _state(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)),
        "no_new_privs": _state(_prctl_get(_PR_GET_NO_NEW_PRIVS) == 1),
        "not_dumpable": _state(_prctl_get(_PR_GET_DUMPABLE) == 0),
        "pdeathsig": _state(_death_signal() == signal.SIGKILL),
        "landlock": _tried("landlock" in in_force, _beyond_landlock(secret, folder, parent, abi)),
        "seccomp": _tried("seccomp" in in_force, _beyond_seccomp()),
    }
    return {"layers": layers, "landlock_abi": abi}


def confine_as_runner(folder: str) -> tuple[str, ...]:
    """The names of what is in force."""
    return (*forbid_privileges(), *confine(socket_folder=folder))


def _beyond_landlock(secret: str, folder: str, parent: int, abi: int) -> Mapping[str, Attempt]:
    attempts: dict[str, Attempt] = {
        "read a file": lambda: os.close(os.open(secret, os.O_RDONLY)),
        "write a file": lambda: os.close(os.open(f"{folder}/file", os.O_WRONLY | os.O_CREAT)),
        "list a folder": lambda: os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY)),
        "read its parent's environment": lambda: os.close(os.open(f"/proc/{parent}/environ", os.O_RDONLY)),
    }
    if abi >= _SIGNALS_SINCE:
        attempts["signal its parent"] = lambda: os.kill(parent, 0)
    return attempts


def _beyond_seccomp() -> Mapping[str, Attempt]:
    return {
        "open an internet socket": lambda: socket.socket(socket.AF_INET).close(),
        "connect": lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"),
        "start a program": lambda: os.execv("/nowhere", ["nowhere"]),
        "fork": lambda: os.fork() or os._exit(0),
    }


def _tried(in_force: bool, attempts: Mapping[str, Attempt]) -> str:
    if not in_force:
        return "absent"
    for attempt in attempts.values():
        try:
            attempt()
        except PermissionError:
            continue
        except OSError:
            pass
        return "broken"
    return "holds"


def _state(holds: bool) -> str:
    return "holds" if holds else "absent"


def _prctl_get(option: int) -> int:
    """-1 where there is no such call."""
    try:
        return int(ctypes.CDLL(None).prctl(option, 0, 0, 0, 0))
    except (OSError, AttributeError):
        return -1


def _death_signal() -> int:
    number = ctypes.c_int(0)
    try:
        ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    except (OSError, AttributeError):
        return 0
    return number.value


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(*sys.argv[1:3])))
