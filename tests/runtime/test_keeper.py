"""The keeper over real runners: loading, sharing, keep-alive, crashes, memory, and the end."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import TINY_CHAT
from live_runner import ask, chat, options
from model_shelf import ModelShelf
from msgspec import structs
from random_models import plain_model, recurrent_model

from lading.modelfile.parameters import BadParameter
from lading.oci.errors import ModelNotFound
from lading.runtime.client import RunnerClient
from lading.runtime.errors import (
    DoesNotFit,
    LoadTimedOut,
    ModelRefused,
    Quarantined,
    QueueFull,
    RunnerLost,
    ShuttingDown,
    Unsupported,
)
from lading.runtime.grant import Acquire, Grant
from lading.runtime.keeper import Keeper, processor_text

MakeKeeper = Callable[..., Keeper]
PARIS = chat("What is the capital of France?", think=False)
LONG = chat("Count from 1 to 30.", think=False, options=options(num_predict=400, temperature=1.5))


def acquire(keeper: Keeper, model: str = "tiny", **fields: Any) -> Grant:
    return keeper.acquire(Acquire(model=model, **fields))


def run(grant: Grant, request: Any = PARIS) -> str:
    """Send one request over a connection of its own."""

    async def go() -> str:
        client = await RunnerClient.connect(grant.socket_path)
        try:
            return (await ask(client, structs.replace(request, variant=grant.variant))).text
        finally:
            await client.aclose()

    return asyncio.run(go())


def pids(keeper: Keeper) -> list[int]:
    return [model.pid for model in keeper.loaded()]


def wait_until(condition: Callable[[], object]) -> float:
    """Seconds until the condition held; fails the test where it never did."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 60, "it did not come to pass"
        time.sleep(0.02)
    return time.monotonic() - started


# Loading


