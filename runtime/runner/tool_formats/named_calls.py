"""Calls whose name stands outside of the JSON that holds their arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cursor import Cursor, Mismatch
from .json_calls import arguments_of, json_value, read_json_calls
from .tool_format import CallShape, FoundCall, OfferedTools, Reading

_NUMBER = re.compile(r":\d+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCalls:
    """``opening (before_name NAME after_name JSON after_arguments)… closing``.

    Without ``opening``, ``before_name`` is what a call is known by.
    """

    name: str
    opening: str = ""
    before_name: str
    after_name: str
    after_arguments: str
    closing: str = ""
    others: tuple[str, ...] = ()
    """What models write in place of ``opening`` at times."""
    between: str = ""
    identified: str = ""
    """What stands between an identifier, which comes before the name, and the name."""
    numbered: bool = False
    """Names are written as ``functions.NAME:0``."""

    @property
    def openings(self) -> tuple[str, ...]:
        return (self.opening or self.before_name, *self.others)

    @property
    def starts(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        parts = (self.opening, *self.others, self.closing, self.identified)
        texts = (*parts, self.before_name, self.after_name, self.after_arguments)
        return tuple(tag for text in texts for tag in _tags(text))

    @property
    def shape(self) -> CallShape | None:
        before, after = self.before_name, self.after_name
        if self.identified:
            before += "0" + self.identified
        if self.numbered:
            before, after = before + "functions.", ":0" + after
        return CallShape(
            trigger=self.opening or self.before_name,
            opening=self.opening,
            before_name=before,
            after_name=after,
            after_arguments=self.after_arguments,
            between=self.between,
            closing=self.closing,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        opened = not self.opening  # what was read already is the first call's ``before_name``
        while True:
            yield from cursor.blank()
            if not opened:
                options = (self.before_name, self.closing) if self.closing else (self.before_name,)
                if (yield from cursor.must(*options)) == self.closing:
                    return
            opened = False
            if self.identified:
                yield from cursor.until(self.identified, most=128)
                yield from cursor.must(self.identified)
            name = yield from cursor.word(self.after_name.strip())
            yield from cursor.must(self.after_name.strip())
            yield from cursor.blank()
            arguments = arguments_of(json_value((yield from cursor.balanced())))
            yield from cursor.blank()
            end = self.after_arguments.strip()
            ended = (yield from cursor.maybe(end)) if end else end
            if ended != end and not (cursor.ended and not cursor.rest):
                raise Mismatch
            if arguments is None:
                raise Mismatch
            yield FoundCall(self._plain(name), arguments)
            if not self.opening:
                return

    def _plain(self, name: str) -> str:
        return _NUMBER.sub("", name).removeprefix("functions.") if self.numbered else name


def _tags(text: str) -> list[str]:
    """The tags in ``text``, each of which may be a token."""
    return re.findall(r"<[^<>]+>", text)


@dataclass(frozen=True, slots=True, kw_only=True)
class MistralCalls:
    """``[TOOL_CALLS][{…}, {…}]`` of earlier models, ``[TOOL_CALLS]NAME[ARGS]{…}`` of later ones, with
    ``[CALL_ID]ID`` in between for some."""

    name: str = "mistral"
    opening: str = "[TOOL_CALLS]"
    listed: bool = False

    @property
    def openings(self) -> tuple[str, ...]:
        return (self.opening,)

    @property
    def starts(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.opening, "[ARGS]", "[CALL_ID]")

    @property
    def shape(self) -> CallShape:
        if self.listed:
            return CallShape(
                trigger=self.opening,
                opening=self.opening + "[",
                before_name='{"name": "',
                after_name='", "arguments": ',
                after_arguments="}",
                between=", ",
                closing="]",
            )
        return CallShape(
            trigger=self.opening, before_name=self.opening, after_name="[ARGS]", after_arguments=""
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        yield from cursor.blank()
        if cursor.rest.startswith(("[", "{")):
            yield from read_json_calls(cursor, tools)
            return
        name = yield from cursor.word("[CALL_ID]", "[ARGS]", "{")
        if (yield from cursor.maybe("[CALL_ID]", "[ARGS]")) == "[CALL_ID]":
            yield from cursor.until("[ARGS]", "{", most=128)
            yield from cursor.maybe("[ARGS]")
        yield from cursor.blank()
        arguments = arguments_of(json_value((yield from cursor.balanced())))
        if arguments is None:
            raise Mismatch
        yield FoundCall(name, arguments)
