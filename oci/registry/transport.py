"""One HTTP exchange with a registry: the only owner of `requests` and `urllib3`.

Rules for editing this file
- One exchange, nothing more: no redirects, no retries, no credentials of its own. Those live in
  `requester.py`, where their rules can be read in one place. `requests.Session` is not used, for it reads
  netrc and proxy variables, keeps cookies, and reads the body of a redirect, however long, into memory.
- Nothing is ever decompressed: we ask for `identity`, and an answer with a Content-Encoding is an error.
- Every read is bounded by the caller's limit and by a timeout.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import requests
import requests.adapters
import urllib3
from requests import Response
from urllib3 import connection as _connection

from ..errors import quoted
from .certificates import HostCertificates, find_certificates, load_authorities
from .errors import RegistryError, RegistryUnreachable, RegistryUnsafe
from .origin import BadUrl, Origin, is_internal
from .proxy import proxies_for
from .settings import RegistrySettings

__all__ = [
    "Body",
    "BytesBody",
    "Response",
    "Transport",
    "content_length",
    "header_values",
    "iter_body",
    "read_body",
]

PIECE = 1024 * 1024
BLOB_PIECE = 256 * 1024
"""Bytes. Larger ones fall out of the processor's cache before they are written."""

_SEND_S = 60.0
"""Seconds that sending one piece of a body may take."""

_WATCH_S = 60.0
_SLOWEST = 1024
"""Bytes a second. A connection that brings less for so long is worth less than another attempt."""

Resolver = Callable[[str, int], list[str]]


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...

    def close(self) -> None: ...


class Body(Protocol):
    """A request body that can be sent again from its start."""

    @property
    def size(self) -> int: ...

    def open(self) -> Readable:
        """A new reader at the first byte. The caller closes it."""
        ...


@dataclass(frozen=True, slots=True)
class BytesBody:
    """A small body, in memory."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def open(self) -> Readable:
        return io.BytesIO(self.data)


class _Sized:
    """What `requests` wants of a streamed body: a length, `read`, and being iterable."""

    def __init__(self, reader: Readable, size: int) -> None:
        self._reader = reader
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self._reader.read(PIECE):
            yield piece

    def read(self, size: int = -1) -> bytes:
        return self._reader.read(size)


class Transport:
    """Connections to registries, pooled. Safe to use from several threads; `close` ends them all."""

    def __init__(self, settings: RegistrySettings, *, resolver: Resolver | None = None) -> None:
        self._settings = settings
        self._resolver = resolver or _resolve
        self._lock = threading.Lock()
        self._adapters: dict[tuple[bool, HostCertificates | None], _Adapter] = {}
        self._connections = _Connections()

    def cut(self, threads: Container[int]) -> None:
        """Ends at once what these threads (by `threading.get_ident`) are sending or waiting for; they see
        a broken connection."""
        self._connections.cut(threads)

    def close(self) -> None:
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Body | None = None,
        timeout_s: float | None = None,
        public_only: bool = False,
    ) -> Response:
        """Sends one request and returns the answer with its body unread; the caller closes it.

        public_only: refuse, before connecting, a host any of whose addresses is internal; what was checked
        is what is connected to.

        Raises: RegistryUnreachable, RegistryUnsafe (plain HTTP where it is not allowed).
        """
        origin = Origin.of(url)
        doing = f"{method} {_shown_path(url)}"
        if origin.scheme == "http" and not self._settings.allows_plain_http(origin):
            raise RegistryUnsafe(
                origin.netloc,
                doing,
                "plain HTTP is only spoken to loopback and to hosts that are allowed by name",
                hint=f"pass --insecure to allow it for {origin.netloc}",
            )
        sent = {
            "User-Agent": self._settings.user_agent,
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
            **headers,
        }
        proxies = proxies_for(origin, self._settings.proxies, self._settings.no_proxy)
        # A proxy resolves names by itself, so there is no address of ours to check.
        adapter = self._adapter(origin, guarded=public_only and not proxies)
        timeout = (self._settings.connect_timeout_s, timeout_s or self._settings.read_timeout_s)
        reader = body.open() if body is not None and body.size else None
        try:
            data = _Sized(reader, body.size) if reader is not None and body is not None else b""
            prepared = requests.Request(method, url, headers=sent, data=data).prepare()
            return adapter.send(prepared, stream=True, timeout=timeout, proxies=proxies)
        except _FOREIGN as error:
            _translate(error, origin, "reaching the server")
        finally:
            if reader is not None:
                reader.close()

    def has_internal_address(self, origin: Origin) -> bool:
        """Whether the host's name stands for an internal address. An unknown name does not."""
        try:
            addresses = self._resolver(origin.host, origin.port)
        except OSError:
            return False
        return any(is_internal(address) for address in addresses)

    def _adapter(self, origin: Origin, *, guarded: bool) -> _Adapter:
        """The pool for these connections, made when first needed: reading certificates takes a while."""
        certificates = None
        if origin.scheme == "https":
            certificates = find_certificates(self._settings.certificate_folders, origin)
        with self._lock:
            found = self._adapters.get((guarded, certificates))
            if found is None:
                tls = _tls_context(self._settings, certificates) if certificates is not None else None
                found = _Adapter(tls, self._connections, self._resolver if guarded else None)
                self._adapters[guarded, certificates] = found
            return found


