"""Pulls that are killed at random moments: what is fetched again, and whether anything is lost.

    python benchmarks/transfer_kills.py [--size 512] [--kills 50] [--seed 1] [--folder DIR]

A pull from Debian's `docker-registry` on loopback is ended with SIGKILL after a random number of bytes, and
begun again, for so many times; then it is let finish, and the model verified. All bytes pass through a proxy
that counts what the registry sends. What was sent beyond the size of the model was fetched twice: for each
kill, that should be less than one part. Whatever lies in the sockets when the process dies counts as well,
four connections with some megabytes each, so this is not zero. Exits with 1 where it is more than a part.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from transfer_memory import CHILD, MIB, make_model, start_registry

PART = 64 * MIB


class Meter:
    """A proxy that counts what the server sends, and tells when that reaches a mark."""

    def __init__(self, target: str) -> None:
        host, _, port = target.partition(":")
        self.received = 0
        self.reached = threading.Event()
        self.mark = sys.maxsize
        self._target = (host, int(port))
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def expect(self, amount: int) -> threading.Event:
        """An event for when so many more bytes have passed."""
        with self._lock:
            self.mark = self.received + amount
            self.reached = threading.Event()
            return self.reached

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._target)
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(1 << 18):
                target.sendall(data)
                if counts:
                    with self._lock:
                        self.received += len(data)
                        if self.received >= self.mark:
                            self.reached.set()
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()


def main() -> int:
    """Kill, go on, count, verify."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--size", type=int, default=512, help="MiB")
    arguments.add_argument("--kills", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        return soak(Path(name), options.size * MIB, options.kills, random.Random(options.seed))


def soak(folder: Path, size: int, kills: int, chance: random.Random) -> int:
    from lading.oci.reference import Reference
    from lading.oci.registry.client import RegistryClient
    from lading.oci.store import Store
    from lading.oci.transfer import push

    with start_registry("docker", folder / "registry") as host:
        make_model(folder / "here", f"{host}/soak/model:v1", size)
        with RegistryClient() as client:
            push(Store.open(folder / "here"), client, Reference.parse(f"{host}/soak/model:v1"))
        meter = Meter(host)
        command = [sys.executable, "-c", CHILD, "pull", str(folder / "there"), f"{meter.host}/soak/model:v1"]
        there = Store.open(folder / "there")
        layer = Store.open(folder / "here").resolve(Reference.parse(f"{host}/soak/model:v1")).layers[0]
        killed, lost_each = 0, []
        while killed < kills:
            had, before = there.arrived(layer), meter.received
            left = size - had
            reached = meter.expect(chance.randrange(1, max(2, left // max(1, (kills - killed) // 2 + 1))))
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while not reached.wait(0.02) and process.poll() is None:
                pass
            if process.poll() is not None:
                if process.returncode != 0:
                    raise SystemExit(f"a pull failed with {process.returncode}")
                (
                    there.layout.blob(layer.digest)
                ).unlink()  # it was quicker than the kill: again from the start
                continue
            process.kill()
            process.wait()
            killed += 1
            lost_each.append(meter.received - before - (there.arrived(layer) - had))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clean = there.fsck().clean
    worst, total = max(lost_each), sum(lost_each)
    print(
        f"{killed} kills: at most {worst / MIB:.1f} MiB fetched again, {total / killed / MIB:.1f} on average"
    )
    print("nothing lost" if clean else "the store is damaged")
    return int(worst > PART or not clean)


if __name__ == "__main__":
    raise SystemExit(main())
