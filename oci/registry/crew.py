"""Threads that do one job together, and the connections that they may have at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from ...modelfile.errors import LadingError

_CUT_EVERY_S = 0.05
_LOOK_EVERY_S = 0.1

T = TypeVar("T")


class TransferStopped(LadingError):
    """Another part of the same transfer failed; this one was given up for it."""

    def __init__(self) -> None:
        super().__init__("transferring: stopped, because another part failed")


class Crew:
    """Threads that work on one transfer. The first failure stops the others, also those of a crew within.

    cut: ends at once what the threads with these identities are sending or waiting for. sleep: how waiting
    is done, where not by really waiting.
    """

    def __init__(
        self,
        cut: Callable[[Container[int]], None],
        *,
        within: Crew | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._cut = cut
        self._within = within
        self._sleep: Callable[[float], None] | None = within._sleep if within is not None else sleep
        self._threads: set[int] = set()
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set() or (self._within is not None and self._within.stopped)

    def check(self) -> None:
        """Raises: TransferStopped."""
        if self.stopped:
            raise TransferStopped

    def sleep(self, seconds: float) -> None:
        """Waits, but not for what has been stopped. Raises: TransferStopped."""
        self.check()
        if self._sleep is not None:
            self._sleep(seconds)
            return
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._stopped.wait(min(left, _LOOK_EVERY_S))
            self.check()

    def wait_for(self, event: threading.Event) -> None:
        """Waits as long as it takes. Raises: TransferStopped."""
        while not event.wait(_LOOK_EVERY_S):
            self.check()

    def each(self, items: Iterable[T], work: Callable[[T], None], *, threads: int) -> None:
        """Does the work for all, several at once. The first failure stops the others and is raised, after
        they have ended; so does an interrupt of the calling thread."""

        def work_here(item: T) -> None:
            with self._working():
                self.check()  # not at all, when another has failed meanwhile
                work(item)

        pool = ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="lading-transfer")
        try:
            futures = [pool.submit(work_here, item) for item in items]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failures = [error for future in done if (error := future.exception()) is not None]
            failures.sort(key=lambda error: isinstance(error, TransferStopped))
            if failures:
                raise failures[0]
        except BaseException:
            self._stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            # Again and again: a thread may be about to connect while its connections are cut.
            while working := frozenset(self._threads):
                self._cut(working)
                time.sleep(_CUT_EVERY_S)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Counts the calling thread in, here and in every crew around."""
        crews: list[Crew] = []
        crew: Crew | None = self
        while crew is not None:
            crews.append(crew)
            crew = crew._within
        ident = threading.get_ident()
        for crew in crews:
            crew._threads.add(ident)
        try:
            yield
        finally:
            for crew in crews:
                crew._threads.discard(ident)


class Slots:
    """How many connections move blobs at once, over all blobs of a transfer."""

    def __init__(self, count: int, crew: Crew) -> None:
        self._count = max(1, count)
        self._crew = crew
        self._used = 0
        self._changed = threading.Condition()

    @property
    def count(self) -> int:
        return self._count

    def fewer(self) -> None:
        """Half as many from now on: the registry has too much to do."""
        with self._changed:
            self._count = max(1, self._count // 2)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Waits for one. Raises: TransferStopped."""
        with self._changed:
            while self._used >= self._count:
                self._changed.wait(_LOOK_EVERY_S)
                self._crew.check()
            self._used += 1
        try:
            yield
        finally:
            with self._changed:
                self._used -= 1
                self._changed.notify()
