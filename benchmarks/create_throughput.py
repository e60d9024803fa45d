"""Creating a model against merely hashing its file: how many bytes a second.

    python benchmarks/create_throughput.py [--size 1024] [--rounds 5] [--folder DIR] [--json]

`create` checks the GGUF file, takes it into the store (hashed, written, synced to disk) and tags the model;
`sha256` reads the same file once with hashlib; `copy` writes it once and syncs it, which is what the disk
allows. All run in this process, in turns, so that they meet the same disk and the same noise; medians count.
The file is made here, of random bytes, and needs its size twice in the folder. On a file system with reflinks
(btrfs, XFS) `create` writes nothing.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import shutil
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lading.modelfile.syntax import parse
from lading.oci.building.build import build
from lading.oci.reference import Reference
from lading.oci.store import Store

MIB = 1 << 20
TENSOR_SIZE = 64 * MIB


def make_model(path: Path, size: int) -> None:
    """A sound GGUF file of about ``size`` bytes: a llama of F32 tensors of 64 MiB each."""
    count = max(1, size // TENSOR_SIZE)
    rows = TENSOR_SIZE // 4 // 4096
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    values = [
        ("general.architecture", 8, _text("llama")),
        ("general.name", 8, _text("Benchmark")),
        ("llama.block_count", 4, struct.pack("<I", 1)),
        ("llama.context_length", 4, struct.pack("<I", 2048)),
        ("llama.embedding_length", 4, struct.pack("<I", 4096)),
        ("llama.attention.head_count", 4, struct.pack("<I", 32)),
        ("tokenizer.ggml.model", 8, _text("llama")),
        ("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, len(tokens)) + b"".join(map(_text, tokens))),
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, count, len(values))
    header += b"".join(_text(key) + struct.pack("<I", type_) + data for key, type_, data in values)
    for index in range(count):
        header += _text(f"blk.0.t{index}") + struct.pack("<IQQIQ", 2, 4096, rows, 0, index * TENSOR_SIZE)
    with path.open("wb") as file:
        file.write(header + bytes(-len(header) % 32))
        for _ in range(count * TENSOR_SIZE // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def hash_file(path: Path) -> str:
    """One pass of sha256, as one would write it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(path: Path, target: Path) -> str:
    """One copy, synced to disk."""
    with path.open("rb") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, MIB)
        sink.flush()
        os.fsync(sink.fileno())
    target.unlink()
    return ""


def create(path: Path, root: Path) -> str:
    """`lading create` into an empty store. Returns the digest of the weights."""
    store = Store.open(root)
    result = build(
        parse(f"FROM ./{path.name}\nPARAMETER temperature 0\n"),
        context=path.parent,
        store=store,
        reference=Reference.parse("benchmark"),
        base=store.resolve,
    )
    return result.layers[0].digest.hex


def timed(work: Callable[[], str]) -> tuple[float, str]:
    gc.collect()
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def measure(folder: Path, size: int, rounds: int) -> dict[str, float]:
    path, root = folder / "model.gguf", folder / "store"
    make_model(path, size)
    hash_file(path)  # all find the file in memory
    work: dict[str, Callable[[], str]] = {
        "sha256": lambda: hash_file(path),
        "copy": lambda: copy_file(path, folder / "copy"),
        "create": lambda: create(path, root),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        digests = set()
        for name, run in work.items():
            taken, digest = timed(run)
            seconds[name].append(taken)
            digests.add(digest)
        if len(digests - {""}) != 1:
            sys.exit(f"the file and its blob differ: {digests}")
        shutil.rmtree(root)
    total = path.stat().st_size
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    figures: dict[str, float] = {"bytes": total, "rounds": rounds}
    for name, median in medians.items():
        figures |= {f"{name}_s": round(median, 3), f"{name}_bytes_per_s": round(total / median)}
    figures["ratio"] = round(medians["sha256"] / medians["create"], 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="size of the model in MiB (default: 1024)")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="create-throughput-") as folder:
        figures = measure(Path(folder), options.size * MIB, options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"model of {options.size} MiB, median of {options.rounds} rounds\n")
    print(f"{'':8}{'seconds':>10}{'MB/s':>10}{'against sha256':>18}")
    for name in ("sha256", "copy", "create"):
        ratio = figures["sha256_s"] / figures[f"{name}_s"]
        speed = figures[f"{name}_bytes_per_s"] / 1e6
        print(f"{name:8}{figures[f'{name}_s']:>10.3f}{speed:>10.0f}{ratio:>18.2f}")


if __name__ == "__main__":
    main()
