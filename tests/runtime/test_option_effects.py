"""Every option has the effect that it is known for, on a real runner.

A token's log-probabilities are those of the model, before any option changes them. So each answer brings
along what is needed to work out which tokens its options allow.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import TINY_CHAT
from live_runner import LiveRunner, ask_all, live_runner

from lading.modelfile.parameters import PARAMETERS
from lading.runtime.errors import PromptTooLong
from lading.runtime.options import LOAD_TIME, Options, resolve_options
from lading.runtime.protocol import Generate, Text, TokenLogprob

OPEN = "<|im_start|>assistant\n"
"""After this the model expects any of many words."""
GOES_ON = ((1269, -100.0), (1271, -100.0))
"""The biases that keep the model from ending its answer."""
SEEDS = range(40)
SPAIN = (
    "<|im_start|>user\nWhat is the capital of Spain?<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
FREE = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
"""Sampling options that leave the model's probabilities as they are."""


@pytest.fixture(scope="module")
def runner() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT, n_parallel=4, n_ctx=256, n_threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def lonely() -> Iterator[LiveRunner]:
    """With one sequence, so that one request finds what the one before it has left."""
    with live_runner(TINY_CHAT, n_parallel=1, n_ctx=128, n_threads=1) as runner:
        yield runner


@dataclass
class Answer:
    text: str
    steps: list[TokenLogprob]
    reason: str
    stop_sequence: str
    prompt_tokens: int
    cached_tokens: int
    tokens: tuple[int, ...]
    """Of prompt and answer."""

    @property
    def generated(self) -> tuple[int, ...]:
        return self.tokens[self.prompt_tokens :]


def run(runner: LiveRunner, *requests: Generate) -> list[Answer]:
    async def go() -> list[Answer]:
        async with runner.client() as client:
            return [
                Answer(
                    text=answer.text,
                    steps=[one for e in answer.events if isinstance(e, Text) for one in e.logprobs],
                    reason=answer.end.reason,
                    stop_sequence=answer.end.stop_sequence,
                    prompt_tokens=answer.end.usage.prompt_tokens,
                    cached_tokens=answer.end.usage.cached_tokens,
                    tokens=answer.end.context,
                )
                for answer in await ask_all(client, list(requests))
            ]

    return asyncio.run(go())


def raw(prompt: str = OPEN, **options: Any) -> Generate:
    fields = {key: options.pop(key) for key in ("truncate", "shift", "context") if key in options}
    options = {"logit_bias": GOES_ON} | options
    return Generate(
        id=0,
        prompt=prompt,
        raw=True,
        options=Options(**options),
        top_logprobs=20,
        return_context=True,
        **fields,
    )


def first_tokens(runner: LiveRunner, **options: Any) -> tuple[set[str], list[TokenLogprob]]:
    """The first tokens of answers with many seeds, and the model's likeliest tokens there."""
    answers = run(runner, *(raw(seed=seed, num_predict=1, **options) for seed in SEEDS))
    begun = [answer.steps[0] for answer in answers if answer.steps]  # others ended at once
    return {step.token for step in begun}, list(begun[0].top)


def probability(token: TokenLogprob) -> float:
    return math.exp(token.logprob)


# Which tokens may be chosen


def nucleus(top: Sequence[TokenLogprob], share: float) -> set[str]:
    """The fewest of the likeliest tokens that have this share between them."""
    found, total = set(), 0.0
    for token in top:
        found.add(token.token)
        total += probability(token)
        if total >= share:
            break
    return found


def test_nothing_is_left_out_where_nothing_says_so(runner: LiveRunner) -> None:
    found, top = first_tokens(runner, **FREE)
    assert len(found) > 10
    assert len(nucleus(top, 0.5)) > 3, "or the tests below would show nothing"


@pytest.mark.parametrize("count", [1, 3, 8])
def test_top_k_leaves_the_likeliest(runner: LiveRunner, count: int) -> None:
    found, top = first_tokens(runner, **FREE | {"top_k": count, "temperature": 5.0})
    allowed = {token.token for token in top[:count]}
    assert found <= allowed
    assert len(found) >= min(count, 3)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_top_p_leaves_a_share_as_it_was_before_the_temperature(runner: LiveRunner, share: float) -> None:
    found, top = first_tokens(runner, **FREE | {"top_p": share, "temperature": 5.0})
    allowed = nucleus(top, share)
    assert found <= allowed
    assert len(found) >= min(len(allowed), 3)


