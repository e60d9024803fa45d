"""Go's literals: strings, characters, numbers. Source: the Go specification, "Lexical elements"."""

from __future__ import annotations

import re

_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_SIMPLE = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_INT = re.compile(r"([+-]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|([1-9][0-9]*|0))")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST_NUMBER = 64


class BadLiteral(ValueError):
    """The text is no literal of Go; the message says why."""


def string_of(token: str) -> str:
    """The value of ``"…"`` or of a raw string in backquotes. Raises: BadLiteral."""
    if token.startswith("`"):
        return token[1:-1].replace("\r", "")
    return _unescape(token[1:-1])


def character_of(token: str) -> int:
    """The code point of ``'x'``. Raises: BadLiteral."""
    text = _unescape(token[1:-1])
    if len(text) != 1:
        raise BadLiteral("expected one character between single quotes; strings are in double quotes")
    return ord(text)


def number_of(token: str) -> int | float:
    """The value of an integer or floating-point literal. Raises: BadLiteral."""
    text = re.sub(r"(?<=[0-9a-fA-FxXbBoO])_(?=[0-9a-fA-F])", "", token)
    if len(text) > _LONGEST_NUMBER:
        raise BadLiteral("the number is too long")
    if match := _INT.fullmatch(text):
        sign, hexadecimal, binary, octal, decimal = match.groups()
        digits, base = next(
            (d, b) for d, b in ((hexadecimal, 16), (binary, 2), (octal, 8), (decimal, 10)) if d
        )
        value = int(digits, base) * (-1 if sign == "-" else 1)
        if not -(2**63) <= value < 2**64:
            raise BadLiteral("the number does not fit 64 bits")
        return value
    if _FLOAT.fullmatch(text):
        return float(text)
    try:
        if re.fullmatch(r"[+-]?0[xX][0-9a-fA-F.]+[pP][+-]?[0-9]+", text):
            return float.fromhex(text)
    except (ValueError, OverflowError):
        pass
    raise BadLiteral("bad number syntax")


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    # Escapes may spell the bytes of one character each, so bytes are put together first.
    value = bytearray()
    end = 0
    for match in _ESCAPE.finditer(text):
        value += text[end : match.start()].encode()
        value += _escaped(match)
        end = match.end()
    value += text[end:].encode()
    return value.decode("utf-8", "replace")


def _escaped(match: re.Match[str]) -> bytes:
    simple, octal, byte, short, long, other = match.groups()
    if simple:
        return _SIMPLE[simple].encode()
    if octal and int(octal, 8) < 256:
        return bytes([int(octal, 8)])
    if byte:
        return bytes([int(byte, 16)])
    if short or long:
        code = int(short or long, 16)
        if code <= 0x10FFFF and not 0xD800 <= code < 0xE000:
            return chr(code).encode()
    raise BadLiteral(f"unknown escape \\{other or match.group()[1:]}")
