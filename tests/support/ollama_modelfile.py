"""An oracle: Ollama's Modelfile reader as a state machine over characters, written as its documentation and
the behaviour notes describe it and with nothing of ours. `read` gives what Ollama would, or raises
`Refused`."""

from __future__ import annotations

import unicodedata

KEYWORDS = (
    *("from", "license", "template", "system", "adapter", "draft", "renderer", "parser"),
    *("parameter", "message", "requires"),
)


class Refused(Exception):
    """Ollama does not accept the text."""


def read(text: str) -> list[tuple[str, str]]:
    """The commands as (name, argument); the name of FROM is `model`, a message's argument is `role:
    content`."""
    commands: list[tuple[str, str]] = []
    state, buffer, name, role = "nil", "", "", ""
    for character in text:
        following = _next(state, character)
        if following != state:
            if state == "name":
                name = buffer.lower()
                if name not in KEYWORDS:
                    raise Refused("command must be one of …")
                if name == "from":
                    name = "model"
                if name in ("parameter", "message"):
                    following = name
            elif state == "parameter":
                name = buffer
            elif state == "message":
                if buffer not in ("system", "user", "assistant"):
                    raise Refused("message role must be one of …")
                role = buffer
            elif state == "value":
                value = _unquote(buffer.strip(" \t\r\n"))
                if value is None or character in " \t":
                    buffer += character
                    continue
                commands.append((name, f"{role}: {value}" if role else value))
                role = ""
            buffer, state = "", following
            if state != "name" and state != "value":
                continue
            if character in " \t\r\n":
                continue
        if _prints(character):
            buffer += character
    if state == "value":
        value = _unquote(buffer.strip(" \t\r\n"))
        if value is None:
            raise Refused("unexpected EOF")
        commands.append((name, f"{role}: {value}" if role else value))
    elif state not in ("nil", "comment"):
        raise Refused("unexpected EOF")
    if not any(name == "model" for name, _ in commands):
        raise Refused("no FROM line")
    return commands


def _next(state: str, c: str) -> str:
    letter = c.isascii() and c.isalpha()
    if state == "nil":
        return "comment" if c == "#" else "nil" if c in " \t\r\n" else "name"
    if state == "comment":
        return "nil" if c in "\r\n" else "comment"
    if state == "value":
        return "nil" if c in " \t\r\n" else "value"
    if letter or (state == "parameter" and c.isascii() and (c.isdigit() or c == "_")):
        return state
    if c in " \t":
        return "value"
    raise Refused("command must be one of …" if state == "name" else "unexpected EOF")


def _unquote(text: str) -> str | None:
    for mark in ('"""', '"'):
        if text.startswith(mark):
            return (
                text[len(mark) : -len(mark)] if len(text) >= 2 * len(mark) and text.endswith(mark) else None
            )
    return text


def _prints(c: str) -> bool:
    return c in " \t\r\n" or unicodedata.category(c)[0] in "LMNPS"
