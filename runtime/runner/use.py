"""How much a variant of a runner is used: what the keeper goes by when it lets models go."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ..protocol import VariantUse


class Use:
    """Requests of one variant. The event loop begins them; they are admitted and end in it, or in the
    engine's thread, each of which writes to what is its own."""

    __slots__ = ("_begun", "_ended", "_given_up", "_last_ns", "_running")

    def __init__(self) -> None:
        self._begun = 0
        self._given_up = 0
        self._running = 0
        self._ended = 0
        self._last_ns = time.monotonic_ns()

    def begin(self) -> None:
        self._begun += 1
        self._last_ns = time.monotonic_ns()

    def give_up(self) -> None:
        """In the event loop: what was begun has ended, and the engine has never had it."""
        self._given_up += 1
        self._last_ns = time.monotonic_ns()

    def admit(self) -> None:
        """In the engine's thread: it has a slot now."""
        self._running += 1

    def end(self, *, was_admitted: bool = True) -> None:
        """In the engine's thread."""
        self._ended += 1
        self._running -= was_admitted
        self._last_ns = time.monotonic_ns()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """For a request that ends in the event loop."""
        self.begin()
        try:
            yield
        finally:
            self.give_up()

    @property
    def unfinished(self) -> int:
        return max(self._begun - self._given_up - self._ended, 0)

    def told(self) -> VariantUse:
        """For the keeper."""
        unfinished, running = self.unfinished, self._running
        idle = 0 if unfinished else time.monotonic_ns() - self._last_ns
        queued = max(unfinished - running, 0)
        return VariantUse(running=running, queued=queued, idle_ns=idle, requests=self._begun)
