"""Importing a local file: one read, and no second copy where the file system can share the bytes.

A clone (``FICLONE``: btrfs, XFS, bcachefs, overlay on them) takes no time and no room, and later writes to
either file do not show in the other. Elsewhere the bytes are copied while they are hashed.

A hard link takes no room on any file system, but a write to the file would show in the store, under a digest
that is then wrong. So one is made only where it is asked for, for files that programs never write again, as
in the stores of others, and where nobody else can write them: the file must be ours, for us alone to write,
and is made read-only. Should it be written to all the same, the store notices: see ``mark.py``.

What is hashed is what is stored: the copy's bytes as they pass, or the clone itself. Where the store has a
blob of the same size, the file is hashed first: mostly it was imported before, and nothing need be written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..digest import Digest, new_hasher
from ..errors import BadSource, SourceChanged
from .disk import open_regular, require_room
from .hashing import BackgroundHasher, iter_chunks
from .ingest import Ingest

_FICLONE = 0x40049409
"""Source: linux/fs.h, _IOW(0x94, 9, int). MIPS, PowerPC and SPARC number it differently: there the call is
refused and we copy."""

OnBytes = Callable[[int], None]
"""Told each number of bytes that was read."""


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What a local file became. ``size`` is bytes. ``linked``: it shares its bytes with the file."""

    digest: Digest
    size: int
    linked: bool = field(default=False, compare=False)


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


def hash_source(source: int, path: Path, on_bytes: OnBytes | None) -> ImportedFile:
    """What the open file ``source`` would become, by reading it only. ``path`` is for messages.

    Raises: SourceChanged, BadSource.
    """
    before = os.fstat(source)
    size = 0
    with BackgroundHasher(new_hasher()) as hasher:
        for chunk in _read(source, path, before.st_size):
            hasher.update(chunk)
            size += len(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
        digest = Digest("sha256", hasher.hexdigest())
    _require_unchanged(source, path, before, size)
    return ImportedFile(digest, size)


def clone_into(ingest: Ingest, source: int, path: Path, on_bytes: OnBytes | None) -> ImportedFile | None:
    """Clone the open file ``source`` into ``ingest`` and commit it; None where the file system cannot.

    Raises: SourceChanged, BadSource, DiskFull, StoreFailure; then nothing is stored.
    """
    before = os.fstat(source)
    ingest.use_background_hasher(before.st_size)
    if not _clone(source, ingest.fileno()):
        return None
    ingest.take_over()
    if on_bytes is not None:
        on_bytes(ingest.offset)
    _require_unchanged(source, path, before, ingest.offset)
    return ImportedFile(ingest.commit(), ingest.offset, linked=True)


def may_link(source: int, folder: Path) -> bool:
    """Whether a hard link to the open file may be made in ``folder``: it is on the same file system, belongs
    to us, and nobody else may write it."""
    facts = os.fstat(source)
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        facts.st_dev == folder.stat().st_dev
        and facts.st_uid == os.geteuid()
        and stat.S_ISREG(facts.st_mode)
        and not facts.st_mode & others
    )


def link_as(source: int, path: Path, target: Path) -> bool:
    """Give the open file ``source``, which is at ``path``, another name; False where that cannot be. Then it
    is read-only.

    Raises: OSError.
    """
    try:
        os.link(path.resolve(), target)
    except OSError:  # another file system under the same device number, too many links, a policy against it
        return False
    ours, made = os.fstat(source), target.lstat()
    if (ours.st_dev, ours.st_ino) != (made.st_dev, made.st_ino):
        target.unlink()
        return False
    os.fchmod(source, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    return True


def import_into(ingest: Ingest, source: int, path: Path, on_bytes: OnBytes | None) -> ImportedFile:
    """Clone or copy the open file ``source`` into ``ingest`` and commit it. ``path`` is for messages.

    Raises: SourceChanged, BadSource, DiskFull, StoreFailure; then nothing is stored.
    """
    cloned = clone_into(ingest, source, path, on_bytes)
    if cloned is not None:
        return cloned
    before = os.fstat(source)
    require_room(ingest.path, before.st_size)
    for chunk in _read(source, path, before.st_size):
        ingest.append(chunk)
        if on_bytes is not None:
            on_bytes(len(chunk))
    _require_unchanged(source, path, before, ingest.offset)
    return ImportedFile(ingest.commit(), ingest.offset)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:  # another file system, or one that cannot: then we copy
        return False
    return True


def _read(source: int, path: Path, size: int) -> Iterator[memoryview]:
    """The pieces of a file that should have ``size`` bytes. One byte more is enough to see that it grew."""
    try:
        yield from iter_chunks(source, limit=size + 1)
    except OSError as error:
        raise BadSource(path, os.strerror(error.errno or errno.EIO)) from error


def _require_unchanged(source: int, path: Path, before: os.stat_result, size: int) -> None:
    after = os.fstat(source)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or size != before.st_size:
        raise SourceChanged(path)