def test_a_grant_leads_to_a_runner_that_answers(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    grant = acquire(keeper, options={"seed": 7})
    assert "Paris" in run(grant)
    assert (grant.options.temperature, grant.options.seed) == (0.0, 7)
    assert grant.facts.name == "tiny:latest"
    assert grant.facts.full_name == "registry.ollama.ai/library/tiny:latest"
    assert grant.facts.capabilities == ("completion", "tools", "thinking")
    assert grant.load_duration_ns > 10_000_000
    again = acquire(keeper)
    assert again.socket_path == grant.socket_path
    assert again.load_duration_ns < 100_000_000


def test_callers_at_the_same_time_share_one_load(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    with ThreadPoolExecutor(8) as threads:
        grants = list(threads.map(lambda _: acquire(keeper), range(8)))
    assert len({grant.socket_path for grant in grants}) == 1
    assert len(pids(keeper)) == 1


def test_a_runner_outlives_the_thread_that_asked_for_it(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    grants: list[Grant] = []
    thread = threading.Thread(target=lambda: grants.append(acquire(keeper)))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert "Paris" in run(grants[0])


def test_ps_tells_size_context_and_expiry(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, num_parallel=2)
    acquire(keeper, options={"num_ctx": 512}, keep_alive=60.0)
    [model] = keeper.loaded()
    assert (model.name, model.context_length, model.parallel) == ("tiny:latest", 512, 2)
    assert (model.processor, model.size_vram, model.state) == ("100% CPU", 0, "ready")
    assert model.size == sum(model.memory.values()) > 4_000_000
    assert model.expires_at is not None and abs(model.expires_at - time.time() - 60) < 5
    assert psutil.pid_exists(model.pid)


def test_measured_memory_agrees_with_the_estimate(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    for loading in ({"num_ctx": 512}, {"num_ctx": 1024}):
        acquire(keeper, options=loading, verb="load")
        [slot] = keeper._pool.slots()
        assert slot.ready is not None
        memory = slot.ready.memory
        assert slot.need.kv == pytest.approx(memory["kv"], rel=0.10)
        assert slot.need.weights == pytest.approx(memory["weights"], rel=0.10)
        assert slot.need.model == pytest.approx(sum(memory.values()), rel=0.10)


def test_a_draft_model_is_loaded_measured_and_left_out(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    plain_model(shelf.folder / "small.gguf", TINY_CHAT, context=512)
    shelf.create("pair", "FROM tiny\nDRAFT small.gguf\n")
    keeper = keeper_of(shelf, num_parallel=2)
    found = []
    for drafted in (0, 6):
        grant = acquire(keeper, "pair", options={"num_ctx": 1024, "draft_num_predict": drafted})
        assert "Paris" in run(grant)
        [slot] = keeper._pool.slots()
        assert slot.ready is not None
        assert slot.ready.drafts == ("model" if drafted else "")
        memory = slot.ready.memory
        assert slot.need.kv == pytest.approx(memory["kv"], rel=0.10)
        assert slot.need.weights == pytest.approx(memory["weights"], rel=0.10)
        assert slot.need.model == pytest.approx(sum(memory.values()), rel=0.15)
        [model] = keeper.loaded()
        found.append((grant.socket_path, model.size))
    assert found[0][0] != found[1][0], "more was wanted than it could draft"
    assert found[0][1] < found[1][1]
    again = acquire(keeper, "pair", options={"num_ctx": 1024, "draft_num_predict": 2})
    assert again.socket_path == found[1][0]


def test_a_model_that_cannot_draft_says_so(
    shelf: ModelShelf, keeper_of: MakeKeeper, caplog: pytest.LogCaptureFixture
) -> None:
    recurrent_model(shelf.folder / "recurrent.gguf", TINY_CHAT)
    plain_model(shelf.folder / "small.gguf", TINY_CHAT)
    shelf.create("stateful", "FROM recurrent.gguf\nDRAFT small.gguf\n")
    with caplog.at_level("WARNING", logger="lading.keeper"):
        keeper = keeper_of(shelf)
        acquire(keeper, "stateful", verb="load")
        wait_until(lambda: caplog.records)
    assert (
        "stateful:latest: nothing is drafted: no token can be taken back from a recurrent state"
        in caplog.text
    )


# Sharing and options


def test_models_that_differ_in_words_alone_share_a_runner(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    shelf.create("pirate", "FROM tiny\nSYSTEM You are a pirate.\nPARAMETER seed 5\n")
    keeper = keeper_of(shelf)
    plain, pirate = acquire(keeper), acquire(keeper, "pirate")
    assert plain.socket_path == pirate.socket_path
    assert (plain.facts.system, pirate.facts.system) == ("", "You are a pirate.")
    assert (plain.options.seed, pirate.options.seed) == (-1, 5)
    assert {model.name for model in keeper.loaded()} == {"tiny:latest", "pirate:latest"}


def test_a_longer_context_takes_the_place_of_the_runner(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    small = acquire(keeper, options={"num_ctx": 512}, verb="load")
    assert acquire(keeper, options={"num_ctx": 512}, verb="load").socket_path == small.socket_path
    large = acquire(keeper, options={"num_ctx": 1_000_000})
    assert (small.n_ctx, large.n_ctx) == (512, 2048), "never above what the model was trained for"
    assert large.socket_path != small.socket_path
    small_again = acquire(keeper, options={"num_ctx": 512})
    assert (small_again.n_ctx, small_again.socket_path) == (512, large.socket_path), "no loading to and fro"
    assert acquire(keeper).socket_path == large.socket_path, "who asks for nothing takes what there is"
    assert len(pids(keeper)) == 1
    assert "Paris" in run(large)


# Keep-alive


def test_keep_alive_zero_unloads_once_the_request_has_ended(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    grant = acquire(keeper, keep_alive=0.0)
    time.sleep(0.6)
    assert len(pids(keeper)) == 1, "the request that it was granted for is still to come"
    assert "Paris" in run(grant)
    wait_until(lambda: not pids(keeper))
    with pytest.raises(RunnerLost):
        run(grant)


def test_the_timer_starts_when_the_last_request_ends(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, keep_alive_s=1.0)
    run(acquire(keeper), LONG)
    ended = time.monotonic()
    wait_until(lambda: not pids(keeper))
    assert time.monotonic() - ended >= 0.9


def test_an_explicit_keep_alive_stays_for_later_idles(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, keep_alive_s=60.0)
    acquire(keeper, keep_alive=math.inf)
    assert keeper.loaded()[0].expires_at is None
    acquire(keeper)
    assert keeper.loaded()[0].expires_at is None, "a request that says nothing changes nothing"
    acquire(keeper, keep_alive=5.0)
    expires = keeper.loaded()[0].expires_at
    assert expires is not None and expires < time.time() + 10


def test_a_grant_that_is_never_used_leaks_nothing(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, keep_alive_s=0.0, grant_grace_s=1.0)
    acquire(keeper)
    assert wait_until(lambda: not pids(keeper)) > 0.5


def test_a_connection_without_requests_keeps_nothing_loaded(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, keep_alive_s=0.2, grant_grace_s=0.2)

    async def hold() -> None:
        client = await RunnerClient.connect(acquire(keeper).socket_path)
        for _ in range(100):
            if client.is_lost:
                break
            await asyncio.sleep(0.05)
        assert client.is_lost
        await client.aclose()

    asyncio.run(hold())


def test_unload_waits_for_running_requests(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    grant = acquire(keeper)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(run, grant, LONG)
        wait_until(lambda: [m for m in keeper.loaded() if m.running] or answer.done())
        assert keeper.unload("tiny")
        if not answer.done():
            assert keeper.loaded()[0].state == "stopping"
        assert answer.result(100)
    wait_until(lambda: not pids(keeper))
    assert keeper.unload("tiny") is False
    assert keeper.unload("never-was") is False


# Crashes and refusals


def test_a_killed_runner_is_noticed_and_loaded_again(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    first = acquire(keeper)
    os.kill(pids(keeper)[0], signal.SIGKILL)
    wait_until(lambda: not pids(keeper))
    second = acquire(keeper)
    assert second.socket_path != first.socket_path
    assert "Paris" in run(second)


def test_a_stream_whose_runner_dies_ends_with_an_error(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    grant = acquire(keeper)

    async def stream() -> float:
        client = await RunnerClient.connect(grant.socket_path)
        killed = math.inf
        try:
            with pytest.raises(RunnerLost):
                async for _ in client.generate(LONG):
                    if math.isinf(killed):
                        os.kill(pids(keeper)[0], signal.SIGSEGV)
                        killed = time.monotonic()
            return time.monotonic() - killed
        finally:
            await client.aclose()

    assert asyncio.run(stream()) < 10


def test_a_crash_loop_is_broken(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    for _ in range(3):
        acquire(keeper)
        os.kill(pids(keeper)[0], signal.SIGABRT)
        wait_until(lambda: not pids(keeper))
    with pytest.raises(Quarantined, match=r"3 times within a minute \(killed by SIGABRT\)"):
        acquire(keeper)


def test_last_words_have_no_paths_and_no_addresses(
    shelf: ModelShelf, keeper_of: MakeKeeper, tmp_path: Path
) -> None:
    # As when llama.cpp aborts on a model: what it says, its stack, and Python's.
    said = b"/src/llama.cpp/ggml/src/ggml.c:1: GGML_ASSERT(x) failed\n" + b"/lib/x.so(+0x2b) [0x7f00]\n" * 30
    (tmp_path / "sitecustomize.py").write_text(
        f"import faulthandler, os, sys\n"
        f"if sys.orig_argv[-1] == 'lading.runtime.runner':\n"
        f"    faulthandler.enable()\n"
        f"    os.write(2, {said!r})\n"
        f"    os.abort()\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    keeper = keeper_of(shelf, environment=(("PYTHONPATH", path),))
    with pytest.raises(RunnerLost) as caught:
        acquire(keeper)
    assert caught.value.message == (
        "running tiny:latest: model runner has unexpectedly stopped (killed by SIGABRT): "
        "ggml.c:1: GGML_ASSERT(x) failed"
    )


def test_a_hung_runner_is_killed(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, hung_after_s=0.5)
    acquire(keeper)
    [pid] = pids(keeper)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: not psutil.pid_exists(pid) and pid not in pids(keeper))
    assert "Paris" in run(acquire(keeper))


def test_what_llama_cpp_refuses_is_reported_with_its_reason(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    broken = shelf.variant(tiny_chat, "broken.gguf", b"blk.0.attn_q.weight", b"blk.0.attn_X.weight")
    shelf.create("broken", f"FROM {broken}\n")
    keeper = keeper_of(shelf)
    with pytest.raises(ModelRefused) as caught:
        acquire(keeper, "broken")
    assert caught.value.message == (
        "loading broken:latest: llama.cpp refuses the file: "
        "check_tensor_dims: tensor 'blk.0.attn_q.weight' not found"
    )
    wait_until(lambda: not pids(keeper))
    for _ in range(3):  # refusals are not crashes
        with pytest.raises(ModelRefused):
            acquire(keeper, "broken")


def test_a_load_without_progress_is_given_up(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, load_timeout_s=0.01)
    with pytest.raises(LoadTimedOut, match=r"loading tiny:latest: not ready after 0 s"):
        acquire(keeper)
    wait_until(lambda: not pids(keeper))


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        pytest.param(
            {"model": "absent"}, ModelNotFound, "model 'absent:latest' not found", id="no such model"
        ),
        pytest.param(
            {"options": {"num_ctx": "big"}},
            BadParameter,
            'option "num_ctx" must be of type integer',
            id="option of the wrong type",
        ),
        pytest.param(
            {"needs": ("completion", "vision")},
            Unsupported,
            "registry.ollama.ai/library/tiny:latest does not support vision",
            id="no vision",
        ),
        pytest.param(
            {"needs": ("embedding",), "verb": "embed"},
            Unsupported,
            '"tiny" does not support embeddings',
            id="no embeddings",
        ),
    ],
)
def test_refused_before_anything_is_loaded(
    shelf: ModelShelf, keeper_of: MakeKeeper, fields: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    keeper = keeper_of(shelf)
    with pytest.raises(error) as caught:
        acquire(keeper, **({"model": "tiny"} | fields))
    assert str(caught.value.args[0]) == sentence
    assert keeper.loaded() == []


def test_more_waiting_requests_than_allowed_are_refused(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf, max_queue=2)
    with ThreadPoolExecutor(12) as threads:
        outcomes = [threads.submit(acquire, keeper) for _ in range(12)]
        errors = [outcome.exception() for outcome in outcomes]
    refused = [error for error in errors if error is not None]
    assert refused and all(isinstance(error, QueueFull) for error in refused)
    assert len(refused) <= 10


# Memory


def budget_for(keeper: Keeper, models: float) -> int:
    """Bytes that fit so many models of the size of ``tiny``."""
    [slot] = keeper._pool.slots()
    return int(slot.need.wanted * models)


def three_models(shelf: ModelShelf, tiny_chat: Path) -> None:
    """Models a, b and c, each with weights of its own."""
    for name in ("a", "b", "c"):
        path = shelf.variant(tiny_chat, f"{name}.gguf", b"general.name", b"general.nam" + name.encode())
        shelf.create(name, f"FROM {path}\nPARAMETER num_ctx 256\n")


def test_what_cannot_fit_is_refused_with_figures_and_evicts_nothing(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    three_models(shelf, tiny_chat)
    probe = keeper_of(shelf, num_parallel=1)
    acquire(probe, "a")
    keeper = keeper_of(shelf, num_parallel=1, memory_budget=budget_for(probe, 1.02))
    acquire(keeper, "a")
    with pytest.raises(DoesNotFit, match=r"it needs .* of memory \(weights .*\), .* is available") as caught:
        acquire(keeper, "b", options={"num_ctx": 1024, "num_batch": 1024})
    assert caught.value.hint
    assert [model.name for model in keeper.loaded()] == ["a:latest"]


def test_the_idle_model_with_the_shortest_keep_alive_makes_room(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    three_models(shelf, tiny_chat)
    probe = keeper_of(shelf, num_parallel=1)
    acquire(probe, "a")
    keeper = keeper_of(shelf, num_parallel=1, memory_budget=budget_for(probe, 2.2), grant_grace_s=0.1)
    run(acquire(keeper, "a", keep_alive=50.0))
    run(acquire(keeper, "b", keep_alive=20.0))
    time.sleep(0.5)  # both are idle now, b for the shorter time
    run(acquire(keeper, "c", keep_alive=math.inf))
    assert sorted(model.name for model in keeper.loaded()) == ["a:latest", "c:latest"]


def test_a_model_at_work_is_not_stopped_to_make_room(
    shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path
) -> None:
    three_models(shelf, tiny_chat)
    probe = keeper_of(shelf, num_parallel=1)
    acquire(probe, "a")
    keeper = keeper_of(shelf, num_parallel=1, memory_budget=budget_for(probe, 1.2), grant_grace_s=0.1)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(run, acquire(keeper, "a"), LONG)
        time.sleep(0.1)
        grant = acquire(keeper, "b")
        assert answer.done() or answer.result(60), "b had to wait for a's answer"
    assert "Paris" in run(grant)


def test_max_loaded_models_is_kept(shelf: ModelShelf, keeper_of: MakeKeeper, tiny_chat: Path) -> None:
    three_models(shelf, tiny_chat)
    keeper = keeper_of(shelf, max_loaded_models=1, grant_grace_s=0.1)
    for name in ("a", "b"):
        run(acquire(keeper, name))
    assert [model.name for model in keeper.loaded()] == ["b:latest"]


def test_processor_text() -> None:
    assert [processor_text(100, vram) for vram in (0, 100, 59)] == ["100% CPU", "100% GPU", "41%/59% CPU/GPU"]


def test_weights_that_are_not_mapped_are_not_shared(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    shelf.create("read", "FROM tiny\nPARAMETER use_mmap false\n")
    keeper = keeper_of(shelf)
    acquire(keeper, "read", verb="load")
    [slot] = keeper._pool.slots()
    assert slot.ready and slot.ready.memory["weights"] > 4_000_000
    assert slot.shareable == 0


# The end


def test_close_stops_everything_and_leaves_nothing(
    shelf: ModelShelf, keeper_of: MakeKeeper, runtime_dir: Path
) -> None:
    keeper = keeper_of(shelf)
    grant = acquire(keeper)
    [pid] = pids(keeper)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(run, grant, LONG)
        time.sleep(0.1)
        started = time.monotonic()
        keeper.close()
        assert time.monotonic() - started < 60
        assert answer.exception(60) is None or isinstance(answer.exception(), RunnerLost | ShuttingDown)
    assert not psutil.pid_exists(pid)
    assert [path.name for path in runtime_dir.iterdir()] == ["lock"]
    with pytest.raises(ShuttingDown):
        acquire(keeper)
    keeper.close()


def test_waiting_callers_are_told_that_the_keeper_closes(shelf: ModelShelf, keeper_of: MakeKeeper) -> None:
    keeper = keeper_of(shelf)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(acquire, keeper) for _ in range(4)]
        time.sleep(0.1)
        keeper.close()
        for call in waiting:
            assert call.exception(60) is None or isinstance(call.exception(), ShuttingDown)


def test_no_runner_outlives_a_killed_keeper(shelf: ModelShelf, runtime_dir: Path) -> None:
    code = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from lading.runtime.grant import Acquire
        from lading.runtime.keeper import Keeper
        from lading.runtime.settings import RuntimeSettings
        keeper = Keeper(Path({str(shelf.root)!r}), RuntimeSettings(runtime_dir=Path({str(runtime_dir)!r})))
        keeper.acquire(Acquire(model="tiny"))
        print(keeper.loaded()[0].pid, flush=True)
        time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    runner = int(process.stdout.readline())
    family = [runner, *(child.pid for child in psutil.Process(runner).children(recursive=True))]
    process.kill()
    process.communicate()
    wait_until(lambda: not any(_alive(pid) for pid in family))
    assert len(list(runtime_dir.glob("keeper-*"))) == 1
    Keeper(shelf.root, _settings(runtime_dir)).close()
    assert not list(runtime_dir.glob("keeper-*")), "the next keeper cleans up"


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _settings(runtime_dir: Path) -> Any:
    from lading.runtime.settings import RuntimeSettings

    return RuntimeSettings(runtime_dir=runtime_dir)
