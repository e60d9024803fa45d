"""Models side by side, as typed: diff, df, and a look at what a registry has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import TINY_CHAT, Lading
from ggufmaker import make_model, string
from registry_server import INSTALLED, WHY_NOT, running_registry


@pytest.fixture
def user(tmp_path: Path) -> Lading:
    """Has ``chat``, and ``pirate`` on top of it."""
    user = Lading(tmp_path / "home")
    user.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\nSYSTEM hi\n")
    pirate = 'FROM chat\nSYSTEM """hi\nArr."""\nPARAMETER temperature 0.2\n'
    user.ok("create", "pirate", "-f", "-", "--quiet", stdin=pirate)
    return user


def test_diff(user: Lading) -> None:
    text = user.ok("diff", "chat", "pirate")
    for line in (
        r"Parameters\n  \+ temperature 0\.2\n",
        r"System\n  @@ [^\n]*\n   hi\n  \+Arr\.\n",
        r"  - [0-9a-f]{12}  system +system\.txt\n  \+ [0-9a-f]{12}  system",
    ):
        assert re.search(line, text), f"{line!r} is not in\n{text}"
    assert "weights" not in text
    found = json.loads(user.ok("diff", "chat", "pirate", "--format", "json"))
    assert found["parameters"] == {"temperature": {"a": None, "b": 0.2}}
    assert found["texts"]["system"] == {"a": "hi", "b": "hi\nArr."}
    assert found["same"] is False and found["shared_size"] >= TINY_CHAT.stat().st_size


def test_what_weights_say_does_not_steer_the_terminal(user: Lading, tmp_path: Path) -> None:
    for name, title in (("plain", "plain"), ("evil", "ev\x1b[2J\r\u202eil")):
        (tmp_path / f"{name}.gguf").write_bytes(make_model(general__name=string(title)))
        user.ok("create", name, "-f", "-", "--quiet", stdin=f"FROM {tmp_path}/{name}.gguf\n")
    text = user.ok("diff", "plain", "evil")
    assert "Metadata\n  - general.name plain\n  + general.name ev\\x1b[2J\\r\\u202eil\n" in text


def test_diff_of_the_same(user: Lading) -> None:
    user.ok("cp", "chat", "copy")
    assert user.ok("diff", "chat", "copy", "--exit-code") == "no difference\n"
    assert user.run("diff", "chat", "pirate", "--exit-code").code == 1
    user.fails(3, "diff", "chat", "missing")
    user.fails(2, "diff", "chat", "pirate", "--format", "yaml")


def test_df(user: Lading) -> None:
    lines = user.ok("df").splitlines()
    assert re.split(r"\s{4,}", lines[0]) == ["NAME", "SIZE", "SHARED", "EXCLUSIVE"]
    assert re.fullmatch(r"pirate:latest +[\d.]+ MB +[\d.]+ MB +[\d.]+ KB", lines[1])
    assert re.fullmatch(r"[\d.]+ MB in \d+ blobs; reclaimable by `lading gc`: 0 B", lines[-1])
    found = json.loads(user.ok("du", "--format", "json"))
    assert {model["name"] for model in found["models"]} == {"chat:latest", "pirate:latest"}
    assert all(model["size"] == model["shared"] + model["exclusive"] for model in found["models"])
    assert found["store"]["size"] < sum(model["size"] for model in found["models"])
    before = next(model for model in found["models"] if model["name"] == "pirate:latest")
    user.ok("rm", "pirate")
    found = json.loads(user.ok("df", "--format", "json"))
    assert found["store"]["reclaimable"] == before["exclusive"]
    assert user.ok("df", "--format", "{{.name}} {{.shared}}") == "chat:latest 0\n"


@pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)
def test_a_look_at_a_registry(user: Lading, tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        name = f"{registry.host}/team/pirate"
        for tag in ("v1", "v2"):
            user.ok("push", "pirate", f"{name}:{tag}", "-q")
        assert user.ok("tags", name) == f"NAME\n{name}:v1\n{name}:v2\n"
        assert user.ok("tags", name, "-q") == "v1\nv2\n"
        assert json.loads(user.ok("tags", name, "--format", "json"))[0] == {"name": f"{name}:v1", "tag": "v1"}
        stranger = Lading(tmp_path / "stranger" / "home")
        (there,) = json.loads(stranger.ok("inspect", "--remote", f"{name}:v1"))
        (here,) = json.loads(user.ok("inspect", "pirate"))
        assert {**there, "name": ""} == {**here, "name": ""}
        assert stranger.ok("inspect", "--remote", "--raw", f"{name}:v2") == user.ok(
            "inspect", "--raw", "pirate"
        )
        assert stranger.ok("ls", "-q") == ""
        stranger.fails(3, "inspect", "--remote", f"{name}:v3")
        stranger.fails(3, "tags", f"{registry.host}/team/none")
