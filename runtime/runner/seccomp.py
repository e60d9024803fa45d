"""A seccomp filter: system calls that no runner needs fail, whatever code runs in it. x86-64 and arm64 Linux.

A list of what is refused, not of what is allowed: C libraries and GPU drivers change what they call, and a
process that is killed for it helps nobody.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; the tables of system calls of both machines.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping, Sequence

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_X32_BIT = 0x40000000
_AF_UNIX = 1
_CLONE_THREAD = 0x00010000

# Name: number on x86-64, number on arm64 (None: it has none).
_REFUSED: Mapping[str, tuple[int, int | None]] = {
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "open_by_handle_at": (304, 265),
    "acct": (163, 89),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "quotactl": (179, 60),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
}
_NEW_PROCESS: Mapping[str, tuple[int, int | None]] = {"fork": (57, None), "vfork": (58, None)}
_SOCKET = (41, 198)
_CLONE = (56, 220)
_CLONE3 = (435, 435)
_ARCH_PRCTL = 158
_REQUEST_PERMISSION = 0x1023
"""ARCH_REQ_XCOMP_PERM: to use processor state that is large, which is that of AMX alone."""


class _Program(ctypes.Structure):
    _fields_ = (("size", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def restrict() -> bool:
    """Install the filter for all threads, for good; whether the kernel did. Needs no-new-privileges."""
    machine = platform.machine()
    return machine in _SECCOMP and _install(program(machine), machine)


def refuse_amx() -> bool:
    """Have the kernel refuse Intel's AMX to this process, for good; whether it does. Needs no-new-privileges.

    llama.cpp then does without. As compilers build it today it would die of the first instruction: they take
    the configuration of the tiles for unused but for its first bytes. Source: llama.cpp,
    ggml-cpu/amx/mmq.cpp, ``ggml_tile_config_init``; https://github.com/ggml-org/llama.cpp/pull/26954.
    """
    if platform.machine() != "x86_64":
        return False
    fail = _FAIL | errno.EPERM
    code = [
        _instruction(_LOAD, _ARCH),
        *_unless(_EQUAL, _ARCHITECTURE["x86_64"], [_instruction(_RETURN, _ALLOW)]),
        _instruction(_LOAD, _NUMBER),
        *_unless(_EQUAL, _ARCH_PRCTL, [_instruction(_RETURN, _ALLOW)]),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *_when(_EQUAL, _REQUEST_PERMISSION, [_instruction(_RETURN, fail)]),
        _instruction(_RETURN, _ALLOW),
    ]
    return _install(b"".join(code), "x86_64")


def _install(code: bytes, machine: str) -> bool:
    argument = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(_SECCOMP[machine]),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        ctypes.byref(argument),
    )
    return bool(result == 0)


def program(machine: str) -> bytes:
    """The filter for a machine, as the kernel takes it: 8 bytes for each instruction."""
    column = list(_SECCOMP).index(machine)
    fail = _FAIL | errno.EPERM
    code: list[bytes] = [
        _instruction(_LOAD, _ARCH),
        *_unless(_EQUAL, _ARCHITECTURE[machine], [_instruction(_RETURN, fail)]),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        code += _when(_AT_LEAST, _X32_BIT, [_instruction(_RETURN, fail)])
    for numbers in (*_REFUSED.values(), *_NEW_PROCESS.values()):
        number = numbers[column]
        if number is not None:
            code += _when(_EQUAL, number, [_instruction(_RETURN, fail)])
    # The C library falls back on clone, whose flags a filter can read.
    code += _when(_EQUAL, _CLONE3[column], [_instruction(_RETURN, _FAIL | errno.ENOSYS)])
    code += _when(_EQUAL, _CLONE[column], _first_argument(_ANY_BIT, _CLONE_THREAD, fail))
    code += _when(_EQUAL, _SOCKET[column], _first_argument(_EQUAL, _AF_UNIX, fail))
    code.append(_instruction(_RETURN, _ALLOW))
    return b"".join(code)


def _first_argument(test: int, operand: int, fail: int) -> list[bytes]:
    """Allow where the first argument passes the test."""
    return [
        _instruction(_LOAD, _FIRST_ARGUMENT),
        *_unless(test, operand, [_instruction(_RETURN, fail)]),
        _instruction(_RETURN, _ALLOW),
    ]


def _when(test: int, operand: int, body: Sequence[bytes]) -> list[bytes]:
    return [_instruction(test, operand, 0, len(body)), *body]


def _unless(test: int, operand: int, body: Sequence[bytes]) -> list[bytes]:
    return [_instruction(test, operand, len(body), 0), *body]


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)
