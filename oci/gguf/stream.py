"""Forward reading of a GGUF header, bounded in bytes read and bytes held.

Reads with ``pread`` through a small window: a mapping would turn a file that somebody truncates meanwhile
into a signal, and a hostile header must not decide how much memory is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct

from .problem import ProblemCode

WINDOW_SIZE = 256 * 1024

_U64 = Struct("<Q")


class HeaderFault(Exception):
    """Reading cannot go on. Internal: the parser turns it into a problem with its place."""

    def __init__(self, code: ProblemCode, what: str) -> None:
        super().__init__(what)
        self.code = code
        self.what = what


class HeaderStream:
    """A position in a file of ``size`` bytes, of which at most the first ``limit`` are ever read.

    Every method raises HeaderFault instead of going past either end.
    """

    def __init__(self, fd: int, size: int, *, limit: int, position: int = 0) -> None:
        self._fd = fd
        self._size = size
        self._limit = limit
        self._window = b""
        self._base = position  # where the window starts in the file
        self._at = 0  # where we are in the window

    @property
    def position(self) -> int:
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes of the file that are left."""
        return self._size - self.position

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        self._need(size)
        start = self._at
        self._at += size
        return self._window[start : self._at]

    def number(self, struct: Struct) -> int:
        """One integer (or bool, or float) of the layout of ``struct``, which has a single field."""
        self._need(struct.size)
        (value,) = struct.unpack_from(self._window, self._at)
        self._at += struct.size
        return value  # type: ignore[no-any-return]  # struct knows no types

    def skip(self, size: int) -> None:
        """Step over ``size`` bytes without reading them."""
        self._move(self._at + size)

    def string(self, limit: int) -> bytes:
        """A string: 64-bit length, then the bytes, at most ``limit`` of them."""
        return self.take(self._string_length(limit))

    def skip_strings(self, count: int, limit: int) -> None:
        """Step over ``count`` strings of at most ``limit`` bytes each."""
        unpack = _U64.unpack_from
        done = 0
        while done < count:
            self._need(8)
            window, at = self._window, self._at
            last = len(window) - 8
            while done < count and at <= last:
                (length,) = unpack(window, at)
                if length > limit:
                    raise self._too_long(length, limit, f"element {done}: ")
                at += 8 + length
                done += 1
            self._move(at)

    def strings(self, count: int, limit: int) -> Iterator[list[bytes]]:
        """``count`` strings of at most ``limit`` bytes each, in lists of those that fit the window."""
        unpack = _U64.unpack_from
        while count:
            self._need(8)
            (length,) = unpack(self._window, self._at)
            if length > limit:
                raise self._too_long(length, limit)
            self._need(8 + length)  # from here on at least one whole string is in the window
            window, at = self._window, self._at
            end = len(window)
            batch: list[bytes] = []
            while len(batch) < count and at + 8 <= end:
                (length,) = unpack(window, at)
                stop = at + 8 + length
                if stop > end:
                    break
                batch.append(window[at + 8 : stop])
                at = stop
            count -= len(batch)
            self._at = at
            yield batch

    def _string_length(self, limit: int) -> int:
        length = self.number(_U64)
        if length > limit:
            raise self._too_long(length, limit)
        return length

    def _too_long(self, length: int, limit: int, where: str = "") -> HeaderFault:
        if length > self.remaining:
            return HeaderFault(
                ProblemCode.TRUNCATED,
                f"{where}string of {length:,} bytes, but only {self.remaining:,} bytes of the file are left",
            )
        return HeaderFault(
            ProblemCode.TOO_LARGE, f"{where}string of {length:,} bytes, expected at most {limit:,}"
        )

    def _move(self, at: int) -> None:
        position = self._base + at
        if position > self._size:
            raise self._ends(position - self._size)
        if position > self._limit:
            raise HeaderFault(ProblemCode.TOO_LARGE, f"the header takes more than {self._limit:,} bytes")
        if at <= len(self._window):
            self._at = at
        else:
            self._window, self._base, self._at = b"", position, 0

    def _need(self, size: int) -> None:
        """Bring the next ``size`` bytes into the window."""
        if len(self._window) - self._at >= size:
            return
        position = self.position
        if size > self._size - position:
            raise self._ends(size - (self._size - position))
        if position + size > self._limit:
            raise HeaderFault(ProblemCode.TOO_LARGE, f"the header takes more than {self._limit:,} bytes")
        wanted = min(max(size, WINDOW_SIZE), self._size - position)
        kept = self._window[self._at :]
        self._window, self._base, self._at = b"", position, 0  # released before the next is made
        parts = [kept]
        have = len(kept)
        while have < wanted:
            part = os.pread(self._fd, wanted - have, position + have)
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._window = b"".join(parts)
        if have < size:  # truncated while we read
            raise self._ends(size - have)

    def _ends(self, missing: int) -> HeaderFault:
        return HeaderFault(
            ProblemCode.TRUNCATED,
            f"the file ends at byte {self._size:,}, {missing:,} bytes too early; it is cut off or damaged",
        )
