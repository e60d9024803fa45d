"""What is drafted follows what it costs and brings: the ledger alone, and `Drafter` with prices that are made
up."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from lading.runtime.options import Options
from lading.runtime.runner.draft_ledger import Credit, Grades, Prices
from lading.runtime.runner.drafting import Drafter
from lading.runtime.runner.generation import Generation
from lading.runtime.runner.guess import Guess, Passage
from lading.runtime.runner.output import AnswerReader
from lading.runtime.runner.slots import Slot


def test_credit_bounds_what_can_be_lost() -> None:
    credit, lost = Credit(), 0.0
    for _ in range(10_000):
        if credit.pays:
            credit.step(-0.5)
            lost += 0.5
        else:
            credit.step()
    assert lost == pytest.approx(0.02 * 10_000 + 8, rel=0.05)


def test_success_pays_for_little_failure() -> None:
    credit = Credit()
    for _ in range(1000):
        credit.step(+3.0)
    steps = 0
    while credit.pays:
        credit.step(-1.0)
        steps += 1
    assert steps <= 9
    for _ in range(130):
        credit.step()
        assert not credit.pays
    for _ in range(20):
        credit.step()
    assert credit.pays


def test_a_price_is_known_after_two_steps_and_measured_again() -> None:
    prices = Prices()
    prices.note_step(1, 9.0)  # the first is always slow
    assert prices.step_s(1) == 0
    prices.note_step(1, 1.0)
    assert prices.step_s(1) == 1.0
    assert prices.step_s(2) == 0
    assert prices.more(1) == 0
    for _ in range(32):
        assert prices.step_s(1) == 1.0
        prices.note_drafts(1, 4, 1.8)
    assert prices.more(1) == pytest.approx(0.2)
    assert prices.step_s(1) == 0
    prices.note_step(1, 1.0)
    assert prices.step_s(1) == 1.0


def test_grades_are_learnt_and_forgotten() -> None:
    grades = Grades(3)
    before = [grades.chance(grade) for grade in range(3)]
    assert before == sorted(before)
    for _ in range(60):
        grades.note_guess(2)
        grades.note_outcome(2, right=False)
    assert grades.chance(2) < 0.15
    assert grades.chance(1) == before[1]
    assert grades.worth(1.0, 0.2) < 0.02
    for _ in range(500):
        grades.fade()
    assert grades.chance(2) == pytest.approx(before[2], abs=0.01)


@dataclass
class Clock:
    now: float = 0.0


@dataclass
class Chancer:
    """A guesser that is right with a probability that it knows, of two grades."""

    right: float
    seconds: float
    clock: Clock
    random: random.Random = field(default_factory=lambda: random.Random(7))
    grades: int = 2

    def lag(self, passage: Passage) -> int:
        return 1

    def read(self, passage: Passage, count: int) -> None:
        raise AssertionError

    def guess(self, passages: Sequence[Passage]) -> list[Guess | None]:
        self.clock.now += self.seconds
        return [Guess(1 if self.random.random() < self.right else 2, 1) for _ in passages]


@dataclass
class Outcome:
    seconds: float
    tokens: int
    drafted: int

    @property
    def per_token(self) -> float:
        return self.seconds / self.tokens


def simulate(
    monkeypatch: pytest.MonkeyPatch,
    *,
    right: float,
    guess_s: float,
    more: float,
    answers: int = 1,
    steps: int = 600,
) -> Outcome:
    """Answers that always go on with token 1. A pass takes a second, and ``more`` for each token more of
    all."""
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    drafter = Drafter(
        Chancer(right, guess_s, clock), is_model=True, most=4, together=64, n_ctx=100_000, n_batch=512
    )
    generations = []
    for seq in range(answers):
        generation = Generation(
            request_id=seq,
            owner=None,
            prompt=np.zeros(1, np.int32),
            options=Options(num_predict=100_000),
            reader=AnswerReader(),
        )
        slot = Slot(seq, np.zeros(100_000, np.int32))
        generation.start(slot)
        slot.append(generation.take_pending(1))
        generation.advance(1)
        generations.append((generation, slot))
    started, drafted = clock.now, 0
    for _ in range(steps):
        drafts = drafter.drafts([(generation, slot, 1) for generation, slot in generations])
        longest = max((len(draft.tokens) for draft in drafts.values()), default=0)
        clock.now += 1 + more * longest
        for generation, slot in generations:
            slot.append(generation.take_pending(1))
            generation.advance(1)
            for token in drafts[generation].tokens if generation in drafts else ():
                if token != 1:
                    break
                slot.append(generation.take_pending(1))
                generation.advance(1)
        drafted += sum(draft.guessed for draft in drafts.values())
        drafter.learn(1 + more * longest)
    tokens = sum(len(generation.generated) for generation, _ in generations)
    return Outcome(clock.now - started, tokens // answers, drafted)


@pytest.mark.parametrize("answers", [1, 4])
@pytest.mark.parametrize("more", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("guess_s", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("right", [0.0, 0.5, 0.8, 1.0])
def test_drafts_never_cost_more_than_a_little(
    monkeypatch: pytest.MonkeyPatch, right: float, guess_s: float, more: float, answers: int
) -> None:
    outcome = simulate(monkeypatch, right=right, guess_s=guess_s, more=more, answers=answers)
    assert outcome.per_token < 1.05


@pytest.mark.parametrize(
    ("right", "guess_s", "more", "at_most"),
    [
        pytest.param(1.0, 0.0, 0.0, 0.25, id="all is free"),
        pytest.param(0.95, 0.1, 0.03, 0.4, id="a good draft model on a GPU"),
        pytest.param(0.8, 0.1, 0.03, 0.55, id="a fair draft model on a GPU"),
        pytest.param(0.95, 0.1, 0.5, 0.8, id="a good draft model on a processor"),
        pytest.param(0.95, 0.0, 0.5, 0.7, id="quoting on a processor"),
    ],
)
def test_drafts_that_pay_are_made(
    monkeypatch: pytest.MonkeyPatch, right: float, guess_s: float, more: float, at_most: float
) -> None:
    outcome = simulate(monkeypatch, right=right, guess_s=guess_s, more=more)
    assert outcome.per_token < at_most
