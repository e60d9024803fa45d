"""Embeddings: one vector for each text, pooled as the model says, of unit length; or, of models made for
that, one score for each document. Runner process only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...modelfile.errors import LadingError
from ..errors import BadRequest, PromptTooLong, RunnerFault, Unsupported
from .adapters import NO_ADAPTERS, AdapterSet, AppliedAdapters
from .llama import NO_TOKEN, LlamaVocab
from .llama_context import LlamaBatch, LlamaContext

_MAX_TEXTS = 4096

_T = TypeVar("_T")


class GivenUp(LadingError):
    """Nobody waits for the vectors any more; nobody sees this either."""

    def __init__(self) -> None:
        super().__init__("embedding texts: whoever asked has gone")


class Embedder:
    """Not thread-safe: one call at a time. ``n_ctx`` is the most tokens of a text, ``pair_template`` what a
    model for ranking wants to read, with ``{query}`` and ``{document}`` in it."""

    def __init__(
        self, context: LlamaContext, vocab: LlamaVocab, n_ctx: int, *, pair_template: str = ""
    ) -> None:
        self._context = context
        self._vocab = vocab
        self._n_ctx = n_ctx
        self._pair_template = pair_template
        self._batch = LlamaBatch(n_ctx)
        self.adapters = AppliedAdapters(context)

    def embed(
        self,
        texts: Sequence[str],
        *,
        truncate: bool,
        dimensions: int = 0,
        adapters: AdapterSet = NO_ADAPTERS,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> tuple[list[tuple[float, ...]], int]:
        """The vectors in order, and how many tokens were read. ``goes_on`` is asked before each step
        whether they are still wanted.

        Raises:
            BadRequest, PromptTooLong, Unsupported; GivenUp; RunnerFault where llama.cpp fails or a vector is
            not finite.
        """
        if self._context.ranks:
            raise Unsupported("embedding texts: this model ranks documents, it makes no embeddings")
        if len(texts) > _MAX_TEXTS:
            raise BadRequest(f"embedding texts: expected at most {_MAX_TEXTS}, got {len(texts)}")
        token_lists = [self._tokens(text, truncate) for text in _while_wanted(texts, goes_on)]
        self.adapters.use(adapters)
        vectors: list[tuple[float, ...]] = []
        for group in _while_wanted(self._groups(token_lists), goes_on):
            vectors += [_unit(vector, dimensions) for vector in self._evaluate(group)]
        return vectors, sum(map(len, token_lists))

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        adapters: AdapterSet = NO_ADAPTERS,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> tuple[list[float], int]:
        """The scores in order, and how many tokens were read. Ends of long documents are not read.

        Raises: as `embed`.
        """
        if not self._context.ranks:
            raise Unsupported("ranking documents: this model does not rank")
        if len(documents) > _MAX_TEXTS:
            raise BadRequest(f"ranking documents: expected at most {_MAX_TEXTS}, got {len(documents)}")
        pairs = [self._pair(query, document) for document in _while_wanted(documents, goes_on)]
        self.adapters.use(adapters)
        scores: list[float] = []
        for group in _while_wanted(self._groups(pairs), goes_on):
            scores += [float(found[0]) for found in self._evaluate(group)]
        if not np.isfinite(scores).all():
            raise RunnerFault("ranking documents: the model's score is not finite")
        return scores, sum(map(len, pairs))

    def _pair(self, query: str, document: str) -> list[int]:
        """As llama-server puts the two together."""
        vocab = self._vocab
        if self._pair_template:
            text = self._pair_template.replace("{query}", query).replace("{document}", document)
            tokens = vocab.tokenize(text, add_special=False, parse_special=True)
            if len(tokens) > self._n_ctx:
                raise self._too_long(len(tokens))
            return tokens
        eos = vocab.eos if vocab.eos != NO_TOKEN else vocab.sep
        ending = [eos] if vocab.add_eos else []
        asked = [vocab.bos] if vocab.add_bos else []
        asked += vocab.tokenize(query, add_special=False, parse_special=False) + ending
        asked += [vocab.sep] if vocab.add_sep else []
        room = self._n_ctx - len(asked) - len(ending)
        if room < 1:
            raise self._too_long(len(asked))
        return asked + vocab.tokenize(document, add_special=False, parse_special=False)[:room] + ending

    def _too_long(self, n_tokens: int) -> PromptTooLong:
        return PromptTooLong(
            f"ranking documents: query and document have {n_tokens} tokens, "
            f"the context has room for {self._n_ctx}"
        )

    def _tokens(self, text: str, truncate: bool) -> list[int]:
        tokens = self._vocab.tokenize(text, add_special=True, parse_special=False)
        if len(tokens) <= self._n_ctx:
            return tokens
        if not truncate:
            raise PromptTooLong(
                f"embedding a text: it has {len(tokens)} tokens, the context has room for {self._n_ctx}"
            )
        # The closing token (SEP, EOS) is what some models pool; it stays.
        keep_end = tokens[-1:] if self._vocab.is_control(tokens[-1]) else []
        return tokens[: self._n_ctx - len(keep_end)] + keep_end

    def _groups(self, token_lists: Sequence[list[int]]) -> list[list[list[int]]]:
        """Texts, in order, that are evaluated together."""
        groups: list[list[list[int]]] = []
        room = 0
        for tokens in token_lists:
            if not groups or len(tokens) > room or len(groups[-1]) == self._context.n_seq:
                groups.append([])
                room = self._n_ctx
            groups[-1].append(tokens)
            room -= len(tokens)
        return groups

    def _evaluate(self, group: Sequence[list[int]]) -> list[npt.NDArray[np.float32]]:
        if self._context.has_memory:
            self._context.remove(-1, -1, -1)
        self._batch.clear()
        for seq, tokens in enumerate(group):
            if tokens:
                self._batch.add(seq, tokens, 0, want_last=True, want_all=True)
        if self._batch.size and (code := self._context.decode(self._batch)):
            raise RunnerFault(f"embedding texts: llama.cpp answered {code}")
        return [
            self._context.embedding_of_sequence(seq) if tokens else np.zeros(self._context.n_embd, np.float32)
            for seq, tokens in enumerate(group)
        ]


def _while_wanted(items: Sequence[_T], goes_on: Callable[[], bool]) -> Iterator[_T]:
    """Raises: GivenUp before an item that nobody waits for."""
    for item in items:
        if not goes_on():
            raise GivenUp
        yield item


def _unit(vector: npt.NDArray[np.float32], dimensions: int) -> tuple[float, ...]:
    if 0 < dimensions < len(vector):
        vector = vector[:dimensions]
    if not np.isfinite(vector).all():
        raise RunnerFault("embedding texts: the model's vector is not finite")
    norm = float(np.linalg.norm(vector))
    return tuple((vector / norm if norm else vector).tolist())
