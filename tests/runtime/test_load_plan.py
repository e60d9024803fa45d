"""Which requests can share a runner, and what the runner is told."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lading.runtime.estimate import LoadShape
from lading.runtime.grant import Details, ModelFacts
from lading.runtime.load_plan import DraftFile, LoadPlan, ModelFiles
from lading.runtime.model_shape import read_shape
from lading.runtime.options import Options
from lading.runtime.placement import Device
from lading.runtime.protocol import Adapter, Variant
from lading.runtime.settings import RuntimeSettings

TRAINED = 8192


def plan(
    trained: int = TRAINED,
    settings: RuntimeSettings | None = None,
    *,
    draft: DraftFile | None = None,
    heads: int = 0,
    devices: tuple[Device, ...] = (),
    **options: Any,
) -> LoadPlan:
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": trained,
        "llama.block_count": 1,
        "llama.attention.head_count": heads,
    }
    return LoadPlan(
        facts=ModelFacts(name="m", full_name="r/m", digest="sha256:0", details=Details()),
        files=ModelFiles(
            key="k",
            weights=("/w",),
            weights_size=1000,
            shape=read_shape(metadata),
            adapters_size=500,
            variant=Variant(adapters=(Adapter(path="/a", digest="sha256:a"),)),
            draft=draft,
        ),
        options=msgspec.structs.replace(Options(), **options),
        settings=settings or RuntimeSettings(),
        devices=devices,
    )


@pytest.mark.parametrize(
    ("loaded", "wanted", "shared"),
    [
        pytest.param({}, {}, True, id="auto and auto"),
        pytest.param({"num_ctx": 512}, {"num_ctx": 512}, True, id="same context"),
        pytest.param({"num_ctx": 512}, {"num_ctx": 1024}, False, id="longer context"),
        pytest.param({"num_ctx": 1024}, {"num_ctx": 512}, True, id="shorter context"),
        pytest.param({}, {"draft_num_predict": 0}, True, id="no drafts, where there are none by default"),
        pytest.param({}, {"draft_num_predict": 3}, False, id="drafts asked for"),
        pytest.param({"draft_num_predict": 3}, {"draft_num_predict": 2}, True, id="shorter drafts"),
        pytest.param({"draft_num_predict": 3}, {}, True, id="drafts not asked for"),
        pytest.param({"draft_num_predict": 64}, {"draft_num_predict": 99}, True, id="drafts have a limit"),
        pytest.param({}, {"num_ctx": 4096}, True, id="default, spelt out"),
        pytest.param({"num_ctx": 8192}, {}, True, id="longer than the default"),
        pytest.param({"num_ctx": 512}, {}, False, id="shorter than the default"),
        pytest.param({"num_ctx": 8192}, {"num_ctx": 10**9}, True, id="clamped to the training context"),
        pytest.param({"num_thread": 3}, {}, True, id="auto threads"),
        pytest.param({}, {"num_thread": 3}, False, id="threads asked for"),
        pytest.param({"num_gpu": 7}, {"num_gpu": -1}, True, id="auto layers"),
        pytest.param({"num_gpu": 7}, {"num_gpu": 0}, False, id="no layers"),
        pytest.param({}, {"use_mmap": False}, False, id="read instead of map"),
        pytest.param({"num_batch": 64}, {"num_batch": 64}, True, id="same batch"),
        pytest.param({}, {"main_gpu": 0}, False, id="one gpu"),
        pytest.param({}, {"temperature": 0.0, "stop": ("x",), "seed": 5}, True, id="options of the request"),
    ],
)
def test_sharing(loaded: dict[str, Any], wanted: dict[str, Any], shared: bool) -> None:
    assert plan(**loaded).serves(plan(**wanted)) is shared


DRAFT = DraftFile(
    path="/d",
    size=100,
    shape=read_shape(
        {
            "general.architecture": "llama",
            "llama.block_count": 2,
            "llama.embedding_length": 64,
            "llama.attention.head_count": 4,
            "llama.context_length": 512,
        }
    ),
)


@pytest.mark.parametrize(
    ("loaded", "wanted", "shared"),
    [
        pytest.param({}, {}, True, id="by default, with drafts"),
        pytest.param({}, {"draft_num_predict": 0}, True, id="without drafts"),
        pytest.param({}, {"draft_num_predict": 5}, False, id="longer drafts"),
        pytest.param({"draft_num_predict": 0}, {}, False, id="loaded without"),
    ],
)
def test_sharing_with_a_draft_model(loaded: dict[str, Any], wanted: dict[str, Any], shared: bool) -> None:
    assert plan(draft=DRAFT, **loaded).serves(plan(draft=DRAFT, **wanted)) is shared


def test_a_draft_model_is_loaded_and_counted_where_it_is_used() -> None:
    used, unused = plan(draft=DRAFT), plan(draft=DRAFT, draft_num_predict=0)
    specs = [one.spec(2, socket_path="/s", parent_pid=7) for one in (used, unused)]
    assert [(spec.draft, spec.n_draft) for spec in specs] == [("/d", 4), ("", 0)]
    needs = [one.estimate(2) for one in (used, unused)]
    assert needs[0].weights - needs[1].weights == 100
    assert needs[0].kv - needs[1].kv == 2 * 512 * 2 * 2 * 64 * 2, "its own context is shorter"
    assert needs[0].compute > needs[1].compute
    assert specs[0].layers.output > specs[1].layers.output + 100, "it lies where the output lies"
    assert specs[0].layers.blocks == specs[1].layers.blocks
    lookup = plan(draft_num_predict=3).spec(2, socket_path="/s", parent_pid=7)
    assert (lookup.draft, lookup.n_draft) == ("", 3)


@pytest.mark.parametrize(
    ("trained", "default", "asked", "n_ctx"),
    [
        pytest.param(8192, 0, 0, 4096, id="default"),
        pytest.param(2048, 0, 0, 2048, id="default above training"),
        pytest.param(8192, 6000, 0, 6000, id="setting"),
        pytest.param(8192, 6000, 512, 512, id="request over setting"),
        pytest.param(8192, 0, 10**9, 8192, id="clamped"),
        pytest.param(0, 0, 10**6, 10**6, id="training unknown"),
        pytest.param(8192, 0, 1, 4, id="at least four"),
    ],
)
def test_context(trained: int, default: int, asked: int, n_ctx: int) -> None:
    settings = RuntimeSettings(context_length=default)
    assert plan(trained, settings, num_ctx=asked).n_ctx == n_ctx


def test_what_the_runner_is_told() -> None:
    settings = RuntimeSettings(
        threads=3, kv_cache_type="q8_0", flash_attention="on", max_queue=9, sandbox=False
    )
    spec = plan(settings=settings, num_ctx=1024, num_gpu=0).spec(4, socket_path="/s", parent_pid=7)
    assert spec.weights == ("/w",)
    assert (spec.n_ctx, spec.n_parallel, spec.n_batch, spec.n_gpu_layers) == (1024, 4, 512, 0)
    assert (spec.n_threads, spec.kv_cache_type, spec.flash_attention) == (3, "q8_0", "on")
    assert (spec.max_queue, spec.sandbox, spec.socket_path, spec.parent_pid) == (9, "off", "/s", 7)
    assert plan(settings=settings, num_thread=1).spec(1, socket_path="/s", parent_pid=7).n_threads == 1


def test_what_the_estimate_is_told() -> None:
    assert plan(num_ctx=256, num_batch=4096).shape(2) == LoadShape(
        n_ctx=256, n_parallel=2, n_batch=128, n_outputs=2, flash_attention=False
    )
    flash = RuntimeSettings(flash_attention="on")
    assert plan(settings=flash, num_batch=4096).shape(1).n_batch == 512, "a runner takes no larger steps"


GPU = Device(name="gpu", free=8 << 30)


@pytest.mark.parametrize(
    ("settings", "fields", "chosen", "step"),
    [
        pytest.param({}, {}, "off", 128, id="on a processor"),
        pytest.param({}, {"heads": 32, "num_ctx": 16_384}, "off", 128, id="scores that have room"),
        pytest.param({}, {"heads": 32, "num_ctx": 16_640}, "auto", 512, id="scores that have none"),
        pytest.param({"kv_cache_type": "q8_0"}, {}, "auto", 512, id="a cache that must be read with it"),
        pytest.param({"flash_attention": "on"}, {}, "on", 512, id="asked for"),
        pytest.param({"flash_attention": "off"}, {}, "off", 128, id="not wanted"),
        pytest.param({}, {"devices": (GPU,)}, "auto", 512, id="on a GPU"),
        pytest.param({"flash_attention": "off"}, {"devices": (GPU,)}, "off", 512, id="not wanted on a GPU"),
        pytest.param({}, {"devices": (GPU,), "num_gpu": 0}, "off", 128, id="beside a GPU"),
    ],
)
def test_flash_attention_is_for_gpus_and_long_contexts(
    settings: dict[str, Any], fields: dict[str, Any], chosen: str, step: int
) -> None:
    made = plan(32_768, RuntimeSettings(**settings), **fields)
    assert (made.flash_attention, made.step) == (chosen, step)
    spec = made.spec(1, socket_path="/s", parent_pid=7)
    assert (spec.flash_attention, spec.n_ubatch) == (chosen, step)


def test_a_fixed_number_of_sequences_is_kept() -> None:
    assert plan(settings=RuntimeSettings(num_parallel=3)).parallel(available=0) == 3
