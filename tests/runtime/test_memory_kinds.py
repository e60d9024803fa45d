"""Reuse and batching where memory cannot be cut, or not everywhere: answers do not depend on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import TINY_CHAT
from live_runner import LiveRunner, ask, ask_all, chat, live_runner, options
from random_models import MEMORY_KINDS, embedding_model

from lading.runtime.errors import PromptTooLong, Unsupported
from lading.runtime.protocol import Generate

PREFIX = "You are a helpful assistant. The capital of France is Paris. " * 20
TAILS = (
    "What is the capital of Italy?",
    "Count from 1 to 9.",
    "Repeat this word: banana",
    "What is my name?",
)


def raw(text: str, count: int = 16) -> Generate:
    return Generate(id=0, prompt=text, raw=True, options=options(num_predict=count))


@pytest.fixture(scope="module", params=MEMORY_KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MEMORY_KINDS[request.param](tmp_path_factory.mktemp("model") / "model.gguf", TINY_CHAT)


@pytest.mark.parametrize("flash_attention", ["off", "on"])
def test_reuse_changes_no_answer(model: Path, flash_attention: str) -> None:
    prompts = [PREFIX + tail for tail in TAILS]  # over 400 tokens: more than a sliding window keeps
    # Longer and shorter than what is there, equal to it, cut within it, and something else in between.
    prompts += [prompts[0], PREFIX[:150], prompts[1] + " And then?", "Hello", prompts[2]]

    settings = {"n_ctx": 1024, "n_batch": 32, "flash_attention": flash_attention}

    async def fresh() -> list[str]:
        answers = {}
        for prompt in set(prompts):
            with live_runner(model, **settings) as runner:
                async with runner.client() as client:
                    answers[prompt] = (await ask(client, raw(prompt))).text
        return [answers[prompt] for prompt in prompts]

    async def reused(parallel: int, together: bool) -> list[str]:
        with live_runner(model, n_parallel=parallel, **settings) as runner:
            async with runner.client() as client:
                requests = [raw(prompt) for prompt in prompts]
                if together:
                    return [answer.text for answer in await ask_all(client, requests)]
                return [(await ask(client, request)).text for request in requests]

    expected = asyncio.run(fresh())
    assert len(set(expected)) > 4
    assert asyncio.run(reused(1, together=False)) == expected
    assert asyncio.run(reused(3, together=False)) == expected
    assert asyncio.run(reused(3, together=True)) == expected


def test_a_conversation_that_grows_is_reused(model: Path) -> None:
    async def body() -> None:
        with live_runner(model, n_ctx=512) as runner:
            async with runner.client() as client:
                first = await ask(client, raw(PREFIX))
                context = (await client.tokenize(PREFIX)).tokens
                more = Generate(
                    id=0, prompt="And so on.", raw=True, context=context, options=options(num_predict=2)
                )
                # What follows the last token read can always be added, whatever the memory.
                assert first.end.usage.prompt_tokens == len(context)
                again = await ask(client, more)
                assert again.end.usage.prompt_tokens > len(context)

    asyncio.run(body())


def test_a_full_context_ends_well(model: Path) -> None:
    async def body() -> None:
        with live_runner(model, n_ctx=64) as runner:
            async with runner.client() as client:
                answer = await ask(client, raw("Hello", 200))
                assert answer.end.reason in ("length", "stop")
                assert (await ask(client, raw("Hello", 5))).end.usage.eval_tokens <= 5

    asyncio.run(body())


# Embeddings


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRunner]:
    path = embedding_model(tmp_path_factory.mktemp("model") / "bert.gguf", TINY_CHAT)
    with live_runner(path, n_parallel=4, flash_attention="auto") as runner:  # as the keeper loads these
        yield runner


def test_embeddings_are_unit_vectors_whatever_the_company(embedder: LiveRunner) -> None:
    assert embedder.ready and embedder.ready.capabilities == ("embedding",)
    texts = ("a cat", "a dog", "the capital of France is Paris", "naïve 日本", "a cat", "")

    async def body() -> None:
        async with embedder.client() as client:
            together = await client.embed(texts)
            assert len(together.vectors) == len(texts)
            vectors = np.array(together.vectors)
            assert vectors.shape == (6, 64)
            assert np.allclose(np.linalg.norm(vectors[:5], axis=1), 1.0, atol=1e-5)
            alone = np.array([(await client.embed((text,))).vectors[0] for text in texts])
            assert np.allclose(vectors, alone, atol=1e-4)
            assert np.allclose(vectors[0], vectors[4], atol=1e-4)
            assert not np.allclose(vectors[0], vectors[1], atol=1e-2)
            short = np.array((await client.embed(texts[:1], dimensions=16)).vectors[0])
            assert short.shape == (16,)
            assert np.isclose(np.linalg.norm(short), 1.0, atol=1e-5)
            assert np.allclose(short, vectors[0][:16] / np.linalg.norm(vectors[0][:16]), atol=1e-4)
            assert (await client.embed(())).vectors == ()

    asyncio.run(body())


def test_long_texts_are_cut_or_refused(embedder: LiveRunner) -> None:
    async def body() -> None:
        async with embedder.client() as client:
            found = await client.embed(("word " * 1000,))
            assert found.prompt_tokens == 128
            with pytest.raises(PromptTooLong):
                await client.embed(("word " * 1000,), truncate=False)
            many = await client.embed(tuple(f"text number {i}" for i in range(300)))
            assert len(many.vectors) == 300

    asyncio.run(body())


def test_an_embedding_model_does_not_generate(embedder: LiveRunner) -> None:
    async def body() -> None:
        async with embedder.client() as client:
            with pytest.raises(Unsupported, match="embeddings only"):
                await ask(client, chat("Hello"))

    asyncio.run(body())
