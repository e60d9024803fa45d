"""A draft model: a small model with the vocabulary of a large one, which guesses what that will say. Runner
process only; the rules of `llama` hold.

It has as many sequences as the model that it guesses for, under the same numbers, and for each a record of
the tokens in its memory. What it is asked about is compared with the record: what is no longer a part of the
text, such as guesses that were wrong, is taken back, and what is new is read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...oci.gguf.draft_fit import MAX_SIZE_DIFFERENCE, UNCOMPARED
from .guess import Guess, Passage
from .llama import LlamaModel, LlamaVocab
from .llama_context import LlamaBatch, LlamaContext
from .slots import common_prefix

logger = logging.getLogger(__name__)

_GRADES = (0.3, 0.5, 0.7, 0.85, 0.95)
"""Between these probabilities lie the grades of guesses."""
_COPY_COST_TOKENS = 32
"""A copy between sequences costs about as much as reading so many tokens."""


class DraftModel:
    """A `Guesser`. For one thread. The context has one output for each of its sequences."""

    def __init__(
        self, model: LlamaModel, context: LlamaContext, *, n_ctx: int, n_batch: int, n_vocab: int
    ) -> None:
        """``n_ctx``: of one sequence. ``n_vocab``: of the model that it guesses for."""
        self._context = context
        self._vocab = model.vocab
        self._batch = LlamaBatch(n_batch)
        self._n_ctx = n_ctx
        self._n_vocab = min(n_vocab, model.vocab.size)
        self._records = [np.zeros(0, np.int32) for _ in range(context.n_seq)]

    @property
    def grades(self) -> int:
        return len(_GRADES) + 1

    def lag(self, passage: Passage) -> int:
        if not self._can_read(passage):
            return 0
        known = common_prefix(self._records[passage.seq], passage.tokens)
        if len(passage.tokens) - known > _COPY_COST_TOKENS:
            known = self._copy_prefix(passage, known)
        return len(passage.tokens) - known

    def read(self, passage: Passage, count: int) -> None:
        """At most a batch is read, and never the last token, for that is read with the guess."""
        known = self._take_back(passage, len(passage.tokens) - 1)
        end = min(known + count, known + self._batch.capacity, len(passage.tokens) - 1)
        if end <= known or not self._can_read(passage):
            return
        self._batch.clear()
        self._batch.add(passage.seq, passage.tokens[known:end], known, want_last=False)
        if self._decode():
            self._context.wait()  # it is asked how long this took
            self._records[passage.seq] = passage.tokens[:end]

    def guess(self, passages: Sequence[Passage]) -> list[Guess | None]:
        """None, too, for a text that it cannot read, or lags behind by more than fits into the batch."""
        self._batch.clear()
        asked: dict[int, int] = {}  # sequence to place in the batch
        for passage in sorted(passages, key=lambda passage: passage.seq):
            if not self._can_read(passage):
                continue
            known = self._take_back(passage, len(passage.tokens) - 1)
            lacking = passage.tokens[known:]
            if len(lacking) <= self._batch.room:
                asked[passage.seq] = self._batch.add(passage.seq, lacking, known, want_last=True)
        if not asked or not self._decode():
            return [None] * len(passages)
        for passage in passages:
            if passage.seq in asked:
                self._records[passage.seq] = passage.tokens
        return [self._best(asked[passage.seq]) if passage.seq in asked else None for passage in passages]

    def _best(self, index: int) -> Guess | None:
        token, probability = most_likely(self._context.logits(index))
        if token >= self._n_vocab or self._vocab.is_end(token):  # after an end nothing is to be evaluated
            return None
        return Guess(token, bisect_right(_GRADES, probability))

    def _can_read(self, passage: Passage) -> bool:
        """Not what is longer than its context, or has tokens that it does not know."""
        return len(passage.tokens) <= self._n_ctx and int(passage.tokens.max()) < self._vocab.size

    def _take_back(self, passage: Passage, most: int) -> int:
        """Forget what is no beginning of the text, and what is beyond ``most`` tokens. Returns how many are
        left."""
        record = self._records[passage.seq]
        known = min(common_prefix(record, passage.tokens), most)
        if known < len(record):
            if not known or not self._context.remove(passage.seq, known):
                self._context.remove(passage.seq, -1, -1)
                known = 0
            self._records[passage.seq] = record[:known]
        return known

    def _copy_prefix(self, passage: Passage, known: int) -> int:
        """Take over a beginning of the text that another sequence has in memory, if it is much longer than
        that of ``known`` tokens. Returns how many are known then."""
        shared = [common_prefix(record, passage.tokens) for record in self._records]
        source = max(range(len(shared)), key=lambda seq: shared[seq])
        if shared[source] - known <= _COPY_COST_TOKENS:
            return known
        self._context.copy(source, passage.seq)
        self._records[passage.seq] = self._records[source]
        return shared[source]

    def _decode(self) -> bool:
        code = self._context.decode(self._batch)
        if code == 0:
            return True
        logger.error("the draft model: llama_decode: code %d for %d tokens", code, self._batch.size)
        for seq in range(len(self._records)):  # nothing is known of what the decode left in memory
            self._context.remove(seq, -1, -1)
            self._records[seq] = np.zeros(0, np.int32)
        return False


def most_likely(logits: npt.NDArray[np.float32]) -> tuple[int, float]:
    """The likeliest token and its probability."""
    token = int(logits.argmax())
    weight = float(np.exp(logits - logits[token]).sum())
    return token, 1.0 / weight if weight >= 1.0 else 0.0  # 0: logits that are no numbers


def difference(vocab: LlamaVocab, draft: LlamaVocab) -> str:
    """How the vocabulary of a draft model differs from that of the model it is for, in a clause; "": in
    nothing that matters.

    Source: llama.cpp, common/speculative.cpp, ``common_speculative_are_compatible``.
    """
    if vocab.type != draft.type:
        return "its tokenizer is of another kind"
    if abs(vocab.size - draft.size) > MAX_SIZE_DIFFERENCE:
        return f"its vocabulary has {draft.size:,} tokens, the model's {vocab.size:,}"
    for name, one, other in (
        ("begins", (vocab.add_bos, vocab.bos), (draft.add_bos, draft.bos)),
        ("ends", (vocab.add_eos, vocab.eos), (draft.add_eos, draft.eos)),
    ):
        if one[0] != other[0] or (one[0] and one[1] != other[1]):
            return f"it {name} passages with another token"
    for token in range(UNCOMPARED, min(vocab.size, draft.size)):
        if vocab.text(token) != draft.text(token):
            return f"its token {token} is another one"
    return ""
