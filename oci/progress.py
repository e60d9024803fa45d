"""Progress of long work: small values, handed to whoever shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .digest import Digest


@dataclass(frozen=True, slots=True)
class Progress:
    """One step. ``completed`` and ``total`` are bytes, both 0 where nothing is counted.

    ``status`` is a word or two for people, in Ollama's wording where Ollama has one, since clients
    match on it: ``pulling manifest``, ``pulling <12 hex>``, ``verifying sha256 digest``, ``success``.
    """

    status: str
    digest: Digest | None = None
    completed: int = 0
    total: int = 0


ProgressSink = Callable[[Progress], None]
"""Called from the thread that does the work, so it must be quick; what it raises stops the work."""


def ignore_progress(progress: Progress) -> None:
    """The sink for callers that show nothing."""
