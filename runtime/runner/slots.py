"""Slots: where a generation's tokens live in the model's memory, and which tokens an earlier one has left
there.

A new prompt shares the longest beginning that any slot of its scope already holds. If that slot is free and
most of what it holds is shared, the prompt simply continues there. Otherwise the least recently used slot is
taken and the shared beginning is copied into it, if copying is cheaper than evaluating. Reuse never changes
what is computed, only whether it is computed again: whatever the model's memory cannot cut exactly is
dropped and evaluated anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .image_cells import whole_images

TokenArray = npt.NDArray[np.int32]
"""Tokens, and cells that stand for images (see `image_cells`)."""


class SequenceMemory(Protocol):
    """The part of `llama_context.LlamaContext` that slots need; its docstrings hold."""

    def remove(self, seq: int, start: int, end: int = -1) -> bool: ...

    def copy(self, source: int, target: int) -> None: ...

    def move(self, seq: int, start: int, end: int, delta: int) -> None: ...

    def first_position(self, seq: int) -> int: ...


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the context. ``tokens[:size]`` are evaluated; among them may be cells of images."""

    seq: int
    tokens: TokenArray
    size: int = 0
    positions: TokenArray = field(init=False)
    """Of each token: 0 … size - 1, except after an image that takes up fewer positions than it has cells."""
    end: int = field(init=False)
    """The position of what comes next."""
    busy: bool = False
    last_used: int = 0
    """Counts admissions; 0: never."""
    scope: str = ""
    """Whose prompts may use what it holds; see `generation.Generation.scope`."""

    def __post_init__(self) -> None:
        self.positions = np.arange(len(self.tokens), dtype=np.int32)
        self.end = self.size

    @property
    def has_images(self) -> bool:
        return bool((self.tokens[: self.size] < 0).any())

    def append(self, tokens: Sequence[int] | TokenArray) -> None:
        """Note tokens as evaluated, each at the position after the one before."""
        self._note(tokens, np.arange(self.end, self.end + len(tokens), dtype=np.int32))
        self.end += len(tokens)

    def append_image(self, cells: TokenArray, positions: TokenArray, end: int) -> None:
        """Note cells of an image as evaluated at ``positions``; what comes next is at ``end``."""
        self._note(cells, positions)
        self.end = end

    def cut(self, size: int) -> None:
        """Note all but the first ``size`` tokens as gone."""
        if size < self.size:
            self.end = int(self.positions[size])
            self.size = size

    def become(self, other: Slot) -> None:
        """Note the same as ``other``."""
        self.tokens[: other.size] = other.tokens[: other.size]
        self.positions[: other.size] = other.positions[: other.size]
        self.size, self.end, self.scope = other.size, other.end, other.scope

    def _note(self, tokens: Sequence[int] | TokenArray, positions: TokenArray) -> None:
        start, self.size = self.size, self.size + len(tokens)
        self.tokens[start : self.size] = tokens
        self.positions[start : self.size] = positions


@dataclass(slots=True)
class SlotTable:
    """All slots of a context.

    ``sliding_window`` is the model's, 0 for full attention; ``capacity`` the tokens that a slot can hold.
    """

    memory: SequenceMemory
    count: int
    capacity: int
    sliding_window: int = 0
    copy_cost_tokens: float = 32.0
    """A copy between slots costs as much as evaluating this many tokens. The engine keeps it up to date."""
    slots: list[Slot] = field(init=False)
    _admissions: int = 0

    def __post_init__(self) -> None:
        self.slots = [Slot(seq, np.zeros(self.capacity, np.int32)) for seq in range(self.count)]

    @property
    def has_free(self) -> bool:
        return any(not slot.busy for slot in self.slots)

    def best_match(self, prompt: TokenArray, scope: str = "") -> int:
        """Length of the longest beginning of ``prompt`` that any slot of the scope holds."""
        alike = [slot for slot in self.slots if slot.scope == scope]
        return max((common_prefix(slot.tokens[: slot.size], prompt) for slot in alike), default=0)

    def least_recently_used(self) -> Slot:
        """Of those that are free; there must be one."""
        return min((slot for slot in self.slots if not slot.busy), key=lambda slot: slot.last_used)

    def take(self, prompt: TokenArray, scope: str = "") -> Slot:
        """A free slot, made busy, holding a beginning of ``prompt`` that was evaluated in the same scope:
        possibly empty, never all of it.

        At least the last token is left to evaluate, for its output. There must be a free slot.
        """
        shared = {slot.seq: self._shared(slot, prompt) if slot.scope == scope else 0 for slot in self.slots}
        source = max(self.slots, key=lambda slot: (shared[slot.seq], not slot.busy))
        free = [slot for slot in self.slots if not slot.busy]
        best_free = max(free, key=lambda slot: (shared[slot.seq], -slot.last_used))
        target = best_free
        if shared[best_free.seq] * 2 < best_free.size:  # most of what it holds would be lost
            target = self.least_recently_used()
        if shared[source.seq] - shared[target.seq] > self.copy_cost_tokens:
            self._copy(source, target)
        self._cut(target, self._shared(target, prompt) if target.scope == scope else 0)
        target.scope = scope
        self._admissions += 1
        target.last_used = self._admissions
        target.busy = True
        return target

    def release(self, slot: Slot) -> None:
        """The slot is free again; what it holds may serve later prompts."""
        slot.busy = False

    def forget(self, slot: Slot) -> None:
        """Empty the slot, whatever state its memory is in."""
        self.memory.remove(slot.seq, -1, -1)
        slot.size = slot.end = 0

    def trim(self, slot: Slot) -> bool:
        """Drop from memory what was evaluated behind the tokens that the slot has noted. False where the
        memory cannot do that; then the slot is empty."""
        if self.memory.remove(slot.seq, slot.end) and self._sees_enough(slot):
            return True
        self.forget(slot)
        return False

    def shift(self, slot: Slot, keep: int) -> int:
        """Make room in a full slot: drop the older half of what follows the first ``keep`` tokens.

        Returns how many tokens were dropped; 0 where the memory cannot be cut, or an image might be cut
        through, and then nothing has changed.
        """
        dropped = (slot.size - keep) // 2
        if dropped <= 0 or slot.has_images or not self.memory.remove(slot.seq, keep, keep + dropped):
            return 0
        self.memory.move(slot.seq, keep + dropped, -1, -dropped)
        kept = slot.size - dropped
        slot.tokens[keep:kept] = slot.tokens[keep + dropped : slot.size].copy()
        slot.size = slot.end = kept
        return dropped

    @staticmethod
    def _shared(slot: Slot, prompt: TokenArray) -> int:
        return whole_images(prompt, min(common_prefix(slot.tokens[: slot.size], prompt), len(prompt) - 1))

    def _copy(self, source: Slot, target: Slot) -> None:
        self.memory.copy(source.seq, target.seq)
        target.become(source)

    def _cut(self, slot: Slot, size: int) -> None:
        """Keep the first ``size`` tokens, or none where the memory cannot be cut there."""
        cut = size < slot.size
        if size == 0 or (cut and not self.memory.remove(slot.seq, int(slot.positions[size]))):
            self.forget(slot)
            return
        slot.cut(size)
        if not self._sees_enough(slot):
            self.forget(slot)

    def _sees_enough(self, slot: Slot) -> bool:
        """Whether the window that the next token looks back on is there in full."""
        needed = max(0, slot.end - self.sliding_window)
        return not self.sliding_window or 0 <= self.memory.first_position(slot.seq) <= needed


def common_prefix(a: TokenArray, b: TokenArray) -> int:
    """How many leading elements are equal."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
