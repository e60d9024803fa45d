"""The owner of llguidance: grammars in its notation, and what they allow next.

A grammar here is llguidance's own JSON text; `json_grammar`, `regex_grammar` and `lark_grammar` make them,
and none of the three looks closely: `problem_of` does, and so does `Matcher`.

Source: llguidance's docs/syntax.md and docs/json_schema.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import llguidance

from ..errors import BadFormat
from .lark_text import WHITE_SPACE

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llguidance._lib import JsonCompileOptions, LLParserLimits  # not exported

    from .llama import LlamaVocab

_MAX_REASON = 300
_MAX_LEXER_STATES = 60_000
"""Of about 2 kB each, for every answer that is under way."""

_NO_TEXT = b"\xff"
"""What llguidance has before the names of tokens that are no text."""
_SPACE_MARK = "\u2581"
_PLACE = re.compile(r"\Aat \d+\(\d+\): failed to compile JSON schema: ")
"""Where in a grammar of ours a schema stands."""
_OURS = {
    "Unimplemented keys: ": "these keywords of JSON Schema cannot be enforced: ",
    "NoExtension": "nothing satisfies it",
    "lexer precomputation failed": "it is too complex",
}
"""Beginnings of llguidance's sentences, and what we say instead."""


def json_grammar(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema allows. Raises: BadFormat: what cannot be read."""
    style: JsonCompileOptions = {"whitespace_pattern": WHITE_SPACE}
    try:
        return llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=style)
    except ValueError as error:
        raise BadFormat(f"compiling the format: {error}") from error


def regex_grammar(pattern: str) -> str:
    """What a regular expression matches from its first character to its last."""
    return llguidance.LLMatcher.grammar_from_regex(pattern)


def lark_grammar(text: str) -> str:
    """What a grammar's rule ``start`` derives."""
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def lark_of_gbnf(text: str) -> str:
    """A grammar in llama.cpp's notation in that of Lark. Recursive, and slow: for the renderer's process.

    Raises: BadFormat, whose message is the reason alone.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return gbnf_to_lark(text)
    except Exception as error:  # whatever the library comes across in somebody's text
        raise BadFormat(str(error)[:_MAX_REASON] or "it cannot be read") from error


def problem_of(grammar: str) -> str:
    """Why a grammar cannot be compiled; "" where it can. May take for ever, or overflow the stack: for the
    renderer's process."""
    found = llguidance.LLMatcher.validate_grammar(grammar, limits=limits())
    return _reason(found) if found and not found.startswith("WARNING") else ""


def tokenizer_of(vocab: LlamaVocab) -> llguidance.LLTokenizer:
    """The vocabulary as llguidance wants it. Takes most of a second for 150,000 tokens.

    As ``llguidance.llamacpp`` does, which warns of its own way of asking once for every token.
    """
    pieces = [vocab.piece(token, special=True) for token in range(vocab.size)]
    made: llguidance.LLTokenizer = llguidance.LLTokenizer.from_llamacpp(  # type: ignore[attr-defined]  # not in its types
        tokens=[
            _NO_TEXT + piece if vocab.is_tag(token, piece) else piece for token, piece in enumerate(pieces)
        ],
        vocab_ptr=vocab.pointer,
        tokenize_fptr=vocab.tokenize_address,
        eos_token=vocab.ends or vocab.eos,
        slices=None,
    )
    return made


class Matcher:
    """A grammar and how far an answer has come in it.

    Raises: BadFormat: the grammar does not compile, or allows no beginning.
    """

    def __init__(self, tokenizer: llguidance.LLTokenizer, grammar: str) -> None:
        self._tokenizer = tokenizer
        if not _is_exact(tokenizer, grammar):
            grammar = _unforced(grammar)
        self._matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits())
        self._check("compiling the format")
        self._matcher.compute_bitmask()  # what cannot even begin is found here, before an answer does
        self._check("compiling the format")

    def copy(self) -> Self:
        """One that goes its own way from here."""
        made = object.__new__(type(self))
        made._tokenizer = self._tokenizer
        made._matcher = self._matcher.deep_copy()
        return made

    def fill(self, mask: npt.NDArray[np.int32]) -> None:
        """Set the bit of each token that is allowed next. ``mask`` has shape (1, words of 32 bits).

        Raises: BadFormat: a limit is exceeded.
        """
        self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        self._check("following the format")

    def consume(self, tokens: Sequence[int]) -> None:
        """Go on. Raises: BadFormat: what is not allowed, or a limit is exceeded."""
        if not self._matcher.consume_tokens(list(tokens)):
            self._check("following the format")

    def read(self, text: bytes) -> None:
        """Go on by a text, in which control tokens are spelled out. Raises: as `consume`."""
        self.consume(self._tokenizer.tokenize_bytes(text, parse_special=True))

    def forced(self) -> Sequence[int]:
        """The tokens that must come next."""
        return self._matcher.compute_ff_tokens()

    @property
    def may_end(self) -> bool:
        return self._matcher.is_accepting()

    @property
    def must_end(self) -> bool:
        return self._matcher.is_stopped()

    def _check(self, doing: str) -> None:
        if self._matcher.is_error():
            raise BadFormat(f"{doing}: {_reason(self._matcher.get_error())}")


def limits() -> LLParserLimits:
    """llguidance's own, except for memory and for what it tells of an answer in its errors."""
    return llguidance.LLParserLimits(max_lexer_states=_MAX_LEXER_STATES, verbose_errors=False)


def _is_exact(tokenizer: llguidance.LLTokenizer, grammar: str) -> bool:
    """Whether the tokens of a text have that text. SentencePiece takes its mark for spaces to be one."""
    if _SPACE_MARK not in grammar and json.dumps(_SPACE_MARK)[1:-1] not in grammar:
        return True
    return tokenizer.decode_bytes(tokenizer.tokenize_str(_SPACE_MARK)) == _SPACE_MARK.encode()


def _unforced(grammar: str) -> str:
    """The same, but nothing is forced: every token is chosen among those that fit."""
    first, *others = json.loads(grammar)["grammars"]
    start = {"name": "whole", "lark_grammar": '%llguidance {"no_forcing": true}\nstart: @first'}
    return json.dumps({"grammars": [start, {**first, "name": "first"}, *others]})


def _reason(text: str) -> str:
    """The sentences that matter: the first line, and of a regular expression what is wrong with it."""
    text = _PLACE.sub("", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for start, ours in _OURS.items():
        if lines and lines[0].startswith(start):
            return ours + lines[0].removeprefix(start) if ours.endswith(" ") else ours
    wrong = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), "")
    first = lines[0][:_MAX_REASON] if lines else "it exceeds a limit"
    return f"{first} {wrong}".rstrip(": ") if wrong else first
