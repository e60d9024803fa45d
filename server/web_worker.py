"""gunicorn's ``asgi`` worker with the guards that it lacks against slow and greedy clients.

    header_s           a connection must have sent its first request's headers within this time
    body_progress_s    a body must bring at least `MIN_PROGRESS` bytes in each such interval
    write_stall_s      a client must not leave its socket full for longer
    connections        more are turned away with 503
    on SIGTERM         idle connections are closed at once, so that only running answers delay the end

Between requests gunicorn's own ``keepalive`` applies. Source: gunicorn 27.0.1, asgi/protocol.py.

Rules for editing this file: it overrides parts of gunicorn that are private. Whoever raises gunicorn's
version runs tests/server/test_slow_clients.py, which shows each guard on a real server.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from .settings import Limits

MIN_PROGRESS = 1024
"""Bytes."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class GuardedWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """The worker. Its limits come with the application: ``app.limits``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits: Limits = self.app.limits
        self.protocols: set[GuardedProtocol] = set()
        self.per_ip: Counter[str] = Counter()

    def init_process(self) -> None:
        # The worker names this class when it makes its servers, and offers no other way to replace it.
        gasgi.ASGIProtocol = GuardedProtocol
        super().init_process()

    def handle_exit_signal(self) -> None:
        super().handle_exit_signal()
        for server in self.servers:  # gunicorn does so too, but only when its loop next looks up
            server.close()
        for protocol in list(self.protocols):
            protocol.close_if_idle()


class GuardedProtocol(ASGIProtocol):  # type: ignore[misc]  # gunicorn has no types
    """One connection."""

    def __init__(self, worker: GuardedWorker) -> None:
        super().__init__(worker)
        self._limits = worker.limits
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._body_bytes = 0
        self._peer = ""
        self._turned_away = False

    def connection_made(self, transport: Any) -> None:
        self._peer = _counted_peer(transport.get_extra_info("peername"))
        self.worker.per_ip[self._peer] += 1
        self.worker.protocols.add(self)
        super().connection_made(transport)
        if self._is_one_too_many():
            self._turned_away = True
            transport.write(_BUSY)
            self._close_transport()
            return
        self._arm("header", self._limits.header_s, self._close_transport)

    def data_received(self, data: bytes) -> None:
        if not self._turned_away:
            super().data_received(data)

    def _on_headers_complete(self) -> Any:
        self._disarm("header")
        self._body_bytes = 0
        self._arm("body", self._limits.body_progress_s, self._check_body)
        return super()._on_headers_complete()

    def _on_body(self, chunk: bytes) -> Any:
        self._body_bytes += len(chunk)
        return super()._on_body(chunk)

    def _on_message_complete(self) -> Any:
        self._disarm("body")
        return super()._on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm("write", self._limits.write_stall_s, self._abort)

    def resume_writing(self) -> None:
        self._disarm("write")
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        for name in list(self._timers):
            self._disarm(name)
        if self in self.worker.protocols:
            self.worker.protocols.discard(self)
            self.worker.per_ip[self._peer] -= 1
            if not self.worker.per_ip[self._peer]:
                del self.worker.per_ip[self._peer]
        super().connection_lost(exc)

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered."""
        if self._awaiting_request and not self._finishing_calls:
            self._keepalive_timeout()

    def _is_one_too_many(self) -> bool:
        if len(self.worker.protocols) > self._limits.connections:
            return True
        return bool(self._peer) and self.worker.per_ip[self._peer] > self._limits.connections_per_ip

    def _check_body(self) -> None:
        """Runs once in each interval until the body is complete. While we ourselves have stopped reading,
        because the application is slower than the client, the client is not to blame."""
        if self._body_bytes < MIN_PROGRESS and not self._reading_paused:
            self._abort()
            return
        self._body_bytes = 0
        self._arm("body", self._limits.body_progress_s, self._check_body)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _arm(self, name: str, seconds: float, action: Any) -> None:
        self._disarm(name)
        self._timers[name] = self.worker.loop.call_later(seconds, action)

    def _disarm(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()


def _counted_peer(peername: Any) -> str:
    """The address that connections are counted by; "" for loopback, where a proxy may speak for many."""
    if not isinstance(peername, tuple) or not peername:
        return ""
    try:
        address = ipaddress.ip_address(peername[0])
    except ValueError:
        return ""
    return "" if address.is_loopback else str(address)
