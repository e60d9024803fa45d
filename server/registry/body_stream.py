"""Large bodies, to and from files, in pieces of one mebibyte; the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, ParamSpec, TypeVar

from falcon.asgi import Request

PIECE = 1024 * 1024

P = ParamSpec("P")
T = TypeVar("T")


class FileStream:
    """A section of a file as the body of an answer; Falcon reads it, and closes it however that ends."""

    def __init__(self, file: BinaryIO, first: int, end: int) -> None:
        self._file = file
        self._position = first
        self._end = end

    async def read(self, size: int | None = None, /) -> bytes:
        """The next piece, of a size of our own: what is asked for suits small answers. Empty at the end."""
        wanted = min(PIECE, self._end - self._position)
        data = await in_thread(os.pread, self._file.fileno(), wanted, self._position) if wanted else b""
        self._position += len(data)
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def close(self) -> None:
        self._file.close()


async def body_pieces(req: Request) -> AsyncIterator[bytes]:
    """The request's body in pieces of about one mebibyte."""
    pending = bytearray()
    async for chunk in req.stream:
        pending += chunk
        if len(pending) >= PIECE:
            yield bytes(pending)
            pending = bytearray()
    if pending:
        yield bytes(pending)


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
