"""A real registry: Debian's `docker-registry` (distribution 2.8) on a free port of loopback."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certificates import Issued

PROGRAM = "docker-registry"
INSTALLED = shutil.which(PROGRAM) is not None
WHY_NOT = f"{PROGRAM} is not installed (Debian package docker-registry)"

USER, PASSWORD = "porter", "lading-test"
_HTPASSWD = f"{USER}:$2b$04$.n6pBwgeQleAgAoh.OFC9OKJVZSoxGZrqYRNVktT7aW7LfjDd6xWq\n"  # bcrypt of PASSWORD


@dataclass(frozen=True)
class RunningRegistry:
    """`host` is ``127.0.0.1:PORT``; `root` is where its files are."""

    host: str
    root: Path
    log: Path

    def stored_blobs(self) -> set[str]:
        """The digests of all blobs that it has, manifests included."""
        folder = self.root / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return {f"sha256:{path.parent.name}" for path in folder.glob("*/*/data")}


@contextmanager
def running_registry(
    folder: Path, *, auth: str = "", server: Issued | None = None, client_ca: Path | None = None
) -> Iterator[RunningRegistry]:
    """Runs one until the end of the block.

    auth: the configuration's ``auth`` section, or ``htpasswd``. server: with TLS, and this certificate.
    client_ca: the authority that must have signed the certificates of clients.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    if auth == "htpasswd":
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {folder / 'htpasswd'}\n"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log:\n  level: warn\n  accesslog:\n    disabled: true\n"
        f"storage:\n  filesystem:\n    rootdirectory: {folder / 'data'}\n  delete:\n    enabled: true\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
        f"{_tls_section(server, client_ca)}{auth}"
    )
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait_for(port, process, log, tls=server is not None)
        yield RunningRegistry(f"127.0.0.1:{port}", folder / "data", log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _tls_section(server: Issued | None, client_ca: Path | None) -> str:
    if server is None:
        return ""
    lines = f"  tls:\n    certificate: {server.certificate}\n    key: {server.key}\n"
    return lines + (f"    clientcas:\n      - {client_ca}\n" if client_ca is not None else "")


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path, *, tls: bool) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            if tls:  # that it listens is enough: it may want a certificate
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
                return
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise RuntimeError(f"{PROGRAM} did not start:\n{log.read_text(errors='replace')[-2000:]}")
