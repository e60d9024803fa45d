"""File locks between processes and threads.

``flock`` belongs to an open file, and every lock here opens its own: two threads of one process exclude
each other as two processes do, and the kernel lets go of the lock of whoever dies.
"""

from __future__ import annotations

import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from .disk import translating

_POLL_S = 0.02


@contextmanager
def locked(path: Path, mode: Literal["shared", "exclusive"]) -> Iterator[None]:
    """Hold a lock on ``path``, which is created where missing. Waits as long as it takes.

    Raises: StoreReadOnly, StoreFailure.
    """
    with translating("locking", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with translating("locking", path):
            fcntl.flock(fd, fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX)
        yield
    finally:
        release(fd)


def acquire(fd: int, *, wait_s: float | None, on_wait: Callable[[], None] | None = None) -> bool:
    """Lock the open file exclusively. Waits at most ``wait_s`` seconds, for ever where None.

    ``on_wait`` is called again and again while waiting; what it raises ends the wait.

    Returns whether the lock is held. Raises: OSError.
    """
    if wait_s is None and on_wait is None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        return True
    deadline = time.monotonic() + wait_s if wait_s is not None else math.inf
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            if on_wait is not None:
                on_wait()
            time.sleep(_POLL_S)


def release(fd: int) -> None:
    """Unlock and close. The unlock is explicit: a forked child may hold a copy of the descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)
