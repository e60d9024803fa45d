"""A constraint that holds from the first token on. Runner process only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .guidance import Matcher


class FormatConstraint:
    """A `Constraint` by a matcher."""

    def __init__(self, matcher: Matcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._n_vocab = n_vocab
        self._mask = np.zeros((1, (n_vocab + 31) // 32), np.int32)

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        self._matcher.fill(self._mask)
        forbidden = np.unpackbits(~self._mask.view(np.uint8)[0], bitorder="little", count=self._n_vocab)
        np.copyto(logits, -np.inf, where=forbidden.view(np.bool_))

    def accept(self, token: int) -> None:
        self._matcher.consume((token,))

    def read(self, text: bytes) -> None:
        """Note a text that is a part of the answer already."""
        self._matcher.read(text)

    def forced(self) -> Sequence[int]:
        return self._matcher.forced()

    @property
    def may_end(self) -> bool:
        """What has been chosen so far is all that the format wants."""
        return self._matcher.may_end

    @property
    def is_complete(self) -> bool:
        return self._matcher.must_end
