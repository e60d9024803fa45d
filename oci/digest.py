"""Digests: the names of content.

A ``Digest`` is the only way from text to a path or a URL part. It is checked once, here, so that no
other code has to: an instance that exists has a known algorithm and exactly the right number of
lower-case hex digits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from .errors import BadDigest

HEX_LENGTHS: Mapping[str, int] = MappingProxyType({"sha256": 64, "sha512": 128})
"""The registered algorithms and the length of their hex form. Source: OCI image-spec 1.1, descriptor.md."""

_LOWER_HEX = re.compile(r"[0-9a-f]+")


class Hasher(Protocol):
    """What ``hashlib`` returns."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm and the hash of some bytes by it.

    >>> str(Digest.of(b"hello"))
    'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
    """

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = HEX_LENGTHS.get(self.algorithm)
        if length is None:
            raise BadDigest(str(self), "the algorithm must be sha256 or sha512")
        if len(self.hex) != length or not _LOWER_HEX.fullmatch(self.hex):
            raise BadDigest(str(self), f"{self.algorithm} needs exactly {length} lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> Digest:
        """The digest written as ``algorithm:hex``; the inverse of ``str``.

        Raises: BadDigest.
        """
        algorithm, colon, hex_digits = text.partition(":")
        if not colon:
            raise BadDigest(text, "expected algorithm:hex, for example sha256:…")
        return cls(algorithm, hex_digits)

    @classmethod
    def of(cls, data: bytes, *, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls(algorithm, hasher.hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex[:12]

    def hasher(self) -> Hasher:
        """A fresh hasher of this digest's algorithm."""
        return new_hasher(self.algorithm)


def new_hasher(algorithm: str = "sha256") -> Hasher:
    """A hasher of a registered algorithm. Raises: BadDigest for any other."""
    if algorithm not in HEX_LENGTHS:
        raise BadDigest(algorithm, "the algorithm must be sha256 or sha512")
    return hashlib.new(algorithm, usedforsecurity=False)
