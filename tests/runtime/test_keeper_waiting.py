"""Who waits for a model, in which order, what becomes of the load when they leave, and what never goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_runner import ask, chat
from load_gate import LoadGate
from model_shelf import ModelShelf
from msgspec import structs
from server_processes import wait_until

from lading.oci.errors import BadReference
from lading.runtime.client import RunnerClient
from lading.runtime.embedded import DirectKeeper
from lading.runtime.errors import CallerLeft, DoesNotFit, NoPlace, Pinned
from lading.runtime.grant import Acquire, Grant
from lading.runtime.keeper import Keeper
from lading.runtime.runner_pool import Caller

MakeKeeper = Callable[..., Keeper]
PARIS = chat("What is the capital of France?", think=False)


@pytest.fixture
def gate(tmp_path: Path) -> LoadGate:
    folder = tmp_path / "gate"
    folder.mkdir()
    return LoadGate(folder)


def acquire(keeper: Keeper, model: str = "tiny", caller: Caller | None = None, **fields: Any) -> Grant:
    return keeper.acquire(Acquire(model=model, **fields), caller)


def answer(grant: Grant) -> str:
    async def go() -> str:
        client = await RunnerClient.connect(grant.socket_path)
        try:
            return (await ask(client, structs.replace(PARIS, variant=grant.variant))).text
        finally:
            await client.aclose()

    return asyncio.run(go())


def loading_pid(keeper: Keeper) -> int:
    """Of the one runner that there is, once it has been started."""
    wait_until(lambda: [model.pid for model in keeper.loaded() if model.pid])
    [model] = keeper.loaded()
    assert model.state == "loading"
    return model.pid


def is_waiting(keeper: Keeper, count: int) -> bool:
    return sum(slot.waiting for slot in keeper._pool.slots()) == count


# Leaving


def test_a_load_that_nobody_waits_for_any_more_is_given_up(
    shelf: ModelShelf, keeper_of: MakeKeeper, gate: LoadGate
) -> None:
    keeper = keeper_of(shelf, environment=gate.environment)
    caller = Caller()
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(acquire, keeper, caller=caller)
        pid = loading_pid(keeper)
        keeper.leave(caller)
        assert isinstance(call.exception(60), CallerLeft)
    wait_until(lambda: not keeper.loaded() and not psutil.pid_exists(pid))
    gate.open()
    assert "Paris" in answer(acquire(keeper)), "the next one loads it"


def test_a_load_that_somebody_else_waits_for_goes_on(
    shelf: ModelShelf, keeper_of: MakeKeeper, gate: LoadGate
) -> None:
    keeper = keeper_of(shelf, environment=gate.environment)
    first = Caller()
    with ThreadPoolExecutor(2) as threads:
        leaving = threads.submit(acquire, keeper, caller=first)
        wait_until(lambda: is_waiting(keeper, 1))
        staying = threads.submit(acquire, keeper)
        wait_until(lambda: is_waiting(keeper, 2))
        keeper.leave(first)
        assert isinstance(leaving.exception(60), CallerLeft)
        assert [model.state for model in keeper.loaded()] == ["loading"]
        gate.open()
        assert "Paris" in answer(staying.result(60))


def test_whoever_comes_after_the_load_was_given_up_gets_a_new_one(
    shelf: ModelShelf, keeper_of: MakeKeeper, gate: LoadGate
) -> None:
    keeper = keeper_of(shelf, environment=gate.environment)
    first = Caller()
    with ThreadPoolExecutor(2) as threads:
        leaving = threads.submit(acquire, keeper, caller=first)
        loading_pid(keeper)
        keeper.leave(first)
        gate.open()
        again = threads.submit(acquire, keeper)
        assert isinstance(leaving.exception(60), CallerLeft)
        assert "Paris" in answer(again.result(60))


def test_a_task_that_is_cancelled_has_left(shelf: ModelShelf, keeper_of: MakeKeeper, gate: LoadGate) -> None:
    keeper = keeper_of(shelf, environment=gate.environment)

    async def go() -> None:
        port = DirectKeeper(keeper, max_waiting=4)
        task = asyncio.create_task(port.acquire(Acquire(model="tiny")))
        await asyncio.to_thread(loading_pid, keeper)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: not keeper.loaded())
        await port.aclose()

    asyncio.run(go())


# The line


def three_models(shelf: ModelShelf, tiny_chat: Path) -> None:
    """Models a, b and c, each with weights of its own."""
    for name in ("a", "b", "c"):
        path = shelf.variant(tiny_chat, f"{name}.gguf", b"general.name", b"general.nam" + name.encode())
        shelf.create(name, f"FROM {path}\nPARAMETER num_ctx 256\n")


def test_models_that_wait_for_room_are_loaded_in_the_order_of_asking(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path, gate: LoadGate
) -> None:
    three_models(shelf, tiny_chat)
    keeper = keeper_of(shelf, max_loaded_models=1, grant_grace_s=0.1, environment=gate.environment)
    order: list[str] = []

    def load(name: str) -> None:
        acquire(keeper, name, verb="load")
        order.append(name)

    names = ["a", "c", "b", "tiny"]
    with ThreadPoolExecutor(4) as threads:
        calls: list[Future[None]] = []
        for i, name in enumerate(names):  # the first one loads, the others form a line behind it
            calls.append(threads.submit(load, name))
            wait_until(lambda: is_waiting(keeper, 1))
            wait_until(lambda i=i: len(keeper._pool._line) == i)
        gate.open()
        for call in calls:
            call.result(100)
    assert order == names


def test_who_leaves_the_line_makes_room_for_the_next(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path, gate: LoadGate
) -> None:
    three_models(shelf, tiny_chat)
    keeper = keeper_of(shelf, max_loaded_models=1, grant_grace_s=0.1, environment=gate.environment)
    leaver = Caller()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(acquire, keeper, "a")
        wait_until(lambda: is_waiting(keeper, 1))
        second = threads.submit(acquire, keeper, "b", caller=leaver)
        wait_until(lambda: len(keeper._pool._line) == 1)
        third = threads.submit(acquire, keeper, "c")
        wait_until(lambda: len(keeper._pool._line) == 2)
        keeper.leave(leaver)
        assert isinstance(second.exception(60), CallerLeft)
        gate.open()
        assert first.result(60) and third.result(60).facts.name == "c:latest"


# Pinned models


def test_a_pinned_model_stays_whatever_is_asked(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, pinned=("tiny",), keep_alive_s=0.0, grant_grace_s=0.0)
    grant = acquire(keeper, keep_alive=0.0)
    assert "Paris" in answer(grant)
    [model] = keeper.loaded()
    assert (model.pinned, model.expires_at) == (True, None)
    with pytest.raises(Pinned, match="stopping tiny:latest: it is pinned"):
        keeper.unload("tiny")
    asked_at = keeper._pool.slots()[0].asked_at
    wait_until(lambda: keeper._pool.slots()[0].asked_at > asked_at)  # the monitor has looked again
    assert acquire(keeper).socket_path == grant.socket_path


def test_a_pinned_model_is_not_stopped_to_make_room(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    three_models(shelf, tiny_chat)
    probe = keeper_of(shelf, num_parallel=1)
    acquire(probe, "a", verb="load")
    budget = int(probe._pool.slots()[0].need.wanted * 1.5)
    keeper = keeper_of(shelf, num_parallel=1, memory_budget=budget, pinned=("a",))
    acquire(keeper, "a", verb="load")
    with pytest.raises(DoesNotFit, match=r"loading b:latest: it needs .* is available"):
        acquire(keeper, "b")
    assert [model.name for model in keeper.loaded()] == ["a:latest"]


def test_pinned_models_may_take_every_place(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    three_models(shelf, tiny_chat)
    keeper = keeper_of(shelf, max_loaded_models=1, pinned=("a",))
    acquire(keeper, "a", verb="load")
    with pytest.raises(NoPlace, match=r"every place is taken by a pinned model \(a:latest\)") as caught:
        acquire(keeper, "b")
    assert caught.value.hint


def test_a_pinned_name_that_is_none_is_refused(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    with pytest.raises(BadReference):
        keeper_of(shelf, pinned=("../x",))
