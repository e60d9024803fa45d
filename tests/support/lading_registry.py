"""Lading's own registry over a store, in a process of its own, as `lading registry` runs it."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def application() -> object:
    """What gunicorn serves, told by the environment."""
    from lading.oci.store import Store
    from lading.server.registry.routes import create_registry_app

    store = Store.open(Path(os.environ["TEST_STORE"]))
    return create_registry_app(store, read_only=os.environ.get("TEST_READ_ONLY") == "1")


@contextmanager
def running_lading_registry(store: Path, *, read_only: bool = False, workers: int = 1) -> Iterator[str]:
    """Runs one until the end of the block; gives its ``host:port``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "asgi", "--workers", str(workers)),
            *("--bind", f"127.0.0.1:{port}", "--chdir", str(Path(__file__).parent), "--log-level", "error"),
            *("--graceful-timeout", "1", "lading_registry:application()"),
        ],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TEST_STORE": str(store), "TEST_READ_ONLY": "1" if read_only else "0"},
    )
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
