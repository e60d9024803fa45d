"""Our own registry over a store, in processes of its own, as `lading registry` runs it; and calls to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store_models import make_manifest

from lading.oci.digest import Digest
from lading.oci.manifest import Index, Manifest
from lading.oci.store import Store
from lading.server.gunicorn_app import serve_registry
from lading.server.registry.names import RegistryNames
from lading.server.settings import ServerSettings


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A running registry and the store behind it."""

    host: str
    store: Store

    def call(
        self, method: str, path: str, body: Any = None, *, chunked: bool = False, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            named = {key.replace("_", "-"): value for key, value in headers.items()}
            connection.request(method, path, body, named, encode_chunked=chunked)
            response = connection.getresponse()
            answered = {key.lower(): value for key, value in response.getheaders()}
            return Answer(response.status, answered, response.read())
        finally:
            connection.close()

    def begin(self, name: str = "team/m", query: str = "") -> str:
        """Opens an upload; gives its location."""
        answer = self.call("POST", f"/v2/{name}/blobs/uploads/{query}")
        assert answer.status == 202, answer
        assert answer.headers["range"] == "0-0"
        return answer.headers["location"]

    def put_blob(self, data: bytes, name: str = "team/m") -> Digest:
        digest = Digest.of(data)
        answer = self.call("PUT", f"{self.begin(name)}?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def put_model(self, tag: str, *layers: bytes, name: str = "team/m") -> Manifest:
        manifest, blobs = make_manifest(*layers)
        for blob in blobs:
            self.put_blob(blob, name)
        answer = self.put_manifest(tag, manifest, name)
        assert answer.status == 201, answer
        return manifest

    def put_manifest(self, reference: str, manifest: Manifest | Index, name: str = "team/m") -> Answer:
        return self.call(
            "PUT", f"/v2/{name}/manifests/{reference}", manifest.raw, Content_Type=manifest.media_type
        )


def wait_until(done: Callable[[], bool], timeout_s: float = 30) -> None:
    """Asks again and again. Raises: TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)


@contextmanager
def running_lading_registry(store: Path, *, read_only: bool = False, workers: int = 1) -> Iterator[str]:
    """Runs one until the end of the block; gives its ``host:port``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    arguments = [str(store), str(port), str(workers), "read-only" if read_only else ""]
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdin=subprocess.DEVNULL)
    try:
        _wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise RuntimeError("the registry did not start")


def _main(store: str, port: str, workers: str, mode: str) -> None:
    settings = ServerSettings(
        store_root=Path(store), host="127.0.0.1", port=int(port), workers=int(workers), access_log=False
    )
    serve_registry(settings, RegistryNames(), read_only=mode == "read-only")


if __name__ == "__main__":
    _main(*sys.argv[1:])
