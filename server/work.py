"""Long work in a thread, its progress as a stream: pull, push, create.

The work runs to its end in a thread and reports through a sink; here the reports become an async stream. When
the client leaves, the next report raises in the thread, which ends the work at a safe point.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future

from ..modelfile.errors import BusyError, LadingError
from ..oci.progress import Progress, ProgressSink


class ClientGone(LadingError):
    """Nobody waits for the work any more."""


class TooMuchWork(BusyError):
    """As many pulls, pushes and creates are going on as this process takes."""

    def __init__(self) -> None:
        super().__init__(f"starting the work: {MAX_AT_ONCE} transfers are going on", hint="try again later")


MAX_AT_ONCE = 16
_places = threading.BoundedSemaphore(MAX_AT_ONCE)


async def progress_of(work: Callable[[ProgressSink], object]) -> AsyncGenerator[Progress, None]:
    """The progress of `work`, which is run in a thread. Raises what it raises, and TooMuchWork.

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
        _tell(lambda: loop.call_soon_threadsafe(ready.set))

    result: Future[object] = Future()
    result.add_done_callback(lambda _: loop.call_soon_threadsafe(ready.set))
    _start(functools.partial(work, report), result)
    try:
        while not result.done():
            await ready.wait()
            ready.clear()
            for progress in waiting.take():
                yield progress
        for progress in waiting.take():
            yield progress
        result.result()
    finally:
        gone.set()  # a thread that is still at work ends at its next report


def _start(work: Callable[[], object], result: Future[object]) -> None:
    if not _places.acquire(blocking=False):
        raise TooMuchWork

    def run() -> None:
        try:
            outcome = work()
        except BaseException as error:  # raised again by the one who reads the result
            _places.release()
            _tell(functools.partial(result.set_exception, error))
        else:
            _places.release()
            _tell(functools.partial(result.set_result, outcome))

    threading.Thread(target=run, name="long-work", daemon=True).start()


def _tell(tell: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the event loop is gone: nobody waits any more
        tell()


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
