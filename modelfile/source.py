"""`Source`: a text that was read, and where its lines begin. The step before the grammar.

Rules of the text, from Ollama (parser/parser.go): UTF-8, or UTF-16 where a byte order mark says so;
characters that do not print are dropped from values. Departures: what is not valid UTF-8 or UTF-16 is an
error (Ollama puts U+FFFD there), and CR LF counts as one line (Ollama counts two).
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from bisect import bisect_right

from .diagnostics import NOWHERE, Diagnostic, ModelfileError, Severity, Span, excerpt
from .problems import Code

MAX_SIZE = 16 * 1024 * 1024
"""Most bytes (of `bytes`) or characters (of `str`) that are read."""

INVISIBLE = "\xa0"
"""Stands in `Source.plain` for every character that does not print."""

_LINE_BREAK = re.compile(r"\r\n?|\n")
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp", "Zs"})


class _Plain(dict[int, str]):
    """For `str.translate`: decides about each character once."""

    def __missing__(self, key: int) -> str:
        self[key] = value = INVISIBLE if is_invisible(chr(key)) else chr(key)
        return value


def is_invisible(character: str) -> bool:
    """Whether a value cannot hold `character`, because reading drops it.

    The characters that Go's `strconv.IsPrint` refuses, but tab, CR and LF. Characters that Unicode has not
    assigned are kept: whether one is assigned depends on the age of the tables of whoever reads, and the
    meaning of a file must not.
    """
    return character not in " \t\r\n" and unicodedata.category(character) in _INVISIBLE_CATEGORIES


def visible(text: str) -> str:
    """`text` without the characters that reading drops."""
    if text.isprintable():
        return text
    return text.translate(_Plain()).replace(INVISIBLE, "")


class Source:
    """A decoded text.

    `text` is what was read, without a byte order mark. `plain` has the same length and one more newline:
    every invisible character in it is `INVISIBLE`. Offsets count characters and are the same in both.
    """

    __slots__ = ("_starts", "filename", "plain", "text")

    def __init__(self, text: str, filename: str) -> None:
        self.filename = filename
        self.text = text
        self.plain = (text if text.isprintable() else text.translate(_Plain())) + "\n"
        self._starts: list[int] | None = None

    @classmethod
    def read(cls, data: str | bytes, *, filename: str) -> Source:
        """Raises: ModelfileError where `data` is too large or not valid in its encoding."""
        if len(data) > MAX_SIZE:
            raise ModelfileError([_too_large(len(data), filename)])
        if isinstance(data, str):
            return cls._from_str(data.removeprefix("\ufeff"), filename)
        for mark, encoding, name in _MARKS:
            if data.startswith(mark):
                return cls._decode(data[len(mark) :], encoding, name, filename)
        return cls._decode(data, "utf-8", "UTF-8", filename)

    @classmethod
    def _from_str(cls, text: str, filename: str) -> Source:
        source = cls(text, filename)
        surrogate = re.search("[\ud800-\udfff]", text)
        if surrogate:
            raise source._undecodable(surrogate.start(), "not valid Unicode: half of a surrogate pair")
        return source

    @classmethod
    def _decode(cls, data: bytes, encoding: str, name: str, filename: str) -> Source:
        try:
            return cls(data.decode(encoding), filename)
        except UnicodeDecodeError as error:
            source = cls(data.decode(encoding, "replace"), filename)
            offset = len(data[: error.start].decode(encoding, "replace"))
            found = data[error.start : error.start + 1].hex()
            message = f"not valid {name}: byte 0x{found} at offset {error.start}"
            raise source._undecodable(offset, message) from error

    def _undecodable(self, offset: int, message: str) -> ModelfileError:
        hint = "save the file as UTF-8"
        return ModelfileError([self.diagnose(Code.ENCODING, message, offset, offset + 1, hint=hint)])

    def span(self, start: int, end: int) -> Span:
        """Where the characters from offset `start` to `end` are."""
        starts = self._line_starts()
        line, end_line = bisect_right(starts, start), bisect_right(starts, end)
        return Span(line, start - starts[line - 1] + 1, end_line, end - starts[end_line - 1] + 1)

    def offset(self, line: int, column: int) -> int:
        """The offset of a position that `span` gave."""
        return self._line_starts()[line - 1] + column - 1

    def diagnose(
        self,
        code: Code,
        message: str,
        start: int,
        end: int,
        *,
        hint: str | None = None,
        severity: Severity = Severity.ERROR,
    ) -> Diagnostic:
        """A diagnostic that points at the characters from offset `start` to `end`."""
        span = self.span(start, end)
        return self.diagnose_at(code.value, message, span, hint=hint, severity=severity)

    def diagnose_at(
        self, code: str, message: str, span: Span, *, hint: str | None = None, severity: Severity
    ) -> Diagnostic:
        """The same, for a span of this source."""
        line = self._line(span.line)
        length = span.end_column - span.column if span.end_line == span.line else len(line)
        text, column, length = excerpt(line, span.column - 1, length)
        return Diagnostic(
            code=code,
            severity=severity,
            message=message,
            span=span,
            hint=hint,
            filename=self.filename,
            excerpt=text,
            excerpt_column=column,
            excerpt_length=length,
        )

    def _line(self, number: int) -> str:
        starts = self._line_starts()
        end = starts[number] if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end].rstrip("\r\n")

    def _line_starts(self) -> list[int]:
        if self._starts is None:
            self._starts = [0, *(match.end() for match in _LINE_BREAK.finditer(self.text))]
        return self._starts


_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)


def _too_large(size: int, filename: str) -> Diagnostic:
    return Diagnostic(
        code=Code.TOO_LARGE.value,
        severity=Severity.ERROR,
        message=f"too large: expected at most {MAX_SIZE:,} bytes, got {size:,}",
        span=NOWHERE,
        hint="a Modelfile is text; weights are named by FROM",
        filename=filename,
    )
