"""/api/create with `quantize`, by ollama-python and as it goes over the wire."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest
from command import TINY_CHAT
from live_server import LiveServer
from quantiser_processes import wait_for_none, wait_for_quantiser

QUESTION = {"role": "user", "content": "What is the capital of France?"}


@pytest.fixture
def made(native: ollama.Client) -> Iterator[str]:
    """The name of a model that is gone afterwards."""
    yield "quantised"
    names = {model.model for model in native.list().models}
    if "quantised:latest" in names:
        native.delete("quantised")


def leftovers(server: LiveServer) -> list[Path]:
    return list((server.store_root / "ingest").iterdir())


@pytest.mark.parametrize("type_name", ["q8_0", "Q4_K_M", "q5_0"])
def test_a_quantised_model_answers(native: ollama.Client, made: str, type_name: str) -> None:
    assert native.create(made, from_="tiny", quantize=type_name).status == "success"
    [row] = [model for model in native.list().models if model.model == "quantised:latest"]
    assert row.details and row.details.quantization_level == type_name.upper()
    shown = native.show(made)
    assert shown.details and shown.details.quantization_level == type_name.upper()
    assert shown.details.parent_model == "tiny:latest"
    assert "Paris" in (native.chat(made, [QUESTION], think=False).message.content or "")


def test_the_stream_tells_how_far_it_is(native: ollama.Client, made: str) -> None:
    parts = list(native.create(made, from_="tiny", quantize="q4_K", stream=True))
    statuses = list(dict.fromkeys(part.status for part in parts))
    assert statuses[:2] == ["quantizing F16 model to Q4_K_M", "verifying conversion"]
    assert (statuses[2] or "").startswith("creating new layer sha256:")
    assert statuses[-2:] == ["writing manifest", "success"]
    counted = [part for part in parts if (part.status or "").startswith("quantizing")]
    assert counted[-1].completed == counted[-1].total and (counted[-1].total or 0) > 1_000_000
    assert (counted[-1].digest or "").startswith("sha256:")


def test_uploaded_files_and_the_older_name(server: LiveServer, native: ollama.Client, made: str) -> None:
    digest = native.create_blob(TINY_CHAT)
    answer = server.post(
        "/api/create",
        {"model": made, "files": {"tiny-f16.gguf": digest}, "quantization": "Q5_1", "stream": False},
    )
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})
    shown = native.show(made)
    assert shown.details and shown.details.quantization_level == "Q5_1"


def test_what_is_no_type(native: ollama.Client, made: str) -> None:
    words = "unsupported quantization type q9 - supported types are F32, F16"
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        native.create(made, from_="tiny", quantize="q9")  # type: ignore[arg-type]  # that is the point
    assert caught.value.status_code == 400


def test_weights_that_are_quantised_already(native: ollama.Client, made: str) -> None:
    native.create(made, from_="tiny", quantize="q8_0")
    words = "quantization is only supported for F16, BF16 and F32 models"
    with pytest.raises(ollama.ResponseError, match=words) as caught:
        native.create("other", from_=made, quantize="q4_K_M")
    assert caught.value.status_code == 400
    assert "other:latest" not in {model.model for model in native.list().models}


def test_a_client_that_leaves_ends_the_work(server: LiveServer, native: ollama.Client) -> None:
    body = {"model": "left", "from": "tiny", "quantize": "IQ3_S"}
    with httpx.stream("POST", f"{server.url}/api/create", json=body, timeout=30) as answer:
        first = json.loads(next(answer.iter_lines()))
        assert first["status"] == "quantizing F16 model to IQ3_S"
    wait_for_none(server.process.pid)
    deadline = time.monotonic() + 10
    while leftovers(server):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "left:latest" not in {model.model for model in native.list().models}


def test_a_process_that_is_killed_is_told_of(server: LiveServer, native: ollama.Client) -> None:
    body = {"model": "killed", "from": "tiny", "quantize": "IQ3_S"}
    with httpx.stream("POST", f"{server.url}/api/create", json=body, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        os.kill(wait_for_quantiser(server.process.pid), signal.SIGKILL)
        last = json.loads(list(lines)[-1])
    assert "quantizing tiny-chat.gguf to IQ3_S: the process has unexpectedly stopped" in last["error"]
    assert leftovers(server) == []
    assert "killed:latest" not in {model.model for model in native.list().models}
