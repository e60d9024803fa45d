"""What a format of tool calls is."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from .cursor import Cursor


@dataclass(frozen=True, slots=True)
class FoundCall:
    """A call as the model wrote it, before anyone has checked that there is such a tool."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


Found = FoundCall | list[FoundCall] | str | None
"""A call, or several that stand or fall together; text between calls that belongs to none. None: more text is
needed."""

Reading = Generator[Found, None, None]
"""Yields calls as they are complete. Returns behind the section; raises `Mismatch` where it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterShape:
    """How one argument is written where arguments are not a JSON object."""

    before_key: str
    after_key: str
    after_key_of_text: str = ""
    """What stands in place of ``after_key`` where the value is a string; "": the same."""
    after_value: str = ""
    between: str = ""
    bare_strings: bool = False
    """A string is written without quotes and escapes, up to ``after_value``."""
    quote: str = ""
    """What stands around a string instead of JSON's quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallShape:
    """How calls are written, for grammars and for the documentation. See the package's own words."""

    trigger: str
    """The first text that only a call begins with; "" where an answer with calls is calls from its start."""
    opening: str = ""
    before_name: str
    after_name: str
    arguments: Literal["json"] | ParameterShape = "json"
    after_arguments: str
    between: str | None = ""
    """From one call to the next; None: an answer has one call at most."""
    closing: str = ""

    def example(self, name: str, arguments: Mapping[str, Any]) -> str:
        """An answer with one call."""
        return (
            f"{self.opening}{self.before_name}{name}{self.after_name}"
            f"{self._written(arguments)}{self.after_arguments}{self.closing}"
        )

    def _written(self, arguments: Mapping[str, Any]) -> str:
        shape = self.arguments
        if shape == "json":
            return json.dumps(arguments, ensure_ascii=False)
        return shape.between.join(
            f"{shape.before_key}{key}{_after_key(value, shape)}{_value(value, shape)}{shape.after_value}"
            for key, value in arguments.items()
        )


def _after_key(value: Any, shape: ParameterShape) -> str:
    return shape.after_key_of_text or shape.after_key if isinstance(value, str) else shape.after_key


def _value(value: Any, shape: ParameterShape) -> str:
    if isinstance(value, str) and shape.bare_strings:
        return value
    if isinstance(value, str) and shape.quote:
        return f"{shape.quote}{value}{shape.quote}"
    return json.dumps(value, ensure_ascii=False)


class OfferedTools:
    """The tools of a request, by name. ``tools`` are in OpenAI's shape, or the functions alone."""

    def __init__(self, tools: Iterable[Mapping[str, Any]]) -> None:
        self._functions: dict[str, Mapping[str, Any]] = {}
        for tool in tools:
            function = tool.get("function", tool)
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                self._functions[function["name"]] = function

    def __bool__(self) -> bool:
        return bool(self._functions)

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    @property
    def names(self) -> list[str]:
        return list(self._functions)

    def properties(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's arguments; empty where it does not say."""
        parameters = self._functions.get(name, {}).get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        return properties if isinstance(properties, Mapping) else {}

    def typed(self, name: str, key: str, text: str) -> Any:
        """An argument's bare text as the type that its schema declares; as it is, where that fails."""
        schema = self.properties(name).get(key)
        kinds = schema.get("type") if isinstance(schema, Mapping) else None
        if kinds == "string" or (isinstance(kinds, list) and "string" in kinds and not _is_json(text)):
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return _python_word(text.strip(), text)


def _is_json(text: str) -> bool:
    """Whether ``text`` is JSON and no number that may be meant as text."""
    return text.strip() in ("null", "true", "false") or text.lstrip().startswith(("{", "["))


def _python_word(word: str, text: str) -> Any:
    return {"True": True, "False": False, "None": None}.get(word, text)


class ToolFormat(Protocol):
    """One way of writing calls. Stateless: what happens in an answer is in the `Reading`."""

    @property
    def name(self) -> str:
        """What it is called in `registry` and in the documentation."""
        ...

    @property
    def openings(self) -> tuple[str, ...]:
        """Texts that a section of calls begins with, wherever in an answer they stand."""
        ...

    @property
    def starts(self) -> tuple[str, ...]:
        """Texts that mean calls only where they are the first of an answer."""
        ...

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that may be control tokens, and must be seen all the same."""
        ...

    @property
    def shape(self) -> CallShape | None:
        """How calls are written; None where no grammar can be made of it."""
        ...

    def read(self, cursor: Cursor, opening: str, tools: OfferedTools) -> Reading:
        """Read a section that began with ``opening``, one of `openings` or `starts`; the cursor stands behind
        the former, before the latter."""
        ...
