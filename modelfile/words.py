"""The words of a statement, as they stand in the text, to the texts they mean."""

from __future__ import annotations

from .grammar import Word
from .source import INVISIBLE

BLANKS = " \t\xa0"


def written(word: Word) -> str:
    """The text of a word without the blanks, the newline and the comments that follow it."""
    text = word.text
    if word.kind == "BARE":
        text = first_line(text)
    return text.rstrip(BLANKS)


def first_line(text: str) -> str:
    return text.partition("\n")[0].partition("\r")[0]


def value_of(kind: str, text: str) -> str:
    """The value that is `written` as `text`: quotes taken off once, invisible characters dropped."""
    if INVISIBLE in text:
        text = text.replace(INVISIBLE, "")
    if kind == "BARE":
        return text.rstrip(" \t")  # as blanks may have stood before a dropped character
    return text[3:-3] if kind == "TRIPLE" else text[1:-1]


def name_of(word: Word) -> str:
    """A parameter, a role, a check, or the name of an ARG or LABEL, which takes its `=` with it."""
    return word.text.replace(INVISIBLE, "").rstrip(" \t").removesuffix("=").rstrip(" \t")


def path_of(word: Word) -> str:
    """A word of COPY, or the expectation of TEST."""
    text = word.text.replace(INVISIBLE, "").strip(" \t")
    if len(text) >= 6 and text.startswith('"""') and text.endswith('"""'):
        return text[3:-3]
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
