"""What differs from one run to the next, in the text of an answer: placeholders stand for it.

A value is replaced only where it has the form that it should have. One of another form stays as it is, so
that a comparison with what was recorded fails. Names of things are numbered by their first appearance, and
the same thing has the same number wherever it appears: ``<resp_1>``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

_INTEGER = r"\d+(?![\d.eE])"
_RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z"
_ID = re.compile(r"\b(chatcmpl-|cmpl-|resp_|msg_|rs_|fc_)[0-9a-f]{24}\b|\b(call_)[0-9a-z]{8}\b")
_DIGEST = re.compile(r'(sha256[:-]|"digest":")([0-9a-f]{64})(?![0-9a-f])')
_PLACEHOLDER = re.compile(r"<[a-z]+[-_ ]\d+>|<port>")

Replacement = str | Callable[[re.Match[str]], str]


def _prompt(found: re.Match[str]) -> str:
    """What was read, and what was known before, are together the prompt."""
    whole = int(found[1]) + int(found[2])
    return f'"input_tokens":<a>,"cache_creation_input_tokens":0,"cache_read_input_tokens":<{whole} - a>'


def _vector(found: re.Match[str]) -> str:
    return f'"embedding":"<base64 of {len(base64.b64decode(found[1]))} bytes>"'


_RULES: tuple[tuple[str, Replacement], ...] = (
    (rf'"(created_at|modified_at|expires_at)":"{_RFC3339}"', r'"\1":"<time>"'),
    (r'"(created|created_at|completed_at)":[12]\d{9}(?![\d.eE])', r'"\1":<unix time>'),
    (rf'"((?:total|load|prompt_eval|eval)_duration)":{_INTEGER}', r'"\1":<ns>'),
    # Progress of blobs, several at a time, in as many lines as it takes. The status has a digest's beginning.
    (
        r'(?:\{"status":"(pulling|pushing) ([0-9a-f]{12})","digest":"sha256:\2[0-9a-f]{52}",'
        r'"total":\d+(?:,"completed":\d+)?\}\n)+',
        r'{"status":"\1 <12 hex>","digest":"sha256:<those and 52 more>","total":<n>,"completed":<n>} …\n',
    ),
    (rf'"(size|size_vram)":{_INTEGER}', r'"\1":<bytes>'),
    (rf'"cached_tokens":{_INTEGER}', '"cached_tokens":<n>'),
    (
        r'"input_tokens":(\d+),"cache_creation_input_tokens":0,"cache_read_input_tokens":(\d+)',
        _prompt,
    ),
    (r'"logprob":-?\d+(?:\.\d+)?(?:e-\d+)?', '"logprob":<log>'),
    (r"-?\b\d+\.\d{5,}(?:e-\d+)?\b", "<float>"),
    (r'"embedding":"([0-9A-Za-z+/]+=*)"', _vector),
    (r'"sandbox":\{"level":"[a-z]+","layers":\{[^{}]+\}(?:,"landlock_abi":\d+)?\}', '"sandbox":<layers>'),
    (r'"lading":"\d+\.\d+[0-9a-z.+-]*"', '"lading":"<version>"'),
)
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _RULES)


class Placeholders:
    """Those of one conversation with a server on ``port``."""

    def __init__(self, port: int) -> None:
        self._port = str(port)
        self._names: dict[str, str] = {}
        """Value to placeholder."""

    def hide(self, text: str) -> str:
        """`text` with placeholders for values."""
        for pattern, replacement in _COMPILED:
            text = pattern.sub(replacement, text)
        text = _ID.sub(lambda found: self._name(found[0], (found[1] or found[2]).rstrip("-_"), "_"), text)
        text = _DIGEST.sub(lambda found: found[1] + self._name(found[2], "digest", " "), text)
        return text.replace(f"127.0.0.1:{self._port}", "127.0.0.1:<port>")

    def fill(self, text: str) -> str:
        """`text` with the values that its placeholders stood for so far.

        Raises: KeyError: one has not appeared yet.
        """
        values = {"<port>": self._port, **{name: value for value, name in self._names.items()}}
        return _PLACEHOLDER.sub(lambda found: values[found[0]], text)

    def _name(self, value: str, kind: str, joint: str) -> str:
        if value not in self._names:
            number = 1 + sum(name.startswith(f"<{kind}{joint}") for name in self._names.values())
            self._names[value] = f"<{kind}{joint}{number}>"
        return self._names[value]
