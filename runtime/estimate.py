"""How much memory a model will take, before it is loaded.

The KV cache is exact: cells, times keys and values of a token, times bytes of the cache's type. Compute
buffers follow the widest moment of llama.cpp's graph, found by measuring; ``tests/runtime/test_estimate.py``
holds the measurements. Where a model is hybrid, its state is counted as if all layers had one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .errors import DoesNotFit
from .model_shape import ModelShape, ProjectorShape, padded_context
from .size_text import size_text

MAX_PARALLEL = 8
DEFAULT_BATCH = 512
PROCESS_SIZE = 90_000_000
"""A runner's own memory: interpreter and libraries, no model."""

_BYTES_PER_ELEMENT: dict[str, float] = {
    "f32": 4,
    "f16": 2,
    "bf16": 2,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}
_F32 = 4
_RESERVE_NUM, _RESERVE_DEN = 10, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes."""

    weights: int
    kv: int
    compute: int
    process: int = PROCESS_SIZE
    gpu: int = 0
    """What of it goes to GPUs: it is not asked of main memory."""

    @property
    def model(self) -> int:
        """What `ps` calls the model's size."""
        return self.weights + self.kv + self.compute

    @property
    def total(self) -> int:
        """All that the runner takes of main memory."""
        return max(self.model - self.gpu, 0) + self.process

    @property
    def wanted(self) -> int:
        """What must be free of main memory for a load: a tenth more than the model, since estimates err."""
        here = max(self.model - self.gpu, 0)
        return here + self.process + here * _RESERVE_NUM // _RESERVE_DEN

    def __str__(self) -> str:
        on_gpu = f", of which {size_text(self.gpu)} on GPUs" if self.gpu else ""
        return (
            f"weights {size_text(self.weights)}, KV cache {size_text(self.kv)}, "
            f"compute {size_text(self.compute)}, runner {size_text(self.process)}{on_gpu}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadShape:
    """How the model would be loaded."""

    n_ctx: int
    """Context of one sequence, tokens."""
    n_parallel: int = 1
    n_batch: int = DEFAULT_BATCH
    kv_cache_type: str = "f16"
    flash_attention: bool = True
    n_outputs: int = 0
    """Most tokens of one step that logits are computed for, drafts not counted; 0: all."""
    n_drafted: int = 0
    """Tokens drafted in one step, at most."""


def estimate(
    shape: ModelShape,
    load: LoadShape,
    *,
    weights: int,
    projector: ProjectorShape | None = None,
    draft: ModelShape | None = None,
) -> MemoryEstimate:
    """``weights``: bytes of all tensors, projector, adapters and draft model included."""
    if draft is not None:
        own = estimate(shape, load, weights=weights, projector=projector)
        beside = estimate_draft(draft, load, weights=0)
        return replace(own, kv=own.kv + beside.kv, compute=own.compute + beside.compute)
    cells = padded_context(load.n_ctx)
    windowed = min(cells, padded_context(shape.window + load.n_batch))
    elements = cells * shape.key_value + windowed * shape.windowed_key_value
    sequence = int(elements * _BYTES_PER_ELEMENT[load.kv_cache_type]) + shape.recurrent * _F32
    caches = (cells if shape.key_value else 0, windowed if shape.windowed_key_value else 0)
    return MemoryEstimate(
        weights=weights,
        kv=sequence * load.n_parallel,
        compute=_compute(shape, load, caches) + (_look(projector) if projector is not None else 0),
    )


def estimate_draft(draft: ModelShape, load: LoadShape, *, weights: int) -> MemoryEstimate:
    """Of a draft model alone, beside a model that is loaded by ``load``."""
    n_ctx = min(load.n_ctx, draft.context_length or load.n_ctx)
    return estimate(draft, replace(load, n_ctx=n_ctx, n_drafted=0), weights=weights)


def _look(projector: ProjectorShape) -> int:
    """Inside a layer of the vision transformer, the wider of the feed-forward part and the attention."""
    width = projector.width
    return projector.patches * max(projector.feed_forward + 4 * width, 6 * width) * _F32


def _compute(shape: ModelShape, load: LoadShape, caches: tuple[int, int]) -> int:
    """The larger of the two wide moments: inside a layer, and at the logits."""
    batch, embedding = load.n_batch, shape.embedding
    attention = 3 * embedding + 3 * shape.attention
    recurrent = 6 * shape.recurrent_width + embedding
    if load.flash_attention:
        widest_layer = max(3 * shape.feed_forward + 4 * embedding, attention, recurrent)
        mask, layer = 2 * sum(caches) * batch, widest_layer
    else:
        mask, layer = _F32 * sum(caches) * batch, max(max(caches) * shape.heads + attention, recurrent)
    logits = shape.vocabulary * (load.n_outputs + load.n_drafted if load.n_outputs else batch)
    output = shape.vocabulary * (load.n_parallel + load.n_drafted)
    widest = max(mask + layer * batch * _F32, (logits + 2 * embedding * batch) * _F32)
    return widest + output * _F32


def choose_parallel(
    shape: ModelShape,
    load: LoadShape,
    *,
    weights: int,
    available: int,
    projector: ProjectorShape | None = None,
    draft: ModelShape | None = None,
    most: int = MAX_PARALLEL,
) -> int:
    """How many sequences to set up: as many of 8, 4, 2, 1 as fit, while their KV cache stays below half the
    weights or half a gibibyte."""
    allowed = max(weights // 2, 512 * 1024 * 1024)
    count = most
    while count > 1:
        more = replace(load, n_parallel=count, n_outputs=count if load.n_outputs else 0)
        guess = estimate(shape, more, weights=weights, projector=projector, draft=draft)
        if guess.kv <= allowed and guess.wanted <= available:
            break
        count //= 2
    return max(count, 1)


def require_fit(model: str, need: MemoryEstimate, load: LoadShape, *, available: int) -> None:
    """Nothing, or the refusal with figures and what to do about them.

    Raises: DoesNotFit.
    """
    if need.wanted <= available:
        return
    raise DoesNotFit(
        model,
        needed=need.wanted,
        available=available,
        breakdown=str(need),
        hint=_remedy(need, load, available),
    )


def _remedy(need: MemoryEstimate, load: LoadShape, available: int) -> str:
    without_kv = MemoryEstimate(weights=need.weights, kv=0, compute=need.compute)
    if without_kv.wanted < available and need.kv:
        room = (available - without_kv.wanted) / 1.1
        tokens = int(load.n_ctx * load.n_parallel * room / need.kv) // 256 * 256
        if load.n_parallel > 1:
            return (
                f"answer fewer requests at once (num_parallel is {load.n_parallel}), or set a smaller num_ctx"
            )
        if tokens >= 256:
            return f"set num_ctx at most {tokens} (it is {load.n_ctx}), or kv_cache_type q8_0"
    return "use a smaller quantisation of the model, or a machine with more memory"
