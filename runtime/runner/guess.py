"""What drafts are made of: guesses at the token that follows a text, and those who make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .slots import TokenArray


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens of a sequence, all of them: never empty, and none stands for a part of an image."""

    seq: int
    tokens: TokenArray


@dataclass(frozen=True, slots=True)
class Guess:
    """A token that may follow. How often guesses of one grade are right is for others to find out."""

    token: int
    grade: int
    """0 … `Guesser.grades` - 1, the more confident the higher."""


class Guesser(Protocol):
    """Nothing depends on what it says but speed."""

    @property
    def grades(self) -> int: ...

    def lag(self, passage: Passage) -> int:
        """How many tokens it must read before it can guess what follows ``passage``; at most one where it has
        followed the text so far."""
        ...

    def read(self, passage: Passage, count: int) -> None:
        """Read ``count`` tokens of the lag."""
        ...

    def guess(self, passages: Sequence[Passage]) -> list[Guess | None]:
        """What follows each of ``passages``, which are of different sequences; None: no idea."""
        ...
