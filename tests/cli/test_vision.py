"""A model that sees, as a user meets it: built, shown, asked about pictures, pushed and pulled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command import TINY_CHAT, TINY_VISION, Lading
from pictures import picture_file

from lading.cli.attachments import take_images

EXAMPLE = TINY_CHAT.parents[1] / "vision"
ASK = ("run", "--think=false", "seer")


@pytest.fixture
def seer(lading: Lading) -> Lading:
    lading.ok("create", "seer", "-f", str(EXAMPLE / "Modelfile"), "--quiet")
    return lading


def test_the_example(seer: Lading) -> None:
    """As its README has it."""
    root = EXAMPLE.parents[1]
    one = seer.run(*ASK, "What color is the picture?", "examples/vision/blue.png", cwd=root)
    assert (one.code, one.out, one.err) == (0, "blue\n", "")
    two = seer.run(*ASK, "What colors are in the picture?", "./examples/vision/red-white.png", cwd=root)
    assert (two.code, two.out) == (0, "red, white\n")


def test_what_is_shown(seer: Lading) -> None:
    shown = seer.ok("show", "seer")
    assert "vision" in shown and "Projector" in shown and "image size" in shown
    plain = Lading(seer.home)
    plain.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\n")
    assert "vision" not in plain.ok("show", "chat") and "Projector" not in plain.ok("show", "chat")


def test_paths_in_the_prompt(seer: Lading, tmp_path: Path) -> None:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    (folder / "a red one.jpg").write_bytes(picture_file("red", form="JPEG"))
    (tmp_path / "green.gif").write_bytes(picture_file("green", form="GIF"))
    red, green = str(folder / "a red one.jpg"), str(tmp_path / "green.gif")
    escaped = red.replace(" ", "\\ ")
    for words in ([red, "What color is this?"], [f"What color is '{red}'"], [escaped, "What color is this?"]):
        assert seer.ok(*ASK, *words) == "red\n"
    assert seer.ok(*ASK, "What colors are the pictures?", green, red) == "green, red\n"
    # Where there is no file there is text, and a pipe names no files.
    assert "Paris" in seer.ok(*ASK, "What is the capital of France?", stdin="")
    for text in ("./nothing.png", "https://example.com/cat.png"):
        assert take_images(text) == (text, ())
    piped = seer.run(*ASK, "--verbose", stdin=f"{green} What color is this?")
    assert piped.code == 0 and piped.out != "green\n"
    (tmp_path / "no.png").write_bytes(b"no picture")
    refused = seer.fails(1, *ASK, "What is this?", str(tmp_path / "no.png"))
    assert "no picture that can be read" in refused


def test_a_model_that_cannot_see_reads_the_path(lading: Lading) -> None:
    lading.ok("create", "chat", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\nPARAMETER temperature 0\n")
    said = lading.run("run", "--think=false", "chat", "Repeat the word", str(EXAMPLE / "blue.png"))
    assert said.code == 0 and said.out.strip()


def test_a_server_sees(seer: Lading, free_port: Callable[[], int]) -> None:
    address = f"127.0.0.1:{free_port()}"
    client = Lading(seer.home.parent / "empty", {"LADING_HOST": address})
    with seer.background("serve", "--host", address, ready=f"http://{address}/readyz"):
        assert client.ok(*ASK, "What color is the picture?", str(EXAMPLE / "blue.png")) == "blue\n"


def test_its_role_goes_where_it_goes(seer: Lading, tmp_path: Path, free_port: Callable[[], int]) -> None:
    host = f"127.0.0.1:{free_port()}"
    registry = Lading(tmp_path / "registry")
    with registry.background("registry", "--listen", host, ready=f"http://{host}/v2/"):
        seer.ok("cp", "seer", f"{host}/team/seer:1")
        seer.ok("push", f"{host}/team/seer:1")
        there = Lading(tmp_path / "there")
        there.ok("pull", f"{host}/team/seer:1")
    there.ok("cp", f"{host}/team/seer:1", "seer")
    assert there.ok(*ASK, "What color is the picture?", str(EXAMPLE / "blue.png")) == "blue\n"
    manifest = json.loads(there.ok("inspect", "seer", "--raw"))
    names = [layer["annotations"]["org.cncf.model.filepath"] for layer in manifest["layers"][:2]]
    assert names == ["tiny-chat.gguf", "mmproj-tiny-vision.gguf"]
    # A file that is not called so is, where it arrives.
    shutil.copy(TINY_VISION, tmp_path / "eye.gguf")
    there.ok(
        "create", "other", "-f", "-", "--quiet", stdin=f"FROM {TINY_CHAT}\nFROM {tmp_path / 'eye.gguf'}\n"
    )
    other = json.loads(there.ok("inspect", "other", "--raw"))
    assert other["layers"][1]["annotations"]["org.cncf.model.filepath"] == "mmproj-eye.gguf"
    # Built on by name: the projector comes along.
    there.ok("create", "third", "-f", "-", "--quiet", stdin="FROM seer\nSYSTEM You are helpful.\n")
    assert "vision" in there.ok("show", "third")
