"""Leases: what running operations rely on, so that the sweep leaves it.

A lease is a file that lists digests and that its holder keeps locked. When the holder dies, however it
dies, the kernel unlocks the file and the lease is void: no clock, no process id, no clean-up is relied on.

Rule for editing this file: a digest is recorded under the shared lock of the store, and the sweep reads
leases under the exclusive one. So the sweep either sees the record, or runs wholly before it; and what
is recorded after the sweep is looked for again by its recorder.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..digest import Digest
from ..errors import BadDigest
from .disk import translating, write_all
from .layout import StoreLayout
from .lock import acquire, locked, release


class LeaseBook:
    """The leases that one ``Store`` object holds. Safe to use from several threads.

    Every lease that is open records whatever any thread touches through the same ``Store``: the
    threads of a parallel pull share the lease of the pull. It may keep more than needed, never less.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._guard = threading.Lock()
        self._open: dict[int, set[Digest]] = {}
        """The descriptor of each open lease file, and what it lists."""

    @property
    def active(self) -> bool:
        """Whether any lease is open."""
        return bool(self._open)

    @contextmanager
    def lease(self) -> Iterator[None]:
        """Hold a lease: until the end, nothing that is recorded meanwhile will be swept.

        Raises: DiskFull, StoreReadOnly, StoreFailure.
        """
        path = self._layout.leases / f"{os.getpid()}-{secrets.token_hex(8)}"
        fd = self._create(path)
        try:
            yield
        finally:
            with self._guard:
                del self._open[fd]
            with suppress(OSError):
                path.unlink()
            release(fd)

    def record(self, *digests: Digest) -> None:
        """Add ``digests`` to every open lease. The caller holds the shared lock of the store.

        Raises: OSError.
        """
        with self._guard:
            for fd, listed in self._open.items():
                fresh = [digest for digest in digests if digest not in listed]
                write_all(fd, "".join(f"{digest}\n" for digest in fresh).encode())
                listed.update(fresh)

    def _create(self, path: Path) -> int:
        with translating("creating", path):
            path.parent.mkdir(exist_ok=True)
            # Under the store's lock: the sweep must not meet the file before it is locked.
            with locked(self._layout.lock, "shared"):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
                acquire(fd, wait_s=None)
        with self._guard:
            self._open[fd] = set()
        return fd


def read_leases(layout: StoreLayout) -> tuple[set[Digest], list[Path]]:
    """What live leases list, and the files of dead ones. The caller holds the store's exclusive lock.

    Raises: OSError.
    """
    leased: set[Digest] = set()
    stale: list[Path] = []
    for path in sorted(layout.leases.glob("*")):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # its holder has just finished
            continue
        if acquire(fd, wait_s=0):
            stale.append(path)
            release(fd)
        else:
            with os.fdopen(fd, "r", encoding="ascii", errors="replace") as lines:
                leased.update(_digests(lines))
    return leased, stale


def _digests(lines: Iterator[str]) -> Iterator[Digest]:
    for line in lines:
        with suppress(BadDigest):
            yield Digest.parse(line.rstrip("\n"))
