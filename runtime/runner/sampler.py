"""Choosing the next token: llama.cpp's sampler chain for one request, in llama.cpp's order. Runner process
only.

bias → penalties → top-k → typical → top-p → min-p → temperature → draw. Mirostat takes the place of the
filters; temperature 0 takes the most likely token after bias and penalties.

Source: llama.cpp, common/sampling.cpp, ``common_sampler_init``.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from ..options import Options
from .candidates import Logits, likeliest, with_tokens
from .llama import LlamaVocab
from .llama_context import LlamaContext

SamplerPointer = Any
"""llama.cpp's pointer to a sampler: a ctypes pointer object, which no type names."""

_MIROSTAT_M = 100
_MAX_BIAS = 100.0
_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama_token_data."""


class Sampler:
    """Owns one chain. Not shared between threads or requests."""

    def __init__(self, options: Options, vocab: LlamaVocab, n_ctx: int) -> None:
        self._options = options
        self.seed = options.seed & 0xFFFFFFFF if options.seed >= 0 else secrets.randbelow(0xFFFFFFFF)
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self._window = n_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, n_ctx)
        self._biases = _known(
            [*options.logit_bias, *((t, -math.inf) for t in vocab.suppressed())], vocab.size
        )
        self._biased = frozenset(token for token, _ in self._biases)
        self._recent: deque[int] = deque(maxlen=self._window)
        """Those that penalties look at."""
        self._kept = self._first_kept()
        for sampler in self._samplers(vocab):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def sample(self, context: LlamaContext, index: int) -> int:
        """The token that follows batch position ``index``; it counts for penalties from now on."""
        token = self._choose(context.logits(index)) if self._kept else None
        if token is None:
            token = int(llama_cpp.llama_sampler_sample(self._chain, context.pointer, index))
        else:
            llama_cpp.llama_sampler_accept(self._chain, token)
        if self._penalises:
            self._recent.append(token)
        return token

    def accept(self, tokens: Sequence[int]) -> None:
        """Let tokens that were not sampled (the prompt, forced ones) count for penalties."""
        if self._penalises:
            self._recent.extend(tokens)
            for token in tokens[-self._window :]:
                llama_cpp.llama_sampler_accept(self._chain, token)

    def _choose(self, logits: Logits) -> int | None:
        """As the chain would of the whole vocabulary, where it first keeps so many tokens; None: it must look
        itself.

        Biases and penalties come before. They move few tokens, so that of the likeliest by the logits as many
        more are taken, and all that were moved: those that the chain keeps are among them.
        """
        moved = self._biased.union(self._recent)
        if self._options.temperature <= 0 and not moved:
            best = int(logits.argmax())
            return best if math.isfinite(logits[best]) else None
        ids = likeliest(logits, self._kept + len(moved))
        if not len(ids):
            return None
        if moved:
            ids = with_tokens(ids, moved)
        data = np.empty(len(ids), _TOKEN_DATA)
        data["id"], data["logit"], data["p"] = ids, logits[ids], 0.0
        array = llama_cpp.llama_token_data_array(
            data=data.ctypes.data_as(llama_cpp.llama_token_data_p), size=len(ids), selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        return int(data["id"][array.selected])

    def _first_kept(self) -> int:
        """How many tokens, the likeliest, the chain keeps before it does anything else but bias and penalise;
        0: all."""
        o = self._options
        if o.temperature <= 0:
            return 1
        return 0 if o.mirostat else max(o.top_k, 0)

    @property
    def _penalises(self) -> bool:
        o = self._options
        neutral = o.repeat_penalty == 1.0 and o.frequency_penalty == 0.0 and o.presence_penalty == 0.0
        return self._window > 0 and not neutral

    def _samplers(self, vocab: LlamaVocab) -> list[SamplerPointer]:
        o = self._options
        chain: list[SamplerPointer] = []
        if self._biases:
            chain.append(_bias(self._biases, vocab.size))
        if self._penalises:
            chain.append(
                llama_cpp.llama_sampler_init_penalties(
                    vocab.size, self._window, o.repeat_penalty, o.frequency_penalty, o.presence_penalty
                )
            )
        if o.temperature <= 0:
            return [*chain, llama_cpp.llama_sampler_init_greedy()]
        if o.mirostat:
            return [*chain, llama_cpp.llama_sampler_init_temp(o.temperature), self._mirostat(vocab.size)]
        if o.top_k > 0:
            chain.append(llama_cpp.llama_sampler_init_top_k(o.top_k))
        if o.typical_p < 1:
            chain.append(llama_cpp.llama_sampler_init_typical(o.typical_p, 1))
        if o.top_p < 1:
            chain.append(llama_cpp.llama_sampler_init_top_p(o.top_p, 1))
        if o.min_p > 0:
            chain.append(llama_cpp.llama_sampler_init_min_p(o.min_p, 1))
        chain.append(llama_cpp.llama_sampler_init_temp(o.temperature))
        chain.append(llama_cpp.llama_sampler_init_dist(self.seed))
        return chain

    def _mirostat(self, n_vocab: int) -> SamplerPointer:
        o = self._options
        if o.mirostat == 1:
            return llama_cpp.llama_sampler_init_mirostat(
                n_vocab, self.seed, o.mirostat_tau, o.mirostat_eta, _MIROSTAT_M
            )
        return llama_cpp.llama_sampler_init_mirostat_v2(self.seed, o.mirostat_tau, o.mirostat_eta)


def _known(biases: Sequence[tuple[int, float]], n_vocab: int) -> list[tuple[int, float]]:
    """Ids outside the vocabulary have no effect."""
    return [(token, bias) for token, bias in biases if 0 <= token < n_vocab]


def _bias(biases: Sequence[tuple[int, float]], n_vocab: int) -> SamplerPointer:
    """-100 and below bans a token, as OpenAI's documentation promises."""
    array = (llama_cpp.llama_logit_bias * len(biases))()
    for entry, (token, bias) in zip(array, biases, strict=True):
        entry.token, entry.bias = token, -math.inf if bias <= -_MAX_BIAS else bias
    return llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(biases), array)  # copies the array
