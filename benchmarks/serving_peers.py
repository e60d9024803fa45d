"""Servers that serving.py measures: those that it starts itself, and those that run elsewhere."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import psutil

from lading.cli.benchmark_http import HttpSpeaker
from lading.runtime.runner.sandbox import forbid_privileges
from lading.runtime.runner.seccomp import refuse_amx

START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What is the same for all servers."""

    model: Path
    folder: Path
    slots: int
    context: int
    """Tokens of one slot."""
    threads: int
    pooled: bool = False
    """The model embeds."""


class Peer(Protocol):
    name: str
    speaker: HttpSpeaker

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def cpu_s(self) -> float | None:
        """Processor seconds of all its processes so far; None where they are not known."""
        ...


@dataclass
class RemoteServer:
    """``url`` may end in ``#`` and the name of a model."""

    name: str
    url: str

    def __post_init__(self) -> None:
        url, _, model = self.url.partition("#")
        self.speaker = HttpSpeaker(url=url.rstrip("/"), model=model or "bench")

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def cpu_s(self) -> float | None:
        return None


def _without_amx() -> None:
    """What runners do without, llama-server must: the kernels are the same, and so is what they die of."""
    forbid_privileges()
    refuse_amx()


@dataclass
class _Started:
    """A server in processes of our own."""

    setup: Setup
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default=0)

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def ready_path(self) -> str:
        return "/health"

    def start(self) -> None:
        """Returns once it answers. A port is kept over restarts."""
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        self.speaker = HttpSpeaker(
            url=f"http://127.0.0.1:{self.port}", model="bench", fields={"temperature": 0.8, "seed": 7}
        )
        log = self.setup.folder / f"{self.name}.log"
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                self.command(),
                env=self.environment(),
                stdout=sink,
                stderr=sink,
                stdin=subprocess.DEVNULL,
                preexec_fn=_without_amx,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{self.name} does not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.speaker.url + self.ready_path(), timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def processes(self) -> list[psutil.Process]:
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        return [main, *main.children(recursive=True)]

    def cpu_s(self) -> float | None:
        total = 0.0
        for process in self.processes():
            times = process.cpu_times()
            total += times.user + times.system
        return total


@dataclass
class LadingServer(_Started):
    """`lading serve` of this Python, over a store of its own."""

    name: str = "lading"

    def __post_init__(self) -> None:
        self._home = self.setup.folder / "home"
        self._lading = str(Path(sys.executable).with_name("lading"))
        parameters = f"FROM {self.setup.model.resolve()}\nPARAMETER num_ctx {self.setup.context}\n"
        subprocess.run(
            [self._lading, "create", "--quiet", "bench", "-f", "-"],
            input=parameters.encode(),
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    @property
    def weights(self) -> Path:
        """The model's file in the store."""
        return max((self._home / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)

    def command(self) -> list[str]:
        return [self._lading, "serve", "--host", f"127.0.0.1:{self.port}"]

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "LADING_HOME": str(self._home),
            "LADING_NUM_PARALLEL": str(self.setup.slots),
            "LADING_THREADS": str(self.setup.threads),
            "LADING_PREFIX_CACHE": "2GB",
            "XDG_CACHE_HOME": str(self.setup.folder / "cache"),
        }

    def ready_path(self) -> str:
        return "/readyz"


@dataclass
class LlamaServer(_Started):
    """llama.cpp's server, on the libraries of llama-cpp-python unless ``own_libraries``.

    Where a file's pages happen to lie in memory makes some per cent of difference, so that two builds of the
    same sources are not equally fast: to compare what serves, both have to compute with the same file.
    """

    name: str = "llama-server"
    program: Path = Path("llama-server")
    options: list[str] = field(default_factory=list)
    own_libraries: bool = False

    def command(self) -> list[str]:
        setup = self.setup
        numbers = {
            "--port": self.port,
            "--parallel": setup.slots,
            "--ctx-size": setup.slots * setup.context,
            "--threads": setup.threads,
        }
        flags = [text for name, number in numbers.items() for text in (name, str(number))]
        pooled = ["--embeddings"] if setup.pooled else []
        return [
            str(self.program),
            *("--model", str(setup.model), "--host", "127.0.0.1"),
            *flags,
            *pooled,
            *self.options,
        ]

    def environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if not self.own_libraries:
            package = find_spec("llama_cpp")
            assert package is not None and package.origin is not None
            libraries = [str(Path(package.origin).parent / "lib"), environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
        return environment
