"""Models that are loaded when the server starts, so that nobody waits for them later."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence

import msgspec

from ...modelfile.errors import LadingError
from ...runtime.errors import ShuttingDown
from ...runtime.grant import Acquire
from ...runtime.keeper import Keeper
from .wire import PreloadState

log = logging.getLogger("lading.keeper")


class Preloader:
    """Loads models one after the other, in a thread of its own. One that fails is logged, and the next is
    loaded: it may be mended, and is tried again when first asked for."""

    def __init__(self, keeper: Keeper, *, preload: Sequence[str], pinned: Sequence[str]) -> None:
        self._keeper = keeper
        self._states = {
            name: PreloadState(model=name, state="waiting", pinned=name in pinned)
            for name in dict.fromkeys((*pinned, *preload))
        }
        self._thread = threading.Thread(target=self._run, name="preloader", daemon=True)

    def start(self) -> None:
        if self._states:
            self._thread.start()

    @property
    def states(self) -> tuple[PreloadState, ...]:
        """In the order of loading."""
        return tuple(self._states.values())

    def _run(self) -> None:
        for name, state in list(self._states.items()):
            self._states[name] = msgspec.structs.replace(state, state="loading")
            try:
                keep_alive = math.inf if state.pinned else None
                self._keeper.acquire(Acquire(model=name, keep_alive=keep_alive, verb="load"))
            except ShuttingDown:
                return
            except LadingError as error:
                log.warning("loading %s at the start: %s", name, error)
                failed = msgspec.structs.replace(state, state="failed", error=error.message)
                self._states[name] = failed
            else:
                self._states[name] = msgspec.structs.replace(state, state="ready")
