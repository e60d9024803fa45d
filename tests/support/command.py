"""Running the real `lading` command in tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LADING = str(Path(sys.executable).with_name("lading"))
TINY_CHAT = Path(__file__).parents[2] / "examples" / "models" / "tiny-chat.gguf"
TINY_VISION = TINY_CHAT.with_name("mmproj-tiny-vision.gguf")


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Lading:
    """The command, with a home and an environment of its own: nothing of the user's is read."""

    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        user = self.home.parent / "user"
        user.mkdir(parents=True, exist_ok=True)
        return {
            "PATH": f"{Path(LADING).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(user),
            "LADING_HOME": str(self.home),
            "LADING_HOST": "127.0.0.1:9",  # where nothing listens
            "LANG": "C.UTF-8",
            **self.environ,
        }

    def run(self, *arguments: str | Path, stdin: str | bytes = "", cwd: Path | None = None) -> Done:
        """Run to the end, whatever the exit code."""
        done = subprocess.run(
            [LADING, *map(str, arguments)],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            env=self.environment,
            cwd=cwd or self.home.parent,
            timeout=100,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str | Path, stdin: str | bytes = "", cwd: Path | None = None) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments, stdin=stdin, cwd=cwd)
        assert done.code == 0, f"lading {' '.join(map(str, arguments))}: exit {done.code}\n{done.err}"
        return done.out

    def fails(
        self, code: int, *arguments: str | Path, stdin: str | bytes = "", cwd: Path | None = None
    ) -> str:
        """Standard error of a command that must fail with ``code``: one sentence, no traceback."""
        done = self.run(*arguments, stdin=stdin, cwd=cwd)
        assert done.code == code, f"expected exit {code}, got {done.code}\n{done.out}\n{done.err}"
        assert "Traceback" not in done.err, done.err
        assert done.err.count("Error: ") == 1, done.err
        return done.err

    @contextmanager
    def background(self, *arguments: str | Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on until the block ends; entered once the URL ``ready`` answers."""
        log = self.home.parent / f"{arguments[0]}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [LADING, *map(str, arguments)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.home.parent,
            )
        try:
            _wait_until_ready(process, ready, log)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"exited with {process.returncode}: {log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            time.sleep(0.05)
            continue
        else:
            return
    raise AssertionError(f"nothing answered at {url}: {log.read_text()}")
