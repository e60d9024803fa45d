"""The way back to the parent."""

from __future__ import annotations

import os

import msgspec

from ..frame import pack, write_all


class StatusPipe:
    """The process's original stdout. Everything else that writes to stdout goes to stderr from now on."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.set_inheritable(self._fd, False)
        os.dup2(2, 1)

    def send(self, message: msgspec.Struct) -> None:
        """Raises: BrokenPipeError where the parent does not listen any more."""
        write_all(self._fd, pack(message))

    @property
    def fd(self) -> int:
        return self._fd
