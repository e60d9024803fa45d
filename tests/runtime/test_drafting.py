"""Drafts change how many steps an answer takes, and nothing of what it says: real runners, with a draft model
that is nearly always right, one that never is, and none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command import TINY_CHAT
from live_runner import Answer, LiveRunner, ask, ask_all, chat, live_runner, options
from random_models import MEMORY_KINDS, plain_model, recurrent_model

from lading.runtime.options import Options
from lading.runtime.protocol import Generate, Grammar, Message, RunnerStatus, Text

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "ages": {"type": "array", "items": {"type": "integer"}, "maxItems": 4},
    },
    "required": ["name", "ages"],
}
GOES_ON = ((1269, -100.0), (1271, -100.0))
"""The biases that keep the model from ending its answer."""
SPAIN = "What is the capital of Spain?"
WARM = {"temperature": 0.9, "top_k": 0, "top_p": 1.0, "num_predict": 40}


def count_to(number: int, **fields: Any) -> Generate:
    return chat(f"Count from 1 to {number}.", **({"options": options(num_predict=90)} | fields))


def raw(text: str, count: int = 40, **chosen: Any) -> Generate:
    return Generate(id=0, prompt=text, raw=True, options=options(**{"num_predict": count} | chosen))


REQUESTS = {
    "short": chat(SPAIN),
    "long": count_to(30),
    "repeats": raw("one two three four five. one two three four five. one two three"),
    "off for one request": count_to(20, options=options(draft_num_predict=0, num_predict=50)),
    "thoughts": chat(SPAIN, think=True),
    "thoughts cut short": chat(SPAIN, think=True, max_thinking_tokens=3),
    "tool call": chat("What is the weather in Paris?", tools=(TOOL,)),
    "json": chat(SPAIN, format="json", options=options(num_predict=60)),
    "schema": chat("Who is Bob?", format=SCHEMA, options=options(num_predict=80)),
    "schema, with a mind of its own": chat("Who?", format=SCHEMA, options=options(seed=3, **WARM)),
    "regex": chat("Count", grammar=Grammar("regex", "(12 ){4,9}(ab|cd)+ end")),
    "stop string": count_to(20, options=options(stop=("7", "never"))),
    "stop string over several tokens": count_to(20, options=options(stop=("5, 6, 7",))),
    "log-probabilities": count_to(12, logprobs=True, top_logprobs=3),
    "log-probabilities of a schema": chat(
        "Who is Bob?", format=SCHEMA, logprobs=True, top_logprobs=2, options=options(num_predict=80)
    ),
    "five tokens": count_to(20, options=options(num_predict=5)),
    "one token": count_to(20, options=options(num_predict=1)),
    "no token": count_to(20, options=options(num_predict=0)),
    "warm": count_to(20, options=options(seed=1, **WARM)),
    "warm, another seed": count_to(20, options=options(seed=2, **WARM)),
    "usual filters": count_to(20, options=Options(seed=9, num_predict=50)),
    "penalties": count_to(20, options=options(repeat_penalty=1.3, repeat_last_n=16, num_predict=50)),
    "presence": count_to(20, options=options(presence_penalty=1.5, frequency_penalty=0.5, seed=4, **WARM)),
    "mirostat 1": count_to(20, options=options(mirostat=1, seed=6, **WARM)),
    "mirostat 2": count_to(20, options=options(mirostat=2, seed=7, **WARM)),
    "bias": count_to(20, options=options(logit_bias=GOES_ON, num_predict=60)),
    "short context": count_to(30, options=options(num_ctx=40)),
    "short context, no shift": count_to(30, shift=False, options=options(num_ctx=40)),
    "until full": count_to(30, options=options(num_ctx=40, num_predict=-2)),
}


@dataclass(frozen=True)
class Said:
    """All of an answer but how long it took and how it was come by. Kernels for one token and for several
    round differently, so that logits agree to about a thousandth."""

    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    logprobs: list[Any]
    reason: str
    stopped_by: str
    tokens: tuple[int, int, int]


def said(answer: Answer) -> Said:
    usage = answer.end.usage
    return Said(
        text=answer.text,
        thinking=answer.thinking,
        calls=[(call.name, call.arguments) for call in answer.calls],
        logprobs=[
            (one.token, pytest.approx(one.logprob, abs=0.01), len(one.top))
            for event in answer.events
            if isinstance(event, Text)
            for one in event.logprobs
        ],
        reason=answer.end.reason,
        stopped_by=answer.end.stop_sequence,
        tokens=(usage.prompt_tokens, usage.eval_tokens, usage.thinking_tokens),
    )


def run(runner: LiveRunner, *requests: Generate, together: bool = False) -> tuple[list[Answer], RunnerStatus]:
    async def body() -> tuple[list[Answer], RunnerStatus]:
        async with runner.client() as client:
            if together:
                answers = await ask_all(client, list(requests))
            else:
                answers = [await ask(client, request) for request in requests]
            return answers, await client.status()

    return asyncio.run(body())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def random_model(folder: Path) -> Path:
    return plain_model(folder / "random.gguf", TINY_CHAT)


@pytest.fixture(scope="module")
def runners(random_model: Path) -> Iterator[dict[str, LiveRunner]]:
    """By who drafts. All draft as much as they can, whether it pays or not."""
    ways: dict[str, dict[str, Any]] = {
        "nobody": {},
        "itself": {"draft": str(TINY_CHAT), "n_draft": 4, "draft_always": True},
        "random": {"draft": str(random_model), "n_draft": 5, "draft_always": True},
        "lookup": {"n_draft": 7, "draft_always": True},
    }
    with ExitStack() as stack:
        yield {
            way: stack.enter_context(live_runner(TINY_CHAT, n_parallel=4, n_ctx=512, **settings))
            for way, settings in ways.items()
        }


def drafting(request: Generate) -> Generate:
    """The same, with drafts from what was said before where there is no draft model."""
    if request.options.draft_num_predict >= 0:
        return request
    wanted = msgspec.structs.replace(request.options, draft_num_predict=7)
    return msgspec.structs.replace(request, options=wanted)


@pytest.mark.parametrize("way", ["itself", "random", "lookup"])
@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_the_same(runners: dict[str, LiveRunner], way: str, name: str) -> None:
    request = REQUESTS[name]
    [plain], _ = run(runners["nobody"], request)
    [drafted], _ = run(runners[way], drafting(request))
    assert said(drafted) == said(plain)


@pytest.mark.parametrize("way", ["itself", "random", "lookup"])
def test_answers_are_the_same_in_company(runners: dict[str, LiveRunner], way: str) -> None:
    requests = list(REQUESTS.values())
    plain, _ = run(runners["nobody"], *requests)
    drafted, status = run(runners[way], *map(drafting, requests), together=True)
    assert [said(answer) for answer in drafted] == [said(answer) for answer in plain]
    assert status.drafted_tokens > 50


def test_chance_is_the_same(random_model: Path) -> None:
    """Of a model whose logits hardly depend on how many tokens a pass has, at temperatures at which any token
    may come."""
    exact: dict[str, Any] = {"flash_attention": "off", "kv_cache_type": "f32", "n_parallel": 2, "n_ctx": 256}
    free = {"top_k": 0, "top_p": 1.0, "num_predict": 40, "draft_num_predict": 5}
    requests = [raw("Hello", seed=seed, temperature=heat, **free) for seed in range(4) for heat in (0.5, 2.0)]
    with live_runner(random_model, **exact) as runner:
        plain, _ = run(runner, *requests)
    for draft in (random_model, TINY_CHAT, ""):
        with live_runner(random_model, **exact, draft=str(draft), n_draft=5, draft_always=True) as runner:
            drafted, status = run(runner, *requests)
            assert [said(answer) for answer in drafted] == [said(answer) for answer in plain]
            assert status.drafted_tokens > 0
    assert len({answer.text for answer in plain}) == len(plain)


def test_a_step_says_several_tokens(runners: dict[str, LiveRunner]) -> None:
    for way, most in (("itself", 0.45), ("lookup", 0.8), ("random", 1.1)):
        request = drafting(raw("one two three four five. " * 3, 60, logit_bias=GOES_ON))
        _, before = run(runners[way])
        [answer], after = run(runners[way], request)
        usage = answer.end.usage
        assert usage.eval_tokens > 20
        assert after.steps - before.steps <= most * usage.eval_tokens + 1, way
        assert after.drafted_tokens - before.drafted_tokens == usage.drafted_tokens
        assert after.accepted_tokens - before.accepted_tokens == usage.accepted_tokens <= usage.drafted_tokens
        assert after.eval_tokens - before.eval_tokens == usage.eval_tokens
        assert (usage.accepted_tokens < usage.drafted_tokens / 10) == (way == "random"), way


def test_what_was_wrong_leaves_no_trace(runners: dict[str, LiveRunner]) -> None:
    """What a slot holds after an answer serves the next turn, so it must be what was said."""
    turns = (SPAIN, "Count from 1 to 15.", "Repeat this word: banana")

    def conversation(way: str) -> list[tuple[Said, int]]:
        messages: tuple[Message, ...] = (Message("system", f"You are {way}."[:8] + " helpful."),)
        found = []
        for turn in turns:
            messages += (Message("user", turn),)
            request = Generate(id=0, messages=messages, options=options(num_predict=60))
            [answer], _ = run(runners[way], drafting(request))
            found.append((said(answer), answer.end.usage.cached_tokens))
            messages += (Message("assistant", answer.text),)
        return found

    plain = conversation("nobody")
    assert plain[2][1] > 40
    for way in ("itself", "random", "lookup"):
        drafted = conversation(way)
        assert [one for one, _ in drafted] == [one for one, _ in plain]
        assert [cached for _, cached in drafted][1:] == [cached for _, cached in plain][1:]


def test_a_cancelled_answer_leaves_no_trace(runners: dict[str, LiveRunner]) -> None:
    endless = count_to(30, options=options(num_predict=2000, logit_bias=GOES_ON))

    async def body(runner: LiveRunner) -> None:
        for _ in range(3):
            async with runner.client() as client:
                count = 0
                async for event in client.generate(drafting(endless)):
                    count += isinstance(event, Text)
                    if count > 5:
                        break  # the connection ends, and with it the request

    [plain], _ = run(runners["nobody"], count_to(30))
    for way in ("itself", "random", "lookup"):
        asyncio.run(body(runners[way]))
        [drafted], status = run(runners[way], drafting(count_to(30)))
        assert said(drafted) == said(plain)
        assert status.running == 0


@pytest.mark.parametrize("n_batch", [32, 512])
def test_a_small_context_and_batch(random_model: Path, n_batch: int) -> None:
    requests = [count_to(30), count_to(9), raw("Hello", 100), raw("a b a b a b", 100, num_keep=8)]
    settings: dict[str, Any] = {"n_ctx": 48, "n_parallel": 3, "n_batch": n_batch}
    with live_runner(TINY_CHAT, **settings) as runner:
        plain, _ = run(runner, *requests)
    for draft in (TINY_CHAT, random_model, ""):
        with live_runner(TINY_CHAT, **settings, draft=str(draft), n_draft=6, draft_always=True) as runner:
            for together in (False, True):
                drafted, status = run(runner, *map(drafting, requests), together=together)
                assert [said(answer) for answer in drafted] == [said(answer) for answer in plain]
            assert status.drafted_tokens > 0


def test_a_draft_model_with_a_shorter_context(folder: Path) -> None:
    draft = plain_model(folder / "short.gguf", TINY_CHAT, context=64)
    with live_runner(TINY_CHAT, n_ctx=256, draft=str(draft), n_draft=4, draft_always=True) as runner:
        [short, long], _ = run(runner, count_to(9), chat("Repeat this word: banana. " * 12))
        assert short.end.usage.drafted_tokens > 0
        assert long.end.usage.drafted_tokens == 0


# Memory that cannot be cut, or not everywhere


PROMPTS = (
    "one two three one two three one two",
    "Hello there, " * 20,
    "The capital of France is Paris. " * 12,
)


@pytest.mark.parametrize("kind", [*MEMORY_KINDS, "plain"])
@pytest.mark.parametrize("helper", ["itself", "lookup"])
def test_kinds_of_memory(folder: Path, kind: str, helper: str) -> None:
    make = plain_model if kind == "plain" else MEMORY_KINDS[kind]
    model = make(folder / "kind.gguf", TINY_CHAT)
    requests = [raw(prompt, 80, draft_num_predict=5) for prompt in PROMPTS]
    settings: dict[str, Any] = {"n_ctx": 512, "n_parallel": 2}
    with live_runner(model, **settings) as runner:
        plain, before = run(runner, *requests)
    draft = str(model) if helper == "itself" else ""
    with live_runner(model, **settings, draft=draft, n_draft=5, draft_always=True) as runner:
        assert runner.ready is not None
        drafted, status = run(runner, *requests)
        assert [said(answer) for answer in drafted] == [said(answer) for answer in plain]
        again, _ = run(runner, *requests, together=True)
        assert [said(answer) for answer in again] == [said(answer) for answer in plain]
        if kind in ("recurrent", "hybrid"):
            assert (runner.ready.drafts, status.drafted_tokens) == ("", 0)
            assert runner.ready.no_drafts == "no token can be taken back from a recurrent state"
            assert status.steps == before.steps
        elif helper == "itself":
            assert runner.ready.drafts == "model"
            assert status.accepted_tokens > 50
            assert status.steps < before.steps / 2


def test_a_draft_model_that_cannot_take_back_is_not_used(folder: Path) -> None:
    draft = recurrent_model(folder / "recurrent.gguf", TINY_CHAT)
    with live_runner(TINY_CHAT, n_ctx=256, draft=str(draft), n_draft=4) as runner:
        assert runner.ready is not None
        assert runner.ready.no_drafts == "no token can be taken back from the memory of the draft model"
        [answer], status = run(runner, chat(SPAIN))
        assert "Madrid" in answer.text
        assert status.drafted_tokens == 0


# What is refused


def test_a_draft_model_for_another_model_is_refused(folder: Path) -> None:
    data = plain_model(folder / "sound.gguf", TINY_CHAT).read_bytes()
    for old, new, words in (
        (b"<|im_end|>", b"<|im_enD|>", "its token "),
        (b"gpt2", b"gpt3", "llama.cpp refuses the file"),
    ):
        path = folder / "other.gguf"
        path.write_bytes(data.replace(old, new, 1))
        with live_runner(TINY_CHAT, n_ctx=256, draft=str(path), n_draft=4) as runner:
            assert runner.ready is None and runner.failure is not None
            assert runner.failure.code == "bad_model"
            assert words in runner.failure.message
    with live_runner(TINY_CHAT, n_ctx=256, draft=str(path), n_draft=0) as runner:
        assert runner.ready is not None
        [answer], _ = run(runner, chat(SPAIN))
        assert "Madrid" in answer.text


# What pays


def test_drafts_that_do_not_pay_are_given_up(random_model: Path) -> None:
    """By its own size a draft model takes as long as its model; one with random weights is never right."""
    for draft in (TINY_CHAT, random_model):
        with live_runner(TINY_CHAT, n_ctx=512, draft=str(draft), n_draft=4) as runner:
            for _ in range(4):  # prices are measured, and the machine may be busy
                run(runner, *[count_to(30) for _ in range(4)])
            answers, _ = run(runner, *[count_to(30) for _ in range(4)])
            drafted = sum(answer.end.usage.drafted_tokens for answer in answers)
            generated = sum(answer.end.usage.eval_tokens for answer in answers)
            assert drafted < generated / 5
