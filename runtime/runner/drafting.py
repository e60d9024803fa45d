"""Drafts: tokens guessed to follow an answer, so that one pass over the model can confirm several of them.

Which token comes next is chosen by the model alone, with the sampler of the request, from the same logits in
the same order as without drafts. A draft only decides for which positions there are logits already: so it
changes how many passes an answer takes, and nothing else. `Engine` does the choosing; here is who drafts how
much.

Drafts of one step have one length: llama.cpp evaluates sequences together only as far as they are equally
long. Where the guesses for one answer end before those for another, it gets tokens that fill the pass.

Rules for editing this file:

* Nothing that is decided here may matter for what is answered.
* Only the engine's thread comes here: `Drafter.drafts` before a pass over answers, `Drafter.learn` after it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..options import MAX_DRAFT, draft_of
from .draft_ledger import FADE, Credit, Grades, Prices
from .generation import Generation
from .guess import Guess, Guesser, Passage
from .slots import Slot, TokenArray

Answering = tuple[Generation, Slot, int]
"""Who answers, where, and how many of its pending tokens are evaluated."""

_EMA = 0.2
_READ_ALONG = 16
"""Tokens that a guesser lags behind and reads with its guess. More are read before, for the sake of the
others."""
_FOLLOWED = 3
"""A guess that reads no more tokens than that takes as long as any."""
_LEAST_READ = 32
_READING_SHARE = 0.1
"""Of the time that a request has taken so far, its first reading by the draft model may take."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens to evaluate behind an answer's own."""

    tokens: TokenArray
    guessed: int
    """How many of them are guesses; the others fill the pass."""


@dataclass(slots=True, eq=False)
class _Chain:
    """The guesses for one answer."""

    generation: Generation
    passage: Passage
    most: int
    """Guesses that may be checked."""
    start: int
    """Tokens generated before."""
    chance: float = 1.0
    """That all guesses so far are right."""
    guesses: list[Guess] = field(default_factory=list)

    def add(self, guess: Guess, chance: float) -> None:
        self.guesses.append(guess)
        self.chance *= chance
        self.passage = Passage(self.passage.seq, np.append(self.passage.tokens, np.int32(guess.token)))


@dataclass(slots=True)
class _Round:
    """One step."""

    answers: int
    is_even: bool
    """Each answer has one token of its own to evaluate."""
    chains: list[_Chain] = field(default_factory=list)
    length: int = 0
    """Of the drafts."""
    spent_s: float = 0.0
    """On guessing."""
    lag: int = 0
    """Tokens that the first guess must read, of one text."""


