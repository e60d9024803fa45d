"""Loading what a `LoadSpec` names: model, context, engine, and the facts about them. Runner process only."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import BadTemplate
from ..options import drafted_together
from ..placement import place
from ..processors import usable_cores
from ..protocol import FailureCode, LoadFailed, Loading, LoadSpec, Ready, TemplateKind
from .constraint import ConstraintCompiler
from .devices import gpu_devices
from .draft_model import DraftModel, difference
from .embedding import Embedder
from .guess import Guesser
from .llama import NO_TOKEN, LlamaModel, LoadError, ModelSettings
from .llama_context import ContextError, ContextSettings, LlamaContext
from .llama_log import LlamaLog, start_backend
from .prepare import Preparer, TemplateFacts
from .prompt_lookup import PromptLookup
from .renderer import Renderer
from .stand_in import stand_in

if TYPE_CHECKING:
    from .vision import Vision

_MAX_UBATCH = 512
_MAX_PARALLEL = 256
_MIN_CTX = 4
_PROGRESS_STEP = 0.02
_SMALL_MODEL = 30_000_000
_MAX_EMBEDDED = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model ready to serve. ``embedder`` is set exactly for models that embed instead of generate."""

    spec: LoadSpec
    model: LlamaModel
    context: LlamaContext
    renderer: Renderer
    preparer: Preparer
    """Of the variant without an id."""
    embedder: Embedder | None
    drafts: Drafts
    facts: Ready
    log: LlamaLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Who drafts, and how much. ``guesser`` None: nobody, for the reason given, if it was asked for."""

    guesser: Guesser | None = None
    is_model: bool = False
    most: int = 0
    """Tokens of one draft."""
    reason: str = ""


def load(spec: LoadSpec, renderer: Renderer, report: Callable[[Loading], None]) -> Loaded | LoadFailed:
    """Load all of ``spec``. On failure memory may stay allocated: the process is expected to end."""
    log = LlamaLog()
    log.install()
    start_backend()
    try:
        return _load(spec, renderer, log, report)
    except LoadError as error:
        return _failed(error, "bad_model", error.log)
    except ContextError as error:
        return _failed(error, "out_of_memory", error.log)


def _load(spec: LoadSpec, renderer: Renderer, log: LlamaLog, report: Callable[[Loading], None]) -> Loaded:
    chosen = _model_settings(spec)
    model = LlamaModel(chosen, log, _Progress(report))
    _refuse_unsupported(spec, model)
    embeds = _embeds(spec, model)
    n_ctx = _context_length(spec, model, embeds)
    settings = _context_settings(spec, model, n_ctx, embeds)
    drafts = _drafts(spec, model, chosen, settings, log, report)
    if drafts.guesser:
        n_drafted = min(drafted_together(settings.n_seq, drafts.most), settings.n_batch - settings.n_seq)
        settings = replace(settings, n_drafted=n_drafted)
    context = LlamaContext(model, settings, log)
    template = _template(spec, model, renderer)
    vision = None if embeds else _vision(spec, model, settings, log)
    log.end_report()
    preparer = Preparer(
        model.vocab,
        renderer,
        template,
        ConstraintCompiler(model.vocab, renderer),
        n_ctx,
        vision=vision,
        n_ubatch=settings.n_ubatch,
    )
    return Loaded(
        spec=spec,
        model=model,
        context=context,
        renderer=renderer,
        preparer=preparer,
        embedder=_embedder(model, context, n_ctx) if embeds else None,
        drafts=drafts,
        facts=_facts(model, context, settings, template, drafts, log, sees=vision is not None),
        log=log,
    )


def _model_settings(spec: LoadSpec) -> ModelSettings:
    """Where llama.cpp has GPUs, as many layers go there as there is room for now, or as are asked for."""
    n_gpu_layers = spec.n_gpu_layers
    tensor_split: tuple[float, ...] = ()
    devices = gpu_devices()
    if devices and spec.layers.count:
        placement = place(devices, spec.layers, num_gpu=spec.n_gpu_layers, main_gpu=spec.main_gpu)
        n_gpu_layers, tensor_split = placement.count, placement.tensor_split
    return ModelSettings(
        paths=spec.weights,
        n_gpu_layers=n_gpu_layers,
        main_gpu=spec.main_gpu,
        tensor_split=tensor_split,
        use_mmap=spec.use_mmap,
        use_mlock=spec.use_mlock,
    )


def _drafts(
    spec: LoadSpec,
    model: LlamaModel,
    chosen: ModelSettings,
    settings: ContextSettings,
    log: LlamaLog,
    report: Callable[[Loading], None],
) -> Drafts:
    """Before the model's own context is made, which has room for as many outputs as are drafted.

    Raises: LoadError where the draft model is made for another model; ContextError.
    """
    if not spec.n_draft or settings.embeddings:
        return Drafts()
    if model.keeps_state:
        return Drafts(reason="no token can be taken back from a recurrent state")
    if not spec.draft:
        return Drafts(guesser=PromptLookup(model.vocab.ends), most=spec.n_draft)
    helper = LlamaModel(_beside(chosen, spec.draft), log, _Progress(report))
    if wrong := difference(model.vocab, helper.vocab):
        raise LoadError(
            f"loading the draft model {spec.draft}: it does not go with the model: {wrong}",
            hint="give it a DRAFT with the same vocabulary, or set draft_num_predict 0 to run it without one",
        )
    if helper.keeps_state or not helper.has_decoder or helper.has_encoder:
        helper.close()
        return Drafts(reason="no token can be taken back from the memory of the draft model")
    n_ctx = min(settings.n_ctx, helper.n_ctx_train or settings.n_ctx)
    own = replace(
        settings,
        n_ctx=n_ctx,
        n_batch=max(min(settings.n_batch, n_ctx), settings.n_seq),
        n_threads=min(spec.n_threads, os.cpu_count() or 1) or _threads(helper),
    )
    context = LlamaContext(helper, own, log)
    guesser = DraftModel(helper, context, n_ctx=n_ctx, n_batch=own.n_batch, n_vocab=model.vocab.size)
    return Drafts(guesser=guesser, is_model=True, most=spec.n_draft)


def _beside(chosen: ModelSettings, path: str) -> ModelSettings:
    """All of a draft model goes where the last layer of the model is."""
    last = max((i for i, count in enumerate(chosen.tensor_split) if count), default=chosen.main_gpu)
    n_gpu_layers = -1 if chosen.n_gpu_layers else 0
    return replace(chosen, paths=(path,), n_gpu_layers=n_gpu_layers, main_gpu=last, tensor_split=())


class _Progress:
    """Passes progress on, not more often than is useful; stops the load when nobody listens."""

    def __init__(self, report: Callable[[Loading], None]) -> None:
        self._report = report
        self._last = -1.0

    def __call__(self, fraction: float) -> bool:
        if fraction - self._last < _PROGRESS_STEP:
            return True
        self._last = fraction
        try:
            self._report(Loading(fraction=fraction))
        except OSError:
            return False
        return True


def _refuse_unsupported(spec: LoadSpec, model: LlamaModel) -> None:
    """Raises: LoadError for kinds of models that the engine would get wrong."""
    reason = ""
    if model.vocab.size == 0:
        reason = "the model has no vocabulary"
    elif model.has_encoder and model.has_decoder:
        reason = "models with an encoder and a decoder are not supported"
    elif model.is_diffusion:
        reason = "diffusion models are not supported"
    if reason:
        raise LoadError(f"loading {spec.weights[0]}: {reason}")


def _embeds(spec: LoadSpec, model: LlamaModel) -> bool:
    """Whether the model is for embeddings: it names a way of pooling, or cannot decode at all."""
    architecture = model.metadata("general.architecture") or ""
    pooling = model.metadata(f"{architecture}.pooling_type")
    return spec.embedding or pooling not in (None, "0") or not model.has_decoder


def _context_length(spec: LoadSpec, model: LlamaModel, embeds: bool) -> int:
    """Of one sequence: what is asked for, within what the model was trained for."""
    trained = model.n_ctx_train
    wanted = spec.n_ctx or trained or 4096
    if embeds:  # a text is evaluated in one pass, whose buffers grow with the square of its length
        wanted = min(wanted, max(spec.n_batch, _MAX_EMBEDDED))
    return max(_MIN_CTX, min(wanted, trained) if trained > 0 else wanted)


def _context_settings(spec: LoadSpec, model: LlamaModel, n_ctx: int, embeds: bool) -> ContextSettings:
    n_seq = min(max(1, spec.n_parallel), _MAX_PARALLEL)
    # An encoder looks at a whole text at once, so a text must fit into one pass.
    n_batch = n_ctx if embeds else max(min(spec.n_batch, n_ctx), n_seq, 32)
    return ContextSettings(
        n_ctx=n_ctx,
        n_seq=n_seq,
        n_batch=n_batch,
        n_ubatch=n_batch if embeds else min(n_batch, spec.n_ubatch or _MAX_UBATCH),
        n_threads=min(spec.n_threads, os.cpu_count() or 1) or _threads(model),
        kv_cache_type=spec.kv_cache_type,
        flash_attention=spec.flash_attention,
        embeddings=embeds,
    )


def _threads(model: LlamaModel) -> int:
    """One for each core; one alone for a model so small that meeting would cost more than the work."""
    return 1 if model.parameter_count < _SMALL_MODEL else usable_cores()


def _template(spec: LoadSpec, model: LlamaModel, renderer: Renderer) -> TemplateFacts:
    facts = template_facts(model, go=spec.template_go, jinja=spec.template_jinja)
    try:
        return replace(facts, traits=renderer.describe(facts.language, facts.for_chats))
    except BadTemplate:
        return facts  # raw prompts work all the same; a chat is answered with the reason


def template_facts(model: LlamaModel, *, go: str, jinja: str) -> TemplateFacts:
    """What is known of the template in use without its traits. ``go`` stands before ``jinja``, and that
    before the model's own."""
    embedded = jinja or model.chat_template
    kind: TemplateKind = "go" if go else "jinja" if embedded else ""
    source = go or embedded
    vocab = model.vocab
    used = source or stand_in([vocab.text(token) for token in vocab.controls]).template
    return TemplateFacts(
        kind=kind, source=source, for_chats=used, bos=vocab.text(vocab.bos), eos=vocab.text(vocab.eos)
    )


