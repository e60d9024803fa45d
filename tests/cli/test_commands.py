"""Packaging commands as a user types them, on the real chat model, without any server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import TINY_CHAT, Lading

MODELFILE = f"""FROM {TINY_CHAT}
PARAMETER temperature 0
PARAMETER stop "<|im_end|>"
SYSTEM You are brief.
LICENSE "Apache-2.0"
"""


@pytest.fixture
def model(lading: Lading) -> str:
    """A model of this name is in the store."""
    lading.ok("create", "chat", "-f", "-", "--quiet", stdin=MODELFILE)
    return "chat"


def test_create_prints_the_digest_and_says_what_it_does_on_stderr(lading: Lading) -> None:
    done = lading.run("create", "chat", "-f", "-", stdin=MODELFILE)
    assert done.code == 0, done.err
    assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", done.out)
    assert done.err.splitlines()[-1] == "success"


def test_the_same_inputs_give_the_same_digest_elsewhere(tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        folder = tmp_path / name / "somewhere"
        folder.mkdir(parents=True)
        (folder / "weights.gguf").write_bytes(TINY_CHAT.read_bytes())
        (folder / "Modelfile").write_text("FROM ./weights.gguf\nSYSTEM hi\n", "utf-8")
        command = Lading(tmp_path / name / "home")
        digests.add(command.ok("create", f"model-{name}", "--quiet", cwd=folder))
    assert len(digests) == 1


def test_ls(lading: Lading, model: str) -> None:
    header, row = lading.ok("ls").splitlines()
    assert re.split(r"\s{4,}", header) == ["NAME", "ID", "SIZE", "MODIFIED"]
    name, identity, size, modified = re.split(r"\s{4,}", row)
    assert name == "chat:latest"
    assert re.fullmatch("[0-9a-f]{12}", identity)
    assert re.fullmatch(r"[0-9.]+ MB", size)
    assert modified.endswith("ago")
    (listed,) = json.loads(lading.ok("ls", "--format", "json"))
    assert listed["name"] == "chat:latest" and listed["digest"].startswith(f"sha256:{identity}")
    assert listed["size"] > TINY_CHAT.stat().st_size
    assert lading.ok("ls", "-q") == "chat:latest\n"
    assert lading.ok("ls", "nothing-like-it", "-q") == ""
    assert lading.ok("list", "CHAT", "--format", "{{.name}}") == "chat:latest\n"


def test_show(lading: Lading, model: str) -> None:
    text = lading.ok("show", model)
    for words in (
        r"architecture +llama",
        r"parameters +2\.\d+M",
        r"quantization +F16",
        r"context length +\d+",
        "completion",
        "tools",
        r"temperature +0",
        r"You are brief\.",
        r"Apache-2\.0",
    ):
        assert re.search(words, text), f"{words!r} is not in\n{text}"
    assert lading.ok("show", model, "--system") == "You are brief.\n"
    assert "<|im_end|>" in lading.ok("show", model, "--parameters")
    assert json.loads(lading.ok("show", model, "--format", "json"))["details"]["family"] == "llama"


def test_show_modelfile_builds_the_same_model(lading: Lading, model: str) -> None:
    text = lading.ok("show", model, "--modelfile")
    lading.ok("create", "again", "-f", "-", "--quiet", stdin=text)
    first, second = (
        [layer["digest"] for layer in found["manifest"]["layers"]]
        for found in json.loads(lading.ok("inspect", model, "again"))
    )
    assert first == second


def test_inspect(lading: Lading, model: str) -> None:
    (found,) = json.loads(lading.ok("inspect", model))
    assert found["manifest"]["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert found["config"]["modelfs"]["diffIds"] == [layer["digest"] for layer in found["manifest"]["layers"]]
    assert json.loads(lading.ok("inspect", "--raw", model)) == found["manifest"]


def test_history_names_the_instruction_of_each_layer(lading: Lading, model: str) -> None:
    rows = json.loads(lading.ok("history", model, "--format", "json"))
    made = " ".join(row["created_by"] for row in rows)
    for word in ("FROM", "PARAMETER", "SYSTEM", "LICENSE"):
        assert word in made, made


def test_a_derived_model_shares_its_layers(lading: Lading, model: str) -> None:
    before = {path.name for path in (lading.home / "blobs" / "sha256").iterdir()}
    lading.ok("create", "pirate", "-f", "-", "--quiet", stdin="FROM chat\nSYSTEM You are a pirate.\n")
    added = [path for path in (lading.home / "blobs" / "sha256").iterdir() if path.name not in before]
    assert sum(path.stat().st_size for path in added) < 20_000
    assert lading.ok("show", "pirate", "--system") == "You are a pirate.\n"
    assert "temperature" in lading.ok("show", "pirate", "--parameters")


def test_cp_and_rm(lading: Lading, model: str) -> None:
    assert lading.ok("cp", model, "registry.example/team/chat:v1") == (
        "copied 'chat' to 'registry.example/team/chat:v1'\n"
    )
    first, second = json.loads(lading.ok("ls", "--json"))
    assert first["digest"] == second["digest"]
    assert lading.ok("rm", model) == "deleted 'chat'\n"
    assert lading.ok("ls", "-q") == "registry.example/team/chat:v1\n"


def test_a_damaged_model_is_listed_and_can_be_removed(lading: Lading, model: str) -> None:
    lading.ok("cp", model, "sound")
    lading.ok("create", "broken", "-f", "-", "--quiet", stdin="FROM chat\nSYSTEM x\n")
    rows = {row["name"]: row for row in json.loads(lading.ok("ls", "--json"))}
    manifest = lading.home / "blobs" / "sha256" / rows["broken:latest"]["digest"].removeprefix("sha256:")
    manifest.chmod(0o644)
    manifest.write_bytes(b"{}")
    done = lading.run("ls", "-q")
    assert sorted(done.out.split()) == ["broken:latest", "chat:latest", "sound:latest"]
    assert "broken:latest is damaged" in done.err
    assert "lading rm broken:latest" in lading.fails(1, "gc")
    lading.ok("rm", "broken")
    lading.ok("gc")
    assert "0 problems" in lading.ok("fsck")


def test_rm_of_several_is_all_or_nothing(lading: Lading, model: str) -> None:
    lading.fails(3, "rm", model, "missing")
    assert lading.ok("ls", "-q") == "chat:latest\n"
    assert lading.ok("rm", "--force", model, "missing") == "deleted 'chat'\n"


def test_gc_keeps_what_a_pull_resumes_unless_asked(lading: Lading, model: str) -> None:
    (lading.home / "ingest" / f"sha256-{'a' * 64}").write_bytes(b"half a download")
    done = lading.run("gc")
    assert (done.code, done.out) == (0, "freed 0 B in 0 files\n")
    assert done.err == "kept 1 unfinished downloads: a pull resumes them\n"
    assert lading.ok("gc", "--all") == "freed 15 B in 1 files\n"


def test_gc_frees_what_no_model_needs(lading: Lading, model: str) -> None:
    assert "freed 0 B in 0 files" in lading.ok("gc")
    lading.ok("rm", model)
    dry = lading.ok("gc", "--dry-run")
    assert re.match(r"would free [0-9.]+ MB in \d+ files", dry)
    assert lading.ok("gc").strip() == dry.strip().replace("would free", "freed")
    assert list((lading.home / "blobs" / "sha256").iterdir()) == []


def test_fsck_finds_a_flipped_bit(lading: Lading, model: str) -> None:
    assert lading.ok("fsck", "-q").strip().endswith("0 problems")
    blob = max((lading.home / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(1_000_000)
        byte = file.read(1)[0]
        file.seek(1_000_000)
        file.write(bytes([byte ^ 4]))
    done = lading.run("fsck", "-q")
    assert done.code == 1
    assert blob.name in done.out


def test_fmt_and_lint(lading: Lading, tmp_path: Path) -> None:
    untidy = "from   ./x.gguf\nparameter temperature 0.5\n"
    text = lading.ok("fmt", "-", stdin=untidy)
    assert text.startswith("FROM ./x.gguf\n")
    assert lading.ok("fmt", "-", stdin=text) == text
    file = tmp_path / "Modelfile"
    file.write_text(untidy, "utf-8")
    assert lading.run("fmt", "--check", file).code == 1
    assert lading.ok("fmt", "--write", file) == f"{file}\n"
    assert file.read_text("utf-8") == text
    done = lading.run(
        "lint", "-", stdin="FROM ./x.gguf\nPARAMETER temperature 0.1\nPARAMETER temperature 0.2\n"
    )
    assert done.code == 1
    assert re.search(r"^-:\d+:\d+: warning\[L\d+\]: ", done.out, re.MULTILINE), done.out


def test_version_config_completion_help(lading: Lading) -> None:
    assert lading.ok("--version").startswith("lading version ")
    assert lading.ok("version") == lading.ok("-v")
    rows = {row["setting"]: row for row in json.loads(lading.ok("config", "--format", "json"))}
    assert rows["home"] == {"setting": "home", "value": str(lading.home), "origin": "LADING_HOME"}
    for shell in ("bash", "zsh", "fish"):
        assert "_LADING_COMPLETE" in lading.ok("completion", shell)
    commands = lading.ok("--help")
    for name in ("create", "push", "pull", "run", "serve", "ls", "show", "fsck"):
        assert re.search(rf"^  {name}\s", commands, re.MULTILINE), commands


def test_completion_offers_models(lading: Lading, model: str) -> None:
    environ = {"_LADING_COMPLETE": "complete_bash", "COMP_WORDS": "lading show ch", "COMP_CWORD": "2"}
    assert Lading(lading.home, environ).run().out.strip() == "chat:latest"


def test_output_into_a_closed_pipe_is_no_error(lading: Lading, model: str, tmp_path: Path) -> None:
    import subprocess

    script = "set -o pipefail; lading inspect chat chat chat chat | head -c 1 >/dev/null"
    done = subprocess.run(
        ["bash", "-c", script], env=lading.environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