class Drafter:
    """Drafts for the answers of one engine.

    ``most``: tokens of one draft. ``together``: of all drafts of a step. ``n_ctx``: context of a sequence,
    ``n_batch``: tokens of a step, both as `EngineSettings` has them. ``stall_s``: how long a step may be held
    up by reading. ``always``: draft as much as can be, whether it pays or not."""

    def __init__(
        self,
        guesser: Guesser,
        *,
        is_model: bool,
        most: int,
        together: int,
        n_ctx: int,
        n_batch: int,
        stall_s: float = 0.1,
        always: bool = False,
    ) -> None:
        self._guesser = guesser
        self._is_model = is_model
        self._most = most
        self._together = min(together, MAX_DRAFT)
        self._n_ctx = n_ctx
        self._n_batch = n_batch
        self._stall_s = stall_s
        self._always = always
        self._prices = Prices()
        self._grades = Grades(guesser.grades)
        self._credit = Credit()
        self._guess_s = 0.0
        """Seconds of one round of guesses."""
        self._read_s = 0.0
        """Seconds of reading one token."""
        self._round = _Round(0, is_even=False)

    def drafts(self, answering: Sequence[Answering]) -> dict[Generation, Draft]:
        """What to evaluate behind the pending tokens of each; nothing for those who are not named."""
        is_even = all(count == 1 for _, _, count in answering)
        self._round = step = _Round(len(answering), is_even)
        whole = all(count == len(generation.pending) for generation, _, count in answering)
        may_pay = self._credit.pays and self._prices.step_s(step.answers) > 0
        if not whole or not (may_pay or self._always):
            return {}
        step.chains = [chain for share in answering if (chain := self._chain(*share)) is not None]
        step.chains = self._readers(step)
        spare = self._n_batch - sum(count for _, _, count in answering)
        self._guess(step, min(self._together, spare) // step.answers)
        return self._filled(step, answering) if step.length else {}

    def learn(self, seconds: float) -> None:
        """The pass that `drafts` was called for took so long, and its tokens have been chosen."""
        step = self._round
        step_s = self._prices.step_s(step.answers)
        cost = step.spent_s
        if step.length and step.is_even and step_s:
            cost += seconds - step_s
            self._prices.note_drafts(step.answers, step.length, seconds)
        elif step.is_even and not step.length:
            self._prices.note_step(step.answers, seconds)
        gain = 0
        for chain in step.chains:
            accepted = min(self._note_outcomes(chain), step.length)
            gain += accepted
            if step_s:
                each = cost / step_s * step.answers / len(step.chains)
                chain.generation.draft_credit.step(accepted - each)
        self._credit.step(gain / step.answers - cost / step_s if step_s else 0.0)

    # Who drafts

    def _chain(self, generation: Generation, slot: Slot, count: int) -> _Chain | None:
        n_ctx = generation.context(self._n_ctx)
        most = min(
            draft_of(generation.options, has_draft_model=self._is_model),
            self._most,
            n_ctx - slot.size - count,
            generation.limit(n_ctx) - len(generation.generated) - 1,
        )
        if most <= 0 or generation.images:
            return None
        if not (generation.draft_credit.pays or self._always):
            generation.draft_credit.step()
            return None
        tokens = np.concatenate((slot.tokens[: slot.size], generation.pending))
        return _Chain(generation, Passage(slot.seq, tokens), most, len(generation.generated))

    def _readers(self, step: _Round) -> list[_Chain]:
        """Those whose text the guesser has followed. It reads a piece of one of the others', where there are
        any."""
        ready = []
        room = self._stall_s / self._read_s if self._read_s else _LEAST_READ
        for chain in step.chains:
            lag = self._guesser.lag(chain.passage)
            if lag > _READ_ALONG and room > 0:
                count = min(lag - 1, max(int(room), _LEAST_READ))
                if self._may_read(chain.generation, lag):
                    self._read(step, chain, count)
                    room = 0
                    lag -= count
            if lag <= _READ_ALONG:
                ready.append(chain)
                step.lag = max(step.lag, lag)
        return ready

    def _may_read(self, generation: Generation, lag: int) -> bool:
        elapsed_s = (time.monotonic_ns() - generation.started_ns) / 1e9
        return self._always or generation.drafted > 0 or lag * self._read_s <= _READING_SHARE * elapsed_s

    def _read(self, step: _Round, chain: _Chain, count: int) -> None:
        started = time.perf_counter()
        self._guesser.read(chain.passage, count)
        seconds = time.perf_counter() - started
        self._read_s = _mean(self._read_s, seconds / count)
        if chain.generation.drafted:  # the first reading has a bound of its own
            step.spent_s += seconds

    # How much

    def _guess(self, step: _Round, most: int) -> None:
        """Guess for all chains as long as it pays, and say how many guesses are to be checked."""
        price, alive = self._prices.more(step.answers), step.chains
        while alive and step.length < most:
            if not self._always and not self._pays_to_guess(step, alive, price):
                if not step.length:
                    self._grades.fade()
                    self._guess_s *= FADE
                break
            alive = self._guess_once(step, alive)
            # The last guess, if it does not pay to check it, is still compared with what is chosen.
            if not alive or (_reach(step, alive) < price and not self._always):
                break
            step.length += 1
            alive = [chain for chain in alive if chain.most > step.length]

    def _pays_to_guess(self, step: _Round, alive: list[_Chain], price: float) -> bool:
        worth = self._grades.worth(_reach(step, alive), price)
        return worth >= self._guess_s / self._prices.step_s(step.answers)

    def _guess_once(self, step: _Round, alive: list[_Chain]) -> list[_Chain]:
        """Those for whom there was one more guess."""
        started = time.perf_counter()
        guesses = self._guesser.guess([chain.passage for chain in alive])
        seconds = time.perf_counter() - started
        step.spent_s += seconds
        if step.length or step.lag <= _FOLLOWED:
            self._guess_s = _mean(self._guess_s, seconds)
        for chain, guess in zip(alive, guesses, strict=True):
            self._grades.note_guess(guess.grade if guess else None)
            if guess:
                chain.add(guess, self._grades.chance(guess.grade))
        return [chain for chain, guess in zip(alive, guesses, strict=True) if guess]

    def _filled(self, step: _Round, answering: Sequence[Answering]) -> dict[Generation, Draft]:
        """Drafts of one length for all."""
        guesses = {chain.generation: chain.guesses for chain in step.chains}
        drafts = {}
        for generation, slot, count in answering:
            room = generation.context(self._n_ctx) - slot.size - count
            length = min(step.length - (count - 1), room)
            if length <= 0 or generation.images:
                continue
            tokens = [guess.token for guess in guesses.get(generation, ())][:length]
            fill = [int(generation.pending[-1])] * (length - len(tokens))
            drafts[generation] = Draft(np.array(tokens + fill, np.int32), len(tokens))
            generation.drafted += len(tokens)
        return drafts

    # Afterwards

    def _note_outcomes(self, chain: _Chain) -> int:
        """How many guesses in a row were right."""
        chosen = chain.generation.generated[chain.start :]
        for i, (guess, token) in enumerate(zip(chain.guesses, chosen, strict=False)):
            right = guess.token == token
            self._grades.note_outcome(guess.grade, right=right)
            if not right:
                return i
        return min(len(chain.guesses), len(chosen))


def _reach(step: _Round, chains: list[_Chain]) -> float:
    """The chance that all guesses so far are right, on the average of all answers."""
    return sum(chain.chance for chain in chains) / step.answers


def _mean(old: float, new: float) -> float:
    return (1 - _EMA) * old + _EMA * new if old else new
