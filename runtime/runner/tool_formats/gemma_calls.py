"""Calls as Gemma's models write them: ``call:get_weather{city:<|"|>Paris<|"|>,days:2}``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .cursor import Cursor, Mismatch
from .tool_format import CallShape, FoundCall, OfferedTools, ParameterShape, Reading

_CALL = "call:"
_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmaCalls:
    """``opening call:NAME{KEY:VALUE,…} closing``; a string stands between two ``quote``."""

    name: str
    opening: str
    closing: str
    quote: str

    @property
    def openings(self) -> tuple[str, ...]:
        return (self.opening,)

    @property
    def starts(self) -> tuple[str, ...]:
        return ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.opening, self.closing, self.quote)

    @property
    def shape(self) -> CallShape:
        return CallShape(
            trigger=self.opening,
            before_name=self.opening + _CALL,
            after_name="{",
            arguments=ParameterShape(before_key="", after_key=":", between=",", quote=self.quote),
            after_arguments="}" + self.closing,
        )

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        yield from cursor.blank()
        yield from cursor.must(_CALL)
        name = yield from cursor.word("{")
        body = yield from cursor.until(self.closing)
        yield from cursor.must(self.closing)
        values = _Values(body.strip(), self.quote)
        arguments = values.value(0)
        if values.at != len(values.text) or not isinstance(arguments, dict):
            raise Mismatch
        yield FoundCall(name, _typed(arguments, name, tools))


def _typed(arguments: dict[str, Any], name: str, tools: OfferedTools) -> dict[str, Any]:
    return {
        key: tools.typed(name, key, value) if isinstance(value, _Word) else _plain(value)
        for key, value in arguments.items()
    }


class _Word(str):
    """Text without quotes, whose type is still to be told."""

    __slots__ = ()


def _plain(value: Any) -> Any:
    """``value`` with words inside taken for what they look like."""
    if isinstance(value, _Word):
        return OfferedTools(()).typed("", "", str(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class _Values:
    """A reader of the notation. Every method raises `Mismatch` where the text is none."""

    def __init__(self, text: str, quote: str) -> None:
        self.text = text
        self.at = 0
        self._quote = quote

    def value(self, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise Mismatch
        if self._takes(self._quote):
            return self._up_to(self._quote)
        if self._takes("{"):
            return self._object(depth)
        if self._takes("["):
            return self._list(depth)
        return self._word()

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._takes("}"):
            if found and not self._takes(","):
                raise Mismatch
            quoted = self._up_to(self._quote) if self._takes(self._quote) else ""
            key = quoted + self._up_to(":").strip()
            found[key] = self.value(depth + 1)
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        while not self._takes("]"):
            if found and not self._takes(","):
                raise Mismatch
            found.append(self.value(depth + 1))
        return found

    def _word(self) -> _Word:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ",}]":
            self.at += 1
        word = self.text[start : self.at].strip()
        if not word:
            raise Mismatch
        return _Word(word)

    def _takes(self, text: str) -> bool:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _up_to(self, end: str) -> str:
        at = self.text.find(end, self.at)
        if at < 0:
            raise Mismatch
        text, self.at = self.text[self.at : at], at + len(end)
        return text
