"""Our own registry against Debian's docker-registry: how fast blobs come out of them and go in.

The same blob in both, on loopback, in turns; medians of the repeats. The client is curl, which throws
away what it gets. `python benchmarks/registry.py [--size MIB] [--repeats N] [--clients N] [--json]`
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from lading_registry import running_lading_registry
from registry_server import INSTALLED, WHY_NOT, running_registry

from lading.oci.digest import Digest, new_hasher
from lading.oci.store import Store

_PIECE = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of the blob (default: 1024)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    parser.add_argument("--clients", type=int, default=16, metavar="N", help="at the same time (default: 16)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not INSTALLED:
        print(WHY_NOT, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.size << 20, options.repeats, options.clients)
    if options.json:
        print(json.dumps(figures, indent=2))
        return 0
    print(f"{options.size} MiB, median of {options.repeats}; MB/s\n")
    print(f"{'':24}{'lading':>10}{'docker-registry':>18}{'ratio':>8}")
    for name, (ours, theirs) in figures.items():
        print(f"{name:24}{ours:10.0f}{theirs:18.0f}{ours / theirs:8.2f}")
    return 0


def measure(folder: Path, size: int, repeats: int, clients: int) -> dict[str, tuple[float, float]]:
    """Megabytes a second (of 10^6 bytes) of both, by workload."""
    blob = folder / "blob"
    digest = write_random(blob, size)
    Store.open(folder / "store")
    rates: dict[str, list[list[float]]] = {}
    with (
        running_lading_registry(folder / "store", workers=os.cpu_count() or 1) as ours,
        running_registry(folder / "theirs") as theirs,
    ):
        for host in (ours, theirs.host):
            upload(host, blob, digest)
        workloads: dict[str, Callable[[str], float]] = {
            "pull, one client": lambda host: pull(host, digest, size, 1),
            f"pull, {clients} clients": lambda host: pull(host, digest, size // 4, clients),
            "push": lambda host: push(host, folder, size),
        }
        for _ in range(repeats):
            for name, work in workloads.items():
                pair = rates.setdefault(name, [[], []])
                for number, host in enumerate((ours, theirs.host)):
                    pair[number].append(work(host))
    return {
        name: (statistics.median(first), statistics.median(second)) for name, (first, second) in rates.items()
    }


def write_random(path: Path, size: int) -> Digest:
    hasher = new_hasher()
    with path.open("wb") as file:
        for _ in range(size // _PIECE):
            piece = os.urandom(_PIECE)
            hasher.update(piece)
            file.write(piece)
    return Digest("sha256", hasher.hexdigest())


def upload(host: str, path: Path, digest: Digest) -> None:
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.request("POST", "/v2/bench/m/blobs/uploads/")
    location = connection.getresponse().headers["Location"]
    connection.close()
    url = location if location.startswith("http") else f"http://{host}{location}"
    url += f"{'&' if '?' in url else '?'}digest={digest}"
    subprocess.run(
        ["curl", "-sSf", "-X", "PUT", "-T", str(path), "-H", "Expect:", "-o", "/dev/null", url], check=True
    )


def push(host: str, folder: Path, size: int) -> float:
    """A new blob each time; making it is not counted."""
    path = folder / "new"
    digest = write_random(path, size // 2)
    started = time.perf_counter()
    upload(host, path, digest)
    return size / 2 / 1e6 / (time.perf_counter() - started)


def pull(host: str, digest: Digest, size: int, clients: int) -> float:
    """The first ``size`` bytes, by so many clients at once."""
    url = f"http://{host}/v2/bench/m/blobs/{digest}"
    command = ["curl", "-sSf", "-r", f"0-{size - 1}", "-o", "/dev/null", url]
    started = time.perf_counter()
    running = [subprocess.Popen(command) for _ in range(clients)]
    codes = [process.wait() for process in running]
    elapsed = time.perf_counter() - started
    if any(codes):
        raise RuntimeError(f"curl exited with {codes}")
    return size * clients / 1e6 / elapsed


if __name__ == "__main__":
    sys.exit(main())
