"""Authentication challenges: the ``WWW-Authenticate`` header, by its grammar.

    challenge  = scheme [ 1*SP ( token68 / auth-param *( OWS "," OWS auth-param ) ) ]
    auth-param = token BWS "=" BWS ( token / quoted-string )

Several challenges may share one header, separated by commas, like their parameters; a word that is
followed by no ``=`` starts the next challenge. Source: RFC 9110, sections 11.3 and 11.6.1.

What does not parse is skipped, never guessed: a registry that cannot be understood is one that we
send no credentials to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_HEADER_LENGTH = 8 * 1024
MAX_CHALLENGES = 8

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))\s*(?=,|$)')
_SCHEME = re.compile(rf"\s*({_TOKEN})(?=\s|,|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9\-._~+/]+=*\s*(?=,|$)")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: the scheme in lower case, the parameters with their names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of the given header values, in order; at most 8, from at most 8 KiB each."""
    found: list[Challenge] = []
    for header in headers:
        if len(header) <= MAX_HEADER_LENGTH:
            found.extend(_parse_header(header))
    return tuple(found[:MAX_CHALLENGES])


def _parse_header(header: str) -> list[Challenge]:
    found: list[Challenge] = []
    position = 0
    while position < len(header) and len(found) < MAX_CHALLENGES:
        if header[position] in ", \t":
            position += 1
            continue
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            return found  # the rest cannot be told apart
        position = scheme.end()
        parameters, position = _parse_parameters(header, position)
        if not parameters and (token68 := _TOKEN68.match(header, position)):
            position = token68.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return found


def _parse_parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while (match := _PARAMETER.match(header, position)) is not None:
        name, quoted, token = match.groups()
        # The first of a repeated name wins, so that nothing appended to a header can replace a realm.
        parameters.setdefault(name.lower(), token if quoted is None else _ESCAPED.sub(r"\1", quoted))
        position = match.end()
        comma = re.compile(r"[\s,]*").match(header, position)
        after = comma.end() if comma else position
        if _PARAMETER.match(header, after) is None:
            break
        position = after
    return parameters, position
