"""Two models with adapters, of the same weights: in one runner, and in a runner each.

    python benchmarks/adapters.py MODEL.gguf [--tokens N] [--rank N] [--threads N]

MODEL is one as `make_model.py` makes it. Two adapters with random weights on all matrices of attention and
feed-forward are made for it. Measured are the tokens a second of two streams together, and the memory that
the runners take by themselves, without what is mapped from the model, where

* both streams have the same adapter: one set in each step;
* they have different ones: two sets, so two passes and a change in each step;
* each has a runner of its own, as the peer.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import gguf
import numpy as np
import psutil

from lading.oci.gguf.check import check_file
from lading.runtime.client import RunnerClient
from lading.runtime.options import Options
from lading.runtime.protocol import Adapter, Generate, LoadSpec, Variant
from lading.runtime.runner_process import RunnerProcess

MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NAMES = ("one", "two")


def make_adapter(path: Path, model: Path, *, rank: int, seed: int) -> Variant:
    header = check_file(model)
    writer = gguf.GGUFWriter(path, header.architecture or "")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    random = np.random.default_rng(seed)
    for tensor in header.tensors:
        if tensor.name.split(".")[-2] in MATRICES and tensor.name.endswith(".weight"):
            inputs, outputs = tensor.shape
            for half, shape in (("lora_a", (rank, inputs)), ("lora_b", (outputs, rank))):
                values = (random.standard_normal(shape) * 0.01).astype(np.float32)
                writer.add_tensor(f"{tensor.name}.{half}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Variant(id=path.stem, adapters=(Adapter(path=str(path), digest=path.stem),))


def start(model: Path, socket: Path, threads: int, *variants: Variant) -> RunnerProcess:
    spec = LoadSpec(
        socket_path=str(socket),
        weights=(str(model),),
        parent_pid=os.getpid(),
        n_ctx=2048,
        n_parallel=2,
        n_threads=threads,
    )
    process = RunnerProcess(model.name, spec, on_exit=lambda _: None)
    process.start()
    process.wait_ready(300)
    for variant in variants:
        process.add_variant(variant, 300)
    return process


async def speed(streams: list[tuple[RunnerProcess, str]], tokens: int) -> float:
    """Tokens a second of all streams together, once each has had its first."""

    async def stream(process: RunnerProcess, variant: str, number: int) -> None:
        client = await RunnerClient.connect(process.spec.socket_path)
        request = Generate(
            id=0,
            variant=variant,
            prompt=f"{number} Once upon a time",
            raw=True,
            options=Options(temperature=1.0, seed=number, num_predict=tokens),
        )
        async for _ in client.generate(request):
            if not begun[number].is_set():
                begun[number].set()
        await client.aclose()

    begun = [asyncio.Event() for _ in streams]
    tasks = [asyncio.create_task(stream(*one, number)) for number, one in enumerate(streams)]
    await asyncio.gather(*(event.wait() for event in begun))
    started = time.perf_counter()
    await asyncio.gather(*tasks)
    return tokens * len(streams) / (time.perf_counter() - started)


def own_memory(processes: list[RunnerProcess]) -> int:
    """Bytes that are the runners' own: KV cache, buffers, adapters, the interpreter."""
    return sum(psutil.Process(process.pid).memory_full_info().uss for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=0, help="of each runner; 0: one for each core")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adapters")))
        one, two = (
            make_adapter(folder / f"{name}.gguf", chosen.model, rank=chosen.rank, seed=seed)
            for seed, name in enumerate(NAMES)
        )
        shared = start(chosen.model, folder / "shared", chosen.threads, one, two)
        apart = [start(chosen.model, folder / variant.id, chosen.threads, variant) for variant in (one, two)]
        for process in (shared, *apart):
            stack.callback(process.join, 5)
            stack.callback(process.stop)
        cases = {
            "one runner, one adapter": [(shared, "one"), (shared, "one")],
            "one runner, two adapters": [(shared, "one"), (shared, "two")],
            "a runner each": list(zip(apart, NAMES, strict=True)),
        }
        best = dict.fromkeys(cases, 0.0)
        for _ in range(3):  # the best of three rounds: other work on the machine only ever slows down
            for name, streams in cases.items():
                best[name] = max(best[name], asyncio.run(speed(streams, chosen.tokens)))
        for name, found in best.items():
            processes = list({id(process): process for process, _ in cases[name]}.values())
            print(f"{name}: {found:.1f} tokens/s, {own_memory(processes) / 1e6:.0f} MB of their own")


if __name__ == "__main__":
    main()
