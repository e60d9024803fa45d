"""Constrained output: what a format allows next, by llguidance. Runner process only.

A format that cannot be compiled is an error. It never means unconstrained output.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import llama_cpp
import llguidance
import llguidance.llamacpp
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from .errors import BadFormat
from .generation import Constraint
from .llama import LlamaVocab

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # not exported

MAX_SCHEMA = 64 * 1024
"""Characters of a JSON Schema."""
_MAX_DEPTH = 32
_MAX_NODES = 2000
_MAX_REASON = 500

_ANY_OBJECT = {"type": "object"}
# The format asks for JSON, not for a page of it: white space is what JSON needs to be readable.
_STYLE: JsonCompileOptions = {"whitespace_flexible": True}


class ConstraintCompiler:
    """Compiles formats for one vocabulary. Thread-safe; the tokenizer is made when it is first needed."""

    def __init__(self, vocab: LlamaVocab) -> None:
        self._vocab = vocab
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, form: Literal["json"] | Mapping[str, Any], after: str = "") -> Constraint:
        """The constraint for a format. With ``after`` it begins once the answer has written that text.

        Raises: BadFormat.
        """
        schema = _ANY_OBJECT if form == "json" else form
        _check(schema)
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_STYLE)
        except ValueError as error:
            raise BadFormat(f"compiling the format: {str(error)[:_MAX_REASON]}") from error
        matcher = llguidance.LLMatcher(self._tokenizer_once(), grammar, log_level=0)
        if matcher.is_error():
            raise BadFormat(f"compiling the format: {matcher.get_error()[:_MAX_REASON]}")
        constraint = FormatConstraint(matcher, self._vocab.size)
        return Delayed(constraint, after, self._vocab) if after else constraint

    def _tokenizer_once(self) -> llguidance.LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                ends = [token for token in range(self._vocab.size) if self._vocab.is_end(token)]
                self._tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(
                    llama_cpp.llama_vocab_p(self._vocab.pointer), eos_token=ends or None
                )
            return self._tokenizer


class FormatConstraint:
    """A `Constraint` by an llguidance matcher."""

    def __init__(self, matcher: llguidance.LLMatcher, n_vocab: int) -> None:
        self._matcher = matcher
        self._mask = llguidance.numpy.allocate_token_bitmask(1, n_vocab)
        self._n_vocab = n_vocab

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._mask)
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._n_vocab]
        logits[allowed == 0] = -np.inf

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise BadFormat(f"following the format: {self._matcher.get_error()[:_MAX_REASON]}")

    @property
    def is_complete(self) -> bool:
        return self._matcher.is_stopped()


class Delayed:
    """A `Constraint` that begins after the answer has written ``after``: thoughts are free, the answer is
    not."""

    def __init__(self, constraint: Constraint, after: str, vocab: LlamaVocab) -> None:
        self._constraint = constraint
        self._after = after.encode()
        self._vocab = vocab
        self._seen = b""
        self._active = False

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        if self._active:
            self._constraint.mask(logits)

    def accept(self, token: int) -> None:
        if self._active:
            self._constraint.accept(token)
            return
        self._seen = (self._seen + self._vocab.piece(token, special=True))[-2 * len(self._after) - 64 :]
        self._active = self._after in self._seen

    @property
    def is_complete(self) -> bool:
        return self._active and self._constraint.is_complete


def _check(schema: Mapping[str, Any]) -> None:
    """Bounds that keep compiling quick, whatever the schema."""
    size = len(json.dumps(schema))
    if size > MAX_SCHEMA:
        raise BadFormat(f"compiling the format: expected at most {MAX_SCHEMA} characters, got {size}")
    nodes, level = 0, [schema]
    for _depth in range(_MAX_DEPTH):
        nodes += len(level)
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
        if nodes > _MAX_NODES:
            raise BadFormat(f"compiling the format: expected at most {_MAX_NODES} values in the schema")
        if not inner:
            return
        level = inner
    raise BadFormat(f"compiling the format: the schema is nested more than {_MAX_DEPTH} deep")
