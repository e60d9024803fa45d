"""The codes of what makes a Modelfile invalid. The linter's codes, for valid ones, are in linter.py.

A code is stable: it is never given another meaning.
"""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """Value: the code as printed. `meaning` is its line in the documentation."""

    UNKNOWN_INSTRUCTION = "M001", "the line starts with no known instruction"
    MISSING_VALUE = "M002", "an instruction, parameter or role has nothing after it"
    UNCLOSED_QUOTE = "M003", 'a value opens with " or """ and is never closed'
    UNKNOWN_PARAMETER = "M004", "PARAMETER names no known parameter"
    BAD_PARAMETER = "M005", "a parameter's value is not of its type"
    BAD_ROLE = "M006", "a MESSAGE's role is not system, user or assistant"
    NO_FROM = "M007", "no FROM says what the model is made from"
    BAD_VERSION = "M008", "REQUIRES names no semantic version"
    ENCODING = "M009", "the file is neither UTF-8 nor UTF-16 with a byte order mark"
    TOO_LARGE = "M010", "the file is larger than what is read, or has more instructions or problems"
    BAD_COPY = "M011", "COPY has no source and target, or one of them leaves its directory"
    BAD_NAME = "M012", "ARG or LABEL has no valid name"
    BAD_TEST = "M013", "TEST has no known check, expectation and prompt"
    BAD_ARGUMENT = "M014", "a build argument was given that no ARG declares, or one has no value"

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Code:
        code = object.__new__(cls)
        code._value_ = value
        code.meaning = meaning
        return code
