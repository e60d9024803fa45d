"""Stop strings: text is held back as long as it might be the start of one, so that none is ever seen, even
in part."""

from __future__ import annotations

from collections.abc import Sequence

from .answer import overlap


class StopMatcher:
    """Feed text with `push` until `matched` is set, then or at the end call `finish`."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched = ""
        """The stop string that was found; "" so far. Text after it is dropped."""

    @property
    def held(self) -> int:
        """Characters held back."""
        return len(self._held)

    def push(self, text: str) -> str:
        """The text that is certainly not part of a stop string."""
        if self.matched:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        found = [(text.find(stop), stop) for stop in self._stops]
        if hits := [(at, -len(stop), stop) for at, stop in found if at >= 0]:
            # The earliest ends the answer; of two that start together, the longer.
            at, _, self.matched = min(hits)
            self._held = ""
            return text[:at]
        keep = max(overlap(text, stop) for stop in self._stops)
        visible = text[: len(text) - keep]
        self._held = text[len(visible) :]
        return visible

    def finish(self) -> str:
        """What was held back in vain."""
        text, self._held = self._held, ""
        return text
