"""Calls whose arguments are elements of their own, named by an attribute: what coding models write, since
code needs no escapes there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cursor import Cursor, Wait
from .tool_format import CallShape, FoundCall, OfferedTools, ParameterShape, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class XmlCalls:
    """``opening (before_name NAME after_name (before_key KEY after_key VALUE after_value)… after_arguments)…
    closing``.

    Without ``opening``, ``before_name`` is what a call is known by. White space between elements is free.
    """

    name: str
    opening: str = ""
    closing: str = ""
    before_name: str
    after_name: str
    before_key: str
    after_key: str
    after_key_of_text: str = ""
    """What stands in place of ``after_key`` where the value is text, whatever it looks like."""
    after_value: str
    after_arguments: str
    padded: bool = False
    """A value stands on lines of its own."""
    one_to_a_section: bool = False
    """Models write a section for each call, and leave ``opening`` out at times."""

    @property
    def openings(self) -> tuple[str, ...]:
        if not self.opening:
            return (self.before_name,)
        return (self.opening, self.before_name) if self.one_to_a_section else (self.opening,)

    @property
    def starts(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.opening, self.closing) if self.opening else ()

    @property
    def shape(self) -> CallShape:
        pad = "\n" if self.padded else ""
        line = "\n" if self.opening else ""
        opening, closing = self.opening + line, line + self.closing
        single = self.one_to_a_section
        return CallShape(
            trigger=self.opening or self.before_name,
            opening="" if single else opening,
            before_name=(opening if single else "") + self.before_name,
            after_name=self.after_name + line,
            arguments=ParameterShape(
                before_key=self.before_key,
                after_key=self.after_key + pad,
                after_key_of_text=self.after_key_of_text,
                after_value=pad + self.after_value + line,
                bare_strings=True,
            ),
            after_arguments=self.after_arguments + (closing if single else ""),
            between="\n" if self.opening else "",
            closing="" if single else closing,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        named = opening == self.before_name
        while True:
            yield from cursor.blank()
            if not named:
                options = (self.before_name, self.closing) if self.closing else (self.before_name,)
                if (yield from cursor.must(*options)) == self.closing:
                    return
            name = yield from cursor.word(self.after_name)
            yield from cursor.must(self.after_name)
            arguments: dict[str, Any] = {}
            while True:
                yield from cursor.blank()
                if (yield from cursor.must(self.before_key, self.after_arguments)) == self.after_arguments:
                    break
                key, value = yield from self._argument(cursor, name, tools)
                arguments[key] = value
            if opening == self.before_name and self.closing:
                at = cursor.at
                yield from cursor.blank()
                if not (yield from cursor.maybe(self.closing)):
                    cursor.at = at
            yield FoundCall(name, arguments)
            if opening == self.before_name:
                return
            named = False

    def _argument(self, cursor: Cursor, name: str, tools: OfferedTools) -> Any:
        ends = tuple(end for end in (self.after_key, self.after_key_of_text) if end)
        key = yield from cursor.word(*ends)
        is_text = (yield from cursor.must(*ends)) == self.after_key_of_text
        value = yield from element_text(cursor, self.after_value, self.before_key, self.after_arguments)
        if self.padded:
            value = value.removeprefix("\n").removesuffix("\n")
        return key, value if is_text else tools.typed(name, key, value)


def element_text(cursor: Cursor, end: str, *followers: str) -> Wait:
    """Read up to an ``end`` that one of ``followers`` comes after, and the end: text may well have an ``end``
    in it. Raises: Mismatch."""
    text = ""
    while True:
        text += yield from cursor.until(end)
        yield from cursor.must(end)
        at = cursor.at
        yield from cursor.blank()
        found = yield from cursor.maybe(*followers)
        cursor.at = at
        if found:
            return text
        text += end