@pytest.mark.parametrize("factor", [0.2, 0.6, 1.0])
def test_min_p_leaves_what_is_not_much_less_likely_than_the_likeliest(
    runner: LiveRunner, factor: float
) -> None:
    found, top = first_tokens(runner, **FREE | {"min_p": factor, "temperature": 5.0})
    least = factor * probability(top[0]) * 0.999
    assert found <= {token.token for token in top if probability(token) >= least}


def test_typical_p_leaves_what_is_as_surprising_as_the_model_expects(runner: LiveRunner) -> None:
    # With the likeliest twenty alone, their entropy is known, and so is which of them are the most typical.
    options = FREE | {"top_k": 20, "typical_p": 0.3, "temperature": 5.0}
    found, top = first_tokens(runner, **options)
    total = sum(map(probability, top))
    shares = {token.token: probability(token) / total for token in top}
    entropy = -sum(share * math.log(share) for share in shares.values())
    typical = sorted(shares, key=lambda token: abs(-math.log(shares[token]) - entropy))
    allowed, reached = set(), 0.0
    for token in typical:
        allowed.add(token)
        reached += shares[token]
        if reached > 0.3:
            break
    assert found <= allowed
    assert top[0].token not in allowed, "or it would be no different from top_p"


def test_top_k_comes_before_top_p(runner: LiveRunner) -> None:
    _, top = first_tokens(runner, **FREE)
    first, second = probability(top[0]), probability(top[1])
    share = (first + first / (first + second)) / 2  # more than the first has of all, less than of the two
    found, _ = first_tokens(runner, **FREE | {"top_k": 2, "top_p": share})
    assert found == {top[0].token}


def test_penalties_come_before_top_k(runner: LiveRunner) -> None:
    [plain] = run(runner, raw(temperature=0.0, num_predict=1))
    likeliest = plain.generated[0]
    again = {"context": (likeliest,) * 4, "num_predict": 1}
    options = {"temperature": 1.0, "top_k": 1, "presence_penalty": 100.0, "repeat_last_n": -1}
    [free] = run(runner, raw(temperature=0.0, **again))
    [penalised] = run(runner, raw(**options, **again))
    assert set(penalised.generated).isdisjoint(penalised.tokens[: penalised.prompt_tokens])
    assert free.steps[0].top[0].token == free.steps[0].token


def test_temperature_spreads_the_choice(runner: LiveRunner) -> None:
    cold, top = first_tokens(runner, **FREE | {"temperature": 0.01})
    warm, _ = first_tokens(runner, **FREE)
    hot, _ = first_tokens(runner, **FREE | {"temperature": 5.0})
    assert cold == {top[0].token}
    assert len(cold) < len(warm) < len(hot)
    greedy, _ = first_tokens(runner, temperature=0.0)
    assert greedy == cold


def test_a_seed_decides_and_none_decides_nothing(runner: LiveRunner) -> None:
    request = {"num_predict": 8, "temperature": 2.0}
    same = run(runner, *(raw(seed=7, **request) for _ in range(4)))
    assert len({answer.text for answer in same}) == 1
    assert len({answer.text for answer in run(runner, *(raw(**request) for _ in range(4)))}) > 1


def test_a_bias_is_added_to_what_the_model_thinks(runner: LiveRunner) -> None:
    [plain] = run(runner, raw(temperature=0.0, num_predict=1))
    top = plain.steps[0].top
    gap = top[0].logprob - top[1].logprob
    likeliest = plain.generated[0]
    for bias, is_chosen in ((-gap + 0.01, True), (-gap - 0.01, False), (-100.0, False)):
        options = {"temperature": 0.0, "num_predict": 1, "logit_bias": ((likeliest, bias),)}
        [answer] = run(runner, raw(**options))
        assert (answer.generated[0] == likeliest) == is_chosen, bias


