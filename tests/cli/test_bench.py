"""`lading bench`: what it prints, by a runtime of its own and by a server; never how fast anything is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from command import TINY_CHAT, Lading
from live_server import free_port

MODELFILE = f"FROM {TINY_CHAT}\nPARAMETER temperature 0\n"
SMALL = ("--rounds", "1", "--clients", "2", "--tokens", "4")
WORKLOADS = ["load", "prompt", "one client", "2 clients", "2 clients, one system prompt", "loaded"]


@pytest.fixture
def model(lading: Lading) -> str:
    lading.ok("create", "chat", "-f", "-", "--quiet", stdin=MODELFILE)
    return "chat"


def test_figures_without_a_server(lading: Lading, model: str) -> None:
    _check(lading.run("bench", model, *SMALL, "--format", "json").json())


def test_figures_of_a_server_as_a_table_and_as_json(lading: Lading, model: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    with lading.background("serve", "--host", address, ready=f"http://{address}/readyz"):
        client = replace(lading, environ={**lading.environ, "LADING_HOST": address})
        _check(client.run("bench", model, *SMALL, "--format", "json").json())
        table = client.ok("bench", model, *SMALL)
        assert table.splitlines()[0].split() == ["WORKLOAD", "FIGURE", "VALUE"]
        assert "tokens/s" in table


def _check(rows: list[dict[str, object]]) -> None:
    assert list(dict.fromkeys(row["workload"] for row in rows)) == WORKLOADS
    for row in rows:
        assert isinstance(row["value"], float), row
        assert row["value"] > 0 or row["figure"] in ("cached_tokens", "tokens_per_s"), row
    found = {(row["workload"], row["figure"]): row["value"] for row in rows}
    cached = found["2 clients, one system prompt", "cached_tokens"]
    assert isinstance(cached, float) and cached > 100, "the system prompt is read once"


def test_what_cannot_be_measured(lading: Lading) -> None:
    lading.fails(3, "bench", "nothing-of-that-name")
    lading.fails(2, "bench", "chat", "--clients", "0")
    lading.fails(2, "bench", "chat", "--tokens", "100000")
