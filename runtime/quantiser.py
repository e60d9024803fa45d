"""Quantises weights with llama.cpp, in a process of its own that can read them and write one file, no more.

`SandboxedQuantiser` is what `oci.building` asks for as a `Quantiser`. Each call starts one process
(`runner.quantiser_main`) and waits for it. Whatever ends the call ends the process first: it is killed, since
nothing of it needs an orderly end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..modelfile.errors import LadingError
from ..oci.building.quantising import QuantisationJob
from ..oci.store.disk import free_bytes
from .errors import OutOfMemory, QuantisationRefused, QuantiserLost
from .frame import BadFrame, pack, read_frame, unpack
from .memory import oom_kills
from .process_end import LastWords, how_it_ended
from .processors import usable_cores
from .quantise_protocol import OUTCOME, Outcome, Planned, QuantiseSpec, Refused, Written
from .settings import RuntimeSettings

MODULE = "lading.runtime.runner.quantiser_main"
_TICK_S = 0.25
"""How often the caller is told of progress, and may end the work."""
_JOIN_S = 2.0
_MESSAGES = 2
"""A plan and an end: more is not read."""


class SandboxedQuantiser:
    """A `Quantiser`. Of the settings, threads and the sandbox count."""

    def __init__(self, settings: RuntimeSettings) -> None:
        self._settings = settings

    def __call__(self, job: QuantisationJob, report: Callable[[int], None]) -> None:
        """Fill ``job.output``: see `oci.building.quantising.Quantiser`.

        Raises:
            QuantisationRefused: llama.cpp does not do it, and says why.
            QuantiserLost: the process ended on its own, or could not be started.
            OutOfMemory: … for lack of memory.
            OSError: the output cannot be written.
        """
        try:
            folder = tempfile.TemporaryDirectory(prefix="lading-quantise-")
        except OSError as error:
            raise _lost(job, f"it cannot be started: {error.strerror or error}") from error
        with folder as name:
            _Run(job, self._spec(job, Path(name)), report).run()

    def _spec(self, job: QuantisationJob, folder: Path) -> QuantiseSpec:
        count = len(job.sources)
        names = (
            ["model.gguf"]
            if count == 1
            else [f"model-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
        )
        for name, target in zip([*names, "output.gguf"], [*job.sources, job.output], strict=True):
            (folder / name).symlink_to(target.absolute())
        return QuantiseSpec(
            sources=tuple(str(folder / name) for name in names),
            output=str(folder / "output.gguf"),
            file_type=job.type.file_type,
            threads=self._settings.threads or usable_cores(),
            alignment=job.alignment,
            largest_size=job.largest_size,
            parent_pid=os.getpid(),
            sandbox=self._settings.sandbox,
        )


class _Run:
    """One process, from its start to its end."""

    def __init__(self, job: QuantisationJob, spec: QuantiseSpec, report: Callable[[int], None]) -> None:
        self._job = job
        self._spec = spec
        self._report = report
        self._words = LastWords()
        self._messages: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._planned = 0

    def run(self) -> None:
        kills = oom_kills()
        process = self._start()
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        readers = [
            threading.Thread(target=self._words.read, args=(process.stderr,), daemon=True),
            threading.Thread(target=self._read, args=(process.stdout,), daemon=True),
        ]
        try:
            for reader in readers:
                reader.start()
            with contextlib.suppress(BrokenPipeError):  # it has ended already, as will be seen
                process.stdin.write(pack(self._spec))
                process.stdin.flush()
            outcome = self._wait()
        finally:
            process.kill()
            status = process.wait()
            with contextlib.suppress(OSError):
                process.stdin.close()
            for reader in readers:
                if reader.ident is not None:
                    reader.join(_JOIN_S)
        if isinstance(outcome, Refused):
            raise self._refusal(outcome)
        if outcome is None:
            raise self._loss(status, oom=oom_kills() > kills)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C is for us, and we kill it
            )
        except OSError as error:
            raise _lost(self._job, f"it cannot be started: {error.strerror or error}") from error

    def _read(self, stream: BinaryIO) -> None:
        """Pass on what the process says, and None at its end or where it makes no sense."""
        try:
            with stream:
                for _ in range(_MESSAGES):
                    body = read_frame(stream)
                    if body is None:
                        break
                    self._messages.put(unpack(OUTCOME, body))
        except (BadFrame, OSError, ValueError):
            pass
        finally:
            self._messages.put(None)

    def _wait(self) -> Written | Refused | None:
        """What came of it; None where the process ended without a word."""
        while True:
            try:
                message = self._messages.get(timeout=_TICK_S)
            except queue.Empty:
                self._report(self._planned)
                continue
            if not isinstance(message, Planned):
                return message
            self._planned = self._job.header_size + message.tensors_size
            self._report(self._planned)

    def _refusal(self, refused: Refused) -> LadingError | OSError:
        if refused.writing:
            # It cannot say why: streams of C++ do not tell.
            missing = self._planned - self._job.output.stat().st_size
            reason = errno.ENOSPC if free_bytes(self._job.output) < missing else errno.EIO
            return OSError(reason, os.strerror(reason), str(self._job.output))
        reason_words = refused.reason
        for path in self._spec.sources:
            reason_words = reason_words.replace(path, self._job.name)
        return QuantisationRefused(self._job.name, self._job.type.name, reason_words)

    def _loss(self, status: int, *, oom: bool) -> LadingError:
        how = how_it_ended(status, oom=oom)
        if oom and status == -signal.SIGKILL:
            return OutOfMemory(f"{_doing(self._job)}: the process was {how}")
        tail = f": {self._words.text}" if self._words.text else ""
        return _lost(self._job, f"the process has unexpectedly stopped ({how}){tail}")


def _doing(job: QuantisationJob) -> str:
    return f"quantizing {job.name} to {job.type.name}"


def _lost(job: QuantisationJob, how: str) -> QuantiserLost:
    return QuantiserLost(f"{_doing(job)}: {how}", hint="nothing was kept of it")
