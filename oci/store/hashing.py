"""Hashing at full speed: beside the reading and writing, not between them."""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from ..digest import Digest, Hasher, new_hasher

CHUNK = 256 << 10
"""Bytes a read. Larger pieces fall out of the processor's cache before they are hashed and written: with
1 MiB the import of a file took two to three times the system time."""

LAG_CHUNKS = 8
"""How many calls of ``update`` a ``BackgroundHasher`` may be behind."""


class BackgroundHasher:
    """A ``Hasher`` whose work is done by a thread of its own: hashlib lets other threads run meanwhile.

    What is passed to ``update`` must not change before ``LAG_CHUNKS`` further calls have returned. ``close``
    ends the thread.
    """

    def __init__(self, hasher: Hasher) -> None:
        self._hasher = hasher
        self._queue: queue.SimpleQueue[bytes | bytearray | memoryview | None] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(LAG_CHUNKS)
        self._thread: threading.Thread | None = threading.Thread(
            target=self._run, name="lading-hasher", daemon=True
        )
        self._thread.start()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Hash ``data`` soon. Waits while the thread is far behind, so that memory stays bounded."""
        self._room.acquire()
        self._queue.put(data)

    def hexdigest(self) -> str:
        """The digest of all that was passed. Ends the thread: ``update`` must not be called again."""
        self.close()
        return self._hasher.hexdigest()

    def close(self) -> None:
        """End the thread, after what was passed is hashed. May be called again."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> BackgroundHasher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            self._hasher.update(data)
            self._room.release()


def iter_chunks(fd: int, *, start: int = 0, limit: int = sys.maxsize) -> Iterator[memoryview]:
    """The open file from ``start`` on in pieces of up to ``CHUNK`` bytes, not beyond its first ``limit``.

    A piece keeps its content until ``LAG_CHUNKS`` more were taken: long enough for a ``BackgroundHasher``.
    The few buffers are used in turn, since new ones for each piece cost more than reading into them. The
    file position is not used or moved.

    Raises: OSError.
    """
    length = min(CHUNK, os.fstat(fd).st_size + 1)  # most blobs are small
    buffers: list[memoryview] = []
    offset = start
    for turn in itertools.cycle(range(LAG_CHUNKS + 1)):
        if turn == len(buffers):
            buffers.append(memoryview(bytearray(length)))
        wanted = min(length, limit - offset)
        count = os.preadv(fd, [buffers[turn][:wanted]], offset) if wanted else 0
        if not count:
            return
        offset += count
        yield buffers[turn][:count]


def hash_file(
    fd: int,
    *,
    algorithm: str = "sha256",
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[Digest, int]:
    """The digest and size of the open file.

    ``on_bytes`` is told each number of bytes read. The file position is not used or moved. Raises: OSError.
    """
    hasher = new_hasher(algorithm)
    size = 0
    for chunk in iter_chunks(fd):
        hasher.update(chunk)
        size += len(chunk)
        if on_bytes is not None:
            on_bytes(len(chunk))
    return Digest(algorithm, hasher.hexdigest()), size
