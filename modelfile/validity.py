"""What an instruction's values must be, beyond the grammar. Asked when a file is read, and again after build
arguments have been put in."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from .diagnostics import quoted
from .instructions import Copy, Instruction, Parameter, Requires, Test
from .parameters import BadParameter, parse_value
from .problems import Code

CHECKS = ("contains", "excludes", "equals", "matches")

# Source: golang.org/x/mod/semver.IsValid, which also takes v1 and v1.2; the v is optional in Ollama.
_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRE = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(
    rf"v?{_NUMBER}(?:\.{_NUMBER}(?:\.{_NUMBER}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?)?)?",
    re.ASCII,
)
_LONGEST_VERSION = 256
_LONGEST_PATTERN = 4096


class Flaw(NamedTuple):
    """Why an instruction is not valid."""

    code: Code
    message: str
    hint: str | None
    part: Literal["name", "value"]
    """Which of the instruction's two words is to blame."""


_CHECKED = frozenset({Parameter, Requires, Copy, Test})


def flaw_of(instruction: Instruction) -> Flaw | None:
    """What is wrong with the values of `instruction`, if anything is."""
    if type(instruction) not in _CHECKED:
        return None
    match instruction:
        case Parameter(name, value):
            return _parameter_flaw(name, value)
        case Requires(version):
            return _version_flaw(version)
        case Copy(source, target):
            return _path_flaw("source", source, "name") or _path_flaw("target", target, "value")
        case Test(check, expected, prompt):
            return _test_flaw(check, expected, prompt)
        case _:
            return None


def _parameter_flaw(name: str, value: str) -> Flaw | None:
    try:
        parse_value(name, value)
    except BadParameter as error:
        return Flaw(Code.BAD_PARAMETER, error.message, error.hint, "value")
    return None


def _version_flaw(version: str) -> Flaw | None:
    if len(version) <= _LONGEST_VERSION and _SEMVER.fullmatch(version):
        return None
    message = f"REQUIRES {quoted(version)}: expected a semantic version"
    return Flaw(Code.BAD_VERSION, message, "such as 0.14.0", "value")


def _path_flaw(what: str, path: str, part: Literal["name", "value"]) -> Flaw | None:
    shown = f"the {what} of COPY, {quoted(path)},"
    if not path:
        reason = "is empty"
    elif "\\" in path:
        reason = "has a backslash: paths are written with /"
    elif path.startswith(("/", "~")) or re.match(r"[A-Za-z]:", path):
        reason = "is not relative"
    elif ".." in path.split("/"):
        reason = "leaves its directory: .. is not allowed"
    else:
        return None
    hint = {
        "source": "the source is relative to the directory of the build",
        "target": "the target is relative to the root of the artifact",
    }[what]
    return Flaw(Code.BAD_COPY, f"{shown} {reason}", hint, part)


def _test_flaw(check: str, expected: str, prompt: str) -> Flaw | None:
    if check not in CHECKS:
        message = f"unknown check {quoted(check)}: expected one of {', '.join(CHECKS)}"
        return Flaw(
            Code.BAD_TEST, message, 'such as TEST contains "Paris" What is the capital of France?', "name"
        )
    if not prompt.strip():
        return Flaw(Code.BAD_TEST, "TEST has no prompt", "the prompt follows the expectation", "value")
    if check == "matches":
        try:
            if len(expected) > _LONGEST_PATTERN:
                raise OverflowError(f"longer than {_LONGEST_PATTERN} characters")
            re.compile(expected)
        except (re.error, OverflowError, RecursionError) as error:
            return Flaw(Code.BAD_TEST, f"not a regular expression: {error}", None, "value")
    elif not expected and check != "equals":
        return Flaw(Code.BAD_TEST, f"TEST {check} expects no text: it always holds or never", None, "value")
    return None
