"""Prefixes on disk: a restarted runner knows them, says the same, and believes no damaged file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import TINY_CHAT
from live_runner import Answer, LiveRunner, ask, live_runner, options
from model_shelf import ModelShelf
from random_models import MEMORY_KINDS

from lading.oci.reference import Reference
from lading.oci.store import Store
from lading.runtime.client import RunnerClient
from lading.runtime.grant import Acquire
from lading.runtime.keeper import Keeper
from lading.runtime.load_plan import LoadPlan
from lading.runtime.mount import Mounter
from lading.runtime.options import Options
from lading.runtime.prefix_folders import PrefixFolders
from lading.runtime.protocol import Generate
from lading.runtime.runner.saved_prefixes import MIN_TOKENS, SUFFIX, UNFINISHED, SavedPrefixes
from lading.runtime.runner.slots import Slot
from lading.runtime.settings import RuntimeSettings

PREFIX = "You are a helpful assistant. The capital of France is Paris. " * 20
BUDGET = 64 << 20


def raw(text: str) -> Generate:
    return Generate(id=0, prompt=text, raw=True, options=options(num_predict=12))


def life(
    model: Path, folder: Path | None, *prompts: str, budget: int = BUDGET, **settings: object
) -> list[Answer]:
    """One runner from start to orderly end, asked one prompt after the other."""

    async def talk(runner: LiveRunner) -> list[Answer]:
        async with runner.client() as client:
            return [await ask(client, raw(prompt)) for prompt in prompts]

    with live_runner(
        model, n_ctx=1024, n_parallel=2, prefix_folder=str(folder or ""), prefix_budget=budget, **settings
    ) as runner:
        assert runner.ready, runner.failure
        answers = asyncio.run(talk(runner))
        runner.control.close()
        assert runner.process.wait(30) == 0
    return answers


@pytest.mark.parametrize("flash_attention", ["off", "on"])
@pytest.mark.parametrize("kind", [None, *MEMORY_KINDS])
def test_a_restarted_runner_says_the_same(kind: str | None, flash_attention: str, tmp_path: Path) -> None:
    model = MEMORY_KINDS[kind](tmp_path / "model.gguf", TINY_CHAT) if kind else TINY_CHAT
    prompts = [PREFIX + tail for tail in ("What is the capital of Italy?", "Count from 1 to 9.")]
    expected = [life(model, None, prompt, flash_attention=flash_attention)[0].text for prompt in prompts]
    folder = tmp_path / "prefixes"
    folder.mkdir()
    life(model, folder, PREFIX, flash_attention=flash_attention)
    assert len(list(folder.iterdir())) == 1
    answers = life(model, folder, *prompts, flash_attention=flash_attention)
    assert [answer.text for answer in answers] == expected
    if kind is None:  # memory that can be cut anywhere
        usage = answers[0].end.usage
        assert usage.cached_tokens > usage.prompt_tokens - 20


def test_what_is_known_is_not_saved_again(tmp_path: Path) -> None:
    life(TINY_CHAT, tmp_path, PREFIX)
    [first] = tmp_path.iterdir()
    life(TINY_CHAT, tmp_path, PREFIX + "What is the capital of Italy?")
    assert list(tmp_path.iterdir()) == [first]
    life(TINY_CHAT, tmp_path, PREFIX + "Count. " * 100)  # goes on where the first one ends
    [longer] = tmp_path.iterdir()
    assert longer != first


def test_short_prompts_are_not_saved(tmp_path: Path) -> None:
    life(TINY_CHAT, tmp_path, "Hello")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:5000] + b"\xff" + data[5001:], id="a flipped byte"),
        pytest.param(lambda data: data[:8] + b"\xff\xff\xff\x7f" + data[12:], id="a huge count"),
        pytest.param(lambda data: data[:7], id="no header"),
    ],
)
def test_a_damaged_file_is_not_believed(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    prompt = PREFIX + "What is the capital of Italy?"
    [expected] = life(TINY_CHAT, tmp_path, prompt)
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    [answer] = life(TINY_CHAT, tmp_path, prompt)
    assert answer.text == expected.text
    assert answer.end.usage.cached_tokens == 0
    [again] = life(TINY_CHAT, tmp_path, prompt)  # the damaged one has been replaced
    assert again.end.usage.cached_tokens > 0


def test_what_a_dead_runner_left_unfinished_goes(tmp_path: Path) -> None:
    (tmp_path / f"4194999-0{UNFINISHED}").write_bytes(b"half")  # above the highest process number
    life(TINY_CHAT, tmp_path, "Hello")
    assert not list(tmp_path.iterdir())


def test_one_runner_keeps_to_the_budget(tmp_path: Path) -> None:
    life(TINY_CHAT, tmp_path, PREFIX)
    [path] = tmp_path.iterdir()
    budget = int(path.stat().st_size * 2.5)
    for word in ("Count", "banana"):
        life(TINY_CHAT, tmp_path, word + PREFIX, budget=budget)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= budget
    assert path not in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 2
    assert not SavedPrefixes(tmp_path, 1000, 1024, _Sizes()).wants(_slot())


class _Sizes:
    """States of a megabyte, as far as anyone can see."""

    def state_size(self, seq: int) -> int:
        return 1 << 20

    def save_state(self, seq: int, path: Path, tokens: object) -> bool:
        return False

    def load_state(self, seq: int, path: Path, capacity: int) -> None:
        return None


def _slot() -> Slot:
    return Slot(0, np.arange(1024, dtype=np.int32), size=1024)


def test_images_are_not_saved(tmp_path: Path) -> None:
    slot = _slot()
    assert SavedPrefixes(tmp_path, BUDGET, 1024, _Sizes()).wants(slot)
    slot.tokens[700] = -5
    assert not SavedPrefixes(tmp_path, BUDGET, 1024, _Sizes()).wants(slot)


# The folders


def test_the_keeper_gives_each_way_of_evaluating_a_private_folder(shelf: ModelShelf, tmp_path: Path) -> None:
    plan = _plan(shelf, "tiny")
    names = set()
    for cache in ("f16", "q8_0"):
        settings = RuntimeSettings(
            prefix_cache_dir=tmp_path / "cache", prefix_cache_bytes=BUDGET, kv_cache_type=cache
        )
        folder = Path(PrefixFolders(settings).folder(plan))
        assert folder.stat().st_mode & 0o777 == 0o700
        names.add(folder)
    assert len(names) == 2
    assert PrefixFolders(RuntimeSettings()).folder(plan) == ""


def test_all_folders_together_keep_to_the_budget(tmp_path: Path) -> None:
    for model in ("one", "two"):
        (tmp_path / model).mkdir()
        for age in range(4):
            path = tmp_path / model / f"{age}{SUFFIX}"
            path.write_bytes(bytes(1000))
            os.utime(path, (1_000_000 - age, 1_000_000 - age))
    PrefixFolders(RuntimeSettings(prefix_cache_dir=tmp_path, prefix_cache_bytes=4500)).trim()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))
    assert left == [f"{model}/{age}{SUFFIX}" for model in ("one", "two") for age in (0, 1)]


def test_a_model_is_warm_after_the_keeper_has_stopped_it(
    shelf: ModelShelf, runtime_dir: Path, tmp_path: Path
) -> None:
    settings = RuntimeSettings(
        runtime_dir=runtime_dir, prefix_cache_dir=tmp_path / "cache", prefix_cache_bytes=BUDGET
    )
    cached = []
    for _ in range(2):
        keeper = Keeper(shelf.root, settings)
        try:
            grant = keeper.acquire(Acquire(model="tiny"))
            [answer] = asyncio.run(_ask(grant.socket_path, PREFIX + "What is the capital of Italy?"))
            cached.append(answer.end.usage.cached_tokens)
        finally:
            keeper.close()
    assert cached[0] == 0
    assert cached[1] > MIN_TOKENS


async def _ask(socket: str, prompt: str) -> list[Answer]:
    client = await RunnerClient.connect(Path(socket))
    try:
        return [await ask(client, raw(prompt))]
    finally:
        await client.aclose()


def _plan(shelf: ModelShelf, name: str) -> LoadPlan:
    model = Mounter(Store.open(shelf.root), template=None).mount(Reference.parse(name))
    return LoadPlan(facts=model.facts, files=model.files, options=Options(), settings=RuntimeSettings())
