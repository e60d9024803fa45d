"""Which slot a prompt gets, and what of it is reused there, on a memory that checks what is done to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.runtime.runner.slots import Slot, SlotTable, TokenArray, common_prefix


@dataclass
class Memory:
    """Positions of each sequence, each with the token evaluated there. ``cuttable`` False: all or nothing."""

    cuttable: bool = True
    kept: dict[int, dict[int, int]] = field(default_factory=dict)
    copies: int = 0

    def remove(self, seq: int, start: int, end: int = -1) -> bool:
        positions = self.kept.setdefault(seq, {})
        if start < 0:
            positions.clear()
            return True
        gone = [p for p in positions if p >= start and (end < 0 or p < end)]
        if gone and not self.cuttable:
            return False
        for position in gone:
            del positions[position]
        return True

    def copy(self, source: int, target: int) -> None:
        assert source != target
        self.copies += 1
        self.kept[target] = dict(self.kept.get(source, {}))

    def move(self, seq: int, start: int, end: int, delta: int) -> None:
        positions = self.kept[seq]
        moved = {p + delta if p >= start and (end < 0 or p < end) else p: t for p, t in positions.items()}
        assert len(moved) == len(positions), "two tokens at one position"
        self.kept[seq] = moved

    def first_position(self, seq: int) -> int:
        return min(self.kept.get(seq) or [-1])

    def evaluate(self, slot: Slot, tokens: TokenArray) -> None:
        """What a decode does: the tokens stand at the slot's next positions."""
        positions = self.kept.setdefault(slot.seq, {})
        for offset, token in enumerate(tokens.tolist()):
            assert slot.size + offset not in positions
            positions[slot.size + offset] = token
        slot.append(tokens)

    def check(self, slot: Slot) -> None:
        """The memory holds exactly what the slot says."""
        held = self.kept.get(slot.seq, {})
        assert [held[p] for p in sorted(held)] == slot.tokens[: slot.size].tolist()
        assert sorted(held) == list(range(slot.size))


def tokens(*values: int | range) -> TokenArray:
    flat = [v for value in values for v in (value if isinstance(value, range) else (value,))]
    return np.array(flat, np.int32)


def table(memory: Memory, count: int = 3, capacity: int = 256) -> SlotTable:
    return SlotTable(memory, count, capacity)


def answer(
    slots: SlotTable, memory: Memory, prompt: TokenArray, *said: int, keep: bool = False
) -> tuple[Slot, int]:
    """Admit a prompt, evaluate it and what is said, and release the slot; the slot and how much it knew."""
    slot = slots.take(prompt)
    known = slot.size
    memory.check(slot)
    assert known < len(prompt)
    assert common_prefix(slot.tokens[:known], prompt) == known
    memory.evaluate(slot, prompt[known:])
    memory.evaluate(slot, tokens(*said))
    memory.check(slot)
    if not keep:
        slots.release(slot)
    return slot, known


def test_a_conversation_goes_on_in_its_slot() -> None:
    memory = Memory()
    slots = table(memory)
    first, known = answer(slots, memory, tokens(range(50)), 100, 101)
    assert known == 0
    second, known = answer(slots, memory, tokens(range(50), 100, 101, 60, 61), 102)
    assert (second.seq, known) == (first.seq, 52)


def test_the_same_prompt_again_evaluates_one_token() -> None:
    memory = Memory()
    slots = table(memory)
    answer(slots, memory, tokens(range(50)), 100)
    assert answer(slots, memory, tokens(range(50)))[1] == 49


def test_a_short_common_beginning_does_not_cost_a_long_memory() -> None:
    memory = Memory()
    slots = table(memory)
    long, _ = answer(slots, memory, tokens(range(98)), 7)
    other, _ = answer(slots, memory, tokens(0, 500, 501), 7)
    assert other.seq != long.seq
    assert answer(slots, memory, tokens(range(98)))[1] == 97


