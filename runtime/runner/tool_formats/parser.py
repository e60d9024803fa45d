"""Finding tool calls in a stream of text, whatever the chunks it arrives in.

Only names of tools that were offered count. What looks like a call but is none is content: no text is ever
lost. White space between content and calls is dropped.
"""

from __future__ import annotations

from ..answer import Call, Content, Piece, overlap
from .cursor import Cursor, Mismatch
from .tool_format import FoundCall, OfferedTools, Reading, ToolFormat

_MAX_CALL = 1024 * 1024
"""Characters after which a call that has not ended is taken for content."""


class ToolCallParser:
    """Feed text with `push`, end with `finish`."""

    def __init__(self, form: ToolFormat, tools: OfferedTools) -> None:
        self._form = form
        self._tools = tools
        self._cursor = Cursor()
        self._section: Reading | None = None
        self._refused = False
        """What the section has read since its last call belongs to no call."""
        self._has_begun = False
        """The answer has shown whether it starts with a call."""
        self._has_called = False
        self._drops_space = False
        """Nothing but white space has come since the last call."""

    def push(self, text: str) -> list[Piece]:
        if not self._tools:
            return [Content(text)]
        self._cursor.text += text
        return self._read()

    def finish(self) -> list[Piece]:
        """The last call, where its end is missing, or the text that was held back in vain."""
        self._cursor.ended = True
        pieces = self._read()
        text, self._cursor.text = self._cursor.text, ""
        if text.strip() or not self._has_called:
            pieces.append(self._content(text))
        return pieces

    @property
    def is_in_call(self) -> bool:
        """Whether what comes next is expected to belong to a call."""
        return self._section is not None

    def _read(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._in_section(pieces) if self._section else self._before_section(pieces):
            pass
        return pieces

    # Each takes one step; False once more text is needed.

    def _before_section(self, pieces: list[Piece]) -> bool:
        if not self._has_begun:
            return self._at_start()
        text = self._cursor.text
        hits = [(at, -len(tag), tag) for tag in self._form.openings if (at := text.find(tag)) >= 0]
        if hits:
            at, _, opening = min(hits)
            before = text[:at].rstrip()
            pieces.append(self._content(before))
            self._cursor.text = text[len(before) :]
            self._cursor.at = at - len(before) + len(opening)
            self._begin(opening)
            return True
        if not self._cursor.ended:
            # White space waits: should a call follow, it belongs to nothing.
            held = max((overlap(text, tag) for tag in self._form.openings), default=0)
            visible = text[: len(text) - held].rstrip()
            pieces.append(self._content(visible))
            self._cursor.text = text[len(visible) :]
        return False

    def _at_start(self) -> bool:
        text = self._cursor.text.lstrip()
        if not text and not self._cursor.ended:
            return False
        self._has_begun = True
        opening = next((start for start in self._form.starts if text.startswith(start)), "")
        if opening and not text.startswith(self._form.openings or ("\0",)):
            self._cursor.at = 0
            self._begin(opening)
        return True

    def _begin(self, opening: str) -> None:
        self._refused = True
        self._section = self._form.read(self._cursor, opening, self._tools)

    def _in_section(self, pieces: list[Piece]) -> bool:
        assert self._section is not None
        try:
            found = next(self._section)
        except StopIteration:
            self._end_section(pieces)
            return True
        except Mismatch:
            self._refused = True
            self._end_section(pieces)
            return True
        if found is None:
            if len(self._cursor.text) <= _MAX_CALL:
                return False
            self._cursor.at = len(self._cursor.text)
            self._refused = True
            self._end_section(pieces)
            return True
        if isinstance(found, str):
            self._cursor.drop()
            pieces.append(self._content(found))
            return True
        calls = [found] if isinstance(found, FoundCall) else found
        self._refused = not all(call.name in self._tools for call in calls)
        text = self._cursor.drop()
        if self._refused:
            pieces.append(self._content(text))
        else:
            pieces.extend(Call(call.name, call.arguments) for call in calls)
            self._has_called = self._drops_space = True
        return True

    def _end_section(self, pieces: list[Piece]) -> None:
        """What was read since the last call is syntax that belongs to it, or else content."""
        self._section = None
        text = self._cursor.drop()
        if self._refused:
            pieces.append(self._content(text))

    def _content(self, text: str) -> Content:
        """``text`` without the white space that only parts it from the call before."""
        if self._drops_space:
            text = text.lstrip()
            self._drops_space = not text
        return Content(text)
