"""A runner's life: how it starts, fails to start, is stopped, dies, and what clients can do to it."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command import TINY_CHAT
from live_runner import GREEDY, LiveRunner, ask, ask_all, chat, live_runner, options

from lading.runtime import frame
from lading.runtime.client import RunnerClient
from lading.runtime.errors import QueueFull, RunnerLost, ShuttingDown
from lading.runtime.protocol import Cancel, End, Generate, LoadFailed, Ready, Started, Status, Text


def endless() -> Generate:
    """A request that goes on for long: whatever the model would say, it says one token again and again."""
    again = ((300, 100.0),)
    return chat("Count from 1 to 30.", options=options(num_predict=20_000, logit_bias=again))


def eventually(condition: Callable[[], bool], what: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)


async def idle(client: RunnerClient, seconds: float = 3.0) -> None:
    """Wait until nothing runs or waits any more."""
    deadline = time.monotonic() + seconds
    while True:
        status = await client.status()
        if not status.running and not status.queued:
            return
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.01)


# Start


def test_ready_tells_the_facts() -> None:
    with live_runner(TINY_CHAT, n_parallel=3, n_ctx=300) as runner:
        ready = runner.ready
        assert isinstance(ready, Ready)
        assert (ready.n_ctx, ready.n_parallel, ready.template) == (300, 3, "jinja")
        assert {"completion", "tools", "thinking"} <= set(ready.capabilities)
        assert ready.architecture == "llama"
        assert 0.9 * TINY_CHAT.stat().st_size < ready.model_size < TINY_CHAT.stat().st_size
        assert {"weights", "kv", "compute"} <= set(ready.memory)
        assert {"pdeathsig", "no_new_privs", "rlimits"} <= set(ready.sandbox)
        assert ready.load_duration_ns > 0
        assert runner.progress and runner.progress == sorted(runner.progress)
        assert stat.S_IMODE(runner.socket.stat().st_mode) == 0o600


def test_the_context_is_never_above_the_trained_one() -> None:
    with live_runner(TINY_CHAT, n_ctx=1_000_000) as runner:
        assert runner.ready and runner.ready.n_ctx == runner.ready.n_ctx_train


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"not a model", id="not GGUF"),
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:4] + b"\xff" + data[5:], id="unknown version"),
        pytest.param(lambda data: b"", id="empty"),
    ],
)
def test_a_model_that_llama_cpp_refuses_is_reported(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(damage(TINY_CHAT.read_bytes()))
    with live_runner(path) as runner:
        assert runner.failure is not None
        assert runner.failure.code == "bad_model"
        assert str(path) in runner.failure.message
        assert runner.process.wait(5) == 3


def test_a_missing_model_is_reported(tmp_path: Path) -> None:
    with live_runner(tmp_path / "nothing.gguf") as runner:
        assert runner.failure is not None and runner.failure.code == "bad_model"


def test_nonsense_instead_of_a_spec_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lading.runtime.runner"],
        input=b"\x00\x00\x00\x02{}",
        capture_output=True,
        timeout=20,
    )
    assert done.returncode == 64
    assert isinstance(frame.unpack(frame.STATUS, done.stdout[4:]), LoadFailed)


# End


@pytest.mark.parametrize("how", ["SIGTERM", "stdin"])
def test_it_stops_when_told_to_and_says_so(how: str) -> None:
    with live_runner(TINY_CHAT) as runner:

        async def body() -> None:
            async with runner.client() as client:
                stream = client.generate(endless())
                async for event in stream:
                    if isinstance(event, Text):
                        break
                if how == "SIGTERM":
                    runner.process.send_signal(signal.SIGTERM)
                else:
                    runner.control.close()
                with pytest.raises((ShuttingDown, RunnerLost)):
                    async for _ in stream:
                        pass

        asyncio.run(body())
        assert runner.process.wait(5) == 0
        assert not runner.socket.exists()


def test_a_killed_runner_is_noticed_at_once() -> None:
    with live_runner(TINY_CHAT) as runner:

        async def body() -> None:
            async with runner.client() as client:
                stream = client.generate(endless())
                async for event in stream:
                    if isinstance(event, Text):
                        runner.process.kill()
                        break
                started = time.monotonic()
                with pytest.raises(RunnerLost):
                    async for _ in stream:
                        pass
                assert time.monotonic() - started < 1.0
                assert client.is_lost
                with pytest.raises(RunnerLost):
                    await client.status()
            runner.process.wait(5)
            with pytest.raises(RunnerLost):
                await RunnerClient.connect(runner.socket)

        asyncio.run(body())


PARENT = """
import os, sys, time
sys.path[:0] = {path!r}
from pathlib import Path
from live_runner import live_runner
with live_runner(Path({model!r})) as runner:
    print(runner.process.pid, flush=True)
    time.sleep(60)
