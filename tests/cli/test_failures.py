"""What goes wrong, and what is said: one sentence, the right exit code, nothing half-written."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command import LADING, TINY_CHAT, Lading


def _nothing_half_written(lading: Lading) -> None:
    """No tag, and whatever bytes are left go with gc."""
    assert lading.ok("ls", "-q") == ""
    lading.ok("gc")
    assert lading.ok("fsck", "-q").strip().endswith("0 problems")


def test_every_mistake_of_a_modelfile_is_reported_at_once(lading: Lading) -> None:
    text = "FORM x\nPARAMETER temprature 1\nPARAMETER num_ctx many\nMESSAGE robot hi\n"
    error = lading.fails(1, "create", "m", "-f", "-", stdin=text)
    for line in (1, 2, 3, 4):
        assert f":{line}:" in error, error
    assert "^" in error
    assert "temperature" in error  # what was probably meant
    _nothing_half_written(lading)


@pytest.mark.parametrize(
    ("modelfile", "code", "words"),
    [
        ("FROM ./missing.gguf\n", 1, "file not found: "),
        ("FROM ./text.gguf\n", 1, "GGUF"),
        ("FROM ./short.gguf\n", 1, "short.gguf"),
        ("FROM ./empty.gguf\n", 1, "empty.gguf"),
        ("SYSTEM hi\n", 1, "FROM"),
    ],
    ids=["missing", "not-gguf", "truncated", "empty", "no-from"],
)
def test_weights_that_cannot_be_used(
    lading: Lading, tmp_path: Path, modelfile: str, code: int, words: str
) -> None:
    (tmp_path / "text.gguf").write_text("this is not a model\n" * 100, "utf-8")
    (tmp_path / "short.gguf").write_bytes(TINY_CHAT.read_bytes()[:100_000])
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "Modelfile").write_text(modelfile, "utf-8")
    error = lading.fails(code, "create", "m", "-f", tmp_path / "Modelfile")
    assert words in error, error
    _nothing_half_written(lading)


def test_a_missing_modelfile_is_named(lading: Lading, tmp_path: Path) -> None:
    error = lading.fails(3, "create", "m", "-f", tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in error and "hint: " in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "nope"],
        ["inspect", "nope"],
        ["history", "nope"],
        ["cp", "nope", "x"],
        ["rm", "nope"],
        ["push", "127.0.0.1:9/nope"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_unknown_model(lading: Lading, arguments: list[str]) -> None:
    error = lading.fails(3, *arguments)
    assert "nope" in error


@pytest.mark.parametrize("name", ["", "../x", "a b", "UPPER CASE", "x@sha256:12", "/abs", "x:"], ids=repr)
def test_a_name_that_is_none(lading: Lading, name: str) -> None:
    lading.fails(1, "show", name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["ls", "--nope"],
        ["create"],
        ["ls", "--format", "{{.nope}}"],
        ["run", "x", "y", "--think", "hard"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(lading: Lading, arguments: list[str]) -> None:
    lading.fails(2, *arguments)


def test_no_server(lading: Lading) -> None:
    assert "`lading serve` starts one" in lading.fails(5, "ps")


def test_an_unreachable_registry(lading: Lading, free_port: Callable[[], int]) -> None:
    name = f"127.0.0.1:{free_port()}/team/model"
    started = time.monotonic()
    error = lading.fails(5, "pull", name)
    assert name.split("/")[0] in error
    assert time.monotonic() - started < 30
    _nothing_half_written(lading)


@pytest.mark.parametrize("command", ["serve", "registry"])
def test_a_port_in_use(lading: Lading, command: str) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        error = lading.fails(1, command, "--listen", address)
    assert address in error and "use" in error


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("", "utf-8")
    error = Lading(tmp_path / "home").fails(1, "ls")
    assert str(tmp_path / "home") in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_home_that_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    Lading(tmp_path / "home").fails(1, "create", "m", "-f", "-", stdin=f"FROM {TINY_CHAT}\n")


def test_too_large_for_memory(lading: Lading) -> None:
    lading.ok("create", "m", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    small = Lading(lading.home, {"LADING_MEMORY": "1MB"})
    error = small.fails(1, "run", "m", "hello")
    assert "MB" in error and "hint: " in error


@pytest.mark.parametrize("seed", range(6))
def test_ctrl_c_while_creating(tmp_path: Path, seed: int) -> None:
    command = Lading(tmp_path / "home")
    (tmp_path / "Modelfile").write_text(f"FROM {TINY_CHAT}\n", "utf-8")
    process = subprocess.Popen(
        [LADING, "create", "m", "-f", str(tmp_path / "Modelfile")],
        env=command.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(random.Random(seed).uniform(0.1, 0.6))
    process.send_signal(signal.SIGINT)
    _out, error = process.communicate(timeout=30)
    assert process.returncode in (0, 130, -signal.SIGINT), error
    assert "lading" not in error or "Traceback" not in error, error  # Python's own start is not ours
    # Interrupted after the tag was set, it has come too late: the model is there, and whole.
    assert command.ok("ls", "-q") in (["m:latest\n"] if process.returncode == 0 else ["", "m:latest\n"])
    command.ok("gc")
    assert command.ok("fsck", "-q").strip().endswith("0 problems")
