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
import signal
import ssl
from collections import Counter
from typing import Any, Protocol

from gunicorn.asgi.protocol import ASGIProtocol  # type: ignore[import-untyped]
from gunicorn.workers import gasgi  # type: ignore[import-untyped]

from . import interrupt
from .file_section import EXTENSION, FileSection, SectionSender
from .settings import Limits
from .tls_door import LAST_CHANCE_S, TlsDoor

MIN_PROGRESS = 1024
"""Bytes."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class Connection(Protocol):
    """What the worker knows of a connection."""

    def close_if_idle(self) -> None: ...


class GuardedWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn has no types
    """The worker. Its limits and its certificate come with the application: ``app.limits``, ``app.tls``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits: Limits = self.app.limits
        self.protocols: dict[Connection, str] = {}
        """Every connection, and the address that it is counted by."""
        self.per_ip: Counter[str] = Counter()

    def init_process(self) -> None:
        # The worker names this class when it makes its servers, and offers no other way to replace it.
        gasgi.ASGIProtocol = self._make_protocol
        super().init_process()

    def init_signals(self) -> None:
        ignored = interrupt.is_ignored()
        super().init_signals()
        if ignored:
            self.loop.remove_signal_handler(signal.SIGINT)
            interrupt.ignore()

    def admit(self, connection: Connection, peername: Any) -> bool:
        """Count a connection. Whether it may stay; it is to be forgotten in any case."""
        peer = counted_peer(peername)
        self.protocols[connection] = peer
        self.per_ip[peer] += 1
        if len(self.protocols) > self.limits.connections:
            return False
        return not peer or self.per_ip[peer] <= self.limits.connections_per_ip

    def forget(self, connection: Connection) -> None:
        """Count it no more. Again does nothing."""
        peer = self.protocols.pop(connection, None)
        if peer is None:
            return
        self.per_ip[peer] -= 1
        if not self.per_ip[peer]:
            del self.per_ip[peer]

    @staticmethod
    def _make_protocol(worker: GuardedWorker) -> Any:
        context: ssl.SSLContext | None = worker.app.tls
        if context is None:
            return GuardedProtocol(worker)
        return TlsDoor(worker, context, lambda: GuardedProtocol(worker))

    def handle_exit_signal(self) -> None:
        if not self.alive:
            return  # told again: who has been given a moment gets no other
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
        self._turned_away = False
        self._section: SectionSender | None = None
        self._response_buffer: bytes | None = None

    def connection_made(self, transport: Any) -> None:
        admitted = self.worker.admit(self, transport.get_extra_info("peername"))
        super().connection_made(transport)
        if not admitted:
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

    def _build_http_scope(self, *args: Any, **kwargs: Any) -> Any:
        scope = super()._build_http_scope(*args, **kwargs)
        if self.transport is not None and self.transport.get_extra_info("ssl_object") is None:
            scope.setdefault("extensions", {})[EXTENSION] = {}
        return scope

    def _send_body(self, body: bytes, chunked: bool = False, last: bool = False, size: Any = None) -> None:
        if not isinstance(body, FileSection):
            super()._send_body(body, chunked, last, size)
            return
        head, self._response_buffer = self._response_buffer, None
        if head:
            self._safe_write(head)
        try:
            self._section = SectionSender(
                self.worker.loop,
                self.transport,
                body,
                stall_s=self._limits.write_stall_s,
                on_end=self._section_sent,
            )
        except OSError:
            self._abort()
            return
        super().pause_writing()  # whoever sends waits now, until `_section_sent`

    def _section_sent(self, complete: bool) -> None:
        self._section = None
        if not complete:
            self._abort()
        super().resume_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm("write", self._limits.write_stall_s, self._abort)

    def resume_writing(self) -> None:
        self._disarm("write")
        if self._section is None:
            super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        for name in list(self._timers):
            self._disarm(name)
        if self._section is not None:
            self._section.cancel()
        self.worker.forget(self)
        super().connection_lost(exc)

    def close_if_idle(self) -> None:
        """Close unless a request is being read or answered, or the first one may be on its way."""
        if "header" in self._timers:
            self._arm("header", min(self._limits.header_s, LAST_CHANCE_S), self._close_transport)
            return
        # A request that has just been read is not being answered yet: whoever does so has yet to wake up.
        if self._awaiting_request and not self._request_ready.is_set() and not self._finishing_calls:
            self._keepalive_timeout()

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


def counted_peer(peername: Any) -> str:
    """What connections are counted by: an address, of IPv6 the network of 64 bits, all of whose addresses one
    client can have. "" for loopback, where a proxy may speak for many."""
    if not isinstance(peername, tuple) or not peername:
        return ""
    try:
        address = ipaddress.ip_address(peername[0].partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            network = ipaddress.ip_network((address, 64), strict=False)
            return "" if address.is_loopback else str(network.network_address)
        address = address.ipv4_mapped
    return "" if address.is_loopback else str(address)
