"""Credentials from Docker's and Podman's files."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from lading.oci.registry.credential_helper import HelperFailed, HelperSettings, ask_helper
from lading.oci.registry.credentials import Credential, CredentialFiles, GivenCredentials, default_files

HOST = "reg.example:5000"


def basic(username: str, secret: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{secret}".encode()).decode()}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


def write(path: Path, content: Any) -> CredentialFiles:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return CredentialFiles(paths=(path,))


def helper(folder: Path, name: str, script: str) -> HelperSettings:
    """A credential helper of this name in an otherwise empty search path (with a shell's programs)."""
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(stat.S_IRWXU)
    return HelperSettings(search_path=f"{folder}:/usr/bin:/bin", timeout_s=1.0)


# Files

ENTRIES: dict[str, tuple[dict[str, Any], str, tuple[str, str] | None]] = {
    "exact host": ({HOST: basic("u", "p")}, HOST, ("u", "p")),
    "https URL": ({f"https://{HOST}": basic("u", "p")}, HOST, ("u", "p")),
    "https URL with v1": ({f"https://{HOST}/v1/": basic("u", "p")}, HOST, ("u", "p")),
    "http URL with v2": ({f"http://{HOST}/v2/": basic("u", "p")}, HOST, ("u", "p")),
    "another port": ({"reg.example:5001": basic("u", "p")}, HOST, None),
    "no port": ({"reg.example": basic("u", "p")}, HOST, None),
    "a longer host": ({f"evil-{HOST}": basic("u", "p")}, HOST, None),
    "a host that contains it": ({f"https://{HOST}.evil.example/": basic("u", "p")}, HOST, None),
    "docker hub": ({"https://index.docker.io/v1/": basic("u", "p")}, "registry-1.docker.io", ("u", "p")),
    "docker hub by name": ({"docker.io": basic("u", "p")}, "registry-1.docker.io", ("u", "p")),
    "colon in the password": ({HOST: basic("u", "p:q")}, HOST, ("u", "p:q")),
    "not ascii": ({HOST: basic("ü", "pä")}, HOST, ("ü", "pä")),
    "trailing zero": ({HOST: basic("u", "p\0")}, HOST, ("u", "p")),
    "username and password": ({HOST: {"username": "u", "password": "p"}}, HOST, ("u", "p")),
    "identity token": ({HOST: {"identitytoken": "tok", **basic("u", "")}}, HOST, ("<token>", "tok")),
    "empty entry": ({HOST: {}}, HOST, None),
    "null entry": ({HOST: None}, HOST, None),
    "not base64": ({HOST: {"auth": "%%%"}}, HOST, None),
    "no colon": ({HOST: {"auth": "dQ=="}}, HOST, None),
    "no password": ({HOST: basic("u", "")}, HOST, None),
    "wrong types": ({HOST: {"auth": 5, "username": [], "password": {}}}, HOST, None),
}


@pytest.mark.parametrize(("auths", "registry", "expected"), ENTRIES.values(), ids=ENTRIES.keys())
def test_entries_are_found_by_host(
    config: Path, auths: dict[str, Any], registry: str, expected: tuple[str, str] | None
) -> None:
    found = write(config, {"auths": auths}).find(registry)
    if expected is None:
        assert found.credential is None
    else:
        assert found.credential is not None
        assert (found.credential.username, found.credential.secret) == expected
        assert found.credential.source == str(config)


def test_podman_keys_may_name_a_repository(config: Path) -> None:
    auths = {
        HOST: basic("host", "p"),
        f"{HOST}/team": basic("team", "p"),
        f"{HOST}/team/model": basic("model", "p"),
    }
    credentials = write(config, {"auths": auths})

    def user(repository: str) -> str:
        found = credentials.find(HOST, repository).credential
        assert found is not None
        return found.username

    assert user("team/model") == "model"
    assert user("team/model/sub") == "model"
    assert user("team/other") == "team"
    assert user("teams/model") == "host"
    assert user("") == "host"


def test_the_first_file_that_knows_the_host_counts(tmp_path: Path) -> None:
    for name, auths in (("a", {}), ("b", {HOST: basic("b", "p")}), ("c", {HOST: basic("c", "p")})):
        (tmp_path / name).write_text(json.dumps({"auths": auths}))
    paths = tuple(tmp_path / name for name in ("missing", "a", "b", "c"))
    found = CredentialFiles(paths=paths).find(HOST)
    assert found.credential is not None
    assert found.credential.username == "b"
    assert found.notes == ()


BAD_FILES = {
    "not json": "{",
    "an array": "[]",
    "not utf-8": None,
    "deep": "[" * 5000,
    "too large": " " * (1024 * 1024 + 1),
    "duplicate keys": '{"auths": {}, "auths": {}}',
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_an_unusable_file_is_noted_and_passed_by(tmp_path: Path, content: str | None) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_bytes(b"\xff\xfe" if content is None else content.encode())
    good.write_text(json.dumps({"auths": {HOST: basic("u", "p")}}))
    found = CredentialFiles(paths=(bad, good)).find(HOST)
    assert found.credential is not None
    assert len(found.notes) == 1
    assert str(bad) in found.notes[0]


def test_a_pipe_or_folder_in_place_of_a_file_hangs_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found = CredentialFiles(paths=(tmp_path / "pipe", tmp_path)).find(HOST)
    assert found.credential is None
    assert len(found.notes) == 2


def test_members_of_wrong_types_are_ignored(config: Path) -> None:
    for content in ({"auths": []}, {"auths": {HOST: []}}, {"credHelpers": 5}, {"credsStore": {}}, {}):
        assert write(config, content).find(HOST).credential is None


def test_secrets_never_show() -> None:
    credential = Credential(username="u", secret="hunter2", source="here")
    assert "hunter2" not in repr(credential)
    assert "hunter2" not in repr(GivenCredentials(HOST, credential))


def test_given_credentials_are_for_one_registry(config: Path) -> None:
    others = write(config, {"auths": {"other.example": basic("o", "p")}})
    given = GivenCredentials(HOST, Credential(username="u", secret="p", source="here"), others)
    assert given.find(HOST).credential is not None
    assert given.find("reg.example:5001").credential is None
    other = given.find("other.example").credential
    assert other is not None
    assert other.username == "o"


def test_default_files_follow_the_environment(tmp_path: Path) -> None:
    assert default_files({}, tmp_path) == (
        tmp_path / ".docker/config.json",
        tmp_path / ".config/containers/auth.json",
    )
    environment = {"DOCKER_CONFIG": "/d", "XDG_RUNTIME_DIR": "/run/user/1", "XDG_CONFIG_HOME": "/c"}
    assert default_files(environment, tmp_path) == (
        Path("/d/config.json"),
        Path("/run/user/1/containers/auth.json"),
        Path("/c/containers/auth.json"),
    )
    assert Path("/a.json") in default_files({**environment, "REGISTRY_AUTH_FILE": "/a.json"}, tmp_path)


# Helpers


def test_a_helper_is_asked_for_the_very_server(config: Path, tmp_path: Path) -> None:
    settings = helper(tmp_path / "bin", "test", 'read s; printf \'{"Username":"%s","Secret":"x"}\' "$1-$s"')
    config.write_text(json.dumps({"credHelpers": {HOST: "test"}}))
    found = CredentialFiles(paths=(config,), helpers=settings).find(HOST)
    assert found.credential is not None
    assert found.credential.username == f"get-{HOST}"
    assert "test" in found.credential.source


def test_docker_hub_has_its_old_name_for_helpers(config: Path, tmp_path: Path) -> None:
    settings = helper(tmp_path / "bin", "test", 'read s; printf \'{"Username":"%s","Secret":"x"}\' "$s"')
    config.write_text(json.dumps({"credsStore": "test"}))
    found = CredentialFiles(paths=(config,), helpers=settings).find("registry-1.docker.io")
    assert found.credential is not None
    assert found.credential.username == "https://index.docker.io/v1/"


def test_the_helper_of_the_host_goes_before_the_store_and_the_file(config: Path, tmp_path: Path) -> None:
    helper(tmp_path / "bin", "host", 'echo \'{"Username":"host","Secret":"x"}\'')
    settings = helper(tmp_path / "bin", "store", 'echo \'{"Username":"store","Secret":"x"}\'')
    content = {"credHelpers": {HOST: "host"}, "credsStore": "store", "auths": {HOST: basic("file", "p")}}
    config.write_text(json.dumps(content))
    files = CredentialFiles(paths=(config,), helpers=settings)
    first, second = files.find(HOST).credential, files.find("other.example").credential
    assert first is not None
    assert second is not None
    assert (first.username, second.username) == ("host", "store")


def test_the_user_token_means_an_identity_token(tmp_path: Path, config: Path) -> None:
    settings = helper(tmp_path / "bin", "t", 'echo \'{"Username":"<token>","Secret":"refresh"}\'')
    config.write_text(json.dumps({"credsStore": "t"}))
    found = CredentialFiles(paths=(config,), helpers=settings).find(HOST)
    assert found.credential is not None
    assert found.credential.identity_token


def test_not_found_is_an_answer(tmp_path: Path) -> None:
    settings = helper(tmp_path / "bin", "t", "echo credentials not found in native keychain; exit 1")
    assert ask_helper("t", HOST, settings) is None


BAD_HELPERS = {
    "fails": "echo boom; exit 3",
    "hangs": "sleep 60",
    "ignores the end": "trap '' TERM; sleep 60",
    "junk": "echo junk",
    "array": "echo '[]'",
    "no secret": 'echo \'{"Username":"u"}\'',
    "empty secret": 'echo \'{"Username":"u","Secret":""}\'',
    "numbers": 'echo \'{"Username":1,"Secret":2}\'',
    "endless": "yes aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "leaves a child with the pipe": "sleep 60 & echo '{}'",
    "not utf-8": "printf '\\377\\376'",
}


@pytest.mark.parametrize("script", BAD_HELPERS.values(), ids=BAD_HELPERS.keys())
def test_a_bad_helper_is_noted_and_the_file_is_asked(config: Path, tmp_path: Path, script: str) -> None:
    settings = helper(tmp_path / "bin", "bad", script)
    config.write_text(json.dumps({"credsStore": "bad", "auths": {HOST: basic("file", "p")}}))
    found = CredentialFiles(paths=(config,), helpers=settings).find(HOST)
    assert found.credential is not None
    assert found.credential.username == "file"
    assert len(found.notes) == 1
    assert "docker-credential-bad" in found.notes[0]


@pytest.mark.parametrize("name", ["../../tmp/evil", "a/b", "", "a b", "a;b", "-x y", "a\n", "x" * 65, ".."])
def test_a_helper_name_makes_no_path(tmp_path: Path, name: str) -> None:
    evil = tmp_path / "docker-credential-evil"
    evil.write_text("#!/bin/sh\ntouch ran\n")
    evil.chmod(0o700)
    with pytest.raises(HelperFailed):
        ask_helper(name, HOST, HelperSettings(search_path=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("server", ["a\nb", "a b", "", "ü", "a\0b"])
def test_an_odd_server_name_is_not_written_to_a_helper(tmp_path: Path, server: str) -> None:
    settings = helper(tmp_path / "bin", "t", f"touch {tmp_path}/ran")
    with pytest.raises(HelperFailed):
        ask_helper("t", server, settings)
    assert not (tmp_path / "ran").exists()


def test_a_missing_helper_is_named(config: Path, tmp_path: Path) -> None:
    config.write_text(json.dumps({"credsStore": "absent"}))
    files = CredentialFiles(paths=(config,), helpers=HelperSettings(search_path=str(tmp_path)))
    assert "docker-credential-absent: not found" in files.find(HOST).notes[0]


def test_relative_folders_are_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, "t", f"touch {tmp_path}/ran")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HelperFailed):
        ask_helper("t", HOST, HelperSettings(search_path=".::bin"))
    assert not (tmp_path / "ran").exists()


def test_a_helper_sees_only_what_it_needs(tmp_path: Path) -> None:
    settings = helper(
        tmp_path / "bin", "t", 'printf \'{"Username":"%s","Secret":"x"}\' "$HOME-$API_KEY-$AWS_PROFILE"'
    )
    environment = {"HOME": "/home/u", "API_KEY": "secret", "AWS_PROFILE": "p"}
    answer = ask_helper("t", HOST, HelperSettings(search_path=settings.search_path, environment=environment))
    assert answer is not None
    assert answer.username == "/home/u--p"


def test_what_a_helper_starts_ends_with_it(tmp_path: Path) -> None:
    settings = helper(tmp_path / "bin", "t", f"sleep 60 & echo $! > {tmp_path}/child")
    with pytest.raises(HelperFailed, match="no answer"):
        ask_helper("t", HOST, settings)
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError):  # gone, or a zombie until init has noticed
        while child.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() < deadline, "it is still running"
            time.sleep(0.01)
