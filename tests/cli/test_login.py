"""Logging in and out as a user does, at a real registry with passwords, with and without a helper."""

from __future__ import annotations

import base64
import json
import os
import pty
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import LADING, TINY_CHAT, Lading
from registry_server import INSTALLED, PASSWORD, USER, WHY_NOT, RunningRegistry, running_registry

pytestmark = pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)

HELPER = """#!/bin/sh
echo "$1" >> "$HOME/calls"
case $1 in
store) cat > "$HOME/kept" ;;
get) read -r server
  [ -f "$HOME/kept" ] || { echo "credentials not found in native keychain"; exit 1; }
  cat "$HOME/kept" ;;
erase) rm -f "$HOME/kept" ;;
esac
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry"), auth="htpasswd") as running:
        yield running


@pytest.fixture
def user(tmp_path: Path) -> Lading:
    return Lading(tmp_path / "home")


def config_of(user: Lading) -> Path:
    return Path(user.environment["HOME"]) / ".docker" / "config.json"


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def log_in(user: Lading, registry: RunningRegistry) -> str:
    return user.ok("login", registry.host, "-u", USER, "--password-stdin", stdin=f"{PASSWORD}\n")


def test_login_push_logout(user: Lading, registry: RunningRegistry) -> None:
    name = f"{registry.host}/team/login:v1"
    user.ok("create", name, "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    assert f"lading login {registry.host}" in user.fails(4, "push", name)
    config = config_of(user)
    assert log_in(user, registry) == f"logged in to {registry.host} as {USER}; kept in {config}\n"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert read(config) == {"auths": {registry.host: {"auth": secret}}}
    user.ok("push", name, "-q")
    assert user.ok("logout", registry.host) == f"logged out of {registry.host}\n"
    assert read(config) == {"auths": {}}
    user.fails(4, "push", name)
    assert user.ok("logout", registry.host) == f"was not logged in to {registry.host}\n"


def test_a_wrong_password_is_not_kept(user: Lading, registry: RunningRegistry) -> None:
    error = user.fails(4, "login", registry.host, "-u", USER, "--password-stdin", stdin="wr0ng")
    assert "refused" in error and "wr0ng" not in error
    assert not config_of(user).exists()


def test_what_else_the_file_says_stays(user: Lading, registry: RunningRegistry) -> None:
    config = config_of(user)
    config.parent.mkdir()
    real = config.with_name("real.json")
    before = {
        "HttpHeaders": {"X": "1"},
        "auths": {
            "other.example": {"auth": "dTpw"},
            f"https://{registry.host}/v1/": {"auth": "b2xkOm9sZA=="},
        },
        "currentContext": "ü",
    }
    real.write_text(json.dumps(before), "utf-8")
    config.symlink_to(real)
    log_in(user, registry)
    assert config.is_symlink()
    after = read(real)
    assert list(after) == list(before)
    assert after["HttpHeaders"] == {"X": "1"} and after["currentContext"] == "ü"
    assert sorted(after["auths"]) == [registry.host, "other.example"]
    assert sorted(path.name for path in config.parent.iterdir()) == ["config.json", "real.json"]


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": {}, "auths": {}}'], ids=["cut", "list", "twice"])
def test_a_file_that_cannot_be_read_is_not_overwritten(
    user: Lading, registry: RunningRegistry, content: str
) -> None:
    config = config_of(user)
    config.parent.mkdir()
    config.write_text(content, "utf-8")
    error = user.fails(1, "login", registry.host, "-u", USER, "--password-stdin", stdin=PASSWORD)
    assert str(config) in error
    assert config.read_text("utf-8") == content


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_gets_the_secret_and_the_file_does_not(
    tmp_path: Path, registry: RunningRegistry, key: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "docker-credential-test"
    program.write_text(HELPER, "utf-8")
    program.chmod(0o755)
    user = Lading(tmp_path / "home", {"PATH": f"{programs}:/usr/bin:/bin"})
    config, kept = config_of(user), Path(user.environment["HOME"]) / "kept"
    config.parent.mkdir()
    appointed = {"credsStore": "test"} if key == "credsStore" else {"credHelpers": {registry.host: "test"}}
    config.write_text(json.dumps(appointed), "utf-8")
    assert log_in(user, registry).endswith("kept in the helper 'test'\n")
    assert read(kept) == {"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD}
    assert read(config) == {**appointed, "auths": {registry.host: {}}}
    user.fails(3, "tags", f"{registry.host}/team/none")  # not there, but allowed to ask
    assert user.ok("logout", registry.host) == f"logged out of {registry.host}\n"
    assert not kept.exists()
    assert read(config) == {**appointed, "auths": {}}


def test_a_helper_that_fails_keeps_nothing(tmp_path: Path, registry: RunningRegistry) -> None:
    user = Lading(tmp_path / "home")
    config = config_of(user)
    config.parent.mkdir()
    config.write_text('{"credsStore": "absent"}', "utf-8")
    error = user.fails(1, "login", registry.host, "-u", USER, "--password-stdin", stdin=PASSWORD)
    assert "docker-credential-absent" in error and PASSWORD not in error
    assert read(config) == {"credsStore": "absent"}


def test_credentials_elsewhere_are_named(tmp_path: Path, registry: RunningRegistry) -> None:
    other = tmp_path / "auth.json"
    other.write_text(json.dumps({"auths": {registry.host: {"auth": "dTpw"}}}), "utf-8")
    user = Lading(tmp_path / "home", {"REGISTRY_AUTH_FILE": str(other)})
    done = user.run("logout", registry.host)
    assert done.code == 0
    assert done.err == f"credentials for {registry.host} are still in {other}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-u", USER, "-p", PASSWORD], 2, "--password-stdin"),
        (["-u", USER], 2, "--password-stdin"),
        (["--password-stdin"], 2, "--username"),
        (["-u", "a:b", "--password-stdin"], 1, "colon"),
        (["-u", "", "--password-stdin"], 1, "user name"),
    ],
    ids=["argument", "no-terminal", "no-user", "colon", "empty-user"],
)
def test_misuse(user: Lading, registry: RunningRegistry, arguments: list[str], code: int, words: str) -> None:
    error = user.fails(code, "login", registry.host, *arguments, stdin="secret-input")
    assert words in error
    assert PASSWORD not in error and "secret-input" not in error
    assert not config_of(user).exists()


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe", b"a\nb", b"x" * 70_000], ids=lambda d: repr(d[:4]))
def test_what_is_no_password(user: Lading, registry: RunningRegistry, data: bytes) -> None:
    user.fails(1, "login", registry.host, "-u", USER, "--password-stdin", stdin=data)
    assert not config_of(user).exists()


@pytest.mark.parametrize(
    "host", ["", "..", "a b.example", "user@reg.example", "reg.example/team/m"], ids=repr
)
def test_what_is_no_host(user: Lading, host: str) -> None:
    user.fails(1, "login", host, "-u", USER, "--password-stdin", stdin=PASSWORD)


def test_a_url_of_the_host_will_do(user: Lading, registry: RunningRegistry) -> None:
    arguments = ("login", f"http://{registry.host}/v2/", "-u", USER, "--password-stdin")
    assert f"logged in to {registry.host}" in user.ok(*arguments, stdin=PASSWORD)


def test_the_terminal_is_asked_and_shows_no_password(user: Lading, registry: RunningRegistry) -> None:
    control, terminal = pty.openpty()
    process = subprocess.Popen(
        [LADING, "login", registry.host],
        env=user.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    for question, answer in ((b"User name", USER), (b"Password", PASSWORD)):
        while question not in shown:
            shown += os.read(control, 1024)
        time.sleep(0.1)  # echo is switched off with the question, not before it
        os.write(control, f"{answer}\n".encode())
    while b"logged in" not in shown:
        shown += os.read(control, 1024)
    assert process.wait(20) == 0
    os.close(control)
    assert PASSWORD.encode() not in shown
    assert config_of(user).exists()
