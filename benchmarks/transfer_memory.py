"""Peak memory and speed of pushing and pulling one large blob.

    python benchmarks/transfer_memory.py [--size 1024] [--registry docker|lading] [--folder DIR]
                                         [--limit 100] [--sparse] [--json]

Push and pull each run in a process of their own, whose peak resident memory is what the kernel counted for
it (`VmHWM`; `ru_maxrss` also counts the parent before the exec). The base line is the same process with
everything imported and nothing transferred. The registry is Debian's `docker-registry`, or Lading's own, on
loopback. Where `skopeo` is installed, it copies a model of the same size both ways in the same run, for
comparison. Needs five times the size on disk. Exits with 1 when a peak is above the limit (MiB).

With --sparse the blob is all zeros, which the file system here need not store, and skopeo has no part: twice
the size on disk is enough for very large ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lading.oci.digest import Digest
    from lading.oci.store import Store

MIB = 1 << 20
TESTS = Path(__file__).resolve().parents[1] / "tests" / "support"

CHILD = """
import json, sys, time
from pathlib import Path
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.store import Store
from lading.oci.transfer import pull, push
action, root, name = sys.argv[1:]
started = time.perf_counter()
with RegistryClient() as client:
    if action != "nothing":
        {"push": push, "pull": pull}[action](Store.open(Path(root)), client, Reference.parse(name))
seconds = time.perf_counter() - started
status = Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({"peak": peak, "seconds": seconds}))
"""


def make_model(root: Path, name: str, size: int, *, sparse: bool = False) -> None:
    """A model with one layer of `size` random bytes, or zeros."""
    from lading.oci.descriptor import Descriptor
    from lading.oci.manifest import Manifest
    from lading.oci.reference import Reference
    from lading.oci.store import Store

    store = Store.open(root)
    with store.lease():
        digest = store_zeros(store, size) if sparse else store_random(store, size)
        # Types that skopeo copies as they are; it would compress the layers of an image.
        config = Descriptor("application/vnd.cncf.model.config.v1+json", store.put_bytes(b"{}"), 2)
        layer = Descriptor("application/vnd.cncf.model.weight.v1.raw", digest, size)
        store.tag(Reference.parse(name), store.put_manifest(Manifest.build(config=config, layers=[layer])))


def store_random(store: Store, size: int) -> Digest:
    with store.ingest() as ingest:
        block = os.urandom(16 * MIB)
        while ingest.offset < size:
            piece = ingest.offset.to_bytes(8, "big") + block
            ingest.write(piece[: size - ingest.offset])
        return ingest.commit()


def store_zeros(store: Store, size: int) -> Digest:
    """A blob that is one large hole."""
    from lading.oci.descriptor import Descriptor
    from lading.oci.store.hashing import hash_file

    path = store.layout.ingest / "zeros"
    with path.open("wb+") as file:
        file.truncate(size)
        digest: Digest = hash_file(file.fileno())[0]
    store.adopt(path, Descriptor("application/octet-stream", digest, size))
    return digest


def run_child(action: str, root: Path, name: str) -> dict[str, float]:
    """Peak resident bytes, and seconds, of one action in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, action, str(root), name], stdout=subprocess.PIPE, check=True
    )
    measured = json.loads(done.stdout)
    return {"peak_mib": round(measured["peak"] / 1024, 1), "seconds": round(measured["seconds"], 2)}


def run_skopeo(*arguments: str) -> dict[str, float]:
    """How long skopeo takes."""
    started = time.perf_counter()
    subprocess.run(["skopeo", "copy", "-q", *arguments], check=True)
    return {"seconds": round(time.perf_counter() - started, 2)}


def start_registry(kind: str, folder: Path) -> AbstractContextManager[str]:
    """A registry on loopback; gives its ``host:port``."""
    sys.path.insert(0, str(TESTS))
    if kind == "lading":
        from lading_registry import running_lading_registry

        return running_lading_registry(folder)
    from contextlib import contextmanager

    from registry_server import INSTALLED, WHY_NOT, running_registry

    if not INSTALLED:
        raise SystemExit(f"{WHY_NOT}; try --registry lading")

    @contextmanager
    def docker():  # type: ignore[no-untyped-def]
        with running_registry(folder) as running:
            yield running.host

    return docker()


def measure(size: int, kind: str, folder: Path, *, sparse: bool) -> dict[str, dict[str, float]]:
    """Every figure, by what was done."""
    results = {"base line": run_child("nothing", folder, "-")}
    with start_registry(kind, folder / "registry") as host:
        name = f"{host}/bench/model:v1"
        if shutil.which("skopeo") is not None and not sparse:
            make_model(folder / "here", name, size)
            there, back = f"docker://{host}/bench/skopeo:v1", f"oci:{folder / 'skopeo'}:x"
            results["skopeo push"] = run_skopeo(
                "--dest-tls-verify=false", f"oci:{folder / 'here'}:{name}", there
            )
            results["skopeo pull"] = run_skopeo("--src-tls-verify=false", there, back)
            shutil.rmtree(folder / "skopeo")
        # Last, with another blob, so that nothing of it is there yet.
        name = f"{host}/bench/other:v1"
        make_model(folder / "mine", name, size, sparse=sparse)
        results["push"] = run_child("push", folder / "mine", name)
        results["pull"] = run_child("pull", folder / "there", name)
    return results


def main() -> int:
    """Measure, print, and compare with the limit."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--size", type=int, default=1024, help="MiB")
    arguments.add_argument("--registry", choices=["docker", "lading"], default="docker")
    arguments.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    arguments.add_argument("--limit", type=float, default=100.0, help="MiB of peak memory")
    arguments.add_argument("--sparse", action="store_true", help="a blob of zeros, and no skopeo")
    arguments.add_argument("--json", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = measure(options.size * MIB, options.registry, Path(folder), sparse=options.sparse)
    if options.json:
        print(json.dumps({"size_mib": options.size, "registry": options.registry, "results": results}))
    else:
        print(f"{options.size} MiB, {options.registry} registry")
        for what, figures in results.items():
            peak = f"{figures['peak_mib']:8.1f} MiB" if "peak_mib" in figures else " " * 12
            rate = f"{options.size / figures['seconds']:8.0f} MiB/s" if figures["seconds"] > 0.05 else ""
            print(f"{what:12} {peak} {figures['seconds']:8.2f} s {rate}")
    return int(any(results[what]["peak_mib"] > options.limit for what in ("push", "pull")))


if __name__ == "__main__":
    raise SystemExit(main())
