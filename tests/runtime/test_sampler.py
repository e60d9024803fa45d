"""Tokens chosen from the likeliest alone are those that llama.cpp chooses from the whole vocabulary."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from dataclasses import dataclass

import llama_cpp
import msgspec
import numpy as np
import pytest
from command import TINY_CHAT

from lading.runtime.options import Options
from lading.runtime.runner.candidates import likeliest, with_tokens
from lading.runtime.runner.llama import LlamaModel, ModelSettings
from lading.runtime.runner.llama_context import ContextSettings, LlamaBatch, LlamaContext
from lading.runtime.runner.llama_log import LlamaLog, start_backend
from lading.runtime.runner.sampler import Sampler

INFINITY = float("inf")


@dataclass(frozen=True)
class Evaluated:
    """A model that has read a text."""

    model: LlamaModel
    context: LlamaContext
    index: int


@pytest.fixture(scope="module")
def evaluated() -> Iterator[Evaluated]:
    log = LlamaLog()
    log.install()
    start_backend()
    model = LlamaModel(ModelSettings(paths=(str(TINY_CHAT),)), log, lambda _: True)
    settings = ContextSettings(n_ctx=256, n_seq=1, n_batch=64, n_ubatch=64, n_threads=1)
    context = LlamaContext(model, settings, log)
    batch = LlamaBatch(64)
    tokens = model.vocab.tokenize("What is the capital of", add_special=True, parse_special=True)
    index = batch.add(0, tokens, 0, want_last=True)
    assert context.decode(batch) == 0
    yield Evaluated(model, context, index)
    context.close()


OPTIONS = {
    "defaults": Options(),
    "greedy": Options(temperature=0),
    "one": Options(top_k=1),
    "many": Options(top_k=700, temperature=1.5),
    "more than there are": Options(top_k=1_000_000, temperature=2.0),
    "filters": Options(top_k=20, top_p=0.7, min_p=0.05, typical_p=0.9, temperature=1.2),
    "penalties": Options(repeat_penalty=1.8, presence_penalty=0.7, frequency_penalty=0.4, temperature=1.5),
    "raised": Options(presence_penalty=-2.0, frequency_penalty=-1.0, repeat_penalty=0.5, top_k=5),
    "greedy, raised": Options(presence_penalty=-2.0, temperature=0, repeat_last_n=-1),
    "biases": Options(logit_bias=((5, 4.0), (17, -100.0), (90, 9.5), (99_999, 3.0)), top_k=3),
    "greedy, biased": Options(logit_bias=((44, 30.0),), temperature=0),
    "no filter": Options(top_k=0, top_p=0.95),
    "mirostat": Options(mirostat=2, temperature=1.0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_tokens_are_chosen(evaluated: Evaluated, name: str) -> None:
    """Over changing logits: with the same seed a chain of its own, asked for the whole vocabulary, agrees."""
    model, context, index = evaluated.model, evaluated.context, evaluated.index
    options = msgspec.structs.replace(OPTIONS[name], seed=11)
    ours, theirs = Sampler(options, model.vocab, 256), Sampler(options, model.vocab, 256)
    noise = np.random.default_rng(3)
    logits = context.logits(index)
    original = logits.copy()
    prompt = random.Random(4).choices(range(model.vocab.size), k=80)
    for sampler in (ours, theirs):
        sampler.accept(prompt)
    chosen = set()
    try:
        for turn in range(60):
            logits[:] = original + noise.normal(scale=2.0, size=len(original)).astype(np.float32)
            if turn % 3 == 2:  # a format allows few
                logits[noise.permutation(len(original))[: -(turn * 3 + 1)]] = -INFINITY
            whole = llama_cpp.llama_sampler_sample(theirs._chain, context.pointer, index)
            assert ours.sample(context, index) == whole
            chosen.add(whole)
    finally:
        logits[:] = original
        ours.close()
        theirs.close()
    assert len(chosen) > 10 or name.startswith("greedy")


def test_a_vocabulary_of_nothing_else_than_nan_is_left_to_llama_cpp() -> None:
    logits = np.full(10_000, np.nan, np.float32)
    assert len(likeliest(logits, 40)) == 0


@pytest.mark.parametrize("size", [1, 40, 2047, 4096, 10_000, 151_936])
@pytest.mark.parametrize("k", [1, 40, 511, 600, 5000])
def test_the_likeliest_are_among_those_found(size: int, k: int) -> None:
    logits = np.random.default_rng(size + k).normal(size=size).astype(np.float32)
    found = likeliest(logits, k)
    assert set(np.argsort(logits)[-k:].tolist()) <= set(found.tolist())
    assert (np.diff(found) > 0).all()
    assert len(found) <= max(4 * k, k + 50)


def test_what_is_not_allowed_is_not_among_them() -> None:
    logits = np.full(10_000, -np.inf, np.float32)
    logits[[7, 5000, 9999]] = (1.0, 2.0, 3.0)
    assert likeliest(logits, 40).tolist() == [7, 5000, 9999]
    assert len(likeliest(np.full(10_000, -np.inf, np.float32), 40)) == 0


def test_tokens_are_added_once() -> None:
    assert with_tokens(np.array([3, 8]), (8, 1, 1)).tolist() == [1, 3, 8]


def test_logits_are_those_of_llama_cpp(evaluated: Evaluated) -> None:
    pointer = llama_cpp.llama_get_logits_ith(evaluated.context.pointer, evaluated.index)
    ours = evaluated.context.logits(evaluated.index)
    assert len(ours) == evaluated.model.vocab.size
    assert ctypes.addressof(pointer.contents) == ours.ctypes.data
    assert ours.flags.writeable
