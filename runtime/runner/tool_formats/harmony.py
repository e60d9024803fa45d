"""OpenAI's harmony, which gpt-oss writes: every message names its channel, and whom it is for.

``<|channel|>analysis<|message|>…<|end|>`` is a thought, ``<|channel|>final<|message|>…`` content, and
``<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>`` a call. Between messages
stands ``<|start|>assistant``. The recipient may also stand before the channel.

Source: the harmony format's own description (cookbook.openai.com), and Ollama's harmony/harmonyparser.go.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto

from ..answer import Call, Content, Piece, Thought, overlap
from .tool_format import CallShape, OfferedTools

_START, _CHANNEL, _MESSAGE = "<|start|>", "<|channel|>", "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", _START)
MARKERS = (_START, _CHANNEL, _MESSAGE, "<|constrain|>", *_ENDS[:3])
FINAL = f"{_CHANNEL}final{_MESSAGE}"
"""What content begins with."""

SHAPE = CallShape(
    trigger=f"{_CHANNEL}commentary to=functions.",
    before_name=f"{_CHANNEL}commentary to=functions.",
    after_name=f" <|constrain|>json{_MESSAGE}",
    after_arguments="<|call|>",
    between=None,
)

_MAX_HEADER = 512
_MAX_CALL = 1024 * 1024
_TO = r"(?:to=(?:functions\.)?([\w.-]+)\s*)?"
_HEADER = re.compile(
    rf"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*{_TO}"
    rf"(?:<\|channel\|>\s*(analysis|commentary|final)\s*{_TO})?(?:<\|constrain\|>)?\s*(?:json|code|text)?\s*"
)
"""Recipient, channel, recipient."""


def _begun(*words: str) -> str:
    """A pattern for any beginning of any of ``words``."""
    return "(?:" + "|".join(word[:n] for word in words for n in range(len(word), 0, -1)) + ")?"


_CUT_HEADER = re.compile(
    rf"\s*(?:<\|start\|>)?\s*{_begun('assistant')}\s*(?:to=\S*\s*)?(?:<\|channel\|>\s*"
    rf"{_begun('analysis', 'commentary', 'final')}\s*(?:to=\S*\s*)?(?:<\|constrain\|>)?{_begun('json')})?"
)
_HEADERS = (_START, _CHANNEL, _MESSAGE, "assistant", "to=")
"""What a header begins with."""


def is_harmony(template: str) -> bool:
    """Whether a template, of either language, writes this."""
    return _START in template and _CHANNEL in template and _MESSAGE in template


class _State(Enum):
    FIRST = auto()
    """The answer's first header, if it has one."""
    HEADER = auto()
    THOUGHT = auto()
    CONTENT = auto()
    CALL = auto()


class HarmonyReader:
    """Takes the place of both the splitter of thoughts and the parser of calls.

    Feed text with `push`, end with `finish`. What is not harmony is content, as is a call of a tool that was
    not offered.
    """

    def __init__(self, tools: OfferedTools) -> None:
        self._tools = tools
        self._held = ""
        self._state = _State.FIRST
        self._header = ""
        self._recipient = ""
        self._thoughts = self._contents = 0
        """Messages that have said something."""
        self._is_new = False
        """Nothing of this message has been passed on."""

    @property
    def is_thinking(self) -> bool:
        return self._state is _State.THOUGHT or (self._state is _State.FIRST and not self._held.strip())

    def push(self, text: str) -> list[Piece]:
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces, ended=False):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        pieces: list[Piece] = []
        while self._step(pieces, ended=True):
            pass
        return pieces

    # Each takes one step; False once more text is needed.

    def _step(self, pieces: list[Piece], *, ended: bool) -> bool:
        if self._state is _State.FIRST:
            return self._first(ended)
        if self._state is _State.HEADER:
            return self._in_header(pieces, ended)
        return self._in_body(pieces, ended)

    def _first(self, ended: bool) -> bool:
        text = self._held.lstrip()
        if not ended and any(start.startswith(text) for start in _HEADERS):
            return False
        self._open(_State.HEADER if text.startswith(_HEADERS) else _State.CONTENT)
        return True

    def _in_header(self, pieces: list[Piece], ended: bool) -> bool:
        header, tag, rest = self._held.partition(_MESSAGE)
        if not tag and not ended and len(header) <= _MAX_HEADER:
            return False
        if not tag or len(header) > _MAX_HEADER:
            if ended and _CUT_HEADER.fullmatch(header):
                self._held = ""
            self._open(_State.CONTENT)  # whatever it is, it is no header
            return bool(self._held)
        found = _HEADER.fullmatch(header)
        if found is None:
            self._open(_State.CONTENT)
            self._pass_on(header + tag, pieces)
            self._held = rest
            return True
        self._header, self._held = header + tag, rest
        self._recipient = found[1] or found[3] or ""
        if self._recipient:
            self._open(_State.CALL)
        else:
            self._open(_State.THOUGHT if found[2] == "analysis" else _State.CONTENT)
        return True

    def _in_body(self, pieces: list[Piece], ended: bool) -> bool:
        hits = [(at, end) for end in _ENDS if (at := self._held.find(end)) >= 0]
        if not hits and not ended:
            if self._state is _State.CALL:
                if len(self._held) > _MAX_CALL:
                    self._state = _State.CONTENT
                    self._held = self._header + self._held
                return False
            visible = len(self._held) - max(overlap(self._held, end) for end in _ENDS)
            self._pass_on(self._held[:visible], pieces)
            self._held = self._held[visible:]
            return False
        at, end = min(hits, default=(len(self._held), ""))
        body, self._held = self._held[:at], self._held[at + len(end) :]
        if self._state is _State.CALL:
            self._call(body, end, pieces)
        else:
            self._pass_on(body, pieces)
        if not end:
            return False
        self._open(_State.HEADER)
        return bool(self._held)

    def _open(self, state: _State) -> None:
        self._state = state
        self._is_new = True

    def _pass_on(self, text: str, pieces: list[Piece]) -> None:
        """Thoughts of several messages, and contents, are parted by a blank line."""
        if not text:
            return
        is_thought = self._state is _State.THOUGHT
        earlier = self._thoughts if is_thought else self._contents
        if self._is_new and earlier:
            text = "\n\n" + text
        if self._is_new:
            self._thoughts += is_thought
            self._contents += not is_thought
        self._is_new = False
        pieces.append(Thought(text) if is_thought else Content(text))

    def _call(self, body: str, end: str, pieces: list[Piece]) -> None:
        try:
            arguments = json.loads(body, strict=False) if body.strip() else {}
        except (ValueError, RecursionError):
            arguments = None
        if self._recipient in self._tools and isinstance(arguments, dict):
            pieces.append(Call(self._recipient, arguments))
        else:
            self._pass_on(self._header + body + ("" if end == _START else end), pieces)
