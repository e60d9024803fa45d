"""Go's ``fmt.Sprint``, ``Sprintln`` and ``Sprintf`` over `go_value` values. Source: Go 1.24, package fmt."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .go_value import Value, float_text, text_of, type_name

_VERB = re.compile(r"%([-+# 0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?(.)?", re.DOTALL)
MAX_WIDTH = 1000
"""Widths and precisions above are errors in the text, as in Go (there: a million)."""


def sprint(values: Sequence[Value]) -> str:
    """All values; a blank between two of which neither is a string."""
    parts: list[str] = []
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            parts.append(" ")
        parts.append(text_of(value))
    return "".join(parts)


def sprintln(values: Sequence[Value]) -> str:
    return " ".join(text_of(value) for value in values) + "\n"


def sprintf(form: str, values: Sequence[Value]) -> str:
    """`form` with a value for each verb. Mistakes are written into the text, as Go does: it never raises."""
    rest = list(values)
    parts: list[str] = []
    end = 0
    for match in _VERB.finditer(form):
        parts.append(form[end : match.start()])
        parts.append(_formatted(match, rest))
        end = match.end()
    parts.append(form[end:])
    if rest:
        extra = ", ".join(f"{type_name(value)}={text_of(value)}" for value in rest)
        parts.append(f"%!(EXTRA {extra})")
    return "".join(parts)


def _formatted(match: re.Match[str], rest: list[Value]) -> str:
    flags, width_text, precision_text, verb = match.groups()
    if verb is None:
        return "%!(NOVERB)"
    if verb == "%":
        return "%"
    width = _measure(width_text, rest)
    precision = None if precision_text is None else _measure(precision_text or "0", rest)
    bad = ""
    if width is not None and abs(width) > MAX_WIDTH:
        bad, width = "%!(BADWIDTH)", None
    if precision is not None and not 0 <= precision <= MAX_WIDTH:
        bad, precision = bad + "%!(BADPREC)", None
    if not rest:
        return f"{bad}%!{verb}(MISSING)"
    value = rest.pop(0)
    make = _VERBS.get(verb)
    text = make(value, flags, precision) if make else None
    if text is None:
        return f"{bad}%!{verb}({type_name(value)}={text_of(value)})"
    return bad + _padded(text, flags, width or 0, isinstance(value, int | float))


def _measure(text: str | None, rest: list[Value]) -> int | None:
    if text is None:
        return None
    if text == "*":
        value = rest.pop(0) if rest else 0
        return value if isinstance(value, int) else 0
    return int(text[:9])


def _padded(text: str, flags: str, width: int, is_number: bool) -> str:
    missing = abs(width) - len(text)
    if missing <= 0:
        return text
    if "-" in flags or width < 0:
        return text + " " * missing
    if "0" in flags:
        sign = text[:1] if is_number and text[:1] in ("+", "-") else ""
        return sign + "0" * missing + text[len(sign) :]
    return " " * missing + text


_Verb = Callable[[Value, str, int | None], str | None]


def _any(value: Value, flags: str, precision: int | None) -> str | None:
    if "#" in flags and isinstance(value, str):
        return quote(value)
    if isinstance(value, float) and precision is not None:
        return _signed(f"{value:.{precision}g}", flags)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _signed(text_of(value), flags)
    return text_of(value)


def _string(value: Value, flags: str, precision: int | None) -> str | None:
    if value is None or isinstance(value, bool | int | float):
        return None
    text = text_of(value)
    return text if precision is None else text[:precision]


def _quoted(value: Value, flags: str, precision: int | None) -> str | None:
    if isinstance(value, str):
        text = value if precision is None else value[:precision]
        return f"`{text}`" if "#" in flags and "`" not in text else quote(text)
    if isinstance(value, int) and not isinstance(value, bool):
        return "'" + quote(_character(value))[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + " ".join(_quoted(item, flags, None) or text_of(item) for item in value) + "]"
    return None


def _integer(base: str) -> _Verb:
    def make(value: Value, flags: str, precision: int | None) -> str | None:
        if base in "xX" and isinstance(value, str):
            digits = value.encode().hex()
            return digits.upper() if base == "X" else digits
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        digits = format(abs(value), base)
        if precision is not None:
            digits = digits.zfill(precision)
        prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(base, "") if "#" in flags else ""
        return _signed(("-" if value < 0 else "") + prefix + digits, flags)

    return make


def _real(form: str) -> _Verb:
    def make(value: Value, flags: str, precision: int | None) -> str | None:
        if isinstance(value, bool) or not isinstance(value, float):
            return None
        if precision is None and form in "gG":
            text = float_text(value)
        else:
            text = format(value, f".{6 if precision is None else precision}{form}")
        return _signed(text.upper() if form.isupper() else text, flags)

    return make


def _truth(value: Value, flags: str, precision: int | None) -> str | None:
    return text_of(value) if isinstance(value, bool) else None


def _character_of(value: Value, flags: str, precision: int | None) -> str | None:
    return _character(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _unicode(value: Value, flags: str, precision: int | None) -> str | None:
    return f"U+{value:04X}" if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _type(value: Value, flags: str, precision: int | None) -> str | None:
    return type_name(value)


_VERBS: dict[str, _Verb] = {
    "v": _any,
    "s": _string,
    "q": _quoted,
    "d": _integer("d"),
    "x": _integer("x"),
    "X": _integer("X"),
    "o": _integer("o"),
    "b": _integer("b"),
    "c": _character_of,
    "U": _unicode,
    "t": _truth,
    "T": _type,
    **{form: _real(form) for form in "eEfFgG"},
}


def _signed(text: str, flags: str) -> str:
    if text.startswith(("-", "+")):
        return text
    return ("+" if "+" in flags else " " if " " in flags else "") + text


def _character(code: int) -> str:
    return chr(code) if 0 <= code <= 0x10FFFF and not 0xD800 <= code < 0xE000 else "\ufffd"


_QUOTES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"} | {
    "\\": "\\\\",
    '"': '\\"',
}


def quote(text: str) -> str:
    """Go's ``strconv.Quote``."""
    return '"' + "".join(_QUOTES.get(c) or (c if c.isprintable() else _escaped(c)) for c in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
