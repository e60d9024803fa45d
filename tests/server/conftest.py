"""One server for all tests of this folder that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import openai
import pytest
from command import TINY_VISION
from live_server import LiveServer, build_model, running_server

MODEL = "tiny"
PIRATE = "team/pirate:v1"
SEER = "seer"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Has the tiny chat model as ``tiny``, with eyes as ``seer``, and a derived one with a system prompt and
    messages."""
    folder = tmp_path_factory.mktemp("server")
    home = folder / "home"
    build_model(home, MODEL, 'LICENSE "Apache-2.0"')
    build_model(home, SEER, f"FROM {TINY_VISION}")
    build_model(
        home,
        PIRATE,
        "SYSTEM Answer in capital letters.\nPARAMETER stop STOP-A\nPARAMETER stop STOP-B\n"
        "MESSAGE user What is the capital of Spain?\nMESSAGE assistant MADRID",
    )
    with running_server(home, folder) as live:
        yield live


@pytest.fixture
def native(server: LiveServer) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.url)
    yield client
    client._client.close()


@pytest.fixture
def sdk(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client
