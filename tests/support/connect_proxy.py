"""An HTTP proxy on loopback that knows where names lead, and can want a password."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """``routes``: ``host:port`` that may be asked for → ``host:port`` where that really is. ``asked`` holds
    the first lines of all requests."""

    routes: Mapping[str, str]
    user: str | None = None
    asked: list[str] = field(default_factory=list)
    host: str = ""

    def url(self, user: str | None = None) -> str:
        """With ``user:password``, where given."""
        return f"http://{user}@{self.host}" if user else f"http://{self.host}"

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                head += data
            line, *headers = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            self.asked.append(line)
            method, target, _ = line.split(" ")
            if not self._allowed(headers):
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            route = self.routes.get(target)
            if method != "CONNECT" or route is None:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            name, _, port = route.partition(":")
            with socket.create_connection((name, int(port)), timeout=20) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client))
                back.start()
                _pump(client, server)
                back.join()

    def _allowed(self, headers: list[str]) -> bool:
        if self.user is None:
            return True
        wanted = f"Basic {base64.b64encode(self.user.encode()).decode()}"
        return any(
            line.lower().startswith("proxy-authorization:") and line.endswith(wanted) for line in headers
        )


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def connect_proxy(routes: Mapping[str, str], *, user: str | None = None) -> Iterator[ConnectProxy]:
    """Runs one until the end of the block. user: ``name:password`` that it wants."""
    proxy = ConnectProxy(routes, user)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    proxy.host = f"127.0.0.1:{listener.getsockname()[1]}"
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                client, _ = listener.accept()
                client.settimeout(20)
                threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield proxy
    finally:
        ended.set()
        thread.join()
        listener.close()
