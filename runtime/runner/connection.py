"""One client of the runner, and how it is told things from any thread. Runner process only.

The engine's thread writes to the socket itself: waking the event loop for each token would cost two more
switches between threads, and both would want the interpreter at the moment the next step begins. Only what a
slow client has no room for is left to the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading

from ..frame import BadFrame, pack
from ..protocol import End, Failed, Reply, Request

MAX_UNREAD = 8 * 1024 * 1024
"""Bytes that a client may leave unread before it is hung up on."""


class Connection:
    """Made in the event loop, whose thread alone reads. Its requests die with it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.tasks: dict[int, asyncio.Task[None]] = {}
        """Requests that are not in the engine: being prepared, or answered here."""
        self.generating: set[int] = set()
        """Requests in the engine."""
        self._loop = asyncio.get_running_loop()
        self._writer = writer
        writer.transport.set_write_buffer_limits(0)  # `drain` means: all is with the kernel
        # A descriptor of its own: one that the loop closes may be another client's a moment later.
        fd = os.dup(writer.get_extra_info("socket").fileno())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd)
        self._lock = threading.Lock()
        self._late: list[bytes] = []
        """What the loop has yet to write, in order."""
        self._unread = 0
        self._is_late = False
        """Until all of it is written, everything goes that way."""
        self._catching_up: asyncio.Task[None] | None = None
        self._is_closed = False

    def send(self, replies: list[Reply]) -> None:
        """From any thread; never waits. A client that does not read is hung up on, and so cancelled."""
        for reply in replies:
            if isinstance(reply, End | Failed):
                self.generating.discard(reply.id)
        data = _packed(replies)
        with self._lock:
            if self._is_closed:
                return
            if not self._is_late:
                data = data[self._write(data) :]
            if data:
                self._leave_to_loop(data)

    def close(self) -> None:
        """In the event loop. What was not written by now is lost. Repeating it is harmless."""
        with self._lock:
            self._is_closed = True
            self._socket.close()
        self._writer.close()

    def take(self, request: Request) -> None:
        """Raises: BadFrame where the id is in use: its two answers could not be told apart."""
        if request.id in self.tasks or request.id in self.generating:
            raise BadFrame(f"reading a request: id {request.id} is in use")

    def _write(self, data: bytes) -> int:
        """How many bytes there was room for; all of them where nobody is there any more: the reader will
        notice."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _leave_to_loop(self, data: bytes) -> None:
        self._late.append(data)
        self._unread += len(data)
        if self._unread > MAX_UNREAD:
            self._loop.call_soon_threadsafe(self._writer.transport.abort)
        elif not self._is_late:
            self._is_late = True
            self._loop.call_soon_threadsafe(self._start_catching_up)

    def _start_catching_up(self) -> None:
        self._catching_up = self._loop.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        with contextlib.suppress(OSError):  # the reader notices, too
            data = b""
            while data := self._take_late(written=len(data)):
                self._writer.write(data)
                await self._writer.drain()

    def _take_late(self, *, written: int) -> bytes:
        """What came since; when nothing has, the engine writes for itself again."""
        with self._lock:
            self._unread -= written
            data = b"".join(self._late)
            self._late.clear()
            self._is_late = bool(data)
        return data


def _packed(replies: list[Reply]) -> bytes:
    try:
        return pack(replies)
    except BadFrame as error:  # a reply beyond the size of a frame: embeddings of very many texts
        return pack([Failed(id=reply.id, code="bad_request", message=error.message) for reply in replies])
