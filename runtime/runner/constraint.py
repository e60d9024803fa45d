"""Constrained output: what a format allows next. Runner process only.

A format that cannot be compiled is an error. It never means unconstrained output.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..protocol import Grammar
from .after_thinking import AfterThinking
from .generation import Constraint
from .grammar_bounds import check_grammar, check_regex, check_schema
from .guidance import Matcher, json_grammar, lark_grammar, regex_grammar, tokenizer_of
from .llama import LlamaVocab
from .renderer import Renderer
from .thinking import ThinkingSplitter

if TYPE_CHECKING:
    import llguidance

Form = Literal["json"] | Mapping[str, Any] | Grammar
"""JSON, a JSON Schema, or a grammar."""

_ANY_OBJECT = {"type": "object"}
_KEPT = 32


class ConstraintCompiler:
    """Compiles formats for one vocabulary, and keeps those used last. For one event loop; the slow parts are
    done in threads."""

    def __init__(self, vocab: LlamaVocab, renderer: Renderer) -> None:
        self._vocab = vocab
        self._renderer = renderer
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._making_tokenizer = threading.Lock()
        self._known: OrderedDict[str, Matcher] = OrderedDict()

    async def compile(self, form: Form, thinking: ThinkingSplitter | None = None) -> Constraint:
        """The constraint for a format; it spares the thoughts that ``thinking`` will find in the answer.

        Raises: BadFormat.
        """
        constraint = FormatConstraint(await self._matcher(await self._grammar(form)), self._vocab.size)
        if thinking is None:
            return constraint
        return AfterThinking(constraint, thinking.tags, self._vocab, primed=thinking.primed)

    async def _grammar(self, form: Form) -> str:
        """In llguidance's notation; its bounds are kept, but nobody has tried to compile it."""
        if form == "json":
            return json_grammar(_ANY_OBJECT)
        if isinstance(form, Mapping):
            check_schema(form)
            return json_grammar(form)
        if form.syntax == "regex":
            check_regex(form.definition)
            return regex_grammar(form.definition)
        check_grammar(form.definition)
        if form.syntax == "gbnf":
            return lark_grammar(await self._renderer.lark_of_gbnf(form.definition))
        return lark_grammar(form.definition)

    async def _matcher(self, grammar: str) -> Matcher:
        """At the beginning of an answer."""
        known = self._known.get(grammar)
        if known is None:
            await self._renderer.try_grammar(grammar)
            known = self._known[grammar] = await asyncio.to_thread(self._compiled, grammar)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(grammar)
        return known.copy()

    def _compiled(self, grammar: str) -> Matcher:
        return Matcher(self._tokenizer_once(), grammar)

    def _tokenizer_once(self) -> llguidance.LLTokenizer:
        with self._making_tokenizer:
            if self._tokenizer is None:
                self._tokenizer = tokenizer_of(self._vocab)
            return self._tokenizer


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

    def forced(self) -> Sequence[int]:
        return self._matcher.forced()

    @property
    def is_complete(self) -> bool:
        return self._matcher.must_end