def test_a_shared_beginning_is_copied_even_from_a_busy_slot() -> None:
    memory = Memory()
    slots = table(memory)
    first, _ = answer(slots, memory, tokens(range(100), 200, 201), keep=True)
    second, known = answer(slots, memory, tokens(range(100), 300), keep=True)
    assert (memory.copies, known) == (1, 100)
    assert first.seq != second.seq
    memory.check(first)


def test_nothing_is_copied_for_less_than_it_costs() -> None:
    memory = Memory()
    slots = table(memory)
    slots.copy_cost_tokens = 150
    answer(slots, memory, tokens(range(100), 200), keep=True)
    assert answer(slots, memory, tokens(range(100), 300))[1] == 0
    assert memory.copies == 0


def test_the_least_recently_used_slot_is_given_up() -> None:
    memory = Memory()
    slots = table(memory, count=2)
    a, b, c = tokens(range(50)), tokens(range(50, 100)), tokens(range(100, 150))
    slot_a, _ = answer(slots, memory, a)
    slot_b, _ = answer(slots, memory, b)
    answer(slots, memory, a)
    slot_c, _ = answer(slots, memory, c)
    assert slot_c.seq == slot_b.seq != slot_a.seq
    assert answer(slots, memory, a)[1] == 49


def test_what_cannot_be_cut_is_evaluated_again() -> None:
    memory = Memory(cuttable=False)
    slots = table(memory, count=1)
    answer(slots, memory, tokens(range(50)), 100)
    assert answer(slots, memory, tokens(range(50), 100, 101))[1] == 51  # nothing to cut
    assert answer(slots, memory, tokens(range(50), 999))[1] == 0


def test_a_window_that_has_moved_on_is_evaluated_again() -> None:
    memory = Memory()
    slots = SlotTable(memory, 1, 256, sliding_window=16)
    slot, _ = answer(slots, memory, tokens(range(100)))
    for position in range(60):  # the window has dropped these
        del memory.kept[slot.seq][position]
    taken = slots.take(tokens(range(90), 999))  # needs 74 … 89, which are there
    assert taken.size == 90
    slots.release(taken)
    for position in range(60, 80):
        del memory.kept[slot.seq][position]
    taken = slots.take(tokens(range(90), 998))
    assert taken.size == 0
    assert not memory.kept[slot.seq]


@pytest.mark.parametrize(
    ("keep", "size", "left"), [(4, 100, 52), (0, 100, 50), (99, 100, 100), (98, 100, 99)]
)
def test_a_shift_drops_the_older_half_of_what_may_go(keep: int, size: int, left: int) -> None:
    memory = Memory()
    slots = table(memory, count=1, capacity=size)
    slot, _ = answer(slots, memory, tokens(range(size)), keep=True)
    dropped = slots.shift(slot, keep)
    assert slot.size == size - dropped == left
    assert slot.tokens[: slot.size].tolist() == [*range(keep), *range(keep + dropped, size)]
    memory.check(slot)


def test_a_shift_that_is_impossible_changes_nothing() -> None:
    memory = Memory(cuttable=False)
    slots = table(memory, count=1, capacity=64)
    slot, _ = answer(slots, memory, tokens(range(64)), keep=True)
    assert slots.shift(slot, 4) == 0
    assert slot.size == 64
    memory.check(slot)


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(st.tuples(prompts, st.booleans()), max_size=25),
    count=st.integers(1, 4),
    cuttable=st.booleans(),
    cost=st.integers(0, 10),
)
def test_slots_and_memory_never_disagree(
    requests: list[tuple[list[int], bool]], count: int, cuttable: bool, cost: int
) -> None:
    memory = Memory(cuttable=cuttable)
    slots = SlotTable(memory, count, 64)
    slots.copy_cost_tokens = cost
    busy: list[Slot] = []
    for prompt, keep in requests:
        if not slots.has_free:
            slots.release(busy.pop(0))
        slot, _ = answer(slots, memory, tokens(*prompt), 1, keep=keep)
        if keep:
            busy.append(slot)
        for each in slots.slots:
            memory.check(each)
