"""``/metrics`` on a server with two web workers, read by Prometheus' own parser, against what was done."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from bare_services import bare_services
from falcon import inspect
from live_server import LiveServer, build_model, running_server
from prometheus_client.parser import text_string_to_metric_families
from server_processes import runners

from lading.server.app import create_app
from lading.server.metrics import ASKED, COUNTED

SHORT = {"model": "tiny", "prompt": "1", "raw": True, "stream": False, "options": {"num_predict": 5}}
ENDLESS = {
    "model": "tiny",
    "prompt": "1",
    "raw": True,
    "options": {"logit_bias": {"1269": -100, "1271": -100}, "temperature": 5, "num_predict": 100_000},
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("pair")
    build_model(folder / "home", "tiny")
    build_model(folder / "home", "team/other:v1", "PARAMETER num_batch 128")  # a runner of its own
    with running_server(folder / "home", folder, workers=2) as live:
        yield live


Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def figures(server: LiveServer) -> Figures:
    """Every sample, by name and labels; none comes twice."""
    answer = server.call("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found: Figures = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def value(found: Figures, name: str, **labels: str) -> float:
    return found.get((name, frozenset(labels.items())), 0.0)


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_whichever_worker_is_asked_has_the_counts_of_both(pair: LiveServer) -> None:
    before = figures(pair)
    for _ in range(40):  # each on a connection of its own, which the kernel gives to either
        assert pair.call("GET", "/api/version").status_code == 200
    labels = {"method": "GET", "route": "/api/version", "code": "200"}

    def counted() -> float:
        return value(figures(pair), "lading_requests_total", **labels)

    goal = value(before, "lading_requests_total", **labels) + 40
    assert eventually(lambda: counted() == goal)  # a request is counted just after its answer
    assert {counted() for _ in range(20)} == {goal}
    workers = [child.pid for child in psutil.Process(pair.process.pid).children() if is_worker(pair, child)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert eventually(lambda: len(alive := web_workers(pair)) == 2 and workers[0] not in alive)
    assert {counted() for _ in range(10)} == {goal}


def is_worker(server: LiveServer, process: psutil.Process) -> bool:
    """The arbiter beside the web workers has children of its own, or will have."""
    try:
        return any(one.laddr and one.laddr.port == server.port for one in process.net_connections("tcp"))
    except psutil.Error:
        return False


def web_workers(server: LiveServer) -> list[int]:
    return [one.pid for one in psutil.Process(server.process.pid).children() if is_worker(server, one)]


def test_tokens_and_times_are_those_of_the_answers(pair: LiveServer) -> None:
    pair.post("/api/generate", SHORT)
    assert eventually(lambda: value(figures(pair), "lading_active_streams") == 0)
    before = figures(pair)
    answers: list[dict[str, Any]] = [pair.post("/api/generate", SHORT).json() for _ in range(3)]
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "n": 2, "max_tokens": 3}
    usage = pair.post("/v1/chat/completions", chat).json()["usage"]
    generated = sum(answer["eval_count"] for answer in answers) + usage["completion_tokens"]

    def grown(name: str, **labels: str) -> float:
        return value(figures(pair), name, **labels) - value(before, name, **labels)

    assert eventually(lambda: grown("lading_tokens_total", model="tiny", kind="generated") == generated)
    prompt = grown("lading_tokens_total", model="tiny", kind="prompt")
    cached = grown("lading_tokens_total", model="tiny", kind="cached")
    prompts = sum(answer["prompt_eval_count"] for answer in answers) + 2 * usage["prompt_tokens"]
    assert prompt + cached == prompts
    for name in ("ttft", "queue_wait", "inter_token"):
        assert grown(f"lading_{name}_seconds_count", model="tiny") == 4
    assert 0 < grown("lading_ttft_seconds_sum", model="tiny") < 600
    assert grown("lading_request_seconds_count", method="POST", route="/api/generate") == 3


def test_drafts_are_counted(pair: LiveServer) -> None:
    quoting = {
        **ENDLESS,
        "prompt": "one two three four five. " * 4,
        "stream": False,
        "options": {**ENDLESS["options"], "temperature": 0, "num_predict": 60, "draft_num_predict": 3},
    }

    def drafted() -> float:
        found = figures(pair)
        return sum(
            value(found, "lading_drafted_tokens_total", model="tiny", outcome=outcome)
            for outcome in ("accepted", "rejected")
        )

    without = {**quoting, "options": {**quoting["options"], "draft_num_predict": 0}}
    plain = pair.post("/api/generate", without).json()
    assert eventually(lambda: value(figures(pair), "lading_active_streams") == 0)
    assert drafted() == 0
    assert pair.post("/api/generate", quoting).json()["response"] == plain["response"]
    assert eventually(lambda: drafted() > 0)


def test_a_client_that_leaves_is_counted_and_its_stream_is_active_no_more(pair: LiveServer) -> None:
    before = value(figures(pair), "lading_cancelled_total", stage="generating")
    with httpx.stream("POST", f"{pair.url}/api/generate", json=ENDLESS, timeout=60) as response:
        pieces = response.iter_raw()  # kept: the connection ends with it
        next(pieces)
        assert value(figures(pair), "lading_active_streams") == 1
    assert eventually(
        lambda: value(figures(pair), "lading_cancelled_total", stage="generating") == before + 1
    )
    assert eventually(lambda: value(figures(pair), "lading_active_streams") == 0)


def test_models_memory_and_store(pair: LiveServer) -> None:
    pair.post("/api/generate", {"model": "team/other:v1", "keep_alive": -1})
    found = figures(pair)
    assert value(found, "lading_keeper_up") == 1
    assert value(found, "lading_runner_up", model="team/other") == 1
    assert value(found, "lading_runner_rss_bytes", model="team/other") > 10_000_000
    assert value(found, "lading_runner_memory_bytes", model="team/other", use="weights") > 1_000_000
    assert value(found, "lading_store_models") == 2
    blobs = sum(path.stat().st_size for path in (pair.store_root / "blobs").rglob("*") if path.is_file())
    assert value(found, "lading_store_bytes") == blobs
    assert value(found, "lading_build_info", version=pair.call("GET", "/api/version").json()["lading"]) == 1


def test_a_model_that_dies_is_counted(pair: LiveServer) -> None:
    pair.post("/api/generate", {"model": "team/other:v1", "keep_alive": -1})
    before = value(figures(pair), "lading_runner_restarts_total", reason="crashed")
    for runner in runners(pair):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that was about to end has ended
            runner.kill()
    assert eventually(lambda: value(figures(pair), "lading_runner_restarts_total", reason="crashed") > before)


def test_registry_transfers_are_counted_in_bytes(pair: LiveServer, tmp_path: Path) -> None:
    before = figures(pair)
    manifest = pair.call("GET", "/v2/library/tiny/manifests/latest")
    out = len(manifest.content)
    for layer in manifest.json()["layers"]:
        out += len(pair.call("GET", f"/v2/library/tiny/blobs/{layer['digest']}").content)
    pushed = os.urandom(3000)
    begun = pair.call("POST", "/v2/team/new/blobs/uploads/")
    pair.call("PATCH", begun.headers["location"], content=pushed)

    def grown(direction: str) -> float:
        name = "lading_registry_bytes_total"
        return value(figures(pair), name, direction=direction) - value(before, name, direction=direction)

    assert eventually(lambda: grown("out") == out), (grown("out"), out)
    assert grown("in") == len(pushed)


def test_pulls_are_counted_in_bytes_and_what_was_there_is_not(pair: LiveServer, tmp_path: Path) -> None:
    name = f"127.0.0.1:{pair.port}/library/tiny:latest"
    with running_server(tmp_path / "other", tmp_path) as other:
        assert other.post("/api/pull", {"model": name, "insecure": True, "stream": False}).status_code == 200
        size = sum(
            path.stat().st_size for path in (tmp_path / "other" / "blobs").rglob("*") if path.is_file()
        )
        assert eventually(lambda: value(figures(other), "lading_pull_bytes_total") > 0)
        once = value(figures(other), "lading_pull_bytes_total")
        assert size * 0.99 < once <= size  # all but the manifest
        assert other.post("/api/pull", {"model": name, "insecure": True, "stream": False}).status_code == 200
        labels = {"method": "POST", "route": "/api/pull", "code": "200"}
        assert eventually(lambda: value(figures(other), "lading_requests_total", **labels) == 2)
        assert value(figures(other), "lading_pull_bytes_total") == once


def test_pushes_are_counted_in_bytes_and_what_was_there_is_not(pair: LiveServer, tmp_path: Path) -> None:
    registry = f"127.0.0.1:{pair.port}/library"
    with running_server(tmp_path / "other", tmp_path) as other:

        def send(path: str, **body: Any) -> None:
            assert other.post(path, {"stream": False, **body}).status_code == 200

        def pushed(model: str, times: int) -> float:
            send("/api/push", model=model, insecure=True)
            labels = {"method": "POST", "route": "/api/push", "code": "200"}
            assert eventually(lambda: value(figures(other), "lading_requests_total", **labels) == times)
            return value(figures(other), "lading_push_bytes_total")

        send("/api/pull", model=f"{registry}/tiny:latest", insecure=True)
        assert pushed(f"{registry}/tiny:latest", 1) == 0
        derived = f"{registry}/terse:latest"
        send("/api/create", model=derived, **{"from": f"{registry}/tiny:latest"}, system="You are terse.")
        new = pushed(derived, 2)
        assert 0 < new < 20_000, "the system prompt and the config, not the weights"
        assert pushed(derived, 3) == new


def test_strangers_make_no_labels(pair: LiveServer) -> None:
    for number in range(5):
        pair.call("GET", f"/nowhere/{number}")
        pair.call(f"BREW{number}", "/api/tags")
        pair.post("/api/generate", {**SHORT, "model": f"nobody-{number}"})
        pair.call("GET", f"/v2/stranger-{number}/manifests/latest")
        pair.call("GET", f"/v1/models/stranger-{number}")
    assert eventually(
        lambda: value(figures(pair), "lading_requests_total", method="GET", route="other", code="404") >= 5
    )
    text = pair.call("GET", "/metrics").text
    assert not any(word in text for word in ("nowhere", "BREW", "nobody", "stranger", ":v1"))


def test_every_figure_is_described_and_finite(pair: LiveServer) -> None:
    families = list(text_string_to_metric_families(pair.call("GET", "/metrics").text))
    known = {one.name.removesuffix("_total"): one for one in (*COUNTED, *ASKED)}
    for family in families:
        definition = known[family.name]
        assert (family.type, family.documentation) == (definition.kind, definition.means)
        for sample in family.samples:
            assert math.isfinite(sample.value) and sample.value >= 0, sample
            assert set(sample.labels) - {"le"} == set(definition.labels), sample
    assert len(families) >= len(known) - 4  # labelled ones appear with their first value


def test_a_server_without_figures_has_no_such_route(tmp_path: Path) -> None:
    routes = inspect.inspect_routes(create_app(bare_services(tmp_path)))
    assert "/metrics" not in [route.path for route in routes]
