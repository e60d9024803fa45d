"""How much memory this machine has to give, and processes take."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_READ_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Bytes; both the least of what the machine and the control group allow."""

    total: int
    available: int
    """What can be had without swapping, page cache that may be dropped included."""


def read_machine_memory() -> MachineMemory:
    """What there is at this moment. Never raises: an unreadable control group counts as none."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for group in own_groups():
        limit = _number(group / "memory.max")
        used = _number(group / "memory.current")
        if limit is None or used is None:
            continue
        droppable = _field(group / "memory.stat", "inactive_file") + _field(
            group / "memory.stat", "active_file"
        )
        total = min(total, limit)
        available = min(available, max(0, limit - used + droppable))
    return MachineMemory(total, available)


def process_memory(pid: int) -> int:
    """Bytes that would be free if the process were gone: its own pages, not the files that it maps.

    0 where it is gone already.
    """
    with contextlib.suppress(psutil.Error):
        info = psutil.Process(pid).memory_info()
        return max(0, int(info.rss) - int(getattr(info, "shared", 0)))
    return 0


def resident_memory() -> int:
    """Bytes of this process that are in memory, files that it maps included."""
    return int(psutil.Process().memory_info().rss)


def oom_kills() -> int:
    """How often the kernel has killed a process of this control group for want of memory; 0 where unknown."""
    groups = own_groups()
    return _field(groups[0] / "memory.events", "oom_kill") if groups else 0


def own_groups() -> list[Path]:
    """This process's control group (version 2) and all its parents: each may set a limit."""
    try:
        text = _OWN_CGROUP.read_text(encoding="ascii")[:_READ_LIMIT]
    except (OSError, ValueError):
        return []
    path = next((line[3:] for line in text.splitlines() if line.startswith("0::/")), None)
    if path is None or ".." in path:
        return []
    own = _CGROUP_ROOT / path.lstrip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(_CGROUP_ROOT))]


def _number(path: Path) -> int | None:
    """The number in a one-line file; None for "max" or an unreadable file."""
    try:
        return int(path.read_text(encoding="ascii")[:32])
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text(encoding="ascii")[:_READ_LIMIT].splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
