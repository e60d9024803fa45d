"""Frameworks and clients that others wrote, unchanged, against a real server and the tiny chat model.

Each file of ``tests/clients`` runs by itself, in an environment of its own: these packages and ours need not
agree on the versions of anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import TINY_CHAT
from live_server import LiveServer, build_model
from random_models import embedding_model

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (CLIENTS / "node" / "node_modules").is_dir(),
    reason="Node.js or the packages of tests/clients/node are not there (make clients)",
)
needs_python = pytest.mark.skipif(not PYTHON.exists(), reason=".venv-clients is not there (make clients)")


@pytest.fixture(scope="module")
def served(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> LiveServer:
    """Has an embedding model, too."""
    source = embedding_model(tmp_path_factory.mktemp("model") / "bert.gguf", TINY_CHAT)
    build_model(server.store_root, "embedder", source=source)
    return server


@needs_python
@pytest.mark.timeout(300)
@pytest.mark.parametrize("file", sorted(path.name for path in CLIENTS.glob("test_*.py")))
def test_python(served: LiveServer, file: str, tmp_path: Path) -> None:
    _run(
        [str(PYTHON), "-m", "pytest", "-q", "-c", str(CLIENTS / "pytest.ini"), str(CLIENTS / file)],
        {"LADING_TEST_URL": served.url},
        tmp_path,
    )


@needs_node
@pytest.mark.parametrize("file", ["ollama_js.mjs", "ai_sdk.mjs"])
def test_node(served: LiveServer, file: str, tmp_path: Path) -> None:
    assert NODE is not None
    _run([NODE, str(CLIENTS / "node" / file), served.url, "tiny:latest"], {}, tmp_path)


def _run(command: list[str], environment: dict[str, str], home: Path) -> None:
    """In a home of its own, and without what would send clients elsewhere."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "DO_NOT_TRACK": "1"}
    done = subprocess.run(
        command,
        env=kept | quiet | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "0"} | environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
