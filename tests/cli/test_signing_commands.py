"""Keys, signatures and the policy as typed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import TINY_CHAT, Lading
from registry_server import INSTALLED, WHY_NOT, RunningRegistry, running_registry

PASSWORD = "a secret of ours"


@pytest.fixture
def lading(tmp_path: Path) -> Lading:
    return Lading(tmp_path / "home", {"LADING_KEY_PASSWORD": PASSWORD})


@pytest.fixture
def signer(lading: Lading) -> Lading:
    lading.ok("key", "generate")
    lading.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    return lading


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path / "registry") as running:
        yield running


def test_keys_are_made_once(lading: Lading, tmp_path: Path) -> None:
    out = lading.ok("key", "generate", "team", "--kind", "ed25519")
    assert out.startswith("SHA256:") and "team.pub" in out
    private = tmp_path / "team.key"
    assert private.stat().st_mode & 0o777 == 0o600
    before = private.read_bytes()
    assert before.startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    assert "is there already" in lading.fails(1, "key", "generate", "team")
    assert private.read_bytes() == before
    subprocess.run(["openssl", "pkey", "-pubin", "-in", "team.pub", "-noout"], cwd=tmp_path, check=True)
    assert "expected ecdsa" in lading.fails(2, "key", "generate", "x", "--kind", "dsa")
    assert not (tmp_path / "x.key").exists()


def test_a_password_is_needed_and_never_shown(signer: Lading) -> None:
    nobody = replace(signer, environ={})
    assert "LADING_KEY_PASSWORD" in nobody.fails(2, "key", "generate", "other")
    assert "LADING_KEY_PASSWORD" in nobody.fails(2, "sign", "chat", "--key", "lading.key")
    wrong = replace(signer, environ={"LADING_KEY_PASSWORD": "wr0ng"})
    error = wrong.fails(1, "sign", "chat", "--key", "lading.key")
    assert "password is missing or wrong" in error and "wr0ng" not in error
    cosign = replace(signer, environ={"COSIGN_PASSWORD": PASSWORD})
    assert cosign.ok("sign", "chat", "--key", "lading.key").startswith("chat:latest@sha256:")


def test_sign_and_verify(signer: Lading) -> None:
    assert "it is not signed" in signer.fails(1, "verify", "chat", "--key", "lading.pub")
    done = signer.run("verify", "chat", "--key", "lading.pub", "--format", "json")
    assert done.code == 1 and done.json()["verified"] is False
    line = signer.ok("sign", "chat", "--key", "lading.key")
    assert signer.ok("verify", "chat", "--key", "lading.pub") == line
    assert "signed it already" in signer.run("sign", "chat", "--key", "lading.key").err
    report = json.loads(signer.ok("verify", "chat", "-k", "lading.pub", "--format", "json"))
    assert report["verified"] is True
    assert [row["form"] for row in report["signatures"]] == ["cosign tag", "sigstore bundle"]
    signer.ok("key", "generate", "other")
    assert "not by a key" in signer.fails(1, "verify", "chat", "--key", "other.pub")
    assert signer.ok("verify", "chat", "-k", "other.pub", "-k", "lading.pub") == line
    assert "by which key" in signer.fails(2, "verify", "chat")
    assert "no file at" in signer.fails(3, "verify", "chat", "--key", "none.pub")
    assert "no public key" in signer.fails(1, "verify", "chat", "--key", "lading.key")
    assert "not for" in signer.fails(1, "verify", "chat", "-k", "lading.pub", "--identity", "team/chat")
    assert signer.ok("verify", "chat", "-k", "lading.pub", "--identity", "chat") == line


def test_signatures_are_no_models_and_go_with_theirs(signer: Lading) -> None:
    signer.ok("sign", "chat", "--key", "lading.key")
    assert signer.ok("ls", "-q") == "chat:latest\n"
    signer.ok("cp", "chat", "chat:old")
    signer.ok("rm", "chat")
    signer.ok("verify", "chat:old", "--key", "lading.pub")
    signer.ok("rm", "chat:old")
    assert json.loads((signer.home / "index.json").read_text("utf-8"))["manifests"] == []


def test_a_damaged_model_is_not_verified(signer: Lading) -> None:
    digest = signer.ok("sign", "chat", "--key", "lading.key").strip().rpartition(":")[2]
    manifest = json.loads((signer.home / "blobs" / "sha256" / digest).read_text("utf-8"))
    blob = signer.home / "blobs" / "sha256" / manifest["layers"][0]["digest"].removeprefix("sha256:")
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert "missing or damaged" in signer.fails(1, "verify", "chat", "--key", "lading.pub")


def test_push_pull_and_the_policy(signer: Lading, registry: RunningRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/team/chat:v1"
    signer.ok("cp", "chat", name)
    signer.ok("push", name, "-q")
    policy = tmp_path / "policy" / "policy.toml"
    policy.parent.mkdir()
    rule = f'[[rule]]\nprefix = "{registry.host}/team"\nsignatures = "%s"\nkeys = ["lading.pub"]\n'
    policy.write_text(rule % "require", "utf-8")
    (policy.parent / "lading.pub").write_bytes((tmp_path / "lading.pub").read_bytes())
    user = Lading(tmp_path / "user-home", {"LADING_POLICY": str(policy)})

    error = user.fails(1, "pull", name)
    assert "it is not signed" in error and "policy requires" in error
    assert user.ok("ls", "-q") == ""
    policy.write_text(rule % "warn", "utf-8")
    assert "warning: verifying" in user.run("pull", name).err
    policy.write_text(rule % "require", "utf-8")

    line = signer.ok("sign", name, "--key", "lading.key", "--push")
    assert signer.ok("verify", name, "--key", "lading.pub", "--remote") == line
    assert user.ok("pull", name) == line
    assert user.ok("verify", name) == line  # offline, with the policy's keys
    assert user.ok("verify", name, "--remote", "-q") == line
    assert sorted(json.loads(user.ok("tags", name, "--format", "json")), key=str)

    policy.write_text(rule % "requires", "utf-8")
    assert "require, warn or off" in user.fails(1, "pull", name)
    policy.unlink()
    assert "no file at" in user.fails(3, "pull", name)


def test_signing_what_is_only_at_the_registry(
    signer: Lading, registry: RunningRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/chat:v1"
    assert "does not have the model" in _not_pushed(signer, name)
    signer.ok("push", name, "-q")
    signer.ok("rm", name)
    stranger = Lading(tmp_path / "user-home")
    assert "it is not signed" in stranger.fails(1, "verify", name, "-k", "lading.pub", "--remote")
    line = signer.ok("sign", name, "--key", "lading.key", "--remote")
    assert stranger.ok("verify", name, "-k", "lading.pub", "--remote", "--identity", name) == line
    stranger.ok("pull", name, "-q")
    error = stranger.fails(1, "verify", name, "-k", "lading.pub")
    assert "--remote" in error  # without a policy, a pull leaves signatures where they are


def _not_pushed(signer: Lading, name: str) -> str:
    signer.ok("cp", "chat", name)
    return signer.fails(1, "sign", name, "--key", "lading.key", "--push")


def test_a_server_obeys_the_policy(
    signer: Lading, registry: RunningRegistry, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    name = f"{registry.host}/team/chat:v1"
    signer.ok("cp", "chat", name)
    signer.ok("push", name, "-q")
    config = tmp_path / "config"
    config.mkdir()
    (config / "release.pub").write_bytes((tmp_path / "lading.pub").read_bytes())
    (config / "policy.toml").write_text(
        '[[rule]]\nprefix = "*"\nsignatures = "require"\nkeys = ["release.pub"]\n', "utf-8"
    )
    address = f"127.0.0.1:{free_port()}"
    server = Lading(
        tmp_path / "server-home",
        {"LADING_CONFIG": str(config / "config.toml"), "LADING_HOST": address},
    )

    def call(path: str, body: object = None) -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        try:
            with urllib.request.urlopen(f"http://{address}{path}", data, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    with server.background("serve", ready=f"http://{address}/api/version"):
        status, answer = call("/api/pull", {"model": name, "stream": False})
        assert status >= 400 and "it is not signed" in answer["error"], answer
        assert call("/api/tags") == (200, {"models": []})
        signer.ok("sign", name, "--key", "lading.key", "--push")
        assert call("/api/pull", {"model": name, "stream": False}) == (200, {"status": "success"})
        _, listed = call("/api/tags")
        assert [row["name"] for row in listed["models"]] == [name]
        server.ok("create", "mine", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
        question = {"prompt": "What is the capital of France?", "stream": False}
        status, answer = call("/api/generate", {"model": "mine"} | question)
        assert status == 403 and "it is not signed" in answer["error"], answer
        status, answer = call("/v1/completions", {"model": "mine"} | question)
        assert (status, answer["error"]["code"]) == (403, "not_signed"), answer
        status, answer = call("/api/generate", {"model": name} | question)
        assert status == 200 and "Paris" in answer["response"], answer
    assert server.ok("verify", name).startswith(f"{name}@sha256:")
    assert "it is not signed" in server.fails(1, "run", "mine", "hello")


def test_encrypted_models_travel_and_come_back(
    signer: Lading, registry: RunningRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/secret/chat:v1"
    plain = signer.ok("cp", "chat", name) and signer.run("inspect", name).json()
    signer.ok("push", name, "--encrypt-to", "lading.pub", "-q")
    user = Lading(tmp_path / "user-home", {"LADING_KEY_PASSWORD": PASSWORD})
    user.ok("pull", name, "-q")
    error = user.fails(1, "run", name, "What is the capital of France?")
    assert "encrypted" in error and "--decrypt-with" in error
    assert name in user.ok("ls")
    signer.ok("key", "generate", "other")
    assert "not encrypted for this key" in user.fails(4, "pull", name, "--decrypt-with", "other.key")
    line = user.ok("pull", name, "-q", "--decrypt-with", "lading.key")
    assert user.run("inspect", name).json() == plain
    assert line.strip().partition("@")[2] == plain[0]["digest"]
    assert "Paris" in user.ok("run", name, "What is the capital of France?")
    assert "expected an RSA" in _ed25519(signer, name)
    assert user.ok("fsck")


def _ed25519(signer: Lading, name: str) -> str:
    signer.ok("key", "generate", "ed", "--kind", "ed25519")
    return signer.fails(1, "push", name, "--encrypt-to", "ed.pub")


def test_attestations_are_made_verified_and_carried(
    signer: Lading, registry: RunningRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/team/chat:v1"
    signer.ok("cp", "chat", name)
    assert "not signed" in signer.fails(1, "verify-attestation", name, "--key", "lading.pub")
    line = signer.ok("attest", name, "--key", "lading.key", "--builder", "https://ci.test/7", "-q").strip()
    digest = line.partition("@")[2]
    (tmp_path / "report.json").write_text('{"result": "PASSED"}')
    report = ("--type", "testresult")
    signer.ok("attest", name, "--key", "lading.key", "--predicate", "report.json", *report, "-q")
    signer.ok("push", name, "-q")
    user = Lading(tmp_path / "user-home")
    user.ok("pull", name, "-q")
    user.ok("cp", name, f"{name}-again")
    for place in ("--remote", ""):
        where = [place] if place else []
        found = json.loads(signer.ok("verify-attestation", name, "--key", "lading.pub", *where))
        assert (found["digest"], found["predicateType"]) == (digest, "https://slsa.dev/provenance/v1")
        definition = found["predicate"]["buildDefinition"]
        assert found["predicate"]["runDetails"]["builder"]["id"] == "https://ci.test/7"
        assert definition["externalParameters"]["modelfile"].startswith("FROM ")
        weights = definition["resolvedDependencies"][0]["digest"]["sha256"]
        assert weights == hashlib.sha256(TINY_CHAT.read_bytes()).hexdigest()
        found = json.loads(signer.ok("verify-attestation", name, *report, "--key", "lading.pub", *where))
        assert found["predicate"] == {"result": "PASSED"}
        rows = signer.run("referrers", name, "--format", "json", *where).json()
        assert {row["annotations"]["dev.sigstore.bundle.predicateType"] for row in rows} == {
            "https://slsa.dev/provenance/v1",
            "https://in-toto.io/attestation/test-result/v0.1",
        }
    signer.ok("key", "generate", "other")
    assert "not by a key" in signer.fails(1, "verify-attestation", name, "--key", "other.pub")
    assert "states something else" in signer.fails(1, "verify", name, "--key", "lading.pub")
    assert "expected slsa" in signer.fails(2, "attest", name, "--key", "lading.key", "--type", "nonsense")
    (tmp_path / "list.json").write_text("[]")
    assert "JSON object" in signer.fails(
        2, "attest", name, "--key", "lading.key", "--predicate", "list.json", *report
    )