def header_values(response: Response, name: str) -> list[str]:
    """Every value of a header that may be repeated, such as WWW-Authenticate."""
    return list(response.raw.headers.getlist(name))


def content_length(response: Response) -> int | None:
    """How many bytes the answer says that it has; None where it does not say so in digits."""
    told = response.headers.get("Content-Length", "").strip()
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


def iter_body(response: Response, doing: str, *, limit: int, piece: int = PIECE) -> Iterator[bytes]:
    """The body in pieces of at most `piece` bytes, as it comes; one byte beyond `limit` is read at most, so
    that the caller sees that there is more.

    Raises: RegistryUnreachable (transient) when it breaks off, also when it ends before its
    Content-Length, and when next to nothing comes for a minute; RegistryError when it is encoded.
    """
    origin = Origin.of(response.url)
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise RegistryError(
            origin.netloc, doing, f"expected a body as it is, got Content-Encoding {quoted(encoding)}"
        )
    left, waited, came = limit + 1, 0.0, 0
    while left > 0:
        asked = time.monotonic()
        try:
            data = response.raw.read1(min(piece, left), decode_content=False)
        except _FOREIGN as error:
            _translate(error, origin, doing)
        if not data:
            return
        left -= len(data)
        came += len(data)
        waited += time.monotonic() - asked
        if waited >= _WATCH_S:
            if came < waited * _SLOWEST:
                raise RegistryUnreachable(
                    origin.netloc, doing, f"only {came} bytes in {waited:.0f} seconds", transient=True
                )
            waited, came = 0.0, 0
        yield data


def read_body(response: Response, limit: int, doing: str) -> bytes:
    """The whole body, closing the response. Raises: RegistryError when it is longer than `limit` bytes
    (the rest is not read), and what `iter_body` raises."""
    with contextlib.closing(response):
        data = bytearray()
        for piece in iter_body(response, doing, limit=limit):
            data += piece
            if len(data) > limit:
                raise RegistryError(
                    Origin.of(response.url).netloc, doing, f"expected at most {limit} bytes, got more"
                )
        return bytes(data)


_PROXY_HINT = "check HTTPS_PROXY and HTTP_PROXY; NO_PROXY names hosts that are reached without"
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_TIMEOUTS = (TimeoutError, urllib3.exceptions.ReadTimeoutError, requests.Timeout)
_FOREIGN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)


