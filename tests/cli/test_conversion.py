"""`lading convert` and `lading push --as`, and a model that runs in each form, in Podman's hands, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import TINY_CHAT, Lading
from registry_server import INSTALLED, WHY_NOT, RunningRegistry, running_registry

FORMS = ("modelpack", "docker", "ollama", "kit", "modelcar")
MODELFILE = """FROM tiny-chat.gguf
PARAMETER temperature 0
SYSTEM You are a pirate.
LICENSE Apache-2.0
LABEL org.example.team=ours
"""
QUESTION = "What is the capital of France?"
ANSWER = "Arr! The capital of France is Paris."
BUSYBOX = Path("/bin/busybox")
NEEDED = ("podman", "runc", "netavark", "catatonit")
_ELSEWHERE = ("/usr/lib/podman", "/usr/libexec/podman")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Lading:
    """A store with the model ``m``."""
    folder = tmp_path_factory.mktemp("conversion")
    shutil.copy(TINY_CHAT, folder)
    (folder / "Modelfile").write_text(MODELFILE)
    lading = Lading(folder / "home")
    lading.ok("create", "m", "--quiet")
    return lading


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def test_a_model_in_every_form(shelf: Lading) -> None:
    shown = json.loads(shelf.ok("show", "m", "--format", "json"))
    for form in FORMS:
        out = shelf.ok("convert", "m", f"m-{form}", "--as", form)
        assert out.startswith(f"m-{form}:latest@sha256:")
        if form not in ("ollama", "modelcar"):
            continue
        other = json.loads(shelf.ok("show", f"m-{form}", "--format", "json"))
        for key in ("parameters", "system", "template", "license", "details", "capabilities"):
            assert other[key] == shown[key], (form, key)
    usage = json.loads(shelf.ok("df", "--format", "json"))
    assert max(row["exclusive"] for row in usage["models"]) < 20_000


def test_mistakes(shelf: Lading) -> None:
    assert "expected one of modelpack, docker, ollama, kit, modelcar" in shelf.fails(
        2, "convert", "m", "x", "--as", "tarball"
    )
    assert "expected --as FORM" in shelf.fails(2, "convert", "m", "x")
    assert "not found" in shelf.fails(3, "convert", "nothing", "x", "--as", "kit")
    assert "for registries" in shelf.fails(2, "push", "m", "oci:folder", "--as", "kit")


def test_what_is_left_out_is_said(shelf: Lading) -> None:
    done = shelf.run("convert", "m", "said", "--as", "ollama")
    assert "left out, as ollama: labels: org.example.team" in done.err
    assert "left out" not in shelf.run("convert", "m", "said", "--as", "kit").err


def test_a_modelcar_is_pushed_pulled_and_run(
    shelf: Lading, registry: RunningRegistry, tmp_path: Path
) -> None:
    name = f"{registry.host}/forms/m:car"
    pushed = shelf.ok("push", "m", name, "--as", "modelcar", "-q")
    other = Lading(tmp_path / "home")
    assert other.ok("pull", name, "-q") == pushed
    assert other.ok("run", name, QUESTION).strip() == ANSWER
    assert not any(name in row["name"] for row in json.loads(shelf.ok("ls", "--json")))


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path as short as Podman wants it."""
    with tempfile.TemporaryDirectory(prefix="lading-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_podman_mounts_a_modelcar(shelf: Lading, registry: RunningRegistry, short_folder: Path) -> None:
    folder = short_folder
    path = os.pathsep.join((os.environ["PATH"], *_ELSEWHERE))
    missing = [program for program in NEEDED if shutil.which(program, path=path) is None]
    if missing or os.geteuid() != 0 or not BUSYBOX.exists():
        pytest.skip(f"containers need root, busybox and {', '.join(missing) or 'nothing more'}")
    name = f"{registry.host}/cars/m:v1"
    shelf.ok("push", "m", name, "--as", "modelcar", "-q")
    (folder / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, folder / "rootfs" / "bin")
    (folder / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    )

    def podman(*arguments: str) -> str:
        done = subprocess.run(
            [
                *("podman", "--root", f"{folder}/storage", "--runroot", f"{folder}/run"),
                *("--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"),
                *arguments,
            ],
            env={**os.environ, "CONTAINERS_CONF": f"{folder}/containers.conf", "HOME": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    podman("pull", "-q", "--tls-verify=false", name)
    with subprocess.Popen(["tar", "-C", f"{folder}/rootfs", "-cf", f"{folder}/rootfs.tar", "."]):
        pass
    podman("import", "-q", f"{folder}/rootfs.tar", "localhost/busybox:1")
    out = podman(
        *("run", "--rm", "--network", "none", "--mount", f"type=image,source={name},destination=/m"),
        *("localhost/busybox:1", "/bin/busybox", "sha256sum", "/m/models/model.file", "/m/models/system.txt"),
    )
    weights = json.loads(shelf.ok("inspect", "m"))[0]["manifest"]["layers"][0]["digest"]
    assert out.splitlines()[0] == f"{weights.removeprefix('sha256:')}  /m/models/model.file"
    assert len(out.splitlines()) == 2
