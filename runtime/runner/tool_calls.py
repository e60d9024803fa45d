"""Finding tool calls in a stream of text, whatever the chunks it arrives in.

Three ways of writing them are read, chosen by what the chat template itself writes:

* between tags: ``<tool_call>{"name": …, "arguments": {…}}</tool_call>`` (Hermes, Qwen),
  ``[TOOL_CALLS][{…}]`` and ``[TOOL_CALLS]name[ARGS]{…}`` (Mistral), ``<|python_tag|>{…}`` (Llama);
* between tags, as ``<function=name><parameter=key>value</parameter></function>`` (Qwen Coder);
* bare: an answer that is a JSON object or list and nothing else.

Only names of tools that were offered count. What looks like a call but is none is content: no text is ever
lost. White space between content and calls is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .answer import Call, Content, Piece, overlap


@dataclass(frozen=True, slots=True)
class CallTags:
    """``opening`` "": calls are bare JSON. ``closing`` "": a call ends with its JSON value."""

    opening: str
    closing: str = ""


BARE = CallTags("")
KNOWN_TAGS = (
    CallTags("<tool_call>", "</tool_call>"),
    CallTags("[TOOL_CALLS]"),
    CallTags("<|python_tag|>"),
    CallTags("<tools>", "</tools>"),
    CallTags("<function_call>", "</function_call>"),
)

_MAX_CALL = 1024 * 1024
"""Characters after which a call that has not ended is taken for content."""

_MISTRAL_NAME = re.compile(r"\s*([\w.-]{1,128})\s*(?:\[CALL_ID\][\w-]*\s*)?(?:\[ARGS\]\s*)?(?=\{)")
_XML_FUNCTION = re.compile(r"\s*<function=([^>\s]{1,128})>(.*?)</function>", re.DOTALL)
_XML_PARAMETER = re.compile(r"<parameter=([^>\s]{1,128})>\n?(.*?)\n?</parameter>", re.DOTALL)


def tags_of_template(template: str) -> CallTags:
    """How a model with this chat template writes its calls; `BARE` where the template does not say."""
    return next((tags for tags in KNOWN_TAGS if tags.opening in template), BARE)


def closing_tag(opening: str) -> str:
    """What ends a call that begins with ``opening``; "" where that is not known: then its JSON does."""
    return next((tags.closing for tags in KNOWN_TAGS if tags.opening == opening), "")


class ToolCallParser:
    """Feed text with `push`, end with `finish`. ``tools`` are the definitions offered, in OpenAI's shape."""

    def __init__(self, tags: CallTags, tools: Iterable[Mapping[str, Any]]) -> None:
        self._tags = tags
        self._functions = {
            str(function["name"]): function
            for tool in tools
            if isinstance(function := tool.get("function", tool), Mapping) and "name" in function
        }
        self._held = ""
        self._inside = False
        self._off = not self._functions
        self._json = _JsonSpan()

    def push(self, text: str) -> list[Piece]:
        if self._off:
            return [Content(text)]
        self._held += text
        pieces: list[Piece] = []
        step = self._bare if self._tags == BARE else self._tagged
        while step(pieces):
            pass
        if self._off and self._held:
            pieces.append(Content(self._held))
            self._held = ""
        return pieces

    def finish(self) -> list[Piece]:
        """The last call, where its closing tag is missing, or the text that was held back in vain."""
        text, self._held = self._held, ""
        if not self._inside:
            return [Content(text)] if text.strip() else []
        self._inside = False
        return self._calls(text) or [Content(self._tags.opening + text)]

    # Tagged

    def _tagged(self, pieces: list[Piece]) -> bool:
        """Take one step; False once more text is needed."""
        return self._in_call(pieces) if self._inside else self._before_call(pieces)

    def _before_call(self, pieces: list[Piece]) -> bool:
        before, tag, after = self._held.partition(self._tags.opening)
        if not tag:
            # White space waits: should a call follow, it belongs to nothing.
            visible = before[: len(before) - overlap(before, self._tags.opening)].rstrip()
            pieces.append(Content(visible))
            self._held = before[len(visible) :]
            return False
        pieces.append(Content(before.rstrip()))
        self._held = after
        self._inside = True
        self._json = _JsonSpan()
        return True

    def _in_call(self, pieces: list[Piece]) -> bool:
        end, resume = self._call_end()
        if end < 0:
            if len(self._held) > _MAX_CALL:
                self._off = True
                self._held = self._tags.opening + self._held
            return False
        body, self._held = self._held[:end], self._held[resume:]
        self._inside = False
        closing = self._tags.closing if resume > end else ""
        pieces.extend(self._calls(body) or [Content(self._tags.opening + body + closing)])
        return True

    def _call_end(self) -> tuple[int, int]:
        """Where the call's body ends and where what follows it starts; (-1, -1): not yet."""
        if not self._tags.closing:
            # A name may stand before the arguments, itself followed by a tag in brackets.
            bare = self._held.lstrip().startswith(("{", "["))
            if not bare and "{" not in self._held:
                return -1, -1
            end = self._json.end(self._held, 0 if bare else self._held.index("{"))
            return end, end
        # A closing tag inside a JSON string is an argument's text, so JSON is followed to its own end first.
        start = 0
        if self._held.lstrip().startswith(("{", "[")):
            start = self._json.end(self._held)
            if start < 0 and not self._json.broken:
                return -1, -1
            start = max(start, 0)
        end = self._held.find(self._tags.closing, start)
        return (-1, -1) if end < 0 else (end, end + len(self._tags.closing))

    # Bare

    def _bare(self, pieces: list[Piece]) -> bool:
        text = self._held.lstrip()
        if not text:
            return False
        if not text.startswith(("{", "[")):
            self._off = True
            return False
        end = self._json.end(self._held)
        if end < 0 and not self._json.broken and len(self._held) <= _MAX_CALL:
            return False
        self._off = True  # one value, then everything is content
        if calls := self._calls(self._held[:end]) if end >= 0 else []:
            pieces.extend(calls)
            self._held = self._held[end:].lstrip()
        return False

    # One call's text

    def _calls(self, body: str) -> list[Piece]:
        """The calls that ``body`` stands for; none where anything in it is not a call."""
        if found := _XML_FUNCTION.findall(body):
            calls = [self._xml_call(name, parameters) for name, parameters in found]
        elif named := _MISTRAL_NAME.match(body):
            calls = [self._call(named[1], _json_value(body[named.end() :]))]
        else:
            value = _json_value(body)
            items = value if isinstance(value, list) else [value]
            calls = [self._json_call(item) for item in items]
        return [call for call in calls if call] if all(calls) else []

    def _json_call(self, value: object) -> Call | None:
        if not isinstance(value, dict):
            return None
        inner = value.get("function")
        if isinstance(inner, dict):
            value = inner
        name = value.get("name", inner)
        return self._call(name, value.get("arguments", value.get("parameters", {})))

    def _call(self, name: object, arguments: object) -> Call | None:
        if isinstance(arguments, str):
            arguments = _json_value(arguments)
        if not isinstance(name, str) or name not in self._functions or not isinstance(arguments, dict):
            return None
        return Call(name, arguments)

    def _xml_call(self, name: str, parameters: str) -> Call | None:
        if name not in self._functions:
            return None
        schema = self._functions[name].get("parameters") or {}
        types = {key: _type_of(value) for key, value in schema.get("properties", {}).items()}
        return Call(
            name, {key: _typed(text, types.get(key)) for key, text in _XML_PARAMETER.findall(parameters)}
        )


class _JsonSpan:
    """Where the first JSON object or list in a growing text ends. Looks at each character once."""

    def __init__(self) -> None:
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._end = -1
        self.broken = False
        """The brackets cannot be balanced any more."""

    def end(self, text: str, start: int = 0) -> int:
        """The index after the value, which is at or after ``start``; -1: not ended yet.

        ``text`` must begin with what earlier calls saw, and ``start`` be what it was.
        """
        self._at = max(self._at, start)
        while self._end < 0 and self._at < len(text):
            self._at += 1
            if self._ends_with(text[self._at - 1]):
                self._end = self._at
        return self._end

    def _ends_with(self, char: str) -> bool:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
        elif char == '"':
            self._in_string = self._depth > 0
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            self.broken = self.broken or self._depth < 0
            return self._depth == 0
        return False


def _json_value(text: str) -> object:
    """The value, or None where the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _type_of(schema: object) -> object:
    return schema.get("type") if isinstance(schema, Mapping) else None


def _typed(text: str, kind: object) -> object:
    """A parameter's text as the type that the tool declares; as it is, where that fails."""
    if kind == "string":
        return text
    value = _json_value(text)
    return text if value is None and text.strip() != "null" else value
