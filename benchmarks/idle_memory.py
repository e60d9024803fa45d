"""Memory of `lading serve` with no model loaded: when it has started, and after a model came and went.

    python benchmarks/idle_memory.py [--workers 1] [--json]

Proportional set size (Linux): a page that processes share counts once, divided among them. Summed over
gunicorn's master, the web workers, the arbiter of the keeper, and the keeper.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

TINY_CHAT = Path(__file__).parents[1] / "examples" / "models" / "tiny-chat.gguf"


def family(master: psutil.Process) -> list[psutil.Process]:
    return [master, *master.children(recursive=True)]


def proportional_size(processes: list[psutil.Process]) -> int:
    """Bytes."""
    return sum(process.memory_full_info().pss for process in processes)


def request(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return json.load(answer)


def wait_for(url: str) -> None:
    for _ in range(600):
        try:
            request(url)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"nothing answers at {url}")


def measure(lading: str, workers: int) -> dict[str, int]:
    """Bytes at each moment, and the number of processes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        home = str(Path(folder, "home"))
        environ = {**os.environ, "LADING_HOME": home, "LADING_HOST": host, "LADING_WORKERS": str(workers)}
        Path(folder, "Modelfile").write_text(f"FROM {TINY_CHAT}\n")
        subprocess.run(
            [lading, "create", "--quiet", "tiny"],
            check=True,
            cwd=folder,
            env=environ,
            stdout=subprocess.DEVNULL,
        )
        server = subprocess.Popen([lading, "serve"], env=environ, stderr=subprocess.DEVNULL)
        try:
            return _moments(f"http://{host}", psutil.Process(server.pid))
        finally:
            server.terminate()
            server.wait()


def _moments(url: str, master: psutil.Process) -> dict[str, int]:
    wait_for(f"{url}/readyz")
    time.sleep(2)  # the self-test of the sandbox comes and goes
    processes = family(master)
    found = {"processes": len(processes), "started": proportional_size(processes)}
    question = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "stream": False}
    request(f"{url}/api/chat", question)
    request(f"{url}/v1/chat/completions", question)
    request(f"{url}/api/generate", {"model": "tiny", "keep_alive": 0})
    while request(f"{url}/api/ps")["models"]:
        time.sleep(0.1)
    return found | {"used": proportional_size(processes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    lading = str(Path(sys.executable).with_name("lading"))
    if not Path(lading).exists():
        lading = shutil.which("lading") or sys.exit("lading is not installed beside this Python: make venv")
    found = measure(lading, arguments.workers)
    if arguments.json:
        print(json.dumps(found))
        return
    print(f"{found['processes']} processes, {arguments.workers} of them web workers")
    for moment, words in (("started", "after the start"), ("used", "after a model came and went")):
        print(f"{words:28} {found[moment] / 2**20:6.1f} MiB")


if __name__ == "__main__":
    main()