"""


def test_nothing_survives_a_killed_parent() -> None:
    code = PARENT.format(path=sys.path, model=str(TINY_CHAT))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout
    runner = psutil.Process(int(parent.stdout.readline()))
    family = [runner, *runner.children(recursive=True)]
    assert len(family) == 3  # with the renderer's guard and worker
    parent.kill()
    parent.communicate()
    _, alive = psutil.wait_procs(family, timeout=3)
    assert not alive


def test_an_orphan_does_not_start() -> None:
    with live_runner(TINY_CHAT) as runner:
        assert runner.ready
        spec = frame.pack(
            frame.SPEC.decode(
                b'{"type":"load","socket_path":"/nowhere","weights":["/nothing"],"parent_pid":1}'
            )
        )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "lading.runtime.runner"], input=spec, capture_output=True, timeout=20
    )
    assert done.returncode == 72


# Cancelling


def test_a_cancelled_request_ends_with_what_it_had() -> None:
    with live_runner(TINY_CHAT) as runner, socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(runner.socket))
        stream = raw.makefile("rb")
        request = endless()
        raw.sendall(frame.pack([Generate(id=9, messages=request.messages, options=request.options)]))
        events: list[object] = []
        while not isinstance(events[-1] if events else None, End):
            body = frame.read_frame(stream)
            assert body is not None
            replies = frame.unpack(frame.REPLIES, body)
            events += replies
            if len(events) == 5:
                raw.sendall(frame.pack([Cancel(id=9), Cancel(id=12345)]))
        end = events[-1]
        assert isinstance(end, End)
        assert end.reason == "cancelled"
        assert 3 < end.usage.eval_tokens < 200
        stream.close()


def test_a_lost_connection_cancels_running_and_waiting_requests() -> None:
    with live_runner(TINY_CHAT, n_parallel=1) as runner:

        async def body() -> None:
            client = await RunnerClient.connect(runner.socket)
            tasks = [asyncio.create_task(ask(client, endless())) for _ in range(5)]
            async with runner.client() as other:
                while (await other.status()).queued < 4:
                    await asyncio.sleep(0.01)
                await client.aclose()
                await asyncio.gather(*tasks, return_exceptions=True)
                await idle(other)
                status = await other.status()
                assert status.connections == 1
                answer = await ask(other, chat("What is the capital of France?"))
                assert "Paris" in answer.text

        asyncio.run(body())


def test_a_waiting_request_is_dropped_when_cancelled() -> None:
    with live_runner(TINY_CHAT, n_parallel=1) as runner:

        async def body() -> None:
            async with runner.client() as client:
                running = asyncio.create_task(ask(client, endless()))
                await asyncio.sleep(0.1)
                waiting = asyncio.create_task(ask(client, chat("Hi")))
                await asyncio.sleep(0.1)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await asyncio.sleep(0.1)
                status = await client.status()
                assert (status.running, status.queued) == (1, 0)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await idle(client)

        asyncio.run(body())


# Many


def test_more_requests_than_the_queue_holds_are_refused_at_once() -> None:
    with live_runner(TINY_CHAT, n_parallel=1, max_queue=2) as runner:

        async def body() -> None:
            async with runner.client() as client:
                blocker = asyncio.create_task(ask(client, endless()))
                while not (await client.status()).running:
                    await asyncio.sleep(0.01)
                tasks = [asyncio.create_task(ask(client, chat("Hi"))) for _ in range(6)]
                await asyncio.sleep(0.3)
                refused = [task for task in tasks if task.done()]
                assert len(refused) == 4
                for task in refused:
                    with pytest.raises(QueueFull):
                        task.result()
                blocker.cancel()
                answered = await asyncio.gather(*(task for task in tasks if task not in refused))
                assert all(answer.end.reason in ("stop", "length") for answer in answered)
                await asyncio.gather(blocker, return_exceptions=True)

        asyncio.run(body())


def test_first_come_first_served() -> None:
    with live_runner(TINY_CHAT, n_parallel=1) as runner:

        async def body() -> list[int]:
            order: list[int] = []

            async def note(client: RunnerClient, number: int) -> None:
                async for event in client.generate(chat("Hi", options=options(num_predict=2))):
                    if isinstance(event, Started):
                        order.append(number)

            async with runner.client() as client:
                blocker = asyncio.create_task(ask(client, endless()))
                while not (await client.status()).running:
                    await asyncio.sleep(0.01)
                tasks = []
                for number in range(6):
                    tasks.append(asyncio.create_task(note(client, number)))
                    await asyncio.sleep(0.03)
                blocker.cancel()
                await asyncio.gather(blocker, *tasks, return_exceptions=True)
            return order

        assert asyncio.run(body()) == [0, 1, 2, 3, 4, 5]


def test_a_long_prompt_does_not_stall_running_streams() -> None:
    with live_runner(TINY_CHAT, n_parallel=2, n_ctx=2048, n_batch=64) as runner:

        async def body() -> None:
            async with runner.client() as client:
                stream = client.generate(endless())
                seen = 0
                long = chat("word " * 1500, options=options(num_predict=1))
                started: asyncio.Task[object] | None = None
                while_reading = 0
                async for event in stream:
                    seen += isinstance(event, Text)
                    if seen == 5 and started is None:
                        started = asyncio.create_task(ask(client, long))
                    if started and not started.done():
                        while_reading += isinstance(event, Text)
                    if started and started.done():
                        break
                await stream.aclose()
                # 1,500 tokens in chunks of 64 are 24 steps, and each of them gave the stream a token.
                assert while_reading >= 15

        asyncio.run(body())


def test_many_clients_at_once() -> None:
    with live_runner(TINY_CHAT, n_parallel=8, n_ctx=256) as runner:

        async def body() -> None:
            clients = [await RunnerClient.connect(runner.socket) for _ in range(10)]
            question = "What is the capital of France?"
            answers = await asyncio.gather(*(ask_all(c, [chat(question)] * 5) for c in clients))
            assert {answer.text for group in answers for answer in group} == {
                (await ask(clients[0], chat(question))).text
            }
            for client in clients:
                await client.aclose()

        asyncio.run(body())


# Bad clients


def talk(runner: LiveRunner, data: bytes) -> bytes:
    """What the runner answers to bytes, until it hangs up or says nothing for a second."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(1.0)
        raw.connect(str(runner.socket))
        answer = b""
        try:
            raw.sendall(data)
            while part := raw.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        return answer


