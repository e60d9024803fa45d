"""From token bytes to pieces of the answer: UTF-8 → stop strings → thoughts → tool calls.

Each stage holds back what it cannot judge yet, and gives it up in `AnswerReader.finish`. Nothing here knows
of models or processes.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Sequence

from ..protocol import TokenLogprob
from .answer import Content, Piece, Thought, merged
from .stops import StopMatcher
from .thinking import Splitter
from .tool_formats.parser import ToolCallParser


class AnswerReader:
    """Reads one answer. Feed each token's bytes with `push`; stop when `stopped_by` is set; then `finish`."""

    def __init__(
        self,
        stops: Sequence[str] = (),
        thinking: Splitter | None = None,
        tools: ToolCallParser | None = None,
        *,
        hides_thoughts: bool = False,
    ) -> None:
        # A token may end within a character; bytes that can never become one turn into U+FFFD.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopMatcher(stops)
        self._thinking = thinking
        self._hides_thoughts = hides_thoughts
        self.thinking_tokens = 0
        """Tokens of thoughts so far, with the tags around them."""
        self._tools = tools
        self._read = 0  # characters decoded so far
        self._released = 0  # … and of those, known not to belong to a stop string
        self._logprobs: deque[tuple[int, TokenLogprob]] = deque()

    @property
    def stopped_by(self) -> str:
        """The stop string that ended the answer; "" so far."""
        return self._stops.matched

    def push(self, data: bytes, logprob: TokenLogprob | None = None) -> list[Piece]:
        """The pieces that are certain now. An empty ``data`` is a token without text."""
        was_thinking = self._is_thinking
        pieces = self._read_token(data, logprob)
        self.thinking_tokens += was_thinking or self._is_thinking
        return pieces

    @property
    def _is_thinking(self) -> bool:
        return self._thinking is not None and self._thinking.is_thinking

    def _read_token(self, data: bytes, logprob: TokenLogprob | None) -> list[Piece]:
        text = self._decoder.decode(data)
        self._read += len(text)
        if logprob:
            # The character that an incomplete end becomes counts as this token's.
            self._logprobs.append((self._read + bool(self._decoder.getstate()[0]), logprob))
        return self._pass_on(self._stops.push(text)) if text else []

    def finish(self) -> list[Piece]:
        """What was still held back. Not to be pushed to any more."""
        pieces: list[Piece] = []
        if not self.stopped_by:
            text = self._decoder.decode(b"", final=True)
            self._read += len(text)
            pieces += self._pass_on(self._stops.push(text))
        if not self.stopped_by:  # those last bytes may have completed one
            pieces += self._pass_on(self._stops.finish())
        if self._thinking:
            pieces += self._through_tools(self._thinking.finish())
        if self._tools:
            pieces += self._tools.finish()
        return merged(pieces)

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Of tokens whose text has been released, each once. Those of a stop string never come."""
        ready: list[TokenLogprob] = []
        while self._logprobs and self._logprobs[0][0] <= self._released:
            ready.append(self._logprobs.popleft()[1])
        return tuple(ready)

    def _pass_on(self, text: str) -> list[Piece]:
        if not text:
            return []
        self._released += len(text)
        pieces = self._thinking.push(text) if self._thinking else [Content(text)]
        return merged(self._through_tools(pieces))

    def _through_tools(self, pieces: Sequence[Piece]) -> list[Piece]:
        if self._hides_thoughts:
            pieces = [piece for piece in pieces if not isinstance(piece, Thought)]
        if self._tools is None:
            return list(pieces)
        result: list[Piece] = []
        for piece in pieces:
            result += self._tools.push(piece.text) if isinstance(piece, Content) else [piece]
        return result
