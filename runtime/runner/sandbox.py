"""What a runner gives up before it touches a model: everything that it does not need.

Limits and no-new-privileges always; Landlock and seccomp where the kernel has them. What is not there is left
out, and not named among what is in force. All of it works without privileges and holds until the process
ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from . import landlock, seccomp

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MAX_OPEN_FILES = 4096

# What Python, the C library and llama.cpp read in the course of things.
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/urandom",
)
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dri")
_GPU_READS = ("/proc", "/sys", "/etc", "/opt", "/run")
_GPU_USES = ("/dev",)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Exits at once when ``parent`` is not the parent any more: the signal would never come.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(72)


def forbid_privileges() -> tuple[str, ...]:
    """Give up core dumps, setuid programs and being traced; returns the names of what is in force."""
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


def confine(
    *,
    files: Sequence[str] = (),
    socket_folder: str = "",
    own_folder: str = "",
    overwrite: str = "",
    gpu: bool = False,
) -> tuple[str, ...]:
    """Leave this process its code, ``files`` to read, one folder for its socket, one for files of its own,
    one file, which exists, to ``overwrite``; no network, no programs.

    With ``gpu`` drivers keep their devices and settings, if there are any. Call it after `forbid_privileges`,
    while there is one thread. Returns the names of what is in force.
    """
    if not sys.platform.startswith("linux"):
        return ()
    gpu = gpu and any(map(os.path.exists, _GPU_DEVICES))
    grants = landlock.Grants(
        read=(*_SYSTEM, *_code_folders(), *files, *(_GPU_READS if gpu else ())),
        use=("/dev/null", *(_GPU_USES if gpu else ())),
        sockets_in=(socket_folder,) if socket_folder else (),
        write=(own_folder,) if own_folder else (),
        overwrite=(overwrite,) if overwrite else (),
    )
    in_force = []
    if landlock.restrict(grants):
        in_force.append(f"landlock_{landlock.version()}")
    if seccomp.restrict():
        in_force.append("seccomp")
    return tuple(in_force)


def _code_folders() -> list[str]:
    """Where modules are imported from."""
    ours = str(Path(__file__).resolve().parents[2])  # the folder of all our packages
    return [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), ours, *filter(None, sys.path)]


def _prctl(option: int, value: int) -> bool:
    """Whether the kernel did it. Linux only; elsewhere nothing happens."""
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)
