"""Estimates against what llama.cpp said it allocated, on models of several shapes."""

from __future__ import annotations

import pytest

from lading.oci.gguf.header import GgufArray
from lading.oci.gguf.type_table import ValueType
from lading.runtime.errors import DoesNotFit
from lading.runtime.estimate import LoadShape, MemoryEstimate, choose_parallel, estimate, require_fit
from lading.runtime.model_shape import ModelShape, padded_context, read_shape

MIB = 1024 * 1024


def array(*values: int) -> GgufArray:
    return GgufArray(
        element_type=ValueType.INT32, count=len(values), offset=0, size=4 * len(values), values=values
    )


def shape(arch: str, vocabulary: int, **facts: object) -> ModelShape:
    metadata: dict[str, object] = {"general.architecture": arch}
    metadata |= {f"{arch}.{key.replace('__', '.')}": value for key, value in facts.items()}
    return read_shape(metadata, vocabulary=vocabulary)


LLAMA = shape(
    "llama",
    2048,
    block_count=4,
    embedding_length=512,
    attention__head_count=8,
    attention__head_count_kv=4,
    feed_forward_length=1536,
    context_length=131072,
)
QWEN2 = shape(
    "qwen2",
    151936,
    block_count=2,
    embedding_length=896,
    attention__head_count=14,
    attention__head_count_kv=2,
    feed_forward_length=4864,
)
GEMMA3 = shape(
    "gemma3",
    30000,
    block_count=6,
    embedding_length=640,
    attention__head_count=4,
    attention__head_count_kv=1,
    attention__key_length=256,
    attention__value_length=256,
    attention__sliding_window=512,
    feed_forward_length=2048,
)

QWEN3MOE = shape(
    "qwen3moe",
    8192,
    block_count=2,
    embedding_length=512,
    attention__head_count=8,
    attention__head_count_kv=2,
    attention__key_length=64,
    attention__value_length=64,
    feed_forward_length=1024,
    expert_feed_forward_length=384,
    expert_used_count=4,
)
MAMBA = shape(
    "mamba",
    8192,
    block_count=4,
    embedding_length=512,
    feed_forward_length=0,
    attention__head_count=0,
    ssm__conv_kernel=4,
    ssm__inner_size=1024,
    ssm__state_size=16,
)


