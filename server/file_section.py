"""Sections of files as bodies of answers, sent by the kernel from file to socket (``sendfile``).

An application that finds `EXTENSION` in its ASGI scope may send a `FileSection` as the ``body`` of an
``http.response.body`` message. The bytes then never enter this process, which makes one worker as fast as a
disk for tens of clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Any

EXTENSION = "lading.file_section"
MIN_SECTION = 256 * 1024
"""Bytes below which a section is not worth the trouble."""

_MOST = 1 << 30
"""Bytes that one call to the kernel is asked for; Linux moves 2 GiB at most."""
_PATIENCE_MS = 20
"""How long a thread waits for a full socket before the event loop does."""


class FileSection(bytes):
    """``size`` bytes of the open file ``fd`` from ``offset`` on. The descriptor stays the caller's.

    To gunicorn it must look like the bytes that it stands for: it is an instance of ``bytes``, is as long as
    what it stands for, and converts to ``bytes`` as itself.
    """

    fd: int
    offset: int
    size: int

    def __new__(cls, fd: int, offset: int, size: int) -> FileSection:
        section = super().__new__(cls)
        section.fd, section.offset, section.size = fd, offset, size
        return section

    def __len__(self) -> int:
        return self.size

    def __bytes__(self) -> FileSection:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = bytes.__hash__


class SectionSender:
    """Sends one section over a connection. ``on_end`` is called once, with whether all of it went out; not
    after `cancel`.

    Nothing else may be written to the transport meanwhile. Threads read from the disk, as long as the socket
    takes what they read; the event loop waits for the socket, for ``stall_s`` at most.

    Raises: OSError where the transport has no socket any more.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: Any,
        section: FileSection,
        *,
        stall_s: float,
        on_end: Callable[[bool], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._stall_s = stall_s
        self._on_end = on_end
        self._offset = section.offset
        self._left = section.size
        # Copies: the originals may be closed while a thread is in the middle of a call to the kernel.
        self._file = os.dup(section.fd)
        try:
            sock = transport.get_extra_info("socket")
            if sock is None or transport.is_closing():
                raise OSError("the connection is closed")
            self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        except BaseException:
            os.close(self._file)
            raise
        self._task = loop.create_task(self._send())

    def cancel(self) -> None:
        """Stop; the connection is of no use any more."""
        with contextlib.suppress(OSError):  # a thread that waits for the socket is woken by this
            self._socket.shutdown(socket.SHUT_RDWR)
        self._task.cancel()

    async def _send(self) -> None:
        complete = False
        try:
            await self._flushed()
            while self._left:
                if not await self._loop.run_in_executor(None, self._move):
                    await asyncio.wait_for(self._writable(), self._stall_s)
            complete = True
        except (OSError, TimeoutError):
            pass  # the client is gone, or might as well be
        finally:
            self._socket.close()
            os.close(self._file)
        self._on_end(complete)

    async def _flushed(self) -> None:
        """Until the headers before the section are on their way."""
        waited = 0.0
        while self._transport.get_write_buffer_size():
            if self._transport.is_closing() or waited > self._stall_s:
                raise TimeoutError
            await asyncio.sleep(0 if not waited else 0.005)
            waited += 0.005

    def _move(self) -> bool:
        """In a thread: move what the socket takes; False where it takes nothing for a while.

        Raises: OSError where the client is gone or the file ends too early.
        """
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        while self._left:
            try:
                count = os.sendfile(self._socket.fileno(), self._file, self._offset, min(self._left, _MOST))
            except BlockingIOError:
                if not poll.poll(_PATIENCE_MS):
                    return False
                continue
            if count == 0:
                raise OSError("the file ends too early")
            self._offset += count
            self._left -= count
        return True

    async def _writable(self) -> None:
        ready = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            self._loop.remove_writer(fd)
