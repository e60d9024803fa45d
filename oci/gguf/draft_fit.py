"""Whether a draft model guesses in the same tokens as the model it is for.

What both files say is compared. Where one leaves something out, and a default counts, it is for the runner to
compare what llama.cpp makes of it.

Source: llama.cpp, common/speculative.cpp, ``common_speculative_are_compatible``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Final

from .header import MAX_ELEMENT_SIZE, GgufArray, GgufHeader, Value
from .problem import BadGguf, Problem, ProblemCode
from .reader import open_regular
from .stream import HeaderFault, HeaderStream

MAX_SIZE_DIFFERENCE: Final = 128
"""Tokens by which vocabularies may differ at their ends: some are padded."""
UNCOMPARED: Final = 5
"""Of the first so many tokens, the names may differ."""

_PREFIX = "tokenizer.ggml."


def check_draft_fits(draft: tuple[Path, GgufHeader], model: tuple[Path, GgufHeader]) -> list[Problem]:
    """What keeps a sound draft model from being used with a sound model; of a split model, its first shard
    counts.

    Raises: BadGguf where a file has changed since its header was read.
    """
    compared = ["model", "add_bos_token", "add_eos_token"]
    compared += [
        f"{name}_token_id" for name in ("bos", "eos") if _says(model[1], f"add_{name}_token") is True
    ]
    for suffix in compared:
        one, other = _says(draft[1], suffix), _says(model[1], suffix)
        if one is not None and other is not None and one != other:
            return [_problem(suffix, f"is {one!r}, but the model's is {other!r}")]
    sizes = [header.vocabulary_size or 0 for _, header in (draft, model)]
    if abs(sizes[0] - sizes[1]) > MAX_SIZE_DIFFERENCE:
        return [_problem("tokens", f"{sizes[0]:,} tokens, but the model has {sizes[1]:,}")]
    pairs = zip(_tokens(*draft), _tokens(*model), strict=False)
    different = (at for at, (one, other) in enumerate(pairs) if one != other and at >= UNCOMPARED)
    return [_problem("tokens", f"token {at} is not the model's") for at in islice(different, 1)]


def _says(header: GgufHeader, suffix: str) -> Value | None:
    return header.metadata.get(_PREFIX + suffix)


def _problem(suffix: str, what: str) -> Problem:
    message = f"{what}: the draft model is for another model"
    return Problem(ProblemCode.WRONG_KIND, f"key '{_PREFIX}{suffix}'", message)


def _tokens(path: Path, header: GgufHeader) -> Iterator[bytes]:
    array = header.metadata.get(_PREFIX + "tokens")
    if not isinstance(array, GgufArray):
        return
    try:
        with open_regular(path) as (fd, size):
            stream = HeaderStream(fd, size, limit=array.offset + array.size, position=array.offset)
            yield from chain.from_iterable(stream.strings(array.count, MAX_ELEMENT_SIZE))
    except HeaderFault as fault:
        raise BadGguf(path.name, [Problem(fault.code, "", fault.what)]) from fault
