"""The keys that a web process knows: those of the file, as it is now, and the one of the settings."""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from ...modelfile.errors import LadingError
from .api_key import ApiKey, KeyFile, given_key, hash_of

log = logging.getLogger("lading.server")


class KeyRing:
    """Keys by their secrets. The file is looked at for every request (one `stat`), so that a key that is
    made or revoked counts at once.

    Once a key has been needed, one is needed for ever: a file that vanishes locks everybody out. While it
    cannot be read, the keys that were read last stay good.
    """

    def __init__(
        self, path: Path | None, secret: str = "", *, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises: BadKeyFile, BadKey."""
        self._path = path
        self._given = (given_key(secret),) if secret else ()
        self._clock = clock
        self._seen: tuple[int, ...] | None = None
        self._keys: tuple[ApiKey, ...] = self._given
        self._required = bool(self._given)
        self._refresh(strict=True)

    def required(self) -> bool:
        """Whether a request needs a key."""
        self._refresh()
        return self._required

    def find(self, secret: str) -> ApiKey | None:
        """The key of this secret, unless it has expired. Takes the same time whatever the secret shares with
        a key: hashes are compared, all of them, each in constant time."""
        self._refresh()
        digest = hash_of(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is not None and found.expires is not None and found.expires <= self._clock():
            return None
        return found

    def _refresh(self, *, strict: bool = False) -> None:
        if self._path is None:
            return
        try:
            stat = os.stat(self._path)  # noqa: PTH116  # a fifth of the time, and this is done for every request
            seen: tuple[int, ...] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            seen = ()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._keys = (*self._given, *KeyFile(self._path).read())
        except LadingError as error:
            if strict:
                raise
            log.error("the keys stay as they were: %s", error.message)
            self._required = True
            return
        # A file without keys lets nobody in: the last key was revoked, which is no reason to open the doors.
        self._required = self._required or bool(seen)
