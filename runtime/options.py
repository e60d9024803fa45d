"""What a request may set about loading and generation: one flat struct, every field with its default.

Names, types and defaults are those of Ollama's ``options`` and of the Modelfile's PARAMETER. ``None`` is kept
out of the program: ``num_ctx`` 0, ``num_gpu`` -1, ``main_gpu`` -1 and ``num_thread`` 0 mean "choose for me",
and ``use_mmap`` is simply on.

Fields in `LOAD_TIME` decide how a model is loaded; two requests that differ in them cannot share a runner.
All others belong to one request.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from ..modelfile.parameters import PARAMETERS, BadParameter, check_value

log = logging.getLogger("lading.runtime")

MAX_LOGIT_BIAS = 100.0
_MAX_BIASED_TOKENS = 4096


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Resolved options. ``Options()`` is what a request gets where nobody set anything."""

    # Load-time.
    num_ctx: int = 0
    """Context of one sequence in tokens, at most what the model was trained for; 0: the server's default. A
    request that wants less than its runner has is kept to what it wants."""
    num_batch: int = 512
    """Most tokens evaluated in one step."""
    num_gpu: int = -1
    """Layers on the GPU; -1: as many as fit, 0: none."""
    main_gpu: int = -1
    """The one GPU to use; -1: all."""
    use_mmap: bool = True
    use_mlock: bool = False
    """Lock the weights in memory, as far as the system allows. Ollama ignores it since 2026."""
    num_thread: int = 0
    """Threads for evaluation; 0: one for each physical core."""
    draft_num_predict: int = -1
    """Most tokens drafted in one step; 0: none, -1: as many as are usual where there is a draft model, else
    none. A request that wants fewer than its runner can draft is kept to what it wants."""

    # Length.
    num_keep: int = 4
    """Tokens at the start of the prompt that survive a context shift; -1: all of the prompt."""
    num_predict: int = -1
    """Most tokens generated; -1: until the model ends, -2: until the context is full."""
    stop: tuple[str, ...] = ()

    # Sampling.
    seed: int = -1
    """-1: a fresh seed for each request."""
    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.9
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_last_n: int = 64
    """Tokens looked back at for penalties; 0: none, -1: the whole context."""
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    mirostat: int = 0
    """0: off, 1 or 2: Mirostat of that version in place of top-k, top-p, min-p and typical-p."""
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Added to the logits of token ids, -100 (never) to 100."""


MIN_CONTEXT = 4
"""Tokens; a smaller ``num_ctx`` counts as this."""
USUAL_DRAFT = 4
"""Tokens that a draft model drafts where nobody says how many."""
MAX_DRAFT = 64
"""Tokens drafted in one step, by all sequences of a runner together."""

LOAD_TIME: tuple[str, ...] = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "use_mlock",
    "num_thread",
    "draft_num_predict",
)


def context_of(options: Options, n_ctx: int) -> int:
    """The context of a request with these options, on a runner whose sequences have ``n_ctx`` tokens."""
    return max(min(options.num_ctx, n_ctx), MIN_CONTEXT) if options.num_ctx > 0 else n_ctx


def draft_of(options: Options, *, has_draft_model: bool) -> int:
    """How many tokens a request with these options may draft in one step."""
    wanted = options.draft_num_predict
    return min(wanted, MAX_DRAFT) if wanted >= 0 else USUAL_DRAFT if has_draft_model else 0


def drafted_together(n_parallel: int, n_draft: int) -> int:
    """How many tokens so many sequences may draft in one step, each at most ``n_draft``."""
    return min(n_parallel * n_draft, MAX_DRAFT)


def resolve_options(params: Mapping[str, Any], request: Mapping[str, Any]) -> Options:
    """Defaults, over them the model's ``params``, over them the ``request``'s options.

    Both are taken as they come from JSON: ``None`` counts as absent, unknown and deprecated names are
    ignored, as Ollama does. Load-time numbers that mean nothing become "choose for me".

    Raises: BadParameter for a value of the wrong type.
    """
    values: dict[str, Any] = {}
    for source in (params, request):
        for name, value in source.items():
            if value is None:
                continue
            if name == "logit_bias":
                values[name] = _logit_bias(value)
            elif name not in PARAMETERS:
                log.warning("ignoring unknown option %.40r", name)
            elif PARAMETERS[name].deprecated is None:
                checked = check_value(name, value)
                values[name] = tuple(checked) if isinstance(checked, list) else checked
    return Options(**_meaningful(values))


def _meaningful(values: dict[str, Any]) -> dict[str, Any]:
    """Without load-time values that llama.cpp has no meaning for."""
    least = {
        "num_ctx": 1,
        "num_batch": 1,
        "num_thread": 1,
        "num_gpu": 0,
        "main_gpu": 0,
        "draft_num_predict": 0,
    }
    return {name: value for name, value in values.items() if name not in least or value >= least[name]}


def _logit_bias(value: object) -> tuple[tuple[int, float], ...]:
    """OpenAI's form: an object of token ids, as text, and numbers."""
    wrong = BadParameter(
        'option "logit_bias" must be an object of token ids and numbers', name="logit_bias", value=value
    )
    if not isinstance(value, Mapping) or len(value) > _MAX_BIASED_TOKENS:
        raise wrong
    pairs = []
    for token, bias in value.items():
        if not isinstance(bias, int | float) or isinstance(bias, bool) or bias != bias:
            raise wrong
        if not (str(token).isascii() and str(token).isdigit() and len(str(token)) < 10):
            raise wrong
        pairs.append((int(token), max(-MAX_LOGIT_BIAS, min(MAX_LOGIT_BIAS, float(bias)))))
    return tuple(sorted(pairs))