def _translate(error: Exception, origin: Origin, doing: str) -> NoReturn:
    """Our error for one of the HTTP libraries'."""
    if isinstance(error, BadUrl):
        raise error
    causes = _causes(error)
    host = origin.netloc
    guarded = next((cause for cause in causes if isinstance(cause, _InternalAddress)), None)
    if guarded is not None:
        raise RegistryUnsafe(host, doing, str(guarded)) from error
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None and not isinstance(tls, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        raise _tls_failure(tls, host, doing) from error
    if any(isinstance(cause, urllib3.exceptions.ProxyError) for cause in causes):
        raise RegistryUnreachable(
            host, doing, f"the proxy does not help: {_brief(causes)}", transient=False, hint=_PROXY_HINT
        ) from error
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        raise RegistryUnreachable(
            host, doing, "the name is unknown", transient=True, hint="check the spelling and the network"
        ) from error
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        raise RegistryUnreachable(
            host, doing, "connection refused", transient=True, hint=f"is a registry running at {host}?"
        ) from error
    if any(isinstance(cause, _TIMEOUTS) for cause in causes):
        raise RegistryUnreachable(host, doing, "no answer in time", transient=True) from error
    raise RegistryUnreachable(host, doing, _brief(causes), transient=True) from error


def _tls_failure(error: ssl.SSLError, host: str, doing: str) -> RegistryUnreachable:
    # Certain at once: a certificate does not become valid by asking again, and there is no way back to HTTP.
    if isinstance(error, ssl.SSLCertVerificationError):
        return RegistryUnreachable(
            host,
            doing,
            f"the TLS certificate is not valid: {error.verify_message}",
            transient=False,
            hint="add the authority that signed it to the trusted ones",
        )
    reason = (error.reason or "TLS failed").replace("_", " ").lower()
    if "certificate required" in reason or "bad certificate" in reason:
        hint = (
            "the registry wants to see a certificate of ours: put it and its key where Docker does (certs.d)"
        )
        return RegistryUnreachable(host, doing, f"TLS failed: {reason}", transient=False, hint=hint)
    plain = {"wrong version number", "http request", "record layer failure", "packet length too long"}
    return RegistryUnreachable(
        host,
        doing,
        f"TLS failed: {reason}",
        transient=False,
        hint=f"{host} may speak plain HTTP; pass --insecure to allow that" if reason in plain else None,
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and everything it was made from: by chaining, by `reason`, or as an argument."""
    found: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting and len(found) < 32:
        item = waiting.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            waiting += [getattr(item, "reason", None), *item.args, item.__cause__, item.__context__]
    return found


def _brief(causes: list[BaseException]) -> str:
    tunnel = next((match for cause in causes if (match := _TUNNEL.search(str(cause)))), None)
    if tunnel is not None:
        return f"it answered {tunnel[1]}"
    system = next((c for c in causes if isinstance(c, OSError) and c.strerror), None)
    if isinstance(system, OSError):
        return str(system.strerror).lower()
    if any(isinstance(c, urllib3.exceptions.IncompleteRead) for c in causes):
        return "the answer broke off"
    return f"the connection failed ({type(causes[-1]).__name__})"


def _shown_path(url: str) -> str:
    """The path of a URL for messages, without the query: signatures and tokens travel there.
    It is printable ASCII, for it has passed `Origin.of`."""
    return "/" + url.partition("?")[0].split("/", 3)[-1][:200]


class _InternalAddress(OSError):
    """A host that must be public has an internal address."""


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def _connect_public(conn: Any, resolver: Resolver) -> socket.socket:
    """A connection to the first address of a host all of whose addresses are public. The address that was
    checked is the one connected to, so that a name cannot change its mind in between."""
    host = conn._dns_host
    addresses = resolver(host, conn.port)
    if not addresses or any(is_internal(address) for address in addresses):
        raise _InternalAddress(f"{host} is an internal address, which a public registry may not name")
    sock = socket.create_connection((addresses[0], conn.port), conn.timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class _Connections:
    """The connections of a transport, and which thread uses each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def use(self, connection: object) -> None:
        """Notes that the calling thread uses the connection."""
        with self._lock:
            self._users[connection] = threading.get_ident()

    def cut(self, threads: Container[int]) -> None:
        """Ends the connections of these threads: what they wait for fails at once."""
        with self._lock:
            sockets = [c.sock for c, thread in self._users.items() if thread in threads]
        for sock in sockets:
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own shutdown, which takes the TLS state away from under its reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _pool_classes(
    connections: _Connections, resolver: Resolver | None
) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Pools whose connections can be cut, and, with a resolver, go to public addresses only."""

    class Connection(_connection.HTTPConnection):
        def request(self, *args: Any, **options: Any) -> None:
            connections.use(self)
            super().request(*args, **options)

        def connect(self) -> None:
            super().connect()
            # Until an answer is awaited, urllib3 leaves the time for connecting in force: too short for
            # sending a piece over a slow line.
            self.sock.settimeout(_SEND_S)

        def _new_conn(self) -> socket.socket:
            return super()._new_conn() if resolver is None else _connect_public(self, resolver)

    class SecureConnection(Connection, _connection.HTTPSConnection):
        pass

    class Pool(urllib3.HTTPConnectionPool):
        ConnectionCls = Connection

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = SecureConnection

    return {"http": Pool, "https": SecurePool}


class _Adapter(requests.adapters.HTTPAdapter):
    """A connection pool with our trust store and piece size; guarded when a resolver is given."""

    def __init__(
        self, tls: ssl.SSLContext | None, connections: _Connections, resolver: Resolver | None
    ) -> None:
        self._context = tls
        self._pool_classes = _pool_classes(connections, resolver)
        super().__init__(pool_connections=16, pool_maxsize=16, max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self._context, blocksize=PIECE)
        self.poolmanager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options, ssl_context=self._context, blocksize=PIECE)
        manager.pool_classes_by_scheme = self._pool_classes
        return manager


def _tls_context(settings: RegistrySettings, certificates: HostCertificates) -> ssl.SSLContext:
    """TLS 1.2 or later, verified against the system's authorities, the user's, and the registry's own.

    Raises: BadCertificate.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_file is not None:
        load_authorities(context, settings.ca_file)
    certificates.load_into(context)
    return context
