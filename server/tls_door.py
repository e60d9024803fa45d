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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .web_worker import GuardedWorker

_HANDSHAKE = 0x16
"""The content type of a TLS record that begins a connection. Source: RFC 8446, section 5.1."""
LAST_CHANCE_S = 1.0
"""How long a connection that has just been made may wait with its first request while its worker ends."""
_TEXT = b"This server speaks HTTPS: use https:// in place of http://\n"
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TEXT), _TEXT)
)


class TlsDoor(asyncio.Protocol):
    """One connection until its handshake is done; then the protocol that `make_protocol` makes has it.

    The server's transport is given up at once, before it reads, and a copy of its socket goes on: what the
    client has sent must still be there for TLS, and uvloop's transports cannot be kept from reading.
    """

    def __init__(
        self, worker: GuardedWorker, context: ssl.SSLContext, make_protocol: Callable[[], Any]
    ) -> None:
        self._worker = worker
        self._context = context
        self._make_protocol = make_protocol
        self._task: asyncio.Task[None] | None = None
        self._peeking = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are none by class
        copy = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        admitted = self._worker.admit(self, transport.get_extra_info("peername"))
        transport.abort()
        if not admitted:
            copy.close()
            self._worker.forget(self)
            return
        copy.setblocking(False)
        self._worker.nr_conns += 1  # a worker that ends waits for those
        self._task = self._worker.loop.create_task(self._open(copy))

    def close_if_idle(self) -> None:
        """A handshake that has begun is ended, and the request behind it answered; one that has not gets a
        moment, for a client that has just connected."""
        if self._task is not None and self._peeking:
            self._worker.loop.call_later(LAST_CHANCE_S, self._give_up)

    def _give_up(self) -> None:
        if self._task is not None and self._peeking:
            self._task.cancel()

    async def _open(self, connection: socket.socket) -> None:
        """Owns the connection until a transport does."""
        loop, limit = self._worker.loop, self._worker.limits.header_s
        try:
            async with asyncio.timeout(limit):
                first = await _peek(loop, connection)
            self._peeking = False
            if first != _HANDSHAKE:
                async with asyncio.timeout(limit):
                    await _say_plainly(loop, connection)
                return
            await loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._context, ssl_handshake_timeout=limit
            )
        except (OSError, TimeoutError):
            pass  # a handshake that failed (ssl.SSLError is an OSError) is not ours to mend
        finally:
            self._worker.nr_conns -= 1  # the protocol counts itself
            self._worker.forget(self)
            connection.close()


async def _peek(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> int:
    """The first byte, left where it is; -1 where none comes."""
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        while True:
            readable.clear()
            with contextlib.suppress(BlockingIOError):
                first = connection.recv(1, socket.MSG_PEEK)
                return first[0] if first else -1
            await readable.wait()
    finally:
        loop.remove_reader(connection)


async def _say_plainly(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    await loop.sock_sendall(connection, _PLAIN)
    connection.shutdown(socket.SHUT_WR)
    # Hung up on at once, with bytes of it unread, the client would get a reset and might lose the answer.
    while await loop.sock_recv(connection, 65536):
        pass
