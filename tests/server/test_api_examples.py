"""The programs in docs/api.md do what they say, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import LiveServer

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
SAYS = {"ollama": "Paris", "openai": "Ada", "anthropic": "{'city': 'Paris'}"}


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.split()[1] for program in PROGRAMS])
def test_an_example_runs(server: LiveServer, program: str) -> None:
    client = program.split()[1]
    assert "http://127.0.0.1:11434" in program
    done = subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:11434", server.url)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[client] in done.stdout


def test_there_is_one_for_each_client() -> None:
    assert {program.split()[1] for program in PROGRAMS} == set(SAYS)
