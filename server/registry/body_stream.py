"""Large bodies, to and from files, in pieces of one mebibyte; the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO, ParamSpec, TypeVar

from falcon.asgi import Request

from ...oci.store import file_at
from ..file_section import MIN_SECTION, FileSection

PIECE = 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")


class FileStream:
    """A part of a blob as the body of an answer; Falcon reads it, and closes it however that ends.

    Where the server can send sections of files by itself, it is given those.
    """

    def __init__(self, file: BinaryIO, first: int, end: int, *, sections: bool) -> None:
        self._file = file
        self._position = first
        self._end = end
        self._sections = sections

    async def read(self, size: int | None = None, /) -> bytes:
        """The next piece, of a size of our own: what is asked for suits small answers. Empty at the end."""
        if self._position >= self._end:
            return b""
        if self._sections and (section := self._section()) is not None:
            data: bytes = section
        else:
            data = await in_thread(self._read)
        if not len(data):
            raise OSError("a blob ends too early")
        self._position += len(data)
        return data

    def _section(self) -> FileSection | None:
        """All up to the end of the file that the next byte is in, where that is much."""
        found = file_at(self._file, self._position)
        if found is None:
            return None
        fd, offset, count = found
        count = min(count, self._end - self._position)
        return FileSection(fd, offset, count) if count >= MIN_SECTION else None

    def _read(self) -> bytes:
        self._file.seek(self._position)
        return self._file.read(min(PIECE, self._end - self._position))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def close(self) -> None:
        self._file.close()


async def read_bounded(req: Request, limit: int) -> bytes | None:
    """The whole body; None where it has more than `limit` bytes, of which no more are read."""
    data = bytearray()
    async for chunk in req.stream:
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


async def in_thread(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """The result of work that may block."""
    return await asyncio.to_thread(work, *args, **options)


async def finished(work: Awaitable[None]) -> None:
    """Waits for the end of what runs in a thread, even when cancelled: it cannot be stopped, and what it
    works on must not be closed under it."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
