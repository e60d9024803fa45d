"""A real server on a real port, as a process of its own, over a store that has the tiny chat model."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from lading.modelfile.syntax import parse
from lading.oci.building.build import build
from lading.oci.reference import Reference
from lading.oci.store import Store

TINY_CHAT = Path(__file__).parents[2] / "examples" / "models" / "tiny-chat.gguf"

_PROGRAM = """
import sys
from pathlib import Path
from lading.runtime.settings import RuntimeSettings
from lading.server.gunicorn_app import serve
from lading.server.settings import Limits, ServerSettings, TlsSettings
values = eval(sys.argv[1])
if "tls" in values:
    values["tls"] = TlsSettings(**{name: Path(path) for name, path in values["tls"].items()})
if "api_keys" in values:
    values["api_keys"] = Path(values["api_keys"])
values["runtime"] = RuntimeSettings(**values.get("runtime", {}))
values["limits"] = Limits(**values.get("limits", {}))
serve(ServerSettings(**{**values, "store_root": Path(values["store_root"])}))
"""


NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For plain HTTP: to read the usual authorities anew for each request would take longer than the request."""


@dataclass
class LiveServer:
    """Where it listens, and its process. `log` is what it wrote to standard error so far."""

    port: int
    process: subprocess.Popen[bytes]
    log_path: Path
    store_root: Path
    scheme: str = "http"
    options: dict[str, Any] = field(default_factory=dict)
    """What every request is sent with: what to trust, which certificate to show."""
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        chosen = {"timeout": 60, "verify": NO_AUTHORITIES, **self.options, **options}
        return httpx.request(method, self.url + path, **chosen)

    def connect(self) -> socket.socket:
        """A bare connection, for what no client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.call("POST", path, json=body)


def build_model(store_root: Path, name: str, modelfile: str = "", *, source: Path = TINY_CHAT) -> None:
    """Build ``name`` from the tiny chat model, or another file, and more lines of Modelfile."""
    text = f"FROM {source}\nPARAMETER temperature 0\nPARAMETER num_ctx 1024\n{modelfile}"
    store = Store.open(store_root)
    build(parse(text), context=store_root, store=store, reference=Reference.parse(name), base=store.resolve)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_server(
    store_root: Path, folder: Path, *, options: dict[str, Any] | None = None, **settings: Any
) -> Iterator[LiveServer]:
    """Start, wait until it is ready, and end it with all its processes. `options`: see `LiveServer`."""
    port = free_port()
    values = {"store_root": str(store_root), "port": port, "drain_s": 10.0, **settings}
    # Threads of a tiny model only wait for each other, for ever where the machine has other work.
    values["runtime"] = {"threads": 1, **settings.get("runtime", {})}
    log_path = folder / f"server-{port}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, repr(values)],
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    scheme = "https" if "tls" in settings else "http"
    server = LiveServer(port, process, log_path, store_root, scheme, options or {})
    try:
        wait_until_ready(server)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(server: LiveServer, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert server.process.poll() is None, f"the server ended:\n{server.log}"
        with contextlib.suppress(httpx.TransportError):
            if server.call("GET", "/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the server did not become ready:\n{server.log}")
