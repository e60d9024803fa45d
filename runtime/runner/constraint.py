"""Constrained output: what a format allows next, by llguidance. Runner process only.

A format that cannot be compiled is an error. It never means unconstrained output.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import llama_cpp
import llguidance
import llguidance.llamacpp
import llguidance.numpy
import numpy as np
import numpy.typing as npt

from ..errors import BadFormat
from .generation import Constraint
from .llama import LlamaVocab
from .thinking import ThinkingSplitter, ThinkingTags

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # not exported

MAX_SCHEMA = 64 * 1024
"""Characters of a JSON Schema."""
_MAX_DEPTH = 32
_MAX_NODES = 2000
_MAX_REASON = 500
_BLANKS = ("\n", "\n\n", "\n\n\n", " ")
_MAX_BLANKS = 4

_ANY_OBJECT = {"type": "object"}
# Enough white space to indent with, but a bounded run of it: small models lose themselves in blanks.
_STYLE: JsonCompileOptions = {"whitespace_pattern": r"[\x20\x0A]{1,32}"}


class ConstraintCompiler:
    """Compiles formats for one vocabulary. Thread-safe; the tokenizer is made when it is first needed."""

    def __init__(self, vocab: LlamaVocab) -> None:
        self._vocab = vocab
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(
        self, form: Literal["json"] | Mapping[str, Any], thinking: ThinkingSplitter | None = None
    ) -> Constraint:
        """The constraint for a format; it spares the thoughts that ``thinking`` will find in the answer.

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
        if thinking is None:
            return constraint
        return AfterThinking(constraint, thinking.tags, self._vocab, primed=thinking.primed)

    def _tokenizer_once(self) -> llguidance.LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = llguidance.llamacpp.lltokenizer_from_vocab(
                    llama_cpp.llama_vocab_p(self._vocab.pointer), eos_token=self._vocab.ends or None
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

        if self._matcher.is_error():
            self._fail()

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            self._fail()

    def forced(self) -> Sequence[int]:
        return self._matcher.compute_ff_tokens()

    @property
    def is_complete(self) -> bool:
        return self._matcher.is_stopped()

    def _fail(self) -> NoReturn:
        raise BadFormat(f"following the format: {self._matcher.get_error()[:_MAX_REASON]}")


class AfterThinking:
    """A `Constraint` that leaves thoughts free and holds for all that follows them.

    An answer begins with the opening tag or with what the format allows, never with anything else; a thought
    may not end the answer.
    """

    def __init__(
        self, constraint: Constraint, tags: ThinkingTags, vocab: LlamaVocab, *, primed: bool
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
            text = rest.decode("utf-8", "replace").strip()
            for token in self._vocab.tokenize(text, add_special=False, parse_special=False) if text else ():
                self._constraint.accept(token)
        self._thought = self._thought[-len(self._closing) :]


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
