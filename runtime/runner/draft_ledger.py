"""What drafts cost and what they bring, as measured: so that no more is drafted than pays. Pure.

The unit is the *step*: the time that a step without drafts takes, with as many answers as there are. Where a
pass over more tokens takes hardly longer, as on GPUs, every guess that may be right pays; where it takes
nearly in proportion, only those do that are almost certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_EMA = 0.2
_FIRST_STEPS = 2
"""Steps without drafts before their price is taken to be known."""
_REFRESH = 32
"""Every so many steps one goes without drafts, so that its price is known as the context grows."""
FADE = 0.99
"""What is known of prices and guesses loses so much of its weight with each step in which it decides against
a draft: what was true of one text need not be of the next."""
_PRIOR_WEIGHT, _MOST_WEIGHT = 4, 50
_ALLOWANCE = 0.02
"""Of each step may be lost to drafts."""
_MOST_CREDIT, _RESUME = 8.0, 2.0


class Credit:
    """How much drafts may cost yet, in steps. It grows by the allowance with each step and by what drafts
    have brought, and is bounded, so that no past success pays for a long failure. Once spent, there are no
    drafts until something has been saved again."""

    __slots__ = ("_amount", "_is_spent")

    def __init__(self) -> None:
        self._amount = _MOST_CREDIT
        self._is_spent = False

    @property
    def pays(self) -> bool:
        return not self._is_spent

    def step(self, gain: float = 0.0) -> None:
        """Note a step, and what drafts have brought in it, less what they have cost."""
        self._amount = max(-_MOST_CREDIT, min(self._amount + gain + _ALLOWANCE, _MOST_CREDIT))
        self._is_spent = self._amount < _RESUME if self._is_spent else self._amount <= 0.0


@dataclass(slots=True)
class _Price:
    step_s: float = 0.0
    seen: int = 0
    """Steps without drafts."""
    since: int = 0
    """Steps with drafts after the last one without."""
    more: float = 0.0
    """What one token more of every answer costs, in steps."""


@dataclass(slots=True)
class Prices:
    """Of passes, by how many answers share them."""

    _prices: dict[int, _Price] = field(default_factory=dict)

    def step_s(self, answers: int) -> float:
        """Seconds of a step without drafts; 0: not known, or to be measured again."""
        price = self._prices.get(answers)
        known = price is not None and price.seen >= _FIRST_STEPS and price.since < _REFRESH
        return price.step_s if price and known else 0.0

    def more(self, answers: int) -> float:
        """What one token more of every answer costs, in steps; 0 as long as nobody has tried."""
        price = self._prices.get(answers)
        return price.more if price else 0.0

    def note_step(self, answers: int, seconds: float) -> None:
        """A step without drafts took so long."""
        price = self._prices.setdefault(answers, _Price())
        price.step_s = seconds if price.seen < _FIRST_STEPS else _mean(price.step_s, seconds)
        price.seen += 1
        price.since = 0
        price.more *= FADE

    def note_drafts(self, answers: int, length: int, seconds: float) -> None:
        """A step with drafts of ``length`` tokens for every answer took so long."""
        price = self._prices[answers]
        more = max(seconds / price.step_s - 1, 0.0) / length
        price.more = _mean(price.more, more) if price.more else more
        price.since += 1


class Grades:
    """How often guesses of each grade occur, and are right."""

    def __init__(self, count: int) -> None:
        self._prior = [(grade + 1) / (count + 0.5) for grade in range(count)]
        self._right = list(self._prior)
        self._share = [1 / count] * count
        self._seen = [float(_PRIOR_WEIGHT)] * count
        self._asked = _PRIOR_WEIGHT

    def chance(self, grade: int) -> float:
        """That a guess of this grade is right."""
        return self._right[grade]

    def worth(self, reach: float, price: float) -> float:
        """What one more guess can be expected to bring, in steps, before it is known: ``reach`` is the chance
        that it will count, ``price`` what checking it costs. A guess that is not worth its price is not
        checked."""
        chances = zip(self._share, self._right, strict=True)
        return sum(share * max(0.0, reach * right - price) for share, right in chances)

    def note_guess(self, grade: int | None) -> None:
        """A guess of this grade was made; None: none was to be had."""
        self._asked = min(self._asked + 1, _MOST_WEIGHT)
        for i, share in enumerate(self._share):
            self._share[i] = share + ((i == grade) - share) / self._asked

    def note_outcome(self, grade: int, *, right: bool) -> None:
        self._seen[grade] = min(self._seen[grade] + 1, _MOST_WEIGHT)
        self._right[grade] += (right - self._right[grade]) / self._seen[grade]

    def fade(self) -> None:
        """Nobody asked for a guess: what is known of them may no longer hold."""
        self._seen = [max(seen * FADE, _PRIOR_WEIGHT) for seen in self._seen]
        for i, prior in enumerate(self._prior):
            self._right[i] = prior + (self._right[i] - prior) * FADE
            self._share[i] = 1 / len(self._share) + (self._share[i] - 1 / len(self._share)) * FADE


def _mean(old: float, new: float) -> float:
    return (1 - _EMA) * old + _EMA * new
