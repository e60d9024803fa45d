"""Pushing and pulling one large blob, beside skopeo, in the same minutes on the same machine.

    python benchmarks/transfer.py [--size 2048] [--rounds 3] [--registry docker|lading]
                                  [--folder DIR] [--limit 100] [--json]

Each round pushes and pulls the same model with Lading and with skopeo, one after the other, in turn first,
to and from the same registry on loopback (Debian's `docker-registry`, or Lading's own). What is compared is
the median. Push: an image layout to a repository that has nothing of it. Pull: into an empty image layout.
skopeo does not put what it writes on disk (`fsync`) and Lading does; its time counts. Peak memory is what
the kernel counted for the process (`VmHWM`), processor time what it used in all threads.

Then the same model is pushed under a second tag, and the bytes that this sends are counted.
Exits with 1 when a median is above skopeo's, a peak above --limit (MiB), or the second tag takes more than
100 KB. Needs four times the size on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from transfer_memory import CHILD, MIB, make_model, start_registry

Figures = dict[str, float]


def timed(command: list[str]) -> Figures:
    """Seconds of wall and processor time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {"seconds": seconds, "cpu": cpu}
    if done.stdout:
        figures["peak_mib"] = json.loads(done.stdout)["peak"] / 1024
    return figures


def lading(action: str, root: Path, name: str) -> Figures:
    return timed([sys.executable, "-c", CHILD, action, str(root), name])


def skopeo(*arguments: str) -> Figures:
    return timed(["skopeo", "copy", "-q", *arguments])


def empty_store(root: Path) -> None:
    from lading.oci.store import Store

    store = Store.open(root)
    for tag in store.tags():
        store.untag(tag.reference)
    for _, digest in store.layout.iter_blob_files():
        if digest is not None:
            store.discard(digest)


class CountingProxy:
    """Hands on TCP connections to ``host``, counting what comes from the client."""

    def __init__(self, host: str) -> None:
        import socket

        self.sent = 0
        name, _, port = host.partition(":")
        self._target = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        import socket

        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._target)
            for source, target, counts in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, counts), daemon=True).start()

    def _pump(self, source, target, counts) -> None:  # type: ignore[no-untyped-def]
        import socket

        while data := source.recv(1 << 16):
            if counts:
                self.sent += len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Bench:
    """One registry, one model, and what it took to move it."""

    def __init__(self, folder: Path, host: str, registry_root: Path, size: int) -> None:
        self.folder, self.host, self.registry_root = folder, host, registry_root
        self.name = f"{host}/bench/model:v1"
        self.results: dict[str, list[Figures]] = {}
        make_model(folder / "here", self.name, size)

    def run(self, rounds: int, *, second_tag: bool) -> None:
        with_skopeo = shutil.which("skopeo") is not None
        for number in range(rounds):
            steps = [self.lading_round, *([self.skopeo_round] if with_skopeo else [])]
            for step in steps if number % 2 == 0 else reversed(steps):
                step()
        if second_tag:
            self.second_tag()

    def note(self, what: str, figures: Figures) -> None:
        self.results.setdefault(what, []).append(figures)

    def lading_round(self) -> None:
        self.note(
            "lading push", self.on_an_empty_registry(lambda: lading("push", self.folder / "here", self.name))
        )
        self.note("lading pull", lading("pull", self.folder / "there", self.name))
        shutil.rmtree(self.folder / "there")

    def skopeo_round(self) -> None:
        remote, back = f"docker://{self.name}", f"oci:{self.folder / 'there'}:x"
        source = f"oci:{self.folder / 'here'}:{self.name}"
        self.note(
            "skopeo push",
            self.on_an_empty_registry(lambda: skopeo("--dest-tls-verify=false", source, remote)),
        )
        self.note("skopeo pull", skopeo("--src-tls-verify=false", remote, back))
        shutil.rmtree(self.folder / "there")

    def on_an_empty_registry(self, push: Callable[[], Figures]) -> Figures:
        # Neither registry keeps a list of what it has in memory.
        shutil.rmtree(self.registry_root / "data" / "docker", ignore_errors=True)
        if (self.registry_root / "oci-layout").exists():
            empty_store(self.registry_root)
        os.sync()  # what the step before left to be written is not this one's business
        return push()

    def second_tag(self) -> None:
        from lading.oci.reference import Reference
        from lading.oci.registry.client import RegistryClient
        from lading.oci.store import Store
        from lading.oci.transfer import push

        proxy = CountingProxy(self.host)
        with RegistryClient() as client:
            target = Reference.parse(f"{proxy.host}/bench/model:v2")
            push(Store.open(self.folder / "here"), client, Reference.parse(self.name), target=target)
        self.note("second tag", {"sent_bytes": proxy.sent})


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Figures]:
    """The median of every figure, by what was done."""
    with start_registry(options.registry, folder / "registry") as host:
        bench = Bench(folder, host, folder / "registry", options.size * MIB)
        bench.run(options.rounds, second_tag=True)
    return {
        what: {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
        for what, rounds in bench.results.items()
    }


def misses(results: dict[str, Figures], limit: float) -> list[str]:
    """What is not as it should be."""
    found = []
    for action in ("push", "pull"):
        mine, theirs = results[f"lading {action}"], results.get(f"skopeo {action}")
        if theirs is not None and mine["seconds"] > theirs["seconds"]:
            found.append(f"{action}: {mine['seconds'] / theirs['seconds']:.2f} of skopeo's time")
        if mine["peak_mib"] > limit:
            found.append(f"{action}: {mine['peak_mib']:.0f} MiB of memory")
    if results["second tag"]["sent_bytes"] > 100_000:
        found.append(f"second tag: {results['second tag']['sent_bytes']:.0f} bytes sent")
    return found


def main() -> int:
    """Measure, print, and compare."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--size", type=int, default=2048, help="MiB")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--registry", choices=["docker", "lading"], default="docker")
    arguments.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments.add_argument("--limit", type=float, default=100.0, help="MiB of peak memory")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = measure(options, Path(folder))
    if options.json:
        print(json.dumps({"size_mib": options.size, "rounds": options.rounds, "results": results}))
    else:
        print(f"{options.size} MiB, {options.registry} registry, median of {options.rounds}")
        for what, figures in results.items():
            print(f"{what:12}", "  ".join(f"{key} {value:,.2f}" for key, value in figures.items()))
    found = misses(results, options.limit)
    for miss in found:
        print(f"missed: {miss}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
