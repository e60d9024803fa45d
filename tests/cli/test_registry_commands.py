"""Push and pull as typed, between two homes: Debian's registry, with and without a login, and our own."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import LADING, TINY_CHAT, Lading
from registry_server import INSTALLED, PASSWORD, USER, WHY_NOT, RunningRegistry, running_registry

needs_registry = pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)


@pytest.fixture(params=["", "htpasswd"], ids=["open", "login"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path / "registry", auth=request.param) as running:
        yield running


def _logged_in(home: Path, host: str, password: str = PASSWORD) -> Lading:
    """A machine whose user has done `docker login`."""
    folder = home.parent / f"docker-{home.name}"
    folder.mkdir(parents=True, exist_ok=True)
    secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": secret}}}), "utf-8")
    return Lading(home, {"DOCKER_CONFIG": str(folder)})


@needs_registry
def test_push_and_pull(tmp_path: Path, registry: RunningRegistry) -> None:
    builder = _logged_in(tmp_path / "builder", registry.host)
    user = _logged_in(tmp_path / "user", registry.host)
    name = f"{registry.host}/team/chat:v1"
    digest = builder.ok("create", name, "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n").strip()
    pushed = builder.run("push", name)
    assert (pushed.code, pushed.out) == (0, f"{name}@{digest}\n"), pushed.err
    assert pushed.err.splitlines()[-1] == "success"
    pulled = user.run("pull", name)
    assert (pulled.code, pulled.out) == (0, f"{name}@{digest}\n"), pulled.err
    assert pulled.err.splitlines()[0] == "pulling manifest"
    assert user.ok("pull", "-q", f"{registry.host}/team/chat@{digest}").endswith(f"@{digest}\n")
    assert user.ok("fsck", "-q").strip().endswith("0 problems")


@needs_registry
def test_wrong_credentials_are_said_and_not_shown(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", auth="htpasswd") as registry:
        name = f"{registry.host}/team/chat:v1"
        for machine in (
            Lading(tmp_path / "nobody"),
            _logged_in(tmp_path / "stranger", registry.host, password="wr0ng-secret"),
        ):
            machine.ok("create", name, "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
            error = machine.fails(4, "push", name)
            assert "hint: " in error and "wr0ng-secret" not in error
            assert registry.host in machine.fails(4, "pull", name)


@needs_registry
def test_a_model_that_the_registry_does_not_have(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        error = Lading(tmp_path / "home").fails(3, "pull", f"{registry.host}/team/none:v1")
    assert "team/none" in error


def test_our_own_registry(tmp_path: Path, free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    builder, user = Lading(tmp_path / "builder"), Lading(tmp_path / "user")
    builder.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    with Lading(tmp_path / "shared").background(
        "registry", "--listen", address, ready=f"http://{address}/v2/"
    ):
        digest = builder.ok("push", "chat", f"{address}/team/chat:v1", "-q").strip().partition("@")[2]
        assert user.ok("pull", f"{address}/team/chat:v1", "-q") == f"{address}/team/chat:v1@{digest}\n"
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert user.ok(
        "run", "-o", "temperature=0", f"{address}/team/chat:v1", "What is the capital of France?"
    ) == ("The capital of France is Paris.\n")


@needs_registry
def test_ctrl_c_while_pulling_keeps_what_came_and_says_so(tmp_path: Path) -> None:
    big = tmp_path / "README.bin"
    with running_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/team/chat:v1"
        builder, user = Lading(tmp_path / "builder"), Lading(tmp_path / "user")
        big.write_bytes(bytes(3_000_000))
        modelfile = f"FROM {TINY_CHAT}\nCOPY {big.name} docs/big.bin\n"
        (tmp_path / "Modelfile").write_text(modelfile, "utf-8")
        builder.ok("create", name, "-f", tmp_path / "Modelfile", "--quiet")
        builder.ok("push", name, "-q")
        process = subprocess.Popen(
            [LADING, "pull", name, "--limit-rate", "20KB", "--parallel", "2"],  # which would take minutes
            env=user.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ingest = tmp_path / "user" / "ingest"
        deadline = time.monotonic() + 60
        while not _arrived(ingest) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, ""), error
        assert error.splitlines()[-1].startswith("Interrupted. What has arrived is kept")
        assert _arrived(ingest)
        assert user.ok("ls", "-q") == ""
        user.ok("pull", name, "-q")
        assert user.ok("ls", "-q") == f"{name}\n"
        assert user.ok("fsck", "-q").strip().endswith("0 problems")


def _arrived(ingest: Path) -> int:
    """Bytes of downloads that are not finished; one may finish while they are counted."""
    total = 0
    for path in ingest.glob("sha256-*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@needs_registry
def test_a_mirror_from_the_settings(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        builder = Lading(tmp_path / "builder")
        builder.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
        builder.ok("push", "chat", f"{registry.host}/copies/team/chat:v1", "-q")
        mirrors = f"registry.invalid=127.0.0.1:1,registry.invalid={registry.host}/copies"
        user = Lading(tmp_path / "user", {"LADING_MIRRORS": mirrors})
        pulled = user.run("pull", "registry.invalid/team/chat:v1")
    assert pulled.code == 0, pulled.err
    assert pulled.out.startswith("registry.invalid/team/chat:v1@sha256:")
    assert "mirror 127.0.0.1:1: " in pulled.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--limit-rate", "fast"), "expected a size such as 10MB, got 'fast'"),
        (("--parallel", "0"), "expected a whole number above 0, got 0"),
    ],
)
def test_flags_that_cannot_be_used(tmp_path: Path, arguments: tuple[str, str], expected: str) -> None:
    assert expected in Lading(tmp_path / "home").fails(2, "pull", "registry.invalid/x", *arguments)
