"""Importing a local file: one read, and no second copy where the file system can share the bytes.

A clone (``FICLONE``: btrfs, XFS, bcachefs, overlay on them) takes no time and no room, and later writes to
either file do not show in the other. A hard link would let them show, and the store's bytes would change
under their name, so hard links are never made. Elsewhere the bytes are copied while they are hashed.

What is hashed is what is stored: the copy's bytes as they pass, or the clone itself.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .digest import Digest
from .disk import open_regular, require_room
from .errors import BadSource, SourceChanged
from .hashing import iter_chunks
from .ingest import Ingest

_FICLONE = 0x40049409
"""Source: linux/fs.h, _IOW(0x94, 9, int). MIPS, PowerPC and SPARC number it differently: there the call is
refused and we copy."""


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What a local file became. ``size`` is bytes."""

    digest: Digest
    size: int


def open_source(path: Path) -> int:
    """A descriptor for reading the regular file ``path``; symbolic links are followed.

    Raises: BadSource.
    """
    try:
        return open_regular(path, follow_links=True)
    except FileNotFoundError:
        raise BadSource(path, "no such file") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise BadSource(path, "not a regular file") from None
        raise BadSource(path, os.strerror(error.errno or errno.EIO)) from error


def import_into(
    ingest: Ingest, source: int, path: Path, on_bytes: Callable[[int], None] | None
) -> ImportedFile:
    """Clone or copy the open file ``source`` into ``ingest`` and commit it. ``path`` is for messages.

    Raises: SourceChanged, BadSource, DiskFull, StoreFailure; then nothing is stored.
    """
    before = os.fstat(source)
    ingest.use_background_hasher(before.st_size)
    if _clone(source, ingest.fileno()):
        ingest.take_over()
        if on_bytes is not None:
            on_bytes(ingest.offset)
    else:
        require_room(ingest.path, before.st_size)
        _copy(source, path, before.st_size, ingest, on_bytes)
    after = os.fstat(source)
    if ingest.offset != before.st_size or _facts(before) != _facts(after):
        raise SourceChanged(path)
    return ImportedFile(ingest.commit(), ingest.offset)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one that cannot: then we copy
        return False
    return True


def _copy(source: int, path: Path, size: int, ingest: Ingest, on_bytes: Callable[[int], None] | None) -> None:
    # One byte more than promised is enough to see that the file grew; it may grow for ever.
    chunks = iter_chunks(source, limit=size + 1)
    while True:
        try:
            chunk = next(chunks, None)
        except OSError as error:
            raise BadSource(path, os.strerror(error.errno or errno.EIO)) from error
        if chunk is None:
            return
        ingest.append(chunk)
        if on_bytes is not None:
            on_bytes(len(chunk))


def _facts(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns
