"""Many JSON Schemas through the engine, at temperatures 0 and 1: every answer that ends is valid."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import TINY_CHAT
from live_runner import LiveRunner, ask, chat, live_runner, options

from lading.runtime.options import Options

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("schemas.json").read_text("utf-8"))
FORMATS = jsonschema.FormatChecker(("email", "ipv4", "ipv6", "uuid"))
# Of a date only the shape is promised: that there was no year 0, no grammar knows.
FORMATS.checks("date")(lambda text: re.fullmatch(r"\d{4}-\d\d-\d\d", text) is not None)
ENOUGH, FEW = 400, 120
"""Tokens for answers that the schema bounds, and for those that it does not."""


@pytest.fixture(scope="module")
def runner() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT, n_parallel=16, n_ctx=512) as runner:
        yield runner


def sampling(seed: int | None, tokens: int) -> Options:
    if seed is None:
        return options(num_predict=tokens)
    return Options(temperature=1.0, top_k=0, top_p=1.0, seed=seed, num_predict=tokens)


def test_the_schemas_are_many_and_each_is_a_schema() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES) >= 60
    for case in CASES:
        jsonschema.Draft202012Validator.check_schema(case["schema"])


def test_every_finished_answer_is_valid(runner: LiveRunner) -> None:
    async def answer(client: Any, case: dict[str, Any], seed: int | None) -> tuple[str, int]:
        bounded = case.get("bounded", True)
        tokens = ENOUGH if bounded else FEW
        request = chat("Give me JSON.", format=case["schema"], options=sampling(seed, tokens))
        found = await ask(client, request)
        label = f"{case['name']}, seed {seed}: {found.text!r}"
        if found.end.reason == "length":
            assert not bounded, label
            assert found.end.usage.eval_tokens == tokens, label
            return case["name"], 0
        assert found.end.reason == "stop", label
        validator = jsonschema.Draft202012Validator(case["schema"], format_checker=FORMATS)
        assert validator.is_valid(json.loads(found.text)), label
        return case["name"], 1

    async def body() -> list[tuple[str, int]]:
        async with runner.client() as client:
            return await asyncio.gather(
                *(answer(client, case, seed) for case in CASES for seed in (None, 1, 2))
            )

    finished = asyncio.run(body())
    assert len(finished) == 3 * len(CASES)
    # Nearly all end by themselves; a schema that never did would show nothing.
    assert sum(done for _, done in finished) >= 0.85 * len(finished)
