"""How long a request may have a model stay loaded: memory is everybody's, so who does not manage the server
cannot take it for good."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

_longest_s: ContextVar[float] = ContextVar("lading.longest_stay", default=math.inf)


def longest_stay() -> float:
    """Seconds that the request of this task may ask for; ``math.inf``: as long as it likes."""
    return _longest_s.get()


@contextlib.contextmanager
def bounded_stay(seconds: float) -> Iterator[None]:
    """Within, requests of this task may ask for at most so many seconds."""
    token = _longest_s.set(seconds)
    try:
        yield
    finally:
        _longest_s.reset(token)
