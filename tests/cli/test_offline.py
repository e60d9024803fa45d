"""Models carried as files: what a user types on one machine, and then on another."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest
from command import LADING, TINY_CHAT, Lading


@pytest.fixture
def user(tmp_path: Path) -> Lading:
    """Has ``chat`` and, on top of it, ``pirate``."""
    user = Lading(tmp_path / "home")
    user.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    user.ok("create", "pirate", "-f", "-", "--quiet", stdin="FROM chat\nSYSTEM You are a pirate.\n")
    return user


@pytest.fixture
def friend(tmp_path: Path) -> Lading:
    return Lading(tmp_path / "friend" / "home")


def test_hand_over(user: Lading, friend: Lading, tmp_path: Path) -> None:
    file = tmp_path / "models.tar"
    done = user.run("save", "chat", "pirate", "-o", file)
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == "success"
    assert file.stat().st_size < TINY_CHAT.stat().st_size + 50_000
    printed = friend.ok("load", "-q", "-i", file)
    digests = {row["name"]: row["digest"] for row in user.run("ls", "--json").json()}
    assert printed == "".join(f"{name}@{digests[name]}\n" for name in ("chat:latest", "pirate:latest"))
    assert friend.ok("show", "pirate", "--system") == "You are a pirate.\n"
    assert friend.ok("fsck", "-q").strip().endswith("0 problems")
    again = tmp_path / "again.tar"
    friend.ok("save", "pirate", "chat", "-q", "-o", again)
    assert again.read_bytes() == file.read_bytes()


def test_through_a_pipe(user: Lading, friend: Lading) -> None:
    both = user.environment | {"THERE": str(friend.home)}
    script = "set -o pipefail; lading save chat | LADING_HOME=$THERE lading load --name theirs:v1"
    done = subprocess.run(["bash", "-c", script], env=both, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert friend.ok("ls", "-q") == "theirs:v1\n"


def test_what_was_there_is_replaced_only_by_all_of_it(user: Lading, tmp_path: Path) -> None:
    file = tmp_path / "models.tar"
    file.write_text("precious", "utf-8")
    user.fails(3, "save", "chat", "missing", "-o", file)
    weights = max((user.home / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    weights.chmod(0o644)
    with weights.open("r+b") as damaged:
        damaged.write(b"!")
    assert "fsck" in user.fails(1, "save", "chat", "-q", "-o", file)
    assert file.read_text("utf-8") == "precious"
    assert [path.name for path in tmp_path.glob("*.tar*")] == ["models.tar"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("output", "words"),
    [("/dev/full", "No space"), ("missing/x.tar", "No such file"), (".", "")],
    ids=["full", "no-folder", "folder"],
)
def test_where_nothing_can_be_written(user: Lading, tmp_path: Path, output: str, words: str) -> None:
    assert words in user.fails(1, "save", "chat", "-q", "-o", output)
    assert not list(tmp_path.glob(".*"))


def test_standard_output_that_is_full(user: Lading) -> None:
    script = "lading save -q chat > /dev/full"
    done = subprocess.run(
        ["bash", "-c", script], env=user.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: writing 'standard output': No space left")


@pytest.mark.parametrize("arguments", [["save", "chat"], ["load"]], ids=["save", "load"])
def test_a_terminal_is_refused(user: Lading, arguments: list[str]) -> None:
    control, terminal = pty.openpty()
    done = subprocess.run(
        [LADING, *arguments],
        env=user.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(control)
    assert done.returncode == 2
    assert "hint: add -" in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "ends too early"), (b"\x1f\x8b" + bytes(600), "gzip"), (b"hello" * 200, "not a tar archive")],
    ids=["empty", "gzip", "text"],
)
def test_what_is_no_archive(friend: Lading, content: bytes, words: str) -> None:
    assert words in friend.fails(1, "load", stdin=content)
    assert friend.ok("ls", "-q") == ""


def test_a_file_that_is_not_there(friend: Lading, tmp_path: Path) -> None:
    friend.fails(3, "load", "-i", tmp_path / "missing.tar")
    friend.fails(1, "load", "-i", tmp_path)


@pytest.mark.parametrize("delay_s", [0.2, 0.35, 0.5])
def test_ctrl_c_leaves_no_file(user: Lading, tmp_path: Path, delay_s: float) -> None:
    big = tmp_path / "big.bin"
    with big.open("wb") as sparse:
        sparse.truncate(400_000_000)
    (tmp_path / "Modelfile").write_text(f"FROM {TINY_CHAT}\nCOPY big.bin docs/big.bin\n", "utf-8")
    user.ok("create", "big", "-f", tmp_path / "Modelfile", "--quiet")
    process = subprocess.Popen(
        [LADING, "save", "big", "-o", "big.tar"],
        env=user.environment,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode in (0, 130, -signal.SIGINT), error
    left = [path.name for path in tmp_path.glob("*big.tar*")] + [p.name for p in tmp_path.glob(".*")]
    assert left == ["big.tar"] if process.returncode == 0 else left in ([], ["big.tar"])
    if left:  # interrupted on its way out
        Lading(tmp_path / "friend" / "home").ok("load", "-q", "-i", tmp_path / "big.tar")


@pytest.mark.parametrize("delay_s", [0.3, 0.45, 0.6])
def test_a_load_that_was_killed(user: Lading, friend: Lading, tmp_path: Path, delay_s: float) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(1 << 20) * 100)
    (tmp_path / "Modelfile").write_text(f"FROM {TINY_CHAT}\nCOPY big.bin docs/big.bin\n", "utf-8")
    user.ok("create", "big", "-f", tmp_path / "Modelfile", "--quiet")
    user.ok("save", "big", "-q", "-o", tmp_path / "big.tar")
    process = subprocess.Popen([LADING, "load", "-q", "-i", tmp_path / "big.tar"], env=friend.environment)
    time.sleep(delay_s)
    process.kill()
    process.wait()
    assert friend.ok("ls", "-q") in ("", "big:latest\n")
    assert friend.ok("fsck", "-q").strip().endswith("0 problems")
    friend.ok("load", "-q", "-i", tmp_path / "big.tar")
    assert friend.ok("fsck", "-q").strip().endswith("0 problems")
    friend.ok("gc", "--all")
    assert not list((friend.home / "ingest").iterdir())


def test_layouts_in_folders(user: Lading, friend: Lading, tmp_path: Path) -> None:
    pushed = user.ok("push", "pirate", f"oci:{tmp_path}/disk", "-q")
    full = "registry.ollama.ai/library/pirate:latest"
    assert pushed.startswith(f"oci:{tmp_path}/disk:{full}@sha256:")
    digest = pushed.strip().rpartition("@")[2]
    assert friend.ok("pull", f"oci:{tmp_path}/disk", "-q") == f"pirate:latest@{digest}\n"
    user.ok("push", "chat", f"oci:{tmp_path}/disk:theirs:v1", "-q")
    friend.ok("pull", f"oci:{tmp_path}/disk:theirs:v1", "-q")
    assert sorted(friend.ok("ls", "-q").split()) == ["pirate:latest", "theirs:v1"]
    assert "there are: " in friend.fails(3, "pull", f"oci:{tmp_path}/disk:none")
    friend.fails(3, "pull", f"oci:{tmp_path}/nowhere")
