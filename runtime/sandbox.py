"""What a runner gives up before it touches a model: the rights that it does not need.

Everything here is ctypes and the standard library, works without privileges, and where a kernel lacks
something that part is left out and not named in the result.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MAX_OPEN_FILES = 4096


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Exits at once when ``parent`` is not the parent any more: the signal would never come.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(72)


def forbid_privileges() -> tuple[str, ...]:
    """Give up what no runner needs, for good; returns the names of what is in force."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _MAX_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    in_force = ["rlimits"]
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1):
        in_force.append("no_new_privs")
    if _prctl(_PR_SET_DUMPABLE, 0):
        in_force.append("not_dumpable")
    return tuple(in_force)


def _prctl(option: int, value: int) -> bool:
    """Whether the kernel did it. Linux only; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)
