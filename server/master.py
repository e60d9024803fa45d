"""gunicorn's master, which goes on with its work while workers of an earlier generation finish theirs.

gunicorn's own waits for them, on SIGHUP, up to ``graceful_timeout``: meanwhile it hears no signal, and
replaces no worker that dies. Here they are *leaving*: told to go, waited for by nobody, counted as no worker.

Whoever is told to go is told again and again: a worker that is just being forked has the master's handlers
for a moment, and loses what it hears then.

Rules for editing this file: as in `web_worker`. tests/server/test_lifecycle.py shows what it is for.
Source: gunicorn 27.0.1, arbiter.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]

from . import interrupt

_LATE_S = 30.0
"""How much longer than it may a leaving worker can take; then it hangs, and is killed."""


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """The master of a server. `leaving` is the processes that finish what they were doing, with the time at
    which each is killed."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._reloading = False
        self._leaving: dict[int, tuple[Any, float]] = {}
        self._last_word: signal.Signals | None = None

    def init_signals(self) -> None:
        ignored = interrupt.is_ignored()
        super().init_signals()
        if ignored:
            interrupt.ignore()

    def reload(self) -> None:
        self._reloading = True
        try:
            super().reload()
        finally:
            self._reloading = False

    def manage_workers(self) -> None:
        super().manage_workers()  # it has told those that are too many to go
        if not self._reloading:
            return
        by_age = sorted(self.WORKERS.items(), key=lambda entry: entry[1].age)
        latest = time.monotonic() + self.cfg.graceful_timeout + _LATE_S
        for pid, worker in by_age[: -self.num_workers]:
            del self.WORKERS[pid]
            self._leaving[pid] = worker, latest

    def murder_workers(self) -> None:
        super().murder_workers()
        now = time.monotonic()
        for pid, (_, latest) in self._leaving.items():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if now < latest else signal.SIGKILL)

    def reap_workers(self) -> None:
        leaving, self._leaving = self._leaving, {}
        self.WORKERS.update({pid: worker for pid, (worker, _) in leaving.items()})
        try:
            super().reap_workers()
        finally:
            for pid, entry in leaving.items():
                if self.WORKERS.pop(pid, None) is not None:
                    self._leaving[pid] = entry
        if self._last_word is not None:
            self.kill_workers(self._last_word)

    def stop(self, graceful: bool = True) -> None:
        """Now those that are leaving are waited for, too."""
        self.WORKERS.update({pid: worker for pid, (worker, _) in self._leaving.items()})
        self._leaving.clear()
        self._last_word = signal.SIGTERM if graceful else signal.SIGQUIT
        super().stop(graceful)
