"""What would be loaded for a request: which files, how, and how much memory that takes.

Pure: no file is read and nothing is started here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .estimate import LoadShape, MemoryEstimate, choose_parallel, estimate, estimate_draft
from .grant import ModelFacts
from .model_shape import ModelShape, ProjectorShape, padded_context
from .options import MIN_CONTEXT, Options, draft_of, drafted_together
from .placement import HEADROOM, Device, LayerSizes, place, remaining
from .protocol import LoadSpec, Variant
from .settings import DEFAULT_CONTEXT, FlashAttention, RuntimeSettings

MAX_STEP = 512
"""Most tokens that a runner evaluates in one go, whatever ``num_batch`` is."""
_SHORT_STEP = 128
"""The same where a processor writes attention's scores out: more of them would not stay in its caches."""
_MAX_SCORES = 256 * 1024 * 1024
"""Bytes that these scores may take."""
_PLAIN_CACHES = ("f32", "f16", "bf16")
_ASKED_FOR = ("num_batch", "num_gpu", "main_gpu", "use_mmap", "use_mlock", "num_thread")
_DEFAULTS = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFile:
    """A draft model that a model brings with it."""

    path: str
    size: int
    """Bytes of its tensors."""
    shape: ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """The files of a model that a runner reads, and the header facts that decide their memory."""

    key: str
    """Equal for models that one runner can serve: same weights, projector and draft model."""
    weights: tuple[str, ...]
    weights_size: int
    """Bytes, projector included, the draft model not."""
    adapters_size: int = 0
    """Bytes of `variant.adapters`."""
    blocks: tuple[int, ...] = ()
    """Bytes of the tensors of each layer."""
    output_size: int = 0
    """Bytes of the tensors that come after the last layer."""
    shape: ModelShape
    projector: str = ""
    projector_shape: ProjectorShape | None = None
    draft: DraftFile | None = None
    variant: Variant = field(default_factory=Variant)
    """What sets the model apart from others of the same key; without an id."""

    @property
    def size(self) -> int:
        """Bytes of all files, the draft model not included."""
        return self.weights_size + self.adapters_size


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """One model and the load-time options of one request."""

    facts: ModelFacts
    files: ModelFiles
    options: Options
    settings: RuntimeSettings
    pinned: bool = False
    """It is to stay loaded."""
    devices: tuple[Device, ...] = ()
    """GPUs, with what is free of them while nothing is loaded."""

    @property
    def name(self) -> str:
        """For people."""
        return self.facts.name

    @property
    def key(self) -> str:
        return self.files.key

    @property
    def n_ctx(self) -> int:
        """Context of one sequence in tokens: what is asked for, within what the model was trained for."""
        asked = self.options.num_ctx or self.settings.context_length or DEFAULT_CONTEXT
        trained = self.files.shape.context_length or asked
        return max(min(asked, trained), MIN_CONTEXT)

    def serves(self, wanted: LoadPlan) -> bool:
        """Whether a runner loaded by this plan can take a request that plans ``wanted``.

        An option at its default asks for nothing, save that the context must be as long as by default.
        """
        if self.n_ctx < wanted.n_ctx or self.n_draft < wanted.n_draft:
            return False  # a longer one serves: the engine keeps each request to its own
        if self.files.shape.pooling and wanted.options.num_ctx and wanted.n_ctx != self.n_ctx:
            return False  # here the context decides how much of a text counts
        return all(
            getattr(wanted.options, name) in (getattr(_DEFAULTS, name), getattr(self.options, name))
            for name in _ASKED_FOR
        )

    def shape(self, n_parallel: int) -> LoadShape:
        """For the estimate: an encoder takes a whole text in one step, others at most `MAX_STEP` tokens."""
        return LoadShape(
            n_ctx=self.n_ctx,
            n_parallel=n_parallel,
            n_batch=self.n_ctx if self.files.shape.pooling else min(self.n_batch, self.step),
            kv_cache_type=self.settings.kv_cache_type,
            flash_attention=self.flash_attention != "off",
            n_outputs=0 if self.files.shape.pooling else n_parallel,
            n_drafted=drafted_together(n_parallel, self.n_draft),
        )

    @property
    def flash_attention(self) -> FlashAttention:
        """What is asked for; by itself, none on processors where there is room for attention's scores.

        Where fewer than 64 tokens ask, as those of answers do, llama.cpp's flash attention goes through a
        cache one position and one head at a time; matrix products are up to five times as fast, and prompts
        lose a tenth (docs/benchmarks.md). Quantised caches cannot be read without it.
        """
        chosen, shape = self.settings.flash_attention, self.files.shape
        if chosen != "auto" or self._uses_gpus or shape.pooling or self.files.projector:
            return chosen
        scores = _SHORT_STEP * padded_context(self.n_ctx) * shape.heads * 4
        is_plain = self.settings.kv_cache_type in _PLAIN_CACHES
        return "off" if is_plain and scores <= _MAX_SCORES else "auto"

    @property
    def step(self) -> int:
        """Most tokens that are evaluated in one go, whatever ``num_batch`` is."""
        return MAX_STEP if self._uses_gpus or self.flash_attention != "off" else _SHORT_STEP

    @property
    def _uses_gpus(self) -> bool:
        return bool(self.devices) and self.options.num_gpu != 0

    @property
    def n_draft(self) -> int:
        """Most tokens drafted for one answer in one step."""
        if self.files.shape.pooling:
            return 0
        return draft_of(self.options, has_draft_model=self.files.draft is not None)

    @property
    def draft(self) -> DraftFile | None:
        """The draft model, where it is to be loaded."""
        return self.files.draft if self.n_draft else None

    @property
    def weights_size(self) -> int:
        """Bytes of all tensors that are loaded."""
        return self.files.size + (self.draft.size if self.draft else 0)

    @property
    def n_batch(self) -> int:
        return max(min(self.options.num_batch, self.n_ctx), 1)

    def parallel(self, available: int) -> int:
        """Sequences to set up where ``available`` bytes are free."""
        if self.settings.num_parallel:
            return self.settings.num_parallel
        if self.files.shape.pooling:
            return 1
        available += sum(max(device.free - HEADROOM, 0) for device in self.devices)
        return choose_parallel(
            self.files.shape,
            self.shape(1),
            weights=self.weights_size,
            available=available,
            projector=self.files.projector_shape,
            draft=self.draft.shape if self.draft else None,
        )

    def estimate(self, n_parallel: int, *, gpu_used: int = 0) -> MemoryEstimate:
        """Bytes with so many sequences, where ``gpu_used`` bytes of GPUs are taken by others."""
        need = estimate(
            self.files.shape,
            self.shape(n_parallel),
            weights=self.weights_size,
            projector=self.files.projector_shape,
            draft=self.draft.shape if self.draft else None,
        )
        if not self.devices:
            return need
        layers = self._layers(n_parallel)
        devices = remaining(self.devices, gpu_used)
        placement = place(devices, layers, num_gpu=self.options.num_gpu, main_gpu=self.options.main_gpu)
        return replace(need, gpu=min(placement.size, need.model))

    def _layers(self, n_parallel: int) -> LayerSizes:
        """The KV cache is taken to be the same in every layer. The draft model goes where the output goes."""
        files, shape, draft = self.files, self.shape(n_parallel), self.draft
        own = estimate(files.shape, shape, weights=files.weights_size, projector=files.projector_shape)
        beside = estimate_draft(draft.shape, shape, weights=draft.size).model if draft else 0
        cache = own.kv // max(len(files.blocks), 1)
        return LayerSizes(
            blocks=tuple(size + cache for size in files.blocks),
            output=files.output_size + beside,
            compute=own.compute,
        )

    def spec(
        self,
        n_parallel: int,
        *,
        socket_path: str,
        parent_pid: int,
        prefix_folder: str = "",
        prefix_budget: int = 0,
    ) -> LoadSpec:
        """What the runner is told."""
        options, settings, files = self.options, self.settings, self.files
        return LoadSpec(
            socket_path=socket_path,
            parent_pid=parent_pid,
            weights=files.weights,
            projector=files.projector,
            draft=self.draft.path if self.draft else "",
            n_draft=self.n_draft,
            n_ctx=self.n_ctx,
            n_parallel=n_parallel,
            n_batch=self.n_batch,
            n_threads=options.num_thread or settings.threads,
            n_gpu_layers=options.num_gpu,
            main_gpu=options.main_gpu,
            layers=self._layers(n_parallel),
            use_mmap=options.use_mmap,
            use_mlock=options.use_mlock,
            n_ubatch=self.step,
            kv_cache_type=settings.kv_cache_type,
            flash_attention=self.flash_attention,
            embedding=files.shape.pooling,
            max_queue=settings.max_queue,
            sandbox="auto" if settings.sandbox else "off",
            prefix_folder=prefix_folder,
            prefix_budget=prefix_budget,
        )
