"""Guessing without a model: what followed the last time that the text ran like this. Pure.

Good for answers that quote: summaries, corrections, code that is changed, JSON with the same keys again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .guess import Guess, Passage
from .slots import TokenArray

_LEAST, _MOST = 2, 9
"""Tokens that two places must have in common, and beyond which more do not count."""


class PromptLookup:
    """A `Guesser`. The grade is how much the two places have in common."""

    def __init__(self, ends: Collection[int]) -> None:
        """``ends``: tokens after which there is nothing to evaluate, and so no use in guessing them."""
        self._ends = frozenset(ends)

    @property
    def grades(self) -> int:
        return _MOST - _LEAST + 1

    def lag(self, passage: Passage) -> int:
        return 0

    def read(self, passage: Passage, count: int) -> None:
        """Nothing is kept."""

    def guess(self, passages: Sequence[Passage]) -> list[Guess | None]:
        guesses = [_guess(passage.tokens) for passage in passages]
        return [None if guess and guess.token in self._ends else guess for guess in guesses]


def _guess(tokens: TokenArray) -> Guess | None:
    """What follows the longest ending of ``tokens`` that occurs earlier; of several places, the last."""
    ends = np.flatnonzero(tokens[:-1] == tokens[-1])
    common = 1
    while common < _MOST and len(ends):
        longer = ends[ends >= common]
        longer = longer[tokens[longer - common] == tokens[-1 - common]] if len(longer) else longer
        if not len(longer):
            break
        ends = longer
        common += 1
    if common < _LEAST or not len(ends):
        return None
    return Guess(int(tokens[ends[-1] + 1]), common - _LEAST)
