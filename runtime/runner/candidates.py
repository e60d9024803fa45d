"""Which tokens can be chosen at all, found before llama.cpp's samplers look at any.

A chain that begins by keeping the k likeliest tokens needs no others. llama.cpp would copy the logits of the
whole vocabulary, three words for each token, and sort them: 0.5 ms for 150,000 tokens, which is as long for
eight streams as a twentieth of their step. Finding them in place takes a third of that, all told.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
"""Shape (n_vocab,)."""
TokenIds = npt.NDArray[np.intp]

_WIDTH = 2048
"""Columns among which the likeliest are looked for; far more than the tokens that a chain keeps."""


def likeliest(logits: Logits, k: int) -> TokenIds:
    """The tokens of at least the ``k`` largest logits, ascending; a few more come along, and all that are as
    likely as the last. Without those of minus infinity; empty where there are no others, or a NaN."""
    rows = len(logits) // _WIDTH
    if rows < 2 or 4 * k > _WIDTH:
        threshold = _kth_largest(logits, k)
    else:
        # Of each column the largest: the k-th of those is not above the k-th of all.
        columns = logits[: rows * _WIDTH].reshape(rows, _WIDTH).max(axis=0)
        threshold = _kth_largest(columns, k)
    if threshold == -np.inf:
        return np.flatnonzero(logits > -np.inf)
    return np.flatnonzero(logits >= threshold)


def with_tokens(ids: TokenIds, others: Iterable[int]) -> TokenIds:
    """``ids`` and the others, each once, ascending."""
    return np.union1d(ids, np.fromiter(others, np.intp))


def _kth_largest(values: Logits, k: int) -> np.float32:
    at = max(len(values) - k, 0)
    return np.float32(np.partition(values, at)[at])
