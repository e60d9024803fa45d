"""A registry that misbehaves on request: a small honest one, any answer of which a test may replace.

It keeps every request that it saw, so that a test can say what was sent, and above all what was not.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from lading.oci.digest import Digest
from lading.oci.manifest import Manifest


@dataclass(frozen=True)
class Seen:
    """A request that arrived. Header names are in lower case; `size` is the body's length."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def parameters(self) -> dict[str, list[str]]:
        return parse_qs(self.query)


@dataclass
class Reply:
    """An answer. `length`: what Content-Length says, by default the truth; None leaves it out, and the end
    of the connection ends the body. `cut`: the connection is reset after the body. A `status` of 0 is no
    answer at all: the connection ends."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    length: int | None = -1
    cut: bool = False


Answer = Reply | Callable[[Seen], Reply | None]


@dataclass
class _Rule:
    method: str
    pattern: re.Pattern[str]
    answer: Answer
    left: int | None


@dataclass
class ScriptedRegistry:
    """One that listens on `host` (``127.0.0.1:PORT``); honest, but for what `on` tells it."""

    host: str
    seen: list[Seen] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    rules: list[_Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def on(self, method: str, pattern: str, answer: Answer, *, times: int | None = None) -> None:
        """From now on, answer requests whose path matches in this way, for so many times. The latest rule
        that fits wins; a callable that returns None leaves the request to the others."""
        self.rules.insert(0, _Rule(method, re.compile(pattern), answer, times))

    def add(self, manifest: Manifest, blobs: tuple[bytes, ...], *names: str) -> None:
        """Has a model, under tags like ``team/m:v1``."""
        for blob in blobs:
            self.blobs[str(Digest.of(blob))] = blob
        for name in names:
            repository, _, tag = name.partition(":")
            for reference in (tag, str(manifest.digest)):
                self.manifests[f"{repository}/{reference}"] = (manifest.media_type, manifest.raw)

    def requests(self, method: str = "", pattern: str = "") -> list[Seen]:
        """What arrived so far."""
        return [s for s in self.seen if (not method or s.method == method) and re.search(pattern, s.path)]

    def answer(self, seen: Seen) -> Reply:
        with self.lock:
            self.seen.append(seen)
            rules = [r for r in self.rules if r.method in {seen.method, "*"} and r.pattern.search(seen.path)]
        for rule in rules:
            with self.lock:
                if rule.left == 0:
                    continue
                if rule.left is not None:
                    rule.left -= 1
            reply = rule.answer if isinstance(rule.answer, Reply) else rule.answer(seen)
            if reply is not None:
                return reply
        return self.honest(seen)

    def honest(self, seen: Seen) -> Reply:
        """The answer of a well-behaved registry."""
        if seen.path in {"/v2/", "/v2"}:
            return Reply(body=b"{}")
        match = re.fullmatch(r"/v2/(.+?)/(manifests|blobs|tags)/(.+)", seen.path) or re.fullmatch(
            r"/v2/(.+?)/(blobs)/(uploads)/?", seen.path
        )
        if match is None:
            return error(404, "NAME_UNKNOWN")
        name, kind, rest = match.groups()
        if kind == "manifests":
            return self._manifest(seen, name, rest)
        if kind == "tags":
            return Reply(body=b'{"name":"x","tags":["v1"]}')
        return self._upload(seen, name, rest) if rest.startswith("uploads") else self._blob(seen, rest)

    def _manifest(self, seen: Seen, name: str, reference: str) -> Reply:
        if seen.method == "PUT":
            digest = str(Digest.of(seen.body))
            for key in (reference, digest):
                self.manifests[f"{name}/{key}"] = (seen.headers["content-type"], seen.body)
            return Reply(201, {"Docker-Content-Digest": digest, "Location": "/"})
        found = self.manifests.get(f"{name}/{reference}")
        if found is None:
            return error(404, "MANIFEST_UNKNOWN")
        headers = {"Content-Type": found[0], "Docker-Content-Digest": str(Digest.of(found[1]))}
        return Reply(200, headers, found[1])

    def _blob(self, seen: Seen, digest: str) -> Reply:
        data = self.blobs.get(digest)
        if data is None:
            return error(404, "BLOB_UNKNOWN")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.headers.get("range", ""))
        if match:
            first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
            headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
            return Reply(206, headers, data[first : last + 1])
        return Reply(200, {}, data)

    def _upload(self, seen: Seen, name: str, rest: str) -> Reply:
        if seen.method == "POST":
            upload_id = f"u{len(self.uploads)}"
            self.uploads[upload_id] = bytearray()
            return Reply(202, {"Location": f"/v2/{name}/blobs/uploads/{upload_id}?state=1"})
        upload_id = rest.removeprefix("uploads/")
        if upload_id not in self.uploads:
            return error(404, "BLOB_UPLOAD_UNKNOWN")
        upload = self.uploads[upload_id]
        if seen.method == "PATCH":
            first = int(seen.headers.get("content-range", "0-").split("-")[0])
            if first != len(upload):
                return Reply(416, {"Range": f"0-{max(0, len(upload) - 1)}"})
        upload += seen.body
        headers = {
            "Location": f"/v2/{name}/blobs/uploads/{upload_id}",
            "Range": f"0-{max(0, len(upload) - 1)}",
        }
        if seen.method == "GET":
            return Reply(204, headers)
        if seen.method == "PATCH":
            return Reply(202, headers)
        digest = seen.parameters["digest"][0]
        if str(Digest.of(bytes(upload))) != digest:
            return error(400, "DIGEST_INVALID")
        self.blobs[digest] = bytes(upload)
        return Reply(201, {"Location": "/", "Docker-Content-Digest": digest})


def error(status: int, code: str, message: str = "no") -> Reply:
    """An error in the specification's shape."""
    body = f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'
    return Reply(status, {"Content-Type": "application/json"}, body.encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 20
    disable_nagle_algorithm = True
    registry: ScriptedRegistry

    def _serve(self) -> None:
        body = self._read_body()
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        reply = self.registry.answer(Seen(self.command, parts.path, parts.query, headers, body))
        if reply.status == 0:
            self._cut()
            return
        self.send_response(reply.status)
        for key, value in reply.headers.items():
            self.send_header(key, value)
        data = reply.body
        if reply.length is not None:
            length = reply.length if reply.length >= 0 else len(data) if isinstance(data, bytes) else 0
            if reply.status != 204:
                self.send_header("Content-Length", str(length))
        else:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD" and reply.status != 204:
            with suppress(ConnectionError, TimeoutError):
                for piece in [data] if isinstance(data, bytes) else data:
                    self.wfile.write(piece)
                self.wfile.flush()
        if reply.cut:
            self._cut()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = bytearray()
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(body)
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _cut(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients hang up on purpose


@contextmanager
def scripted_registry(address: str = "127.0.0.1") -> Iterator[ScriptedRegistry]:
    """Runs one until the end of the block."""
    handler = type("Handler", (_Handler,), {})
    server = _Server((address, 0), handler)
    registry = ScriptedRegistry(f"{address}:{server.server_address[1]}")
    handler.registry = registry  # type: ignore[attr-defined]  # made just above
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
