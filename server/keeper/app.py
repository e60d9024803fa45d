"""The keeper process: a gunicorn "dirty" application, so that gunicorn starts, watches and stops it.

`configure` is called in gunicorn's master, before anything forks; the keeper process inherits what it set,
also when it is started again after a crash.
"""

from __future__ import annotations

import ctypes
import logging
import signal
from pathlib import Path

from gunicorn.dirty.app import DirtyApp  # type: ignore[import-untyped]

from ...runtime.keeper import Keeper
from ..settings import ServerSettings
from .preload import Preloader
from .self_test import SelfTest
from .service import KeeperService

IMPORT_PATH = f"{__name__}:KeeperApp"

_PR_SET_PDEATHSIG = 1

log = logging.getLogger("lading.keeper")


class KeeperApp(DirtyApp):  # type: ignore[misc]  # gunicorn has no types
    """Owns the one `Keeper` of a server."""

    workers = 1
    """Never two keepers, whatever signals gunicorn gets."""

    settings: ServerSettings
    socket_path: Path

    @classmethod
    def configure(cls, settings: ServerSettings, socket_path: Path) -> None:
        cls.settings, cls.socket_path = settings, socket_path

    def init(self) -> None:
        """Runs in the main thread of the new process."""
        _die_with_parent()
        # The arbiter's handlers were inherited by fork; they would touch its event loop.
        for inherited in (signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(inherited, signal.SIG_DFL)
        runtime = self.settings.runtime
        self._keeper = Keeper(self.settings.store_root, runtime)
        preloader = Preloader(self._keeper, preload=self.settings.preload, pinned=runtime.pinned)
        self_test = SelfTest(enabled=runtime.sandbox)
        self._service = KeeperService(
            self._keeper,
            self.socket_path,
            max_waiting=runtime.max_queue,
            preloader=preloader,
            self_test=self_test,
        )
        self._service.start()
        self_test.start()
        preloader.start()

    def close(self) -> None:
        """Wait for the web workers, whose streams need the runners; then stop the runners."""
        if not self._service.wait_until_left(self.settings.drain_s):
            log.warning("web workers still connected after %g s; stopping the models", self.settings.drain_s)
        self._service.stop()
        self._keeper.close()


def _die_with_parent() -> None:
    """The kernel ends this process when the arbiter dies, however it dies. Linux only; elsewhere nothing.

    With SIGKILL: a new arbiter starts a new keeper at once, and two would share neither memory nor socket.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
