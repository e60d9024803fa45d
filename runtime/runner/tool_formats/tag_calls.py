"""Calls written as pairs of elements, one for an argument's name and one for its value (GLM)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cursor import Cursor
from .tool_format import CallShape, FoundCall, OfferedTools, ParameterShape, Reading
from .xml_calls import element_text

_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagCalls:
    """``<tool_call>NAME (<arg_key>KEY</arg_key> <arg_value>VALUE</arg_value>)… </tool_call>``"""

    name: str = "glm"
    opening: str = "<tool_call>"
    closing: str = "</tool_call>"
    line: str = "\n"
    """What models put between elements; white space is free in reading."""

    @property
    def openings(self) -> tuple[str, ...]:
        return (self.opening,)

    @property
    def starts(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.opening, self.closing, _KEY, _KEY_END, _VALUE, _VALUE_END)

    @property
    def shape(self) -> CallShape:
        return CallShape(
            trigger=self.opening,
            before_name=self.opening,
            after_name=self.line,
            arguments=ParameterShape(
                before_key=_KEY,
                after_key=_KEY_END + self.line + _VALUE,
                after_value=_VALUE_END + self.line,
                bare_strings=True,
            ),
            after_arguments=self.closing,
            between=self.line,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        yield from cursor.blank()
        name = yield from cursor.word("\n", _KEY, self.closing)
        arguments: dict[str, Any] = {}
        while True:
            yield from cursor.blank()
            if (yield from cursor.must(_KEY, self.closing)) == self.closing:
                break
            key = yield from cursor.word(_KEY_END)
            yield from cursor.must(_KEY_END)
            yield from cursor.blank()
            yield from cursor.must(_VALUE)
            text = yield from element_text(cursor, _VALUE_END, _KEY, self.closing)
            arguments[key] = tools.typed(name, key, text)
        yield FoundCall(name, arguments)