def _vision(spec: LoadSpec, model: LlamaModel, settings: ContextSettings, log: LlamaLog) -> Vision | None:
    if not spec.projector:
        return None
    from .projector import Projector, ProjectorSettings  # a library of its own, and Pillow
    from .vision import Vision

    chosen = ProjectorSettings(
        path=spec.projector, n_threads=settings.n_threads, use_gpu=spec.n_gpu_layers != 0
    )
    return Vision(Projector(model, chosen, log))


def _embedder(model: LlamaModel, context: LlamaContext, n_ctx: int) -> Embedder:
    template = model.metadata("tokenizer.chat_template.rerank") or ""
    return Embedder(context, model.vocab, n_ctx, pair_template=template)


def _facts(
    model: LlamaModel,
    context: LlamaContext,
    settings: ContextSettings,
    template: TemplateFacts,
    drafts: Drafts,
    log: LlamaLog,
    *,
    sees: bool,
) -> Ready:
    embeds = settings.embeddings
    return Ready(
        pid=os.getpid(),
        n_ctx=settings.n_ctx,
        n_ctx_train=model.n_ctx_train,
        n_parallel=settings.n_seq,
        n_batch=settings.n_batch,
        n_vocab=model.vocab.size,
        n_embd=model.n_embd,
        n_layer=model.n_layer,
        n_gpu_layers=log.report.gpu_layers,
        n_threads=context.n_threads,
        architecture=model.metadata("general.architecture") or "",
        description=model.description,
        parameter_count=model.parameter_count,
        model_size=model.size,
        memory=log.report.memory(),
        memory_gpu=log.report.memory(gpu_only=True),
        memory_mapped=log.report.mapped,
        flash_attention=log.report.flash_attention,
        drafts="model" if drafts.is_model else "lookup" if drafts.guesser else "",
        no_drafts=drafts.reason,
        capabilities=("rerank",) if context.ranks else _capabilities(model, template, embeds, sees),
        template=template.kind or ("" if embeds else "stand-in"),
    )


def _capabilities(model: LlamaModel, template: TemplateFacts, embeds: bool, sees: bool) -> tuple[str, ...]:
    if embeds:
        return ("embedding",)
    found = ["completion"]
    vocab = model.vocab
    can_insert = NO_TOKEN not in (vocab.fim_prefix, vocab.fim_suffix, vocab.fim_middle)
    if can_insert and "insert" not in template.traits.capabilities:
        found.append("insert")
    return (*found, *template.traits.capabilities, *(["vision"] if sees else []))


def _failed(error: LoadError | ContextError, code: FailureCode, log: tuple[str, ...]) -> LoadFailed:
    reason = f": {log[-1].strip()}" if log else ""
    return LoadFailed(code=code, message=error.message + reason, hint=error.hint or "", log=log)
