"""Landlock: the kernel refuses this process every file and TCP port that is not granted here. Linux ≥ 5.13.

Source: Linux, Documentation/userspace-api/landlock.rst; include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_QUERY_VERSION = 1
_RULE_PATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FILE, _MAKE_SOCK = 1 << 5, 1 << 8, 1 << 9
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

# How many rights each version of the interface knows, and what else it handles.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_TCP_SINCE, _BIND_AND_CONNECT_TCP = 4, 0b11
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What stays allowed. Paths that do not exist are passed over; a folder is granted with all below it."""

    read: tuple[str, ...] = ()
    use: tuple[str, ...] = ()
    """Read, write and ioctl: devices."""
    sockets_in: tuple[str, ...] = ()
    """Folders in which Unix sockets may be made and removed."""
    write: tuple[str, ...] = ()
    """Folders in which files may be made, read, written, renamed and removed."""
    overwrite: tuple[str, ...] = ()
    """Files that exist and may be emptied and written."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("fd", ctypes.c_int32))


def version() -> int:
    """Of the kernel's interface; 0: there is none."""
    return max(0, _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_QUERY_VERSION)))


def restrict(grants: Grants) -> bool:
    """Refuse everything else to this thread and all that it starts, for good; whether the kernel does.

    Call it while there is one thread, after no-new-privileges is set.
    """
    known = version()
    if known == 0:
        return False
    handled = (1 << _FILE_RIGHTS.get(known, 16)) - 1
    rules = _Ruleset(
        handled,
        _BIND_AND_CONNECT_TCP if known >= _TCP_SINCE else 0,
        _ABSTRACT_SOCKETS_AND_SIGNALS if known >= _SCOPES_SINCE else 0,
    )
    # Older kernels know a shorter structure.
    size = 24 if known >= _SCOPES_SINCE else 16 if known >= _TCP_SINCE else 8
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        _grant(ruleset, grants.read, handled & (_READ_FILE | _READ_DIR))
        _grant(ruleset, grants.use, handled & (_READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _IOCTL_DEV))
        _grant(ruleset, grants.sockets_in, handled & (_MAKE_SOCK | _REMOVE_FILE))
        own = _READ_FILE | _READ_DIR | _WRITE_FILE | _TRUNCATE | _MAKE_FILE | _REMOVE_FILE
        _grant(ruleset, grants.write, handled & own)
        _grant(ruleset, grants.overwrite, handled & (_WRITE_FILE | _TRUNCATE))
        return _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)


def _grant(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                # Rights of folders are refused on a rule for a file.
                allowed = rights if os.path.isdir(path) else rights & _ON_FILES  # noqa: PTH112 - str all through
                rule = _PathRule(allowed, fd)
                _syscall(
                    _ADD_RULE,
                    ctypes.c_int(ruleset),
                    ctypes.c_int(_RULE_PATH),
                    ctypes.byref(rule),
                    ctypes.c_uint32(0),
                )
            finally:
                os.close(fd)


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(ctypes.c_long(number), *arguments))
