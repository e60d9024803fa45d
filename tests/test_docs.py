"""The documentation says what the code does: its tables are generated, its commands run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from command import Lading

ROOT = Path(__file__).parents[1]


def test_generated_tables_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_relative_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")]
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken, "\n".join(broken)


def test_the_readmes_commands_run(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Every `sh` block of the README, in order, as one script; only ports and folders are others."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 3
    server, registry = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    lines = ["set -eu", "trap 'kill $(jobs -p)' EXIT"]
    for line in "".join(blocks).splitlines():
        line = line.replace("127.0.0.1:11434", server).replace("127.0.0.1:5000", registry)
        lines.append(line.replace("/tmp/lading-", f"{tmp_path}/"))
        if line.endswith("&"):  # what a reader does by looking: wait until it is up
            address = server if "serve" in line else registry
            lines.append(f"until curl -fs http://{address}/v2/; do sleep 0.2; done")
    command = Lading(tmp_path / "home", {"LADING_HOST": server})
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=ROOT,
        env=command.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for answer in (
        "The capital of France is Paris.",
        "1, 2, 3, 4, 5",
        "Tokyo",
        "hello:latest",
        "/team/hello:1.0@sha256:",
    ):
        assert answer in done.stdout, done.stdout + done.stderr
