"""Ctrl-C where the server was started with SIGINT ignored, as shells do for ``lading serve &`` in scripts: it
is not meant for the server then, and stays ignored in each of its processes, whatever gunicorn sets.
"""

from __future__ import annotations

import signal
from typing import Any


def is_ignored() -> bool:
    """In this process, and in those that it forks until they set something else."""
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def stay_ignored(process: Any) -> None:
    """Have an object of gunicorn's that will set this process's signals leave SIGINT as it is, if ignored."""
    if not is_ignored():
        return
    set_signals = process.init_signals

    def init_signals() -> None:
        set_signals()
        ignore()

    process.init_signals = init_signals
