"""The keeper's own line to a runner: its standard input, once the spec has been read. Runner process only.

Only who started the runner holds the other end: clients of its socket cannot add variants. Files come as open
descriptors, so that a runner never needs the right to open more than its model (see `sandbox`), and gets to
see no file that it was not handed.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable

from ..frame import CONTROL, HEADER, BadFrame, body_size, unpack
from ..protocol import AddVariant, ControlMessage

_MAX_FILES = 253
"""Descriptors that the kernel carries with one message."""

_FD = 0
_READ = 65536
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Control:
    """``take`` is called with each message and the descriptors that came with it, which are then its own;
    ``end`` once, when the parent is gone, or says what is no message."""

    def __init__(self, take: Callable[[ControlMessage, list[int]], None], end: Callable[[], None]) -> None:
        self._take = take
        self._end = end
        self._data = bytearray()
        self._files: list[int] = []
        self._socket: socket.socket | None = None
        if stat.S_ISSOCK(os.fstat(_FD).st_mode):  # else a pipe: it says nothing, but it ends
            self._socket = socket.socket(fileno=os.dup(_FD))

    @property
    def fd(self) -> int:
        """To be watched."""
        return _FD

    def read(self) -> None:
        """Take what is there."""
        try:
            if not self._receive():
                self._end()
                return
            while (body := self._next_body()) is not None:
                self._hand_over(unpack(CONTROL, body))
        except (OSError, BadFrame):
            self._end()

    def _receive(self) -> bool:
        """False at the end. What comes through a pipe is of no interest."""
        if self._socket is None:
            return bool(os.read(_FD, _READ))
        try:
            data, files, flags, _ = socket.recv_fds(self._socket, _READ, _MAX_FILES, _FLAGS)
        except BlockingIOError:
            return True
        self._files += files
        self._data += data
        if flags & socket.MSG_CTRUNC:
            raise BadFrame("reading a message: it came with too many files")
        return bool(data)

    def _next_body(self) -> bytes | None:
        """Of the next message that is there in full."""
        if len(self._data) < HEADER:
            return None
        end = HEADER + body_size(bytes(self._data[:HEADER]))
        if len(self._data) < end:
            return None
        body = bytes(self._data[HEADER:end])
        del self._data[:end]
        return body

    def _hand_over(self, message: ControlMessage) -> None:
        """Descriptors come with the first bytes of their message, so they are in the order of messages."""
        count = len(message.variant.adapters) if isinstance(message, AddVariant) else 0
        files, self._files = self._files[:count], self._files[count:]
        self._take(message, files)
