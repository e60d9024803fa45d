"""Writing that survives a crash, and what the operating system's refusals mean."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DiskFull, StoreFailure, StoreReadOnly

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PERMISSION = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def translating(action: str, path: Path, *, needed: int | None = None) -> Iterator[None]:
    """Turn an ``OSError`` inside into one of our errors. ``action`` is like "writing"; ``needed`` is bytes.

    Raises: DiskFull, StoreReadOnly, StoreFailure.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(path, needed=needed, available=free_bytes(path)) from error
        reason = os.strerror(error.errno) if error.errno is not None else str(error)
        if error.errno in _NO_PERMISSION:
            raise StoreReadOnly(action, path, reason) from error
        raise StoreFailure(action, path, reason) from error


def free_bytes(path: Path) -> int:
    """The bytes that an ordinary user may still write on the file system of ``path``; 0 where unknown."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            figures = os.statvfs(folder)
            return figures.f_bavail * figures.f_frsize
    return 0


def require_room(path: Path, needed: int) -> None:
    """Raises: DiskFull where fewer than ``needed`` bytes are free, before anything is written."""
    available = free_bytes(path)
    if needed > available:
        raise DiskFull(path, needed=needed, available=available)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of ``data``: one ``os.write`` may take less. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power loss. Raises: OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_durably(path: Path, data: bytes, *, scratch: Path, mode: int = 0o644) -> None:
    """Let ``path`` hold ``data``: it has the old content or all of the new, also after a crash.

    ``scratch`` is a folder on the same file system; a crash may leave one file there. ``mode`` is that of
    the new file from its first byte.

    Raises: OSError; then ``path`` is as it was.
    """
    temporary = scratch / f"new-{secrets.token_hex(8)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def open_regular(path: Path, *, follow_links: bool) -> int:
    """A descriptor for reading ``path``, which is a regular file: a FIFO or device is never waited for.

    Raises: OSError; for what is no regular file, with EINVAL.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return fd
