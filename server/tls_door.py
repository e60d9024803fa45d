"""Where connections come in when the server has TLS.

    connection ── first byte ──┬─ of a handshake → TLS → the protocol behind
                               └─ of anything else → 400 in plain HTTP, for whoever has forgotten the ``s``

A connection counts against the limits from its first moment, and has ``header_s`` to end its handshake: a
server of gunicorn's would count it only afterwards, and wait for a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .web_worker import GuardedWorker

_HANDSHAKE = 0x16
"""The content type of a TLS record that begins a connection. Source: RFC 8446, section 5.1."""
_LINGER_S = 1.0
_TEXT = b"This server speaks HTTPS: use https:// in place of http://\n"
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class TlsDoor(asyncio.Protocol):
    """One connection until its handshake is done; then `protocol` has it."""

    def __init__(self, worker: GuardedWorker, context: ssl.SSLContext, protocol: Any) -> None:
        self._worker = worker
        self._context = context
        self._protocol = protocol
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._admitted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Before anything has been read: the handshake's first bytes must still be there for `start_tls`.
        transport.pause_reading()
        self._admitted = self._worker.admit(self, transport.get_extra_info("peername"))
        if not self._admitted:
            transport.abort()
            return
        self._task = self._worker.loop.create_task(self._open(transport))

    def data_received(self, data: bytes) -> None:
        """Of a client without TLS; read only so that the answer is not lost to a reset."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._task is not None:
            self._task.cancel()

    def close_if_idle(self) -> None:
        """Nothing has been asked yet."""
        if self._transport is not None:
            self._transport.abort()

    async def _open(self, transport: asyncio.Transport) -> None:
        limit = self._worker.limits.header_s
        try:
            async with asyncio.timeout(limit):
                first = await _peek(self._worker.loop, transport)
            if first != _HANDSHAKE:
                await _say_plainly(transport)
                return
            secure = await self._worker.loop.start_tls(
                transport, self._protocol, self._context, server_side=True, ssl_handshake_timeout=limit
            )
        except (
            OSError,
            TimeoutError,
        ):  # ssl.SSLError is one: a handshake that failed, which is not ours to mend
            transport.abort()
            self._leave()
            return
        self._leave()  # the protocol counts itself
        if secure is None:
            return
        self._protocol.connection_made(secure)

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._worker.forget(self)


async def _peek(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> int:
    """The first byte, left where it is; -1 where none comes."""
    with socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as twin:
        twin.setblocking(False)
        readable = asyncio.Event()
        loop.add_reader(twin, readable.set)
        try:
            while True:
                readable.clear()
                with contextlib.suppress(BlockingIOError):
                    first = twin.recv(1, socket.MSG_PEEK)
                    return first[0] if first else -1
                await readable.wait()
        finally:
            loop.remove_reader(twin)


async def _say_plainly(transport: asyncio.Transport) -> None:
    transport.write(_PLAIN)
    transport.write_eof()
    transport.resume_reading()
    await asyncio.sleep(_LINGER_S)
    transport.close()