# Penalties


def penalised(answer: Answer, step: int, options: Options) -> int:
    """Which of the likeliest tokens of a step has the highest score once the penalties are taken off."""
    n = answer.prompt_tokens + step
    window = n if options.repeat_last_n < 0 else options.repeat_last_n
    seen = [answer.tokens[i] for i in range(max(0, n - window), n)]
    names = dict(zip((one.token for one in answer.steps), answer.generated, strict=False))

    def score(token: TokenLogprob) -> float:
        count = seen.count(names[token.token]) if token.token in names else 0
        return token.logprob - count * options.frequency_penalty - (count > 0) * options.presence_penalty

    best = max(answer.steps[step].top, key=score)
    return names.get(best.token, -1)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"presence_penalty": 2.0}, id="presence"),
        pytest.param({"frequency_penalty": 1.0}, id="frequency"),
        pytest.param({"presence_penalty": 3.0, "frequency_penalty": 1.0, "repeat_last_n": 9}, id="window"),
        pytest.param({"presence_penalty": 1.5, "repeat_last_n": -1}, id="whole context"),
    ],
)
def test_penalties_are_taken_off_what_was_seen(runner: LiveRunner, fields: dict[str, Any]) -> None:
    options = Options(temperature=0.0, num_predict=24, **fields)
    ids = {"temperature": 0.0, "num_predict": 24}
    [plain, answer] = run(runner, raw(**ids), raw(**ids, **fields))
    chosen = [penalised(answer, step, options) for step in range(len(answer.generated))]
    known = [(a, b) for a, b in zip(chosen, answer.generated, strict=True) if a != -1]
    assert len(known) > 12
    assert all(a == b for a, b in known)
    assert answer.generated != plain.generated


def test_a_window_of_nothing_means_no_penalties(runner: LiveRunner) -> None:
    ids = {"temperature": 0.0, "num_predict": 24}
    strong = {"presence_penalty": 9.0, "frequency_penalty": 9.0, "repeat_penalty": 9.0}
    [plain, unheard] = run(runner, raw(**ids), raw(**ids, **strong, repeat_last_n=0))
    assert unheard.generated == plain.generated


def test_repeat_penalty_keeps_from_repeating_within_its_window(runner: LiveRunner) -> None:
    ids = {"temperature": 0.0, "num_predict": 24, "repeat_penalty": 1e9}
    short, whole = run(runner, raw(**ids, repeat_last_n=1), raw(**ids, repeat_last_n=-1))
    assert all(a != b for a, b in pairwise(short.generated))
    assert len(set(short.generated)) < len(short.generated), "beyond the window it may say a token again"
    assert len(set(whole.generated)) == len(whole.generated)


# Mirostat


def surprises(answer: Answer) -> list[float]:
    """In bits, as the model saw each token that was chosen."""
    return [-step.logprob / math.log(2) for step in answer.steps]


def test_mirostat_2_without_learning_keeps_every_token_below_twice_tau(runner: LiveRunner) -> None:
    options = {"mirostat": 2, "mirostat_tau": 1.5, "mirostat_eta": 0.0, "temperature": 1.0, "num_predict": 12}
    for answer in run(runner, *(raw(seed=seed, **options) for seed in range(4))):
        for step, surprise in zip(answer.steps, surprises(answer), strict=True):
            assert surprise <= 3.0 + 1e-3 or step.token == step.top[0].token


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_aims_at_tau(runner: LiveRunner, version: int) -> None:
    def mean(tau: float) -> float:
        options = {"mirostat": version, "mirostat_tau": tau, "temperature": 1.0, "num_predict": 40}
        found = [
            surprise
            for answer in run(runner, *(raw(seed=seed, **options) for seed in range(8)))
            for surprise in surprises(answer)
        ]
        return sum(found) / len(found)

    assert mean(0.3) < mean(2.0) < mean(9.0)


def test_mirostat_learns_as_fast_as_eta_says(runner: LiveRunner) -> None:
    options = {"mirostat": 2, "mirostat_tau": 3.0, "seed": 4, "temperature": 1.0, "num_predict": 40}
    slow, fast = run(runner, raw(**options, mirostat_eta=0.0), raw(**options, mirostat_eta=1.0))
    assert slow.generated[0] == fast.generated[0], "nothing has been learnt yet"
    assert slow.generated != fast.generated


