"""How much of the server one key may take: requests in a minute, and requests at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..errors import TooManyRequests
from .api_key import ApiKey

DEFAULT_AT_ONCE = 64
"""Requests of one key that may be under way, unless the key says otherwise."""
MAX_KEYS = 4096
"""Keys whose use is remembered; the ones that were used least recently are forgotten."""


class _Use:
    __slots__ = ("at", "level", "running")

    def __init__(self, level: float, at: float) -> None:
        self.level, self.at, self.running = level, at, 0


class Allowances:
    """Counts for each key, in one of `share` processes that share what a key may do.

    A bucket that holds a minute's requests and fills steadily. A place is given back with `leave`.
    """

    def __init__(self, share: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._uses: dict[str, _Use] = {}

    def enter(self, key: ApiKey) -> None:
        """Raises: TooManyRequests; nothing has been counted then."""
        now = self._clock()
        size = math.ceil((key.per_minute or 0) / self._share)
        use = self._uses.pop(key.sha256, None) or _Use(size, now)
        self._uses[key.sha256] = use
        self._forget()
        at_once = key.at_once or DEFAULT_AT_ONCE
        if use.running >= math.ceil(at_once / self._share):
            raise TooManyRequests(f"expected at most {at_once} requests at once with this key", 1)
        if key.per_minute is not None:
            level = min(size, use.level + (now - use.at) * size / 60)
            use.at, use.level = now, level
            if level < 1:
                wait = math.ceil((1 - level) * 60 / size)
                raise TooManyRequests(
                    f"expected at most {key.per_minute} requests a minute with this key", wait
                )
            use.level = level - 1
        use.running += 1

    def leave(self, key: ApiKey) -> None:
        use = self._uses.get(key.sha256)
        if use is not None and use.running:
            use.running -= 1

    def _forget(self) -> None:
        if len(self._uses) > MAX_KEYS:
            idle = next((name for name, use in self._uses.items() if not use.running), None)
            if idle is not None:
                del self._uses[idle]
