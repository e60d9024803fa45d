"""How a value is written so that the grammar reads it back: the inverse of modelfile.lark's values.

There are no escapes, so each form can hold only some values; a value that no form can hold is None. Every
value that was read can be written: one that came from an unquoted value has no newline, and one that came out
of quotes has nowhere the closing quotes and the end of a line.
"""

from __future__ import annotations

import re

from .source import visible

_BLANK_ENDS = (" ", "\t", "\r", "\n")
_TRIPLE_AT_END_OF_LINE = re.compile(r'"""[ \t]*[\r\n]')
_BLANK = re.compile(r"[ \t\r\n]")
_LINE_END = re.compile(r"[\r\n]")


def quote_value(text: str) -> str | None:
    """A value of most instructions: bare where possible, else in `"`, else in triple quotes."""
    if visible(text) != text:
        return None
    lines = _LINE_END.search(text) is not None
    if not lines and not text.startswith(('"', *_BLANK_ENDS)) and not text.endswith(_BLANK_ENDS):
        return text or '""'
    if not lines and '"' not in text:
        return f'"{text}"'
    # In triple quotes what reads as the end must not come early. The opening quotes count for that: a text
    # that starts with three quotes and a line break would make six.
    return None if _TRIPLE_AT_END_OF_LINE.search(text) else f'"""{text}"""'


def quote_path(text: str) -> str | None:
    """A word of COPY."""
    if visible(text) != text or '"' in text or _LINE_END.search(text):
        return None
    return f'"{text}"' if not text or _BLANK.search(text) else text


def quote_expectation(text: str) -> str | None:
    """The expectation of TEST, which has one line."""
    if visible(text) != text or _LINE_END.search(text):
        return None
    if text and '"' not in text and not _BLANK.search(text):
        return text
    if '"' not in text:
        return f'"{text}"'
    return None if re.search(r'"""[ \t]', text) else f'"""{text}"""'
