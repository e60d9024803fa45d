"""Parts of rules in Lark's notation with llguidance's extensions, as texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

WHITE_SPACE = r"\x20|\x0A{1,2}\x20{0,20}"
"""Between the parts of JSON: what models write to be read, and no more, since small models lose themselves in
blanks. As llama.cpp's own grammars for JSON have it."""

FREE: Mapping[str, Any] = {"whitespace_pattern": WHITE_SPACE}
FIXED: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""As ``json.dumps`` writes, and with it most calls that models have seen. What is fixed is not sampled."""
ANY = "/(?s:.*)/"
BLANK = r"[ \n]{0,8}"
_PUNCTUATION = "{}[]():,="
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~/-]")


class Spelling:
    """How a text is written in a rule. ``controls`` has the tokens of texts that are control tokens."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._controls = controls
        names = sorted(controls, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def __call__(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for found in self._split.finditer(text):
            parts += (string(text[at : found.start()]), f"<[{self._controls[found[0]]}]>")
            at = found.end()
        return " ".join(part for part in (*parts, string(text[at:])) if part)

    def control_at_start(self, text: str) -> str:
        """The control token that ``text`` begins with; "" where it does not."""
        found = self._split.match(text)
        return found[0] if found else ""


def string(text: str) -> str:
    """A text as Lark writes it, which is as JSON does; nothing where there is none."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def json_value(schema: Any, *, is_strict: bool, style: Mapping[str, Any]) -> str:
    """What a JSON Schema describes."""
    if not isinstance(schema, Mapping):  # true, or what will be refused
        schema = {} if schema is True else {"not": schema}
    return "%json " + json.dumps({"x-guidance": {**style, "lenient": not is_strict}, **schema})


def regex(text: str) -> str:
    """A regular expression for a text, to stand between slashes."""
    return _SPECIAL.sub(r"\\\g<0>", text).replace("\n", "\\n")


def slashed(pattern: str) -> str:
    r"""A regular expression to stand between slashes: its own are escaped.

    >>> slashed(r"a/b\/c")
    'a\\/b\\/c'
    """
    return re.sub(r"(\\.)|/", lambda found: found[1] or "\\/", pattern, flags=re.DOTALL)


def flexible(text: str) -> str:
    """A text with as much white space around its punctuation as a model may like."""
    return f"/{flexible_regex(text)}/" if text else ""


def flexible_regex(text: str) -> str:
    parts: list[str] = []
    for char in text:
        if char in _PUNCTUATION:
            parts += (BLANK, regex(char), BLANK)
        elif not char.isspace():
            parts.append(regex(char))
    # Neighbours share their white space.
    return re.sub(rf"(?:{re.escape(BLANK)})+", lambda _found: BLANK, "".join(parts))
