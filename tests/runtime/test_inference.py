"""Inference over an embedded runtime: what is sent to the runner, what comes back, and who cleans up."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from model_shelf import ModelShelf
from poison import POISON, Poison

from lading.oci.errors import ModelNotFound
from lading.runtime.embedded import EmbeddedRuntime
from lading.runtime.errors import BadRequest, Quarantined, RunnerLost, Unsupported
from lading.runtime.inference import (
    ChatRequest,
    Done,
    GenerateRequest,
    Inference,
    InferenceEvent,
    Settings,
    without_old_thoughts,
)
from lading.runtime.protocol import Message, Text, Thinking
from lading.runtime.settings import RuntimeSettings

PLAIN = Settings(think=False)
FRANCE = Message(role="user", content="What is the capital of France?")


def user(text: str) -> Message:
    return Message(role="user", content=text)


def ask(model: str = "tiny", *messages: Message, settings: Settings = PLAIN, **fields: Any) -> ChatRequest:
    return ChatRequest(model=model, messages=messages or (FRANCE,), settings=settings, **fields)


END_TOKEN = "1271"  # of the tiny chat model: an answer that may not use it goes on
LONG = ask(
    "tiny",
    user("Count from 1 to 30."),
    settings=Settings(think=False, options={"num_predict": 20_000, "logit_bias": {END_TOKEN: -100}}),
)


@pytest.fixture
def runtime(shelf: ModelShelf, runtime_dir: Path) -> Callable[..., Any]:
    """Opens an embedded runtime over the shelf."""

    @asynccontextmanager
    async def start(**settings: Any) -> AsyncIterator[Inference]:
        chosen = RuntimeSettings(runtime_dir=runtime_dir, **settings)
        async with EmbeddedRuntime(shelf.root, chosen) as embedded:
            yield embedded.inference

    return start


def with_runtime(
    runtime: Callable[..., Any], act: Callable[[Inference], Awaitable[Any]], **settings: Any
) -> Any:
    async def go() -> Any:
        async with runtime(**settings) as inference:
            return await act(inference)

    return asyncio.run(go())


async def gather(events: AsyncIterator[InferenceEvent]) -> tuple[str, str, Done]:
    """Text, thoughts and the last event."""
    seen = [event async for event in events]
    done = seen[-1]
    assert isinstance(done, Done)
    assert not any(isinstance(event, Done) for event in seen[:-1])
    text = "".join(event.text for event in seen if isinstance(event, Text))
    return text, "".join(event.text for event in seen if isinstance(event, Thinking)), done


def test_an_answer_with_usage_and_durations(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        text, thoughts, done = await gather(inference.chat(ask()))
        assert "Paris" in text and thoughts == ""
        assert done.reason == "stop"
        assert done.usage.prompt_tokens > 5 and done.usage.eval_tokens > 2
        assert 0 < done.load_duration_ns < done.total_duration_ns
        _, _, again = await gather(inference.chat(ask()))
        assert again.load_duration_ns < 100_000_000 < done.load_duration_ns
        assert again.usage.cached_tokens > 0

    with_runtime(runtime, act)


def test_many_at_once(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> list[str]:
        answers = await asyncio.gather(*(gather(inference.chat(ask())) for _ in range(12)))
        return [text for text, _, _ in answers]

    answers = with_runtime(runtime, act)
    assert len(answers) == 12 and set(answers) == {answers[0]} and "Paris" in answers[0]


def test_models_that_think_do_so_unless_told_not_to(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> tuple[str, str]:
        thinking = await inference.render(ask(settings=Settings()))
        plain = await inference.render(ask(settings=PLAIN))
        return thinking.prompt, plain.prompt

    thinking, plain = with_runtime(runtime, act)
    assert thinking != plain


MODELFILE = """FROM tiny
SYSTEM You are terse.
MESSAGE user Hello
MESSAGE assistant Hi
"""


def in_order(prompt: str, *parts: str) -> bool:
    """Whether each part is there, after the one before."""
    at = 0
    for part in parts:
        at = prompt.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


@pytest.mark.parametrize(
    ("request_", "there", "absent"),
    [
        pytest.param(
            ask("terse"),
            ["You are terse.", "Hello", "Hi", "capital of France"],
            [],
            id="chat: system, messages, question",
        ),
        pytest.param(
            ask("terse", Message(role="system", content="Be loud."), FRANCE),
            ["Hello", "Hi", "Be loud.", "capital of France"],
            ["You are terse."],
            id="chat: a system message of its own comes in place of the model's",
        ),
        pytest.param(
            ask("terse", FRANCE, Message(role="system", content="Be loud."), user("Well?")),
            ["You are terse.", "Hello", "capital of France", "Be loud.", "Well?"],
            [],
            id="chat: a later system message does not",
        ),
        pytest.param(
            GenerateRequest(model="terse", prompt="Why?", settings=PLAIN),
            ["You are terse.", "Hello", "Hi", "Why?"],
            [],
            id="generate: system, messages, prompt",
        ),
        pytest.param(
            GenerateRequest(model="terse", prompt="Why?", system="Be loud.", settings=PLAIN),
            ["Be loud.", "Hello", "Why?"],
            ["You are terse."],
            id="generate: system replaced",
        ),
        pytest.param(
            GenerateRequest(model="terse", prompt="Why?", context=(5, 6, 7), settings=PLAIN),
            ["Why?"],
            ["Hello"],
            id="generate: a context comes in place of messages",
        ),
        pytest.param(
            GenerateRequest(model="terse", prompt="Why?", raw=True, settings=PLAIN),
            ["Why?"],
            ["Hello", "terse", "<|im_start|>"],
            id="generate: raw is the prompt alone",
        ),
    ],
)
def test_what_the_model_brings_along_is_put_before_the_request(
    shelf: ModelShelf,
    runtime: Callable[..., Any],
    request_: ChatRequest | GenerateRequest,
    there: list[str],
    absent: list[str],
) -> None:
    shelf.create("terse", MODELFILE)
    prompt = with_runtime(runtime, lambda inference: inference.render(request_)).prompt
    assert in_order(prompt, *there), prompt
    assert not [part for part in absent if part in prompt], prompt


def test_generate_gives_a_context_that_continues_the_conversation(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        first = GenerateRequest(model="tiny", prompt=FRANCE.content, settings=PLAIN)
        text, _, done = await gather(inference.generate(first))
        assert "Paris" in text
        assert len(done.context) >= done.usage.prompt_tokens + done.usage.eval_tokens
        second = GenerateRequest(model="tiny", prompt="And?", context=done.context, settings=PLAIN)
        alone = GenerateRequest(model="tiny", prompt="And?", settings=PLAIN)
        tokens = [(await inference.render(request)).tokens for request in (alone, second)]
        assert tokens[1] - tokens[0] == len(done.context)
        few = Settings(think=False, options={"num_predict": 3})
        raw = GenerateRequest(model="tiny", prompt="1, 2, 3,", raw=True, settings=few)
        _, _, ended = await gather(inference.generate(raw))
        assert ended.context == () and (ended.reason, ended.usage.eval_tokens) == ("length", 3)

    with_runtime(runtime, act)


# Cancelling and failing


def test_closing_the_iterator_stops_the_generation(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        events = inference.chat(LONG)
        await anext(events)
        await events.aclose()
        deadline = time.monotonic() + 5
        while True:
            await asyncio.sleep(1.1)  # the keeper looks once a second
            [model] = await inference.loaded()
            if model.running == 0:
                break
            assert time.monotonic() < deadline

    with_runtime(runtime, act)


def test_cancelling_the_task_stops_the_generation_and_the_rest_goes_on(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        task = asyncio.create_task(gather(inference.chat(LONG)))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "Paris" in (await gather(inference.chat(ask())))[0]

    with_runtime(runtime, act)


def test_a_runner_that_dies_mid_stream_is_an_error_and_the_next_request_works(
    runtime: Callable[..., Any],
) -> None:
    async def act(inference: Inference) -> None:
        killed = math.inf
        with pytest.raises(RunnerLost):
            async for _ in inference.chat(LONG):
                if math.isinf(killed):
                    os.kill((await inference.loaded())[0].pid, signal.SIGKILL)
                    killed = time.monotonic()
        assert time.monotonic() - killed < 1.0
        assert "Paris" in (await gather(inference.chat(ask())))[0]

    with_runtime(runtime, act)


def test_an_idle_connection_to_a_dead_runner_is_not_used_again(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        await gather(inference.chat(ask()))
        os.kill((await inference.loaded())[0].pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert "Paris" in (await gather(inference.chat(ask())))[0]

    with_runtime(runtime, act)


def test_a_request_that_meets_a_dying_runner_is_answered_by_the_next(runtime: Callable[..., Any]) -> None:
    question = ask("tiny", user("What is the capital of Spain?"))

    async def dying(inference: Inference, request: Awaitable[Any]) -> Any:
        """The answer to a request that is with the runner when that is killed, and has not been read yet."""
        pid = (await inference.loaded())[0].pid
        os.kill(pid, signal.SIGSTOP)
        answer = asyncio.ensure_future(request)
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        return await answer

    async def act(inference: Inference) -> None:
        expected = await gather(inference.chat(question))
        text, _, _ = await dying(inference, gather(inference.chat(question)))
        assert text == expected[0]
        prompt = (await inference.render(question)).prompt
        assert (await dying(inference, inference.render(question))).prompt == prompt

    with_runtime(runtime, act)


def test_a_request_that_reaches_a_runner_as_it_is_stopped_is_answered_by_the_next(
    runtime: Callable[..., Any],
) -> None:
    async def act(inference: Inference) -> None:
        await gather(inference.chat(ask()))
        pid = (await inference.loaded())[0].pid
        os.kill(pid, signal.SIGSTOP)
        answer = asyncio.ensure_future(gather(inference.chat(ask())))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        assert "Paris" in (await answer)[0]

    with_runtime(runtime, act)


def test_an_input_that_kills_runners_kills_two_of_them_and_then_the_model_is_left_alone(
    runtime: Callable[..., Any], tmp_path: Path
) -> None:
    async def act(inference: Inference) -> None:
        poisoned = ask("tiny", user(POISON))
        with pytest.raises(RunnerLost, match="unexpectedly stopped"):
            await gather(inference.chat(poisoned))
        assert poison.left == 7
        assert "Paris" in (await gather(inference.chat(ask())))[0]
        with pytest.raises(Quarantined, match="3 times within a minute"):
            await gather(inference.chat(poisoned))
        assert poison.left == 6

    poison = Poison(tmp_path, doses=9)
    with_runtime(runtime, act, environment=poison.environment, sandbox=False)


def test_who_shares_a_runner_with_such_an_input_is_answered_all_the_same(
    runtime: Callable[..., Any], tmp_path: Path
) -> None:
    async def act(inference: Inference) -> None:
        await gather(inference.chat(ask()))
        pid = (await inference.loaded())[0].pid
        os.kill(pid, signal.SIGSTOP)  # so that all of them are with it
        bad = asyncio.ensure_future(gather(inference.chat(ask("tiny", user(POISON)))))
        good = [asyncio.ensure_future(gather(inference.chat(ask()))) for _ in range(4)]
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGCONT)
        assert all("Paris" in text for text, _, _ in await asyncio.gather(*good))
        await bad

    poison = Poison(tmp_path, doses=1)
    with_runtime(runtime, act, environment=poison.environment, sandbox=False)


@pytest.mark.parametrize(
    ("request_", "error", "sentence"),
    [
        pytest.param(
            ChatRequest(model="tiny", messages=()),
            BadRequest,
            "chat: expected at least one message, got none",
            id="no messages",
        ),
        pytest.param(
            GenerateRequest(model="tiny", prompt="x", raw=True, system="y"),
            BadRequest,
            "raw mode does not support template or system",
            id="raw and system",
        ),
        pytest.param(ask("nope"), ModelNotFound, "model 'nope:latest' not found", id="no such model"),
        pytest.param(
            ask("tiny", Message(role="user", content="what is this?", images=(b"x",))),
            Unsupported,
            "registry.ollama.ai/library/tiny:latest does not support vision",
            id="images",
        ),
        pytest.param(
            GenerateRequest(model="tiny", prompt="def f(", suffix="return"),
            Unsupported,
            "registry.ollama.ai/library/tiny:latest does not support insert",
            id="suffix",
        ),
    ],
)
def test_refusals_before_the_first_event(
    runtime: Callable[..., Any],
    request_: ChatRequest | GenerateRequest,
    error: type[Exception],
    sentence: str,
) -> None:
    async def act(inference: Inference) -> None:
        events = (
            inference.chat(request_) if isinstance(request_, ChatRequest) else inference.generate(request_)
        )
        with pytest.raises(error) as caught:
            await anext(events)
        assert str(caught.value.args[0]) == sentence
        assert await inference.loaded() == ()

    with_runtime(runtime, act)


# Loading


def test_load_and_unload(runtime: Callable[..., Any]) -> None:
    async def act(inference: Inference) -> None:
        loaded = await inference.load("tiny", keep_alive=60.0)
        assert loaded.total_duration_ns >= loaded.load_duration_ns > 10_000_000
        assert [model.name for model in await inference.loaded()] == ["tiny:latest"]
        assert await inference.unload("tiny") is True
        deadline = time.monotonic() + 5
        while await inference.loaded():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert await inference.unload("tiny") is False

    with_runtime(runtime, act)


def test_leaving_stops_everything_even_amid_a_stream(runtime: Callable[..., Any], runtime_dir: Path) -> None:
    async def act(inference: Inference) -> int:
        events = inference.chat(LONG)
        await anext(events)
        return (await inference.loaded())[0].pid

    pid = with_runtime(runtime, act)
    assert not psutil.pid_exists(pid)
    assert not list(runtime_dir.glob("keeper-*"))


def test_old_thoughts_are_forgotten_up_to_the_last_question() -> None:
    def answer(content: str) -> Message:
        return Message(role="assistant", content=content)

    before = (
        user("<think>mine</think>"),
        answer("<think>a\nb</think>\n\nParis"),
        answer("no <think>x</think>"),
        user("and?"),
        answer("<think>c</think>still thinking"),
    )
    after = without_old_thoughts(before)
    assert [message.content for message in after] == [
        "<think>mine</think>",
        "Paris",
        "no <think>x</think>",
        "and?",
        "<think>c</think>still thinking",
    ]
