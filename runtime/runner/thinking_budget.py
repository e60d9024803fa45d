"""A limit to how much is thought: when it is spent, the thought is closed. Runner process only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .generation import Constraint
from .thinking import Splitter


class ThinkingBudget:
    """A `Constraint` around another, or around none: after ``budget`` tokens of thoughts come the tokens of
    ``closing``, and nothing else. A thought that ends by itself before is left alone.

    ``splitter`` is the one that the answer's text runs through; it must have seen every token that was chosen
    before the next is asked for.
    """

    def __init__(
        self, inner: Constraint | None, splitter: Splitter, budget: int, closing: Sequence[int]
    ) -> None:
        self._inner = inner
        self._splitter = splitter
        self._left = budget
        self._closing = tuple(closing)
        self._closed = 0
        """Tokens of ``closing`` that were chosen by force."""

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        if self._is_closing:
            wanted = logits[self._closing[self._closed]]
            logits[:] = -np.inf
            logits[self._closing[self._closed]] = max(wanted, -1e4)
        elif self._inner:
            self._inner.mask(logits)

    def accept(self, token: int) -> None:
        if self._is_closing:
            self._closed += 1
        elif self._splitter.is_thinking:
            self._left -= 1
        if self._inner:
            self._inner.accept(token)

    def forced(self) -> Sequence[int]:
        # The closing tag is not announced here: it is chosen token by token, so that everyone sees it.
        return self._inner.forced() if self._inner and not self._is_closing else ()

    @property
    def is_complete(self) -> bool:
        return self._inner is not None and self._inner.is_complete

    @property
    def _is_closing(self) -> bool:
        if self._closed:
            return self._closed < len(self._closing)
        return self._left <= 0 and self._splitter.is_thinking
