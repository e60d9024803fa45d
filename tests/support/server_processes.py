"""The processes of a live server, and waiting for what becomes of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psutil
from live_server import LiveServer


def processes(server: LiveServer) -> list[psutil.Process]:
    """All of the server's processes, the master first."""
    master = psutil.Process(server.process.pid)
    return [master, *master.children(recursive=True)]


def runners(server: LiveServer) -> list[psutil.Process]:
    """Each may have helpers below it, of the same name; those are not meant."""
    parents: dict[psutil.Process, int] = {}
    for one in processes(server):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if "lading.runtime.runner" in one.cmdline() and one.status() != psutil.STATUS_ZOMBIE:
                parents[one] = one.ppid()
    pids = {one.pid for one in parents}
    return [one for one, parent in parents.items() if parent not in pids]


def wait_until(condition: Callable[[], object]) -> None:
    """However long it takes, short of a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.05)