def test_mirostat_replaces_the_filters(runner: LiveRunner) -> None:
    found, _ = first_tokens(runner, mirostat=2, temperature=1.0, top_k=1, top_p=0.0, min_p=1.0)
    assert len(found) > 3


# Length


def test_num_predict(runner: LiveRunner, lonely: LiveRunner) -> None:
    def predict(count: int, **more: Any) -> Answer:
        [answer] = run(runner, raw(temperature=0.0, num_predict=count, **more))
        return answer

    for count in (0, 1, 7):
        answer = predict(count)
        assert (len(answer.generated), answer.reason) == (count, "length")
    [ended] = run(runner, raw(SPAIN, temperature=0.0, logit_bias=()))
    assert (ended.reason, ended.text) == ("stop", "The capital of Spain is Madrid."), "it ends by itself"
    endless = {"logit_bias": ((300, 100.0),)}
    full = predict(-2, **endless)
    assert (full.reason, len(full.tokens)) == ("length", 256 + 1), "a full context gives one token more"
    unshifted = predict(-1, shift=False, **endless)
    assert (unshifted.reason, len(unshifted.tokens)) == ("length", 256 + 1)
    shifted = predict(300, **endless)
    assert (shifted.reason, len(shifted.generated)) == ("length", 300)
    [capped] = run(lonely, raw(temperature=0.0, **endless))
    assert (capped.reason, len(capped.generated)) == ("length", 10 * 128), "ten contexts, as Ollama has it"


def test_stop_ends_the_answer_before_it_shows(runner: LiveRunner) -> None:
    [plain] = run(runner, raw(temperature=0.0, num_predict=24))
    middle = plain.text[5:9]
    [answer] = run(runner, raw(temperature=0.0, num_predict=24, stop=("never said", middle)))
    assert answer.text == plain.text[: plain.text.index(middle)]
    assert (answer.reason, answer.stop_sequence) == ("stop", middle)


# The context


WORDS = "one two three four five six seven eight nine ten "


def test_what_a_prompt_that_is_too_long_keeps(lonely: LiveRunner) -> None:
    [whole] = run(lonely, raw(WORDS * 3, temperature=0.0, num_predict=0))
    tokens = whole.tokens
    assert len(tokens) < 128, "it fits three times"
    long = WORDS * 20
    for keep in (0, 4, 30):
        [cut] = run(lonely, raw(long, temperature=0.0, num_predict=0, num_keep=keep))
        assert cut.prompt_tokens == 128 - 128 // 8
        assert cut.tokens[:keep] == tokens[:keep]
        assert cut.tokens[keep : keep + 8] != tokens[keep : keep + 8], "what follows was dropped"
    [kept] = run(lonely, raw(long, temperature=0.0, num_predict=0, num_keep=-1))
    assert kept.tokens[:50] == tokens[:50]


@pytest.mark.parametrize("keep", [0, 8, 24, -1])
def test_what_a_context_shift_keeps(lonely: LiveRunner, keep: int) -> None:
    """What a shift has left in the sequence is found again by the next prompt that begins so."""
    prompt = WORDS * 2
    options = {"temperature": 0.0, "logit_bias": ((300, 100.0),), "num_keep": keep}
    [shifted] = run(lonely, raw(prompt, num_predict=120, **options))
    assert len(shifted.tokens) > 128
    [again] = run(lonely, raw(prompt, num_predict=1, **options))
    expected = shifted.prompt_tokens - 1 if keep < 0 else keep
    assert again.cached_tokens == expected


