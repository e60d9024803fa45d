"""`lading create --quantize`: from a file, from a model, and what users are told."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from command import LADING, TINY_CHAT, TINY_VISION, Lading
from quantiser_processes import wait_for_quantiser

QUESTION = "What is the capital of France?"
MODELFILE = f"FROM {TINY_CHAT}\nPARAMETER temperature 0\n"


def leftovers(lading: Lading) -> list[Path]:
    return list((lading.home / "ingest").iterdir())


@pytest.mark.parametrize(("given", "name"), [("q8_0", "Q8_0"), ("Q4_K", "Q4_K_M"), ("q5_0", "Q5_0")])
def test_a_quantised_model_answers_and_says_what_it_is(lading: Lading, given: str, name: str) -> None:
    digest = lading.ok("create", "m", "-f", "-", "-q", given, stdin=MODELFILE)
    assert lading.ok("create", "again", "-f", "-", "--quantize", name.lower(), stdin=MODELFILE) == digest
    shown = lading.ok("show", "m")
    assert f"quantization        {name}\n" in shown
    assert "Paris" in lading.ok("run", "m", QUESTION)
    assert f"FROM tiny-chat-{name}.gguf (quantized from " in lading.ok("history", "m")
    original, quantised = TINY_CHAT.stat().st_size, int(lading.ok("ls", "--format", "{{.size}}").split()[0])
    assert quantised < original * 0.6
    assert leftovers(lading) == []
    assert lading.run("fsck", "-q").code == 0


def test_a_model_of_the_store_is_quantised_and_the_rest_is_shared(lading: Lading) -> None:
    lading.ok("create", "base", "-f", "-", stdin=f"{MODELFILE}FROM {TINY_VISION}\nSYSTEM Be kind.\n")
    lading.ok("create", "small", "-f", "-", "-q", "q5_1", stdin="FROM base\n")
    details = lading.run("show", "small", "--format", "json").json()
    assert details["details"]["quantization_level"] == "Q5_1"
    assert details["details"]["parent_model"] == "base:latest"
    assert details["system"] == "Be kind."
    assert "vision" in details["capabilities"]
    both = [lading.ok("history", name, "--format", "json") for name in ("base", "small")]
    assert all("mmproj-tiny-vision" in text for text in both)
    changed = lading.run("diff", "base", "small", "--format", "json").json()
    assert {change["role"] for change in changed["layers"]} == {"weights", "modelfile"}
    text = lading.ok("show", "small", "--modelfile")
    assert text.startswith("# To build the same: lading create --quantize Q5_1\n")
    lading.ok("create", "repeated", "-f", "-", "-q", "Q5_1", stdin=text)
    names = lading.run("ls", "--format", "json").json()
    digests = {row["name"]: row["digest"] for row in names}
    assert digests["repeated:latest"] == digests["small:latest"]


def test_lines_in_a_pipe(lading: Lading) -> None:
    done = lading.run("create", "m", "-f", "-", "-q", "Q4_0", stdin=MODELFILE)
    lines = done.err.splitlines()
    assert lines[:4] == [
        "parsing GGUF",
        "hashing file tiny-chat.gguf",
        "quantizing F16 model to Q4_0",
        "verifying conversion",
    ]
    assert lines[4].startswith("creating new layer sha256:") and lines[-1] == "success"
    quiet = lading.run("create", "m", "-f", "-", "-q", "Q4_0", "--quiet", stdin=MODELFILE)
    assert (quiet.err, quiet.out) == ("", done.out)


def test_bars_on_a_terminal(lading: Lading) -> None:
    (lading.home.parent / "Modelfile").write_text(MODELFILE)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(
        [LADING, "create", "m", "-q", "Q4_0"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**lading.environment, "TERM": "xterm"},
        cwd=lading.home.parent,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 4096):
            seen += piece
    except OSError:  # how Linux tells the end
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and out.startswith(b"sha256:")
    assert b"quantizing F16 model to Q4_0" in seen and b"\xe2\x94\x81" in seen  # ━


@pytest.mark.parametrize(
    ("type_name", "words"),
    [
        ("Q9_9", "unsupported quantization type Q9_9 - supported types are F32, F16, BF16, Q8_0"),
        ("IQ2_XXS", "unsupported quantization type IQ2_XXS"),
        ("-f", "here -q is short for --quantize"),
    ],
)
def test_what_is_no_type(lading: Lading, type_name: str, words: str) -> None:
    assert words in lading.fails(2, "create", "m", "-f", "-", f"--quantize={type_name}", stdin=MODELFILE)


def test_weights_that_are_quantised_already(lading: Lading) -> None:
    lading.ok("create", "m", "-f", "-", "-q", "Q8_0", stdin=MODELFILE)
    error = lading.fails(1, "create", "n", "-f", "-", "-q", "Q4_0", stdin="FROM m\n")
    assert "only supported for F16, BF16 and F32 models: tiny-chat-Q8_0.gguf is Q8_0" in error
    assert "hint: name the original weights in FROM" in error


@pytest.mark.parametrize("who", ["SIGKILL of the process", "Ctrl-C"])
def test_an_end_before_time(lading: Lading, who: str) -> None:
    lading.ok("create", "base", "-f", "-", stdin=MODELFILE)
    process = subprocess.Popen(
        [LADING, "create", "m", "-f", "-", "-q", "IQ3_S"],
        env=lading.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(MODELFILE)
    process.stdin.close()
    process.stdin = None
    pid = wait_for_quantiser(process.pid)
    if who == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(pid, signal.SIGKILL)
    _, error = process.communicate(timeout=30)
    assert not Path(f"/proc/{pid}").exists()
    if who == "Ctrl-C":
        assert process.returncode == 130
        assert error.splitlines()[-1] == "Interrupted. The model was not created."
    else:
        assert process.returncode == 1
        assert "Error: quantizing tiny-chat.gguf to IQ3_S: the process has unexpectedly stopped" in error
        assert "killed by SIGKILL" in error
        assert error.count("Error: ") == 1 and "Traceback" not in error
    assert leftovers(lading) == []
    assert lading.ok("ls", "-q") == "base:latest\n"


def test_the_process_dies_with_the_command(lading: Lading) -> None:
    process = subprocess.Popen(
        [LADING, "create", "m", "-f", "-", "-q", "IQ3_S"],
        env=lading.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(MODELFILE.encode())
    process.stdin.close()
    pid = wait_for_quantiser(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():  # it has another parent now
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)
    # What a killed command leaves, gc finds.
    lading.ok("gc")
    assert leftovers(lading) == []
