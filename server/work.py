"""Long work in a thread, its progress as a stream: pull, push, create.

The work runs to its end in a thread and reports through a sink; here the reports become an async stream. When
the client leaves, the next report raises in the thread, which ends the work at a safe point.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable

from ..modelfile.errors import LadingError
from ..oci.progress import Progress, ProgressSink


class ClientGone(LadingError):
    """Nobody waits for the work any more."""


async def progress_of(work: Callable[[ProgressSink], object]) -> AsyncGenerator[Progress, None]:
    """The progress of `work`, which is run in a thread. Raises what it raises.

    Reports of the same status and digest that the client is too slow for are dropped, except the latest:
    memory stays bounded and the work is not held up.
    """
    loop = asyncio.get_running_loop()
    waiting = _Waiting()
    ready = asyncio.Event()
    gone = threading.Event()

    def report(progress: Progress) -> None:
        if gone.is_set():
            raise ClientGone("the client has left")
        waiting.add(progress)
        loop.call_soon_threadsafe(ready.set)

    task = asyncio.create_task(asyncio.to_thread(work, report))
    task.add_done_callback(lambda _: ready.set())
    try:
        while not task.done():
            await ready.wait()
            ready.clear()
            for progress in waiting.take():
                yield progress
        for progress in waiting.take():
            yield progress
        await task
    finally:
        gone.set()
        if not task.done():
            # The thread ends by itself, at its next report; its last words are of no interest.
            task.add_done_callback(_ignore)


def _ignore(task: asyncio.Task[object]) -> None:
    with contextlib.suppress(BaseException):
        task.exception()


class _Waiting:
    """Reports that were not sent yet, at most one for each status and digest in a row. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[tuple[str, str], Progress] = {}

    def add(self, progress: Progress) -> None:
        with self._lock:
            self._reports[progress.status, str(progress.digest)] = progress

    def take(self) -> list[Progress]:
        with self._lock:
            reports, self._reports = self._reports, {}
        return list(reports.values())