def test_a_request_may_use_less_than_the_runner_has(runner: LiveRunner) -> None:
    less: dict[str, Any] = {"temperature": 0.0, "logit_bias": ((300, 100.0),), "num_ctx": 64}
    [full] = run(runner, raw(**less, num_predict=-2))
    assert (full.reason, len(full.tokens)) == ("length", 64 + 1)
    [capped] = run(runner, raw(**less))
    assert (capped.reason, len(capped.generated)) == ("length", 10 * 64)
    [cut] = run(runner, raw(WORDS * 10, **less, num_predict=0))
    assert cut.prompt_tokens == 64 - 64 // 8
    with pytest.raises(PromptTooLong, match=r"the context has room for 64"):
        run(runner, raw(WORDS * 10, **less, truncate=False))
    [more] = run(runner, raw(**less | {"num_ctx": 10**6}, num_predict=-2))
    assert len(more.tokens) == 256 + 1


def test_truncation_is_refused_where_it_is_not_wanted(lonely: LiveRunner) -> None:
    with pytest.raises(PromptTooLong, match=r"the context has room for 128"):
        run(lonely, raw(WORDS * 20, truncate=False))


# Loading: what the runner says of itself, not what it was told


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        pytest.param({"n_ctx": 384}, {"n_ctx": 384}, id="num_ctx"),
        pytest.param({"n_batch": 64}, {"n_batch": 64}, id="num_batch"),
        pytest.param({"n_threads": 2}, {"n_threads": min(2, os.cpu_count() or 1)}, id="num_thread"),
        pytest.param({"n_threads": 10**6}, {"n_threads": os.cpu_count()}, id="num_thread has a bound"),
        pytest.param({"n_gpu_layers": 0}, {"n_gpu_layers": 0, "memory_gpu": {}}, id="num_gpu"),
        pytest.param({"use_mmap": False}, {"memory_mapped": 0}, id="use_mmap"),
        pytest.param({"flash_attention": "off"}, {"flash_attention": False}, id="flash attention off"),
        pytest.param({"flash_attention": "on"}, {"flash_attention": True}, id="flash attention on"),
        pytest.param({"n_parallel": 3}, {"n_parallel": 3}, id="num_parallel"),
    ],
)
def test_load_time_options_take_effect(fields: dict[str, Any], facts: dict[str, Any]) -> None:
    with live_runner(TINY_CHAT, **{"n_ctx": 256, "n_threads": 1} | fields) as runner:
        assert runner.ready is not None
        assert {name: getattr(runner.ready, name) for name in facts} == facts


def test_weights_are_mapped_and_locked_where_that_is_asked_for() -> None:
    with live_runner(TINY_CHAT, n_ctx=256, use_mlock=True) as runner:
        assert runner.ready is not None
        assert runner.ready.memory_mapped > 4_000_000
        status = Path(f"/proc/{runner.process.pid}/status").read_text()
    [locked] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmLck")]
    assert locked > 4_000, "kilobytes"


def test_the_type_of_the_cache_decides_its_size() -> None:
    sizes: dict[str, int] = {}
    for kind in ("f32", "f16", "q8_0", "q4_0"):
        # Quantised caches cannot be read without flash attention; the keeper sees to that.
        with live_runner(
            TINY_CHAT, n_ctx=256, n_parallel=1, kv_cache_type=kind, flash_attention="auto"
        ) as runner:
            assert runner.ready is not None
            sizes[kind] = runner.ready.memory["kv"]
            [answer] = run(runner, raw(temperature=0.0, num_predict=4))
            assert len(answer.generated) == 4
    f16 = sizes["f16"]
    expected = {"f32": 2 * f16, "f16": f16, "q8_0": f16 * 34 // 64, "q4_0": f16 * 18 // 64}
    assert sizes == {kind: pytest.approx(size, rel=0.02) for kind, size in expected.items()}


def test_every_option_is_tested_here_or_where_it_belongs() -> None:
    """An option that is added needs a test of its effect."""
    source = Path(__file__).read_text()
    elsewhere = {"main_gpu", "draft_num_predict"}
    names = {name for name, spec in PARAMETERS.items() if spec.deprecated is None} | {"logit_bias"}
    assert {name for name in names - elsewhere if name not in source} == set()
    assert elsewhere < set(LOAD_TIME)


def test_what_ollama_ignores_changes_nothing() -> None:
    unheard = {"f16_kv": False, "low_vram": True, "vocab_only": True, "tfs_z": 0.1, "numa": True}
    assert resolve_options({}, unheard) == Options()
