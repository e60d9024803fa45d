"""A constraint for answers that may come to tool calls: until one begins, all is free. Runner process
only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import BadFormat
from .format_constraint import FormatConstraint
from .guidance import Matcher
from .llama import LlamaVocab
from .thinking import Splitter


class PossibleCalls:
    """A `Constraint` that holds from the text on that calls begin with until the section of calls is over,
    and so on. What stands in thoughts is free.

    ``beginning`` is a matcher of `call_grammar.possible_calls`. ``trigger`` "": calls are an answer from its
    first character, which is one of ``starts``.
    """

    def __init__(
        self,
        beginning: Matcher,
        vocab: LlamaVocab,
        *,
        trigger: str,
        starts: Sequence[str] = (),
        thinking: Splitter | None = None,
    ) -> None:
        self._beginning = beginning
        self._vocab = vocab
        self._trigger = trigger.encode()
        self._starts = tuple(start.encode() for start in starts)
        self._thinking = thinking
        self._text = b""
        """The end of what is free, as far as it may be the beginning of a call."""
        self._held: FormatConstraint | None = None
        """What holds at the moment."""
        self._is_call = False
        self._is_over = False
        """No call can come any more."""

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        if self._held:
            self._held.mask(logits)

    def accept(self, token: int) -> None:
        if self._is_over or (self._thinking and self._thinking.is_thinking):
            self._let_go()
        elif self._is_call:
            assert self._held
            self._held.accept(token)
            if self._trigger and self._held.may_end:
                self._let_go()
        else:
            self._text += self._vocab.piece(token, special=True)
            if self._trigger:
                self._look_for_trigger()
            else:
                self._look_at_start()

    def forced(self) -> Sequence[int]:
        return self._held.forced() if self._held else ()

    @property
    def is_complete(self) -> bool:
        return self._is_call and self._held is not None and self._held.is_complete

    def _look_for_trigger(self) -> None:
        at = self._text.find(self._trigger)
        self._is_call = at >= 0
        self._text = self._text[at:] if at >= 0 else _overlap(self._text, self._trigger)
        self._hold()

    def _look_at_start(self) -> None:
        text = self._text.lstrip()
        if text:
            self._is_call = text.startswith(self._starts)
            self._is_over = not self._is_call
            self._text = text if self._is_call else b""
            self._hold()

    def _hold(self) -> None:
        """Have the matcher follow the text so far; a text that it does not know is no call."""
        self._held = None
        if not self._text:
            return
        matcher = self._beginning.copy()
        try:
            matcher.read(self._text)
        except BadFormat:
            self._let_go()
            return
        self._held = FormatConstraint(matcher, self._vocab.size)

    def _let_go(self) -> None:
        self._held = None
        self._is_call = False
        self._text = b""


def _overlap(text: bytes, marker: bytes) -> bytes:
    """The longest end of ``text`` that ``marker`` begins with."""
    for size in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:size]):
            return text[-size:]
    return b""