@pytest.fixture(scope="module")
def runner() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT, n_parallel=2, n_ctx=512) as runner:
        yield runner


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\xff\xff\xff\xff", id="huge length"),
        pytest.param(b"\x00\x00\x00\x05[{]", id="cut short"),
        pytest.param(b"\x00\x00\x00\x02{}", id="not a list"),
        pytest.param(frame.pack([{"type": "exec", "id": 1}]), id="unknown request"),
        pytest.param(frame.pack([{"type": "generate", "id": "x"}]), id="wrong type"),
        pytest.param(b"\x00\x00\xff\xff" + b"[" * 65535, id="deep nesting"),
        pytest.param(frame.pack([Status(id=1), Status(id=1)]), id="id in use"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_garbage_harms_nobody_else(runner: LiveRunner, data: bytes) -> None:
    async def body() -> None:
        async with runner.client() as client:
            other = asyncio.create_task(ask(client, chat("What is the capital of France?")))
            await asyncio.to_thread(talk, runner, data)
            assert "Paris" in (await other).text

    asyncio.run(body())


def test_a_client_that_does_not_read_is_hung_up_on(runner: LiveRunner) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(runner.socket))
        text = frame.pack([{"type": "tokenize", "id": 1, "text": "a " * 1_000_000}])
        raw.settimeout(1.0)
        with pytest.raises((ConnectionResetError, BrokenPipeError, TimeoutError)):
            for number in range(2, 200):
                raw.sendall(text.replace(b'"id":1,', b'"id":%d,' % number))
                time.sleep(0.01)

    async def body() -> None:
        async with runner.client() as client:
            assert "Paris" in (await ask(client, chat("What is the capital of France?"))).text

    asyncio.run(body())


def test_the_socket_is_private(runner: LiveRunner) -> None:
    assert stat.S_IMODE(runner.socket.stat().st_mode) & 0o077 == 0


def test_counters_count(runner: LiveRunner) -> None:
    async def body() -> None:
        async with runner.client() as client:
            await idle(client)
            before = await client.status()
            answer = await ask(client, chat("What is the capital of France?", options=GREEDY))
            after = await client.status()
            usage = answer.end.usage
            assert after.requests == before.requests + 1
            assert after.prompt_tokens == before.prompt_tokens + usage.prompt_tokens
            assert after.cached_tokens == before.cached_tokens + usage.cached_tokens
            assert after.eval_tokens == before.eval_tokens + usage.eval_tokens
            assert 0 < after.idle_ns < 10**9
            assert after.memory_rss > 10 * 2**20

    asyncio.run(body())


def test_a_storm_of_requests_and_cancellations_leaves_no_trace(runner: LiveRunner) -> None:
    questions = [f"What is the capital of {country}?" for country in ("France", "Italy", "Japan", "Peru")]

    async def one(client: RunnerClient, number: int, expected: dict[str, str]) -> None:
        question = questions[number % len(questions)]
        stream = client.generate(chat(question))
        text = ""
        async for event in stream:
            text += event.text if isinstance(event, Text) else ""
            if number % 3 == 1 and len(text) > number % 20:
                await stream.aclose()
                return
        assert text == expected[question]

    async def body() -> None:
        async with runner.client() as client, runner.client() as other:
            await idle(client)
            expected = {question: (await ask(client, chat(question))).text for question in questions}
            storm = [asyncio.create_task(one((client, other)[n % 2], n, expected)) for n in range(150)]
            await asyncio.sleep(0.05)
            for task in storm[2::7]:
                task.cancel()
            results = await asyncio.gather(*storm, return_exceptions=True)
            assert [r for r in results if isinstance(r, Exception)] == []
            await idle(client)
            for question in questions:
                assert (await ask(other, chat(question))).text == expected[question]

    asyncio.run(body())
