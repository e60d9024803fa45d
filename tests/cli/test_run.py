"""`lading run`, `serve`, `ps`, `stop`: one question, a pipe, a conversation; with and without a server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command import LADING, TINY_CHAT, Lading

MODELFILE = f"FROM {TINY_CHAT}\nPARAMETER temperature 0\n"
PARIS = "The capital of France is Paris."


@pytest.fixture
def model(lading: Lading) -> str:
    lading.ok("create", "chat", "-f", "-", "--quiet", stdin=MODELFILE)
    return "chat"


def test_one_question(lading: Lading, model: str) -> None:
    assert lading.ok("run", model, "What is the capital of France?") == f"{PARIS}\n"
    assert lading.ok("run", model, "What", "is", "the", "capital", "of", "France?") == f"{PARIS}\n"


def test_a_pipe_gets_the_answer_and_nothing_else(lading: Lading, model: str) -> None:
    done = lading.run("run", model, "--think", "true", stdin="What is the capital of France?\n")
    assert (done.code, done.out, done.err) == (0, f"{PARIS}\n", "")


def test_options_formats_and_figures(lading: Lading, model: str) -> None:
    pirate = lading.ok("run", model, "--system", "You are a pirate.", "What is the capital of France?")
    assert pirate.startswith("Arr!") and "Paris" in pirate
    assert lading.ok("run", model, "-o", "num_predict=2", "--think=false", "Count from 1 to 30.") == "1,\n"
    schema = {
        "type": "object",
        "properties": {"capital": {"enum": ["Paris", "Rome"]}},
        "required": ["capital"],
    }
    answer = lading.ok("run", model, "--format", json.dumps(schema), "Give the capital of France as JSON.")
    assert json.loads(answer)["capital"] == "Paris"
    done = lading.run("run", model, "--verbose", "What is the capital of France?")
    assert done.out == f"{PARIS}\n"
    assert re.search(r"^eval count: +\d+ token", done.err, re.MULTILINE)


def test_what_is_no_prompt(lading: Lading, model: str) -> None:
    lading.fails(2, "run", model)
    lading.fails(2, "run", model, stdin=b"\xff\xfe\x00")


def test_a_server_answers_where_there_is_one(
    lading: Lading, model: str, free_port: Callable[[], int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    client = Lading(lading.home.parent / "empty", {"LADING_HOST": address})
    with lading.background("serve", "--host", address, ready=f"http://{address}/readyz"):
        assert client.ok("run", model, "What is the capital of France?") == f"{PARIS}\n"
        (row,) = json.loads(client.ok("ps", "--format", "json"))
        assert (row["name"], row["processor"]) == ("chat:latest", "100% CPU")
        assert re.split(r"\s{4,}", client.ok("ps").splitlines()[0]) == [
            "NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL",
        ]  # fmt: skip
        client.ok("stop", model)
        deadline = time.monotonic() + 10
        while json.loads(client.ok("ps", "--json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert json.loads(client.ok("ps", "--json")) == []
        assert "nope" in client.fails(3, "run", "nope", "hello")
        assert "nope" in client.fails(3, "stop", "nope")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command: Lading, *arguments: str) -> None:
        self._screen, inner = pty.openpty()
        self.process = subprocess.Popen(
            [LADING, *arguments],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env={**command.environment, "TERM": "dumb", "COLUMNS": "100"},
            start_new_session=True,
        )
        os.close(inner)
        self.shown = ""

    def send(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, timeout_s: float = 30) -> str:
        """What was shown up to ``text``, which must come."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            try:
                self.shown += os.read(self._screen, 65536).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended before {text!r}: {self.shown!r}") from None
        before, _, self.shown = self.shown.partition(text)
        return before

    def close(self) -> int:
        code = self.process.wait(20)
        os.close(self._screen)
        return code


@pytest.fixture
def terminal(lading: Lading, model: str) -> Iterator[Terminal]:
    shown = Terminal(lading, "run", model, "--think", "false")
    shown.wait_for(">>> ")
    yield shown
    if shown.process.poll() is None:
        shown.process.kill()
        shown.close()


def test_a_conversation_remembers(terminal: Terminal, lading: Lading) -> None:
    terminal.send("My name is Ada.\n")
    terminal.wait_for("Ada!")
    terminal.wait_for(">>> ")
    terminal.send("What is my name?\n")
    terminal.wait_for("Your name is Ada.")
    terminal.wait_for(">>> ")
    terminal.send("/clear\n")
    terminal.wait_for("Cleared session context")
    terminal.send("/set parameter temperature warm\n")
    terminal.wait_for("Error: ")
    terminal.send("/show parameters\n")
    terminal.wait_for("temperature")
    terminal.send("/nonsense\n")
    terminal.wait_for("Unknown command '/nonsense'")
    terminal.send("/bye\n")
    assert terminal.close() == 0
    history = lading.home.parent / "user" / ".local" / "state" / "lading" / "history"
    assert "What is my name?" in history.read_text("utf-8")
    assert history.stat().st_mode & 0o077 == 0


def test_several_lines_and_the_end_of_input(terminal: Terminal) -> None:
    terminal.send('"""What is the capital\n')
    terminal.wait_for("... ")
    terminal.send('of France?"""\n')
    terminal.wait_for("Paris")
    terminal.wait_for(">>> ")
    terminal.send("\x04")
    assert terminal.close() == 0


def test_ctrl_c_ends_the_answer_and_not_the_conversation(lading: Lading, model: str) -> None:
    lading.ok("create", "endless", "-f", "-", "--quiet", stdin=f"FROM {model}\nPARAMETER num_predict 20000\n")
    terminal = Terminal(lading, "run", "endless", "--think", "false")
    terminal.wait_for(">>> ")
    terminal.send("Count from 1 to 100.\n")
    terminal.wait_for("1, 2")
    os.killpg(terminal.process.pid, signal.SIGINT)
    terminal.wait_for(">>> ")
    terminal.send("What is the capital of France?\n")
    terminal.wait_for("Paris")
    terminal.wait_for(">>> ")
    children = psutil.Process(terminal.process.pid).children(recursive=True)
    assert children  # the model is still loaded
    terminal.send("/bye\n")
    assert terminal.close() == 0
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.parametrize("delay_s", [0.2, 0.6, 1.2, 2.0])
def test_ctrl_c_at_any_moment_of_a_question(
    lading: Lading, model: str, delay_s: float, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [LADING, "run", model, "Count from 1 to 100."],
        env=lading.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    time.sleep(delay_s)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    _out, error = process.communicate(timeout=30)
    assert process.returncode in (0, 130, -signal.SIGINT), error
    assert "lading" not in error or "Traceback" not in error, error
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_runner_that_dies_is_told_in_one_sentence(lading: Lading, model: str) -> None:
    process = subprocess.Popen(
        [LADING, "run", model, "Count from 1 to 100."],
        env=lading.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.read(1)  # it has begun to answer, so that nothing is tried again
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    _out, error = process.communicate(timeout=30)
    assert process.returncode == 1
    assert error.decode().splitlines() == [
        "Error: running chat:latest: model runner has unexpectedly stopped, this may be due to resource "
        "limitations or an internal error, check the server's log for details",
        "hint: the next request loads the model again",
    ]