@pytest.mark.parametrize(
    ("model", "load", "kv_mib", "compute_mib"),
    [
        pytest.param(LLAMA, LoadShape(n_ctx=4096), 16.0, 17.02, id="llama 4k"),
        pytest.param(LLAMA, LoadShape(n_ctx=16384), 64.0, 29.02, id="llama 16k"),
        pytest.param(LLAMA, LoadShape(n_ctx=4096, n_parallel=4), 64.0, 17.04, id="llama 4 sequences"),
        pytest.param(LLAMA, LoadShape(n_ctx=4096, n_batch=1024), 16.0, 34.03, id="llama batch 1024"),
        pytest.param(LLAMA, LoadShape(n_ctx=4096, kv_cache_type="q8_0"), 8.5, 16.05, id="llama q8_0 cache"),
        pytest.param(
            LLAMA,
            LoadShape(n_ctx=4096, n_parallel=4, flash_attention=False),
            64.0,
            78.04,
            id="llama plain attention",
        ),
        pytest.param(QWEN2, LoadShape(n_ctx=4096), 4.0, 300.83, id="qwen2 logits of a whole batch"),
        pytest.param(QWEN2, LoadShape(n_ctx=4096, n_outputs=1), 4.0, 40.09, id="qwen2 4k"),
        pytest.param(
            QWEN2, LoadShape(n_ctx=4096, n_parallel=4, n_outputs=4), 16.0, 41.83, id="qwen2 4 sequences"
        ),
        pytest.param(
            QWEN2,
            LoadShape(n_ctx=4096, n_parallel=4, n_outputs=4, flash_attention=False),
            16.0,
            131.58,
            id="qwen2 plain attention",
        ),
        pytest.param(GEMMA3, LoadShape(n_ctx=4096, n_outputs=1), 9.0, 22.88, id="gemma3 4k"),
        pytest.param(GEMMA3, LoadShape(n_ctx=16384, n_outputs=1), 21.0, 34.88, id="gemma3 16k"),
        pytest.param(
            GEMMA3, LoadShape(n_ctx=4096, n_batch=1024, n_outputs=1), 11.5, 46.65, id="gemma3 batch 1024"
        ),
        pytest.param(
            GEMMA3,
            LoadShape(n_ctx=4096, n_parallel=4, n_outputs=4, flash_attention=False),
            36.0,
            49.72,
            id="gemma3 plain attention",
        ),
        pytest.param(QWEN3MOE, LoadShape(n_ctx=4096, n_outputs=1), 4.0, 17.04, id="experts 4k"),
        pytest.param(QWEN3MOE, LoadShape(n_ctx=16384, n_outputs=1), 16.0, 29.04, id="experts 16k"),
        pytest.param(
            QWEN3MOE,
            LoadShape(n_ctx=4096, n_parallel=4, n_outputs=4, flash_attention=False),
            16.0,
            77.63,
            id="experts plain attention",
        ),
        pytest.param(MAMBA, LoadShape(n_ctx=4096, n_outputs=1), 0.30, 13.12, id="mamba"),
        pytest.param(MAMBA, LoadShape(n_ctx=4096, n_parallel=4), 1.19, 19.12, id="mamba, all logits"),
    ],
)
def test_within_ten_per_cent_of_what_llama_cpp_reported(
    model: ModelShape, load: LoadShape, kv_mib: float, compute_mib: float
) -> None:
    got = estimate(model, load, weights=0)
    assert got.kv / MIB == pytest.approx(kv_mib, rel=0.001, abs=0.01)
    assert got.compute / MIB == pytest.approx(compute_mib, rel=0.10)
    assert (got.kv + got.compute) / MIB == pytest.approx(kv_mib + compute_mib, rel=0.10)


@pytest.mark.parametrize(
    ("facts", "key_value", "recurrent"),
    [
        pytest.param({"attention__head_count": 8}, 4 * 512 * 2, 0, id="kv heads default to heads"),
        pytest.param(
            {"attention__head_count": 8, "attention__head_count_kv": array(8, 0, 4, 0)},
            12 * 64 * 2,
            0,
            id="heads by layer",
        ),
        pytest.param(
            {"attention__head_count": 8, "attention__key_length": 96, "attention__value_length": 32},
            4 * 8 * 128,
            0,
            id="keys and values of their own length",
        ),
        pytest.param(
            {"attention__head_count": 8, "attention__shared_kv_layers": 2}, 2 * 512 * 2, 0, id="shared layers"
        ),
        pytest.param(
            {
                "attention__head_count": 8,
                "attention__head_count_kv": array(0, 0, 0, 8),
                "ssm__inner_size": 1024,
                "ssm__state_size": 16,
                "ssm__conv_kernel": 4,
            },
            512 * 2,
            3 * (3 * 1024 + 1024 * 16),
            id="hybrid counts state only where there is no attention",
        ),
        pytest.param({}, 0, 0, id="no heads at all"),
        pytest.param({"attention__head_count": "eight"}, 0, 0, id="nonsense counts as absent"),
    ],
)
def test_cache_of_uneven_models(facts: dict[str, object], key_value: int, recurrent: int) -> None:
    got = shape("any", 100, block_count=4, embedding_length=512, feed_forward_length=1024, **facts)
    assert (got.key_value, got.recurrent) == (key_value, recurrent)


def test_recurrent_models_have_no_growing_cache() -> None:
    mamba = shape(
        "mamba",
        100,
        block_count=2,
        embedding_length=64,
        ssm__inner_size=128,
        ssm__state_size=16,
        ssm__conv_kernel=4,
    )
    short, long = (estimate(mamba, LoadShape(n_ctx=n), weights=0).kv for n in (256, 65536))
    assert short == long == 2 * (3 * 128 + 128 * 16) * 4


