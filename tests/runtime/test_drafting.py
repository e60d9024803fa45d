"""Drafts change how many steps an answer takes, and nothing of what it says: real runners, with a draft model that
is nearly always right, one that never is, and none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from command import TINY_CHAT
from live_runner import GREEDY, Answer, LiveRunner, ask, ask_all, chat, live_runner, options
from random_models import MEMORY_KINDS, plain_model, recurrent_model

from lading.runtime.options import Options
from lading.runtime.protocol import Generate, Grammar, Message, RunnerStatus, Text, ToolCall

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
    "hot": raw("Hello", seed=5, **{**WARM, "temperature": 3.0}),
    "usual filters": count_to(20, options=Options(seed=9, num_predict=50)),
    "penalties": count_to(20, options=options(repeat_penalty=1.3, repeat_last_n=16, num_predict=50)),
    "presence": count_to(20, options=options(presence_penalty=1.5, frequency_penalty=0.5, seed=4, **WARM)),
    "mirostat 1": count_to(20, options=options(mirostat=1, seed=6, **WARM)),
    "mirostat 2": count_to(20, options=options(mirostat=2, seed=7, **WARM)),
    "bias": count_to(20, options=options(logit_bias=((1269, -100.0), (1271, -100.0)), num_predict=60)),
    "short context": count_to(30, options=options(num_ctx=40)),
    "short context, no shift": count_to(30, shift=False, options=options(num_ctx=40)),
    "until full": count_to(30, options=options(num_ctx=40, num_predict=-2)),
}


@dataclass(frozen=True)
class Said:
    """All of an answer but how long it took and how it was come by."""

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
            (one.token, pytest.approx(one.logprob, abs=1e-4), [other.token for other in one.top])
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
    import msgspec

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
