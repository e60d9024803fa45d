"""A private folder for the sockets of runners.

    BASE/                    0700, ours; default: lading-UID under the system's temporary folder
      lock                   held while a folder is made or removed
      keeper-XXXXXXXX/       0700; one for each keeper
        lock                 locked (flock) as long as the keeper lives
        1.sock, 2.sock, …

A keeper that was killed leaves its folder; the next one removes it, since nobody holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import BadRuntimeDir

_MAX_PATH = 100
"""Bytes; the kernel takes 107."""
_PREFIX = "keeper-"


class SocketDir:
    """Use `open`; who opens it closes it. Thread-safe."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._numbers = itertools.count(1)

    @classmethod
    def open(cls, base: Path | None = None) -> SocketDir:
        """A fresh folder under ``base``, which is made if it does not exist.

        Raises: BadRuntimeDir where ``base`` is not private or not writable, or its name is too long.
        """
        given = base if base is not None else Path(tempfile.gettempdir()) / f"lading-{os.getuid()}"
        base = given.absolute()
        longest = os.fsencode(base / f"{_PREFIX}12345678" / "12345.sock")
        if len(longest) > _MAX_PATH:
            raise BadRuntimeDir(
                f"making sockets in {base}: its name is too long",
                hint=f"name a folder of at most {_MAX_PATH - len(longest) + len(os.fsencode(base))} bytes",
            )
        try:
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(base)
            with _locked(base / "lock"):  # a folder is not seen by others before its own lock is held
                _remove_abandoned(base)
                path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
                lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise BadRuntimeDir(f"making sockets in {base}: {error.strerror or error}") from error
        return cls(path, lock)

    def new_socket(self) -> Path:
        """A path that was not used before, shorter than the kernel's limit."""
        return self.path / f"{next(self._numbers)}.sock"

    def close(self) -> None:
        """Remove the folder and all in it. Repeating it is harmless."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)
        self._lock = -1


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _require_private(base: Path) -> None:
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise BadRuntimeDir(f"making sockets in {base}: expected a folder of our own")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise BadRuntimeDir(
            f"making sockets in {base}: others may write there", hint=f"run: chmod 0700 {base}"
        )


def _remove_abandoned(base: Path) -> None:
    """Folders of keepers that are gone: nobody holds their lock."""
    for folder in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
