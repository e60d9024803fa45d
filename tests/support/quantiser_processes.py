"""The processes that quantise, to be looked at and killed."""

from __future__ import annotations

import time
from pathlib import Path

MODULE = b"lading.runtime.runner.quantiser_main"


def quantiser_processes(under: int) -> list[int]:
    """Those that are below the process ``under``, by their ids."""
    return [pid for pid in map(int, _numbers()) if MODULE in _arguments(pid) and under in _ancestors(pid)]


def wait_for_quantiser(under: int, timeout_s: float = 30) -> int:
    """The id of one that is started within the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := quantiser_processes(under):
            return found[0]
        time.sleep(0.005)
    raise AssertionError(f"process {under} does not quantise")


def wait_for_none(under: int, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while quantiser_processes(under):
        assert time.monotonic() < deadline, "the process that quantises goes on"
        time.sleep(0.02)


def _numbers() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _arguments(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _ancestors(pid: int) -> set[int]:
    found: set[int] = set()
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.add(pid)
    return found
