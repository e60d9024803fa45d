"""A bound on how many bytes a second move, shared by all connections of a client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST_S = 0.25
_MIN_PIECE = 4096


class RateLimit:
    """At most ``rate`` bytes a second, on average; 0 means no bound. Safe to use from several threads."""

    def __init__(self, rate: int = 0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_until = clock()

    def piece(self, largest: int) -> int:
        """How many bytes to move between two calls of `spend`, at most ``largest``: so many that the flow
        is even and no connection is silent for long."""
        return min(largest, max(_MIN_PIECE, self._rate // 8)) if self._rate else largest

    def spend(self, size: int, sleep: Callable[[float], None]) -> None:
        """Waits, with ``sleep``, until ``size`` more bytes are within the bound."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - _BURST_S) + size / self._rate
            wait = self._paid_until - now
        if wait > 0:
            sleep(wait)
