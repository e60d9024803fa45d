"""`did_you_mean`: the known word that a misspelt one is nearest to."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 64  # comparing is quadratic, and no known word is nearly as long


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`did you mean "stop"?`, or None where nothing is near. Case is ignored."""
    if len(word) > _LONGEST:
        return None
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)
    return f'did you mean "{by_folded[near[0]]}"?' if near else None
