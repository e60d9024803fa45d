"""Which layers go to which GPU, and what is then left to ask of main memory.

None of this has a GPU: devices are numbers here, as they are to the code.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_shelf import ModelShelf

from lading.oci.reference import Reference
from lading.runtime.device_probe import DeviceProbe, has_gpu_build
from lading.runtime.grant import Details, ModelFacts
from lading.runtime.load_plan import LoadPlan
from lading.runtime.mount import mount
from lading.runtime.options import Options
from lading.runtime.placement import HEADROOM, Device, LayerSizes, Placement, place, remaining
from lading.runtime.runner.load_report import LoadReport
from lading.runtime.settings import RuntimeSettings

SIZES = LayerSizes(blocks=(10, 10, 10, 10), output=4, compute=5)
"""44 bytes in five layers, the output being the last."""


def gpus(*room: int) -> list[Device]:
    """Devices with so much room beside their headroom and the compute buffer."""
    return [
        Device(name=f"GPU{i}", free=HEADROOM + 5 + free, total=HEADROOM + 100) for i, free in enumerate(room)
    ]


@pytest.mark.parametrize(
    ("room", "options", "layers"),
    [
        pytest.param((), {}, (), id="no device"),
        pytest.param((44,), {}, (5,), id="all fit exactly"),
        pytest.param((43,), {}, (4,), id="one byte less: the first layer stays in main memory"),
        pytest.param((14,), {}, (2,), id="the output and the last layer"),
        pytest.param((13,), {}, (1,), id="the output alone"),
        pytest.param((3,), {}, (), id="nothing fits"),
        pytest.param((44, 44), {}, (5, 0), id="one device takes all"),
        pytest.param((44, 60), {}, (0, 5), id="the one with more room"),
        pytest.param((20, 24), {}, (2, 3), id="two together take all"),
        pytest.param((20, 14), {}, (2, 2), id="two together take a part"),
        pytest.param((5, 44), {}, (0, 5), id="one that is too full is passed over"),
        pytest.param((10, 10, 10), {}, (1, 1, 1), id="three, the output with the last"),
        pytest.param((44,), {"num_gpu": 0}, (), id="none are wanted"),
        pytest.param((44,), {"num_gpu": 3}, (3,), id="three are wanted"),
        pytest.param((44,), {"num_gpu": 99}, (5,), id="more are wanted than there are"),
        pytest.param((13,), {"num_gpu": 3}, (3,), id="what is wanted counts, though it seems not to fit"),
        pytest.param((10, 30), {"num_gpu": 5}, (1, 4), id="and is dealt by room"),
        pytest.param((0, 0), {"num_gpu": 2}, (2, 0), id="or to the first, where there is no room at all"),
        pytest.param((44, 60), {"main_gpu": 0}, (5, 0), id="the device that is wanted"),
        pytest.param((13, 60), {"main_gpu": 0}, (1, 0), id="as many as fit there"),
        pytest.param((44,), {"main_gpu": 3}, (), id="a device that does not exist"),
    ],
)
def test_placement(room: tuple[int, ...], options: dict[str, Any], layers: tuple[int, ...]) -> None:
    placement = place(gpus(*room), SIZES, **options)
    expected = layers if any(layers) else ()
    assert placement.layers == expected
    assert placement.count == sum(expected)
    assert placement.tensor_split == tuple(map(float, expected))
    used = sum(1 for count in expected if count)
    assert placement.size == (sum(SIZES.last(placement.count)) + 5 * used if expected else 0)


def test_a_model_of_which_nothing_is_known_is_not_placed() -> None:
    assert place(gpus(100), LayerSizes()) == Placement()


@given(
    blocks=st.lists(st.integers(1, 50), min_size=1, max_size=12),
    output=st.integers(0, 50),
    rooms=st.lists(st.integers(0, 200), min_size=1, max_size=4),
)
def test_what_is_placed_fits_and_one_layer_more_would_not(
    blocks: list[int], output: int, rooms: list[int]
) -> None:
    sizes = LayerSizes(blocks=tuple(blocks), output=output, compute=5)
    placement = place(gpus(*rooms), sizes)
    at = sizes.count - placement.count
    every = (*blocks, output)
    for count, room in zip(placement.layers, rooms, strict=False):
        assert sum(every[at : at + count]) <= room
        at += count
    assert at == sizes.count or not placement.layers
    if placement.count < sizes.count:
        more = place(gpus(*rooms), sizes, num_gpu=placement.count + 1)
        start = sizes.count - more.count
        bounds = [start + sum(more.layers[:i]) for i in range(len(more.layers) + 1)]
        loads = [sum(every[low:high]) for low, high in pairwise(bounds)]
        assert any(load > room for load, room in zip(loads, rooms, strict=True))


def test_llama_cpp_deals_layers_as_the_split_says() -> None:
    """Its rule, in Python: a layer goes to the first device whose part of the sum is above its own."""
    placement = place(gpus(20, 24), SIZES)
    total, bounds = sum(placement.tensor_split), []
    for part in placement.tensor_split:
        bounds.append((bounds[-1] if bounds else 0.0) + part)
    dealt = [
        next(i for i, bound in enumerate(bounds) if bound / total > layer / placement.count)
        for layer in range(placement.count)
    ]
    assert dealt == [0, 0, 1, 1, 1]


def test_what_others_have_is_taken_off() -> None:
    left = remaining([Device(name="a", free=30), Device(name="b", free=50)], 60)
    assert [device.free for device in left] == [20, 0]
    assert remaining([], 5) == ()


def plan(shelf: ModelShelf, *devices: Device, **options: Any) -> LoadPlan:
    files = mount(shelf.store, Reference.parse("tiny")).files
    facts = ModelFacts(name="m", full_name="m", digest="d", details=Details())
    return LoadPlan(
        facts=facts,
        files=files,
        options=Options(num_ctx=512, **options),
        settings=RuntimeSettings(flash_attention="on"),  # by itself, not on processors
        devices=devices,
    )


def test_a_model_on_a_gpu_asks_less_of_main_memory(shelf: ModelShelf) -> None:
    here = plan(shelf).estimate(2)
    large = Device(name="GPU0", free=HEADROOM + 10**9)
    there = plan(shelf, large).estimate(2)
    assert (here.gpu, there.model) == (0, here.model)
    assert there.gpu == there.model
    assert there.wanted == there.total == here.process
    assert "on GPUs" in str(there) and "on GPUs" not in str(here)
    assert plan(shelf, large, num_gpu=0).estimate(2) == here
    taken = plan(shelf, large).estimate(2, gpu_used=HEADROOM + 10**9)
    assert taken == here, "another model has the device"


def test_layers_are_measured_from_the_file(shelf: ModelShelf) -> None:
    files = mount(shelf.store, Reference.parse("tiny")).files
    assert len(files.blocks) == files.shape.layers == 3
    embedding = 1280 * 256 * 2
    assert files.output_size > embedding, "the way out is the way in, which is needed on both sides"
    assert sum(files.blocks) + files.output_size == pytest.approx(files.weights_size, rel=0.01)
    spec = plan(shelf).spec(2, socket_path="/s", parent_pid=1)
    assert spec.layers.count == 4
    assert spec.layers.blocks[0] > files.blocks[0], "the cache is with its layer"


def test_without_a_gpu_build_nothing_is_asked() -> None:
    if has_gpu_build():
        pytest.skip("llama.cpp is built for GPUs here")
    assert DeviceProbe({}).devices() == ()


LOG_OF_TWO_GPUS = """
load_tensors: offloading output layer to GPU
load_tensors: offloading 30 repeating layers to GPU
load_tensors: offloaded 31/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
load_tensors:        CUDA0 model buffer size =  2100.50 MiB
load_tensors:        CUDA1 model buffer size =  1900.25 MiB
llama_context: flash_attn            = auto
llama_context:  CUDA_Host  output buffer size =     0.49 MiB
llama_kv_cache:        CPU KV buffer size =    32.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =   256.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =   224.00 MiB
resolve_fused_ops: Flash Attention enabled
sched_reserve:      CUDA0 compute buffer size =   258.50 MiB
sched_reserve:      CUDA1 compute buffer size =   258.50 MiB
sched_reserve:  CUDA_Host compute buffer size =    16.01 MiB
"""


@pytest.mark.parametrize("buffer", ["CPU", "CPU_Mapped", "CPU_REPACK", "AMX", "CUDA_Host"])
def test_main_memory_is_no_gpus(buffer: str) -> None:
    report = LoadReport()
    report.read(f"load_tensors: {buffer:>12} model buffer size =     4.38 MiB")
    assert report.memory(gpu_only=True) == {}
    assert report.memory()["weights"] == pytest.approx(4.38 * 2**20, abs=1)


def test_what_the_log_says_of_gpus() -> None:
    report = LoadReport()
    for line in LOG_OF_TWO_GPUS.splitlines():
        report.read(line)
    mebibytes = {use: size / 2**20 for use, size in report.memory(gpu_only=True).items()}
    assert mebibytes == pytest.approx({"weights": 4000.75, "kv": 480.0, "compute": 517.0})
    every = {use: size / 2**20 for use, size in report.memory().items()}
    expected = {"weights": 4282.56, "kv": 512.0, "compute": 533.01, "output": 0.49}
    assert every == pytest.approx(expected, abs=0.01)
    assert (report.gpu_layers, report.flash_attention) == (31, True)
    assert report.mapped == int(281.81 * 2**20)


def test_weights_that_are_laid_out_for_the_processor_are_in_main_memory() -> None:
    report = LoadReport()
    assert report.memory() == {}
    report.read("load_tensors:          AMX model buffer size =     4.50 MiB")
    report.read("load_tensors:   CPU_Mapped model buffer size =     4.50 MiB")
    assert (report.memory(), report.memory(gpu_only=True)) == ({"weights": 9 << 20}, {})


@pytest.mark.parametrize(("device", "on_gpu"), [("CPU", {}), ("CUDA0", {"weights": 2 << 20})])
def test_a_projector_is_where_the_log_says(device: str, on_gpu: dict[str, int]) -> None:
    report = LoadReport()
    report.read(f"clip_ctx: CLIP using {device} backend")
    report.read("load_hparams: model size:         2.00 MiB")
    assert (report.memory(), report.memory(gpu_only=True)) == ({"weights": 2 << 20}, on_gpu)


def test_a_part_of_a_model_on_a_gpu(shelf: ModelShelf) -> None:
    """What is refused is said with the part that is on GPUs."""
    small = replace(plan(shelf), devices=(Device(name="GPU0", free=HEADROOM + 9_000_000),))
    need = small.estimate(1)
    assert 0 < need.gpu < need.model
    assert need.total == need.model - need.gpu + need.process
    assert re.search(r"of which [0-9.]+ .?B on GPUs", str(need))
