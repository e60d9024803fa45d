"""What clients send to a server, counted: a forwarder on loopback in front of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ByteCounter:
    """`host` is where clients connect; `sent` counts the bytes that they have sent, headers included."""

    host: str
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, size: int) -> None:
        with self.lock:
            self.sent += size


@contextmanager
def counting_bytes(target: str) -> Iterator[ByteCounter]:
    """Forwards to ``host:port`` until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    counter = ByteCounter(f"127.0.0.1:{listener.getsockname()[1]}")
    host, _, port = target.rpartition(":")

    def pump(source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if counted:
                    counter.count(len(data))
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    connections: list[socket.socket] = []
    pumps: list[threading.Thread] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                connections.append(client)
                server = socket.create_connection((host, int(port)))
                connections.append(server)
                for source, sink, counted in ((client, server, True), (server, client, False)):
                    pumping = threading.Thread(
                        target=pump, args=(source, sink), kwargs={"counted": counted}, daemon=True
                    )
                    pumps.append(pumping)
                    pumping.start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield counter
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for pumping in pumps:
            pumping.join()
        for connection in connections:
            connection.close()
