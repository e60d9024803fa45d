"""Choosing the next token: llama.cpp's sampler chain for one request, in llama.cpp's order. Runner process
only.

bias → penalties → top-k → typical → top-p → min-p → temperature → draw. Mirostat takes the place of the
filters; temperature 0 takes the most likely token after bias and penalties.

Source: llama.cpp, common/sampling.cpp, ``common_sampler_init``.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

import llama_cpp

from ..options import Options
from .llama import LlamaVocab
from .llama_context import LlamaContext

SamplerPointer = Any
"""llama.cpp's pointer to a sampler: a ctypes pointer object, which no type names."""

_MIROSTAT_M = 100
_MAX_BIAS = 100.0


class Sampler:
    """Owns one chain. Not shared between threads or requests."""

    def __init__(self, options: Options, vocab: LlamaVocab, n_ctx: int) -> None:
        self._options = options
        self.seed = options.seed & 0xFFFFFFFF if options.seed >= 0 else secrets.randbelow(0xFFFFFFFF)
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        self._window = n_ctx if options.repeat_last_n < 0 else min(options.repeat_last_n, n_ctx)
        for sampler in self._samplers(vocab):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def close(self) -> None:
        if self._chain:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def sample(self, context: LlamaContext, index: int) -> int:
        """The token that follows batch position ``index``; it counts for penalties from now on."""
        return int(llama_cpp.llama_sampler_sample(self._chain, context.pointer, index))

    def accept(self, tokens: Sequence[int]) -> None:
        """Let tokens that were not sampled (the prompt, forced ones) count for penalties."""
        if self._penalises:
            for token in tokens[-self._window :]:
                llama_cpp.llama_sampler_accept(self._chain, token)

    @property
    def _penalises(self) -> bool:
        o = self._options
        neutral = o.repeat_penalty == 1.0 and o.frequency_penalty == 0.0 and o.presence_penalty == 0.0
        return self._window > 0 and not neutral

    def _samplers(self, vocab: LlamaVocab) -> list[SamplerPointer]:
        o = self._options
        chain: list[SamplerPointer] = []
        biases = [*o.logit_bias, *((token, -math.inf) for token in vocab.suppressed())]
        if biases:
            chain.append(_bias(biases, vocab.size))
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


def _bias(biases: Sequence[tuple[int, float]], n_vocab: int) -> SamplerPointer:
    """-100 and below bans a token, as OpenAI's documentation promises; ids outside the vocabulary have no
    effect."""
    known = [(token, bias) for token, bias in biases if 0 <= token < n_vocab]
    array = (llama_cpp.llama_logit_bias * len(known))()
    for entry, (token, bias) in zip(array, known, strict=True):
        entry.token, entry.bias = token, -math.inf if bias <= -_MAX_BIAS else bias
    return llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(known), array)  # copies the array
