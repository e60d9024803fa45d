"""A constraint that holds for what follows a thought. Runner process only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .format_constraint import FormatConstraint
from .llama import LlamaVocab
from .thinking import ThinkingTags

_BLANKS = ("\n", "\n\n", "\n\n\n", " ")
_MAX_BLANKS = 4


class AfterThinking:
    """A `Constraint` that leaves thoughts free and holds for all that follows them.

    An answer begins with the opening tag or with what the format allows, never with anything else; a thought
    may not end the answer.
    """

    def __init__(
        self, constraint: FormatConstraint, tags: ThinkingTags, vocab: LlamaVocab, *, primed: bool
    ) -> None:
        self._constraint = constraint
        self._vocab = vocab
        self._opening = [] if primed else vocab.tokenize(tags.opening, add_special=False, parse_special=True)
        self._opened = 0  # tokens of the opening tag so far
        self._closing = tags.closing.encode()
        self._thought = b""
        self._is_active = False
        # Templates part thought and answer by blank lines. A model that may not write them is led astray:
        # they are free, and whoever splits thoughts from the answer drops them.
        self._blanks = [
            token
            for text in _BLANKS
            if len(tokens := vocab.tokenize(text, add_special=False, parse_special=False)) == 1
            for token in tokens
        ]
        self._blanks_left = 0

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        if self._is_active:
            blank = self._blanks if self._blanks_left else []
            wanted = logits[blank]
            self._constraint.mask(logits)
            logits[blank] = wanted
        elif self._opened == len(self._opening):
            logits[self._vocab.ends] = -np.inf
        else:
            opening = self._opening[self._opened]
            wanted = logits[opening]
            if self._opened:
                logits[:] = -np.inf
            else:
                self._constraint.mask(logits)
            logits[opening] = wanted

    def accept(self, token: int) -> None:
        if self._is_active:
            if self._blanks_left and token in self._blanks:
                self._blanks_left -= 1
                return
            self._blanks_left = 0
            self._constraint.accept(token)
        elif self._opened < len(self._opening):
            if token == self._opening[self._opened]:
                self._opened += 1
            else:
                self._is_active = True
                self._constraint.accept(token)
        else:
            self._think(self._vocab.piece(token, special=True))

    def forced(self) -> Sequence[int]:
        return self._constraint.forced() if self._is_active and not self._blanks_left else ()

    @property
    def is_complete(self) -> bool:
        return self._is_active and self._constraint.is_complete

    def _think(self, piece: bytes) -> None:
        self._thought += piece
        _, tag, rest = self._thought.partition(self._closing)
        if tag:
            self._is_active = True
            self._blanks_left = _MAX_BLANKS if not rest.strip() else 0
            # The token that ended the tag may have begun the answer as well.
            if text := rest.strip():
                self._constraint.read(text)
        self._thought = self._thought[-len(self._closing) :]