@pytest.mark.parametrize(
    ("facts", "whole", "windowed"),
    [
        pytest.param({}, 1, 5, id="gemma3 is known: every sixth layer keeps all"),
        pytest.param({"attention__sliding_window_pattern": 3}, 2, 4, id="period stated"),
        pytest.param(
            {"attention__sliding_window_pattern": array(1, 0, 1, 1, 0, 0)}, 3, 3, id="layers stated"
        ),
        pytest.param({"attention__sliding_window": 0}, 6, 0, id="no window"),
    ],
)
def test_windowed_layers_keep_only_their_window(facts: dict[str, object], whole: int, windowed: int) -> None:
    given = {
        "block_count": 6,
        "embedding_length": 64,
        "attention__head_count": 1,
        "attention__sliding_window": 512,
    } | facts
    model = shape("gemma3", 100, **given)
    assert (model.key_value, model.windowed_key_value) == (whole * 128, windowed * 128)
    kv = estimate(model, LoadShape(n_ctx=8192, n_batch=256), weights=0).kv
    assert kv == (8192 * whole + 768 * windowed) * 128 * 2


def test_experts_count_as_many_as_a_token_uses() -> None:
    mixture = shape(
        "qwen3moe",
        100,
        block_count=2,
        embedding_length=64,
        feed_forward_length=128,
        expert_used_count=8,
        expert_feed_forward_length=96,
    )
    assert mixture.feed_forward == 8 * 96


def test_contexts_are_padded_as_llama_cpp_pads_them() -> None:
    assert [padded_context(n) for n in (1, 256, 257, 4096)] == [256, 256, 512, 4096]


GB = 1_000_000_000


def test_parallel_is_what_memory_allows() -> None:
    load = LoadShape(n_ctx=4096)
    assert choose_parallel(LLAMA, load, weights=10_000_000, available=8 * GB) == 8
    tight = estimate(LLAMA, LoadShape(n_ctx=4096, n_parallel=2), weights=0).wanted
    assert choose_parallel(LLAMA, load, weights=0, available=tight) == 2
    assert choose_parallel(LLAMA, load, weights=0, available=tight - 1) == 1
    assert choose_parallel(LLAMA, load, weights=0, available=0) == 1, "never below one: the fit check refuses"


def test_parallel_leaves_the_cache_smaller_than_half_the_weights() -> None:
    llama3_8b = shape(
        "llama",
        128256,
        block_count=32,
        embedding_length=4096,
        attention__head_count=32,
        attention__head_count_kv=8,
        feed_forward_length=14336,
    )
    assert choose_parallel(llama3_8b, LoadShape(n_ctx=4096), weights=4_700_000_000, available=64 * GB) == 4
    assert choose_parallel(llama3_8b, LoadShape(n_ctx=32768), weights=4_700_000_000, available=64 * GB) == 1


def test_refusal_names_the_figures_and_a_remedy() -> None:
    load = LoadShape(n_ctx=16384)
    need = MemoryEstimate(weights=4 * GB, kv=2 * GB, compute=0, process=0)
    with pytest.raises(DoesNotFit) as caught:
        require_fit("big", need, load, available=5 * GB)
    error = caught.value
    assert error.message == (
        "loading big: it needs 6.6 GB of memory (weights 4.0 GB, KV cache 2.0 GB, compute 0 B, runner 0 B), "
        "5.0 GB is available"
    )
    assert error.hint == "set num_ctx at most 3584 (it is 16384), or kv_cache_type q8_0"
    assert (error.needed, error.available) == (6_600_000_000, 5 * GB)


def test_refusal_of_weights_alone_asks_for_a_smaller_model() -> None:
    need = MemoryEstimate(weights=40 * GB, kv=GB, compute=GB)
    with pytest.raises(DoesNotFit) as caught:
        require_fit("big", need, LoadShape(n_ctx=4096), available=8 * GB)
    assert caught.value.hint == "use a smaller quantisation of the model, or a machine with more memory"


def test_what_fits_is_not_refused() -> None:
    need = MemoryEstimate(weights=GB, kv=0, compute=0, process=0)
    require_fit("small", need, LoadShape(n_ctx=4096), available=1_100_000_000)
