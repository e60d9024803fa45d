"""One runner process: its start, its end, and what is said when either fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lading.runtime.errors import RunnerFault, RunnerLost, ShuttingDown
from lading.runtime.protocol import LoadSpec
from lading.runtime.runner_process import RunnerProcess, StatusProbe


class Started:
    """A runner of the tiny model, and whether its end was reported."""

    def __init__(self, model: Path, folder: Path, **environment: str) -> None:
        self.ended = threading.Event()
        spec = LoadSpec(
            socket_path=str(folder / "s"), weights=(str(model),), parent_pid=os.getpid(), n_ctx=256
        )
        self.process = RunnerProcess(
            "tiny", spec, on_exit=lambda _: self.ended.set(), environment=environment or None
        )


@pytest.fixture
def started(tiny_chat: Path, runtime_dir: Path) -> Iterator[Started]:
    runner = Started(tiny_chat, runtime_dir)
    runner.process.start()
    yield runner
    runner.process.kill()
    runner.process.join(5)


def test_from_start_to_stop(started: Started) -> None:
    ready = started.process.wait_ready(30)
    assert ready.pid == started.process.pid and ready.n_ctx == 256
    probe = StatusProbe(started.process.spec.socket_path, timeout_s=5)
    assert (probe.ask().running, probe.ask().requests) == (0, 0)
    assert not started.ended.is_set()
    begun = time.monotonic()
    started.process.stop()
    started.process.stop()
    assert started.process.join(5) and time.monotonic() - begun < 3
    assert started.ended.is_set() and not psutil.pid_exists(ready.pid)
    assert not Path(started.process.spec.socket_path).exists()
    assert isinstance(started.process.lost(), ShuttingDown)
    with pytest.raises(RunnerLost):
        probe.ask()


def test_nothing_of_our_environment_reaches_it(
    tiny_chat: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    runner = Started(tiny_chat, runtime_dir, EXTRA="1")
    runner.process.start()
    try:
        runner.process.wait_ready(30)
        seen = psutil.Process(runner.process.pid).environ()
        assert seen["EXTRA"] == "1"
        assert not {"SECRET_TOKEN", "HOME", "PATH"} & set(seen)
        assert "hunter2" not in " ".join(psutil.Process(runner.process.pid).cmdline())
    finally:
        runner.process.kill()
        assert runner.process.join(5)


def test_a_stop_before_it_is_ready(started: Started) -> None:
    started.process.stop()
    with pytest.raises((ShuttingDown, RunnerLost)):
        started.process.wait_ready(30)
    assert started.process.join(5) and started.ended.is_set()


def test_a_crash_says_how_and_keeps_the_last_words(tiny_chat: Path, runtime_dir: Path) -> None:
    runner = Started(tiny_chat, runtime_dir, PYTHONMALLOC="nonsense")
    runner.process.start()
    with pytest.raises(RunnerLost, match=r"unexpectedly stopped \(it exited with status 1\): .+") as caught:
        runner.process.wait_ready(30)
    assert caught.value.hint == "the next request loads the model again"
    assert runner.process.join(5)


def test_no_program_to_start(tiny_chat: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    runner = Started(tiny_chat, runtime_dir)
    runner.process.start()
    with pytest.raises(RunnerFault, match="starting the runner of tiny: No such file or directory"):
        runner.process.wait_ready(5)
    assert runner.ended.wait(5)
