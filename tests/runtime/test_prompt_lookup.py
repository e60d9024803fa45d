"""Guesses from what was said before, against a plain search."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lading.runtime.runner.guess import Guess, Passage
from lading.runtime.runner.prompt_lookup import PromptLookup


def guess(tokens: list[int], ends: tuple[int, ...] = ()) -> Guess | None:
    [found] = PromptLookup(ends).guess([Passage(0, np.array(tokens, np.int32))])
    return found


def searched(tokens: list[int]) -> tuple[int, int] | None:
    """The token after the longest earlier occurrence of the end, the last of several, and how long that
    is."""
    for size in range(min(9, len(tokens) - 1), 1, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return tokens[end], size
    return None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_it_is_the_longest_and_the_last(tokens: list[int]) -> None:
    expected = searched(tokens)
    assert guess(tokens) == (Guess(expected[0], expected[1] - 2) if expected else None)


def test_grades_have_bounds() -> None:
    lookup = PromptLookup(())
    assert guess([1, 2, 7, 1, 2]) == Guess(7, 0)
    assert guess(list(range(30)) * 2) == Guess(0, lookup.grades - 1)
    assert guess([5] * 50) == Guess(5, lookup.grades - 1)


def test_an_end_is_not_guessed() -> None:
    assert guess([1, 2, 7, 1, 2], ends=(7,)) is None
    assert guess([1, 2, 7, 1, 2], ends=(8,)) == Guess(7, 0)


def test_it_has_nothing_to_read() -> None:
    assert PromptLookup(()).lag(Passage(0, np.arange(9, dtype=np.int32))) == 0
