"""Ingests: content on its way into the store.

The lifecycle of bytes is told at the top of ``store.py``. Rules for editing this file:

- Nothing is renamed into ``blobs/`` before size and digest are checked and the file is on disk.
- An ingest file is locked by its writer. Waiters hold an open file, so after getting the lock they look
  whether the name still means that file: the previous holder may have published or removed it.
"""

from __future__ import annotations

import functools
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..descriptor import Descriptor
from ..digest import Digest, Hasher, new_hasher
from ..errors import DigestMismatch, IngestBusy, SizeMismatch
from .disk import require_room, sync_folder, translating, write_all
from .hashing import BackgroundHasher, iter_chunks
from .layout import StoreLayout
from .lease import LeaseBook
from .lock import acquire, locked, release
from .mark import has_mark, set_mark
from .parted_file import PartedFile, bytes_present, cut_to_prefix
from .writeback import start_writeback

_BACKGROUND_FROM = 8 << 20
"""Bytes. Below, a thread costs more than it saves."""

_PUBLISHED_MODE = 0o444


class Ingest:
    """A blob being written, by one thread. Made by ``Store.ingest``, which also ends it.

    ``offset`` is the number of bytes that are there, more than 0 at the start where an earlier attempt is
    resumed. ``present`` says that the store has the blob already, intact: nothing need be written.
    ``parts``, where it was asked for, takes the place of ``write``: any thread may write its part.
    """

    def __init__(
        self,
        layout: StoreLayout,
        leases: LeaseBook,
        expected: Descriptor | None,
        *,
        algorithm: str = "sha256",
        path: Path | None = None,
    ) -> None:
        self.offset = 0
        self.present = False
        self.parts: PartedFile | None = None
        self.path = path or (layout.partial(expected.digest) if expected else layout.ingest / _fresh_name())
        self._layout = layout
        self._leases = leases
        self._expected = expected
        self._fd = -1
        self._algorithm = expected.digest.algorithm if expected else algorithm
        self._hasher: Hasher = new_hasher(self._algorithm)
        self._committed = False
        self._spoiled = False
        self._written_back = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``.

        Raises: SizeMismatch as soon as there is more than expected; DiskFull, StoreFailure. After an
            error nothing more can be written; what is kept is decided when the ingest ends.
        """
        # The hasher may still read it when the caller changes its buffer.
        self.append(data if isinstance(data, bytes) else bytes(data))

    def commit(self) -> Digest:
        """Verify what was written and make it visible as a blob. Success means that the blob is stored and on
        disk, not that this call did it.

        Raises: SizeMismatch, DigestMismatch; DiskFull, StoreFailure. Then no blob has appeared or changed.
        """
        if self.present and self._expected is not None:
            return self._expected.digest
        digest = self._verify()
        if self.parts is not None:
            self.parts.remove_journal()
        with translating("writing", self.path):
            os.fchmod(self._fd, _PUBLISHED_MODE)
            set_mark(self._fd, digest)
            self._sync()
            self._publish(digest)
        return digest

    def _verify(self) -> Digest:
        expected = self._expected
        if self.parts is not None:
            self.offset = self.parts.present
        if expected is not None and self.offset != expected.size:
            raise SizeMismatch(str(expected.digest), expected.size, self.offset)
        hasher = self.parts or self._hasher
        digest = Digest(self._algorithm, hasher.hexdigest())
        if expected is not None and digest != expected.digest:
            self._spoiled = True
            raise DigestMismatch(
                str(expected.digest), str(digest), hint="what was received is damaged; try again"
            )
        return digest

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError:
            # The kernel has dropped what it could not write, but still shows it to readers: resuming would
            # find all well. Source: fsync(2), NOTES and ERRORS.
            self._spoiled = True
            raise

    def _publish(self, digest: Digest) -> None:
        target = self._layout.blob(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
        with locked(self._layout.lock, "shared"):
            self._leases.record(digest)
            if _is_published(target, digest, self.offset):
                self.path.unlink()  # someone was quicker; readers may have theirs mapped
            else:
                self.path.rename(target)
            self._committed = True  # the point of no return: the blob is there under its name
        sync_folder(target.parent)

    def _missing(self) -> int | None:
        return self._expected.size - self.offset if self._expected is not None else None

    def discard(self) -> None:
        """Let nothing be kept when the ingest ends, whatever was asked for at its start."""
        self._spoiled = True

    # What follows is for this package: opening, taking over, ending.

    def append(self, data: bytes | memoryview) -> None:
        """``write``, for data that keeps its content for a while: see ``BackgroundHasher``."""
        end = self.offset + len(data)
        if self._expected is not None and end > self._expected.size:
            self._spoiled = True
            raise SizeMismatch(str(self._expected.digest), self._expected.size, end)
        self._hasher.update(data)
        with translating("writing", self.path, needed=self._missing()):
            write_all(self._fd, data)
        self.offset = end
        self._written_back = start_writeback(self._fd, self._written_back, end)

    def open(
        self, *, resume: bool, wait_s: float | None, on_wait: Callable[[int], None] | None = None
    ) -> None:
        """Create or take over the ingest file, locked. Raises: IngestBusy, DiskFull, StoreFailure."""
        with translating("writing", self.path):
            self._fd = self._open_locked(wait_s, on_wait)
            if not resume:
                os.ftruncate(self._fd, 0)

    def know(self, hasher: Hasher, size: int) -> None:
        """The first ``size`` bytes of the file need not be read: this process has written them, and
        ``hasher`` has seen them. Only before `take_over`."""
        self._hasher, self.offset = hasher, size

    def take_over(self) -> None:
        """Count what the file holds already, by reading it: nothing else about an earlier attempt is trusted.

        Raises: DiskFull, StoreFailure.
        """
        with translating("reading", self.path):
            size = os.fstat(self._fd).st_size
            if self._expected is not None:
                size = cut_to_prefix(self._fd, self._expected.size)
            if self.offset > size:  # somebody has cut the file
                self._hasher, self.offset = new_hasher(self._algorithm), 0
            self.use_background_hasher(size)
            for chunk in iter_chunks(self._fd, start=self.offset):
                self._hasher.update(chunk)
                self.offset += len(chunk)
            os.lseek(self._fd, self.offset, os.SEEK_SET)

    def use_parts(self, part_size: int) -> None:
        """Let ``parts`` take the blob, and count what they have already. Raises: DiskFull, StoreFailure."""
        assert self._expected is not None
        self.parts = PartedFile.open(
            self._fd, self.path, size=self._expected.size, part_size=part_size, hasher=self._hasher
        )
        self.offset = self.parts.present

    def use_background_hasher(self, size: int) -> None:
        """Hash in a thread where that pays for ``size`` bytes. Only before the first byte."""
        if size >= _BACKGROUND_FROM and self.offset == 0 and not isinstance(self._hasher, BackgroundHasher):
            self._hasher = BackgroundHasher(self._hasher)

    def fileno(self) -> int:
        """The descriptor of the ingest file, open for reading and writing."""
        return self._fd

    def end(self, *, keep: bool) -> None:
        """Close; remove the file unless it was published, or ``keep`` and it may be resumed."""
        if isinstance(self._hasher, BackgroundHasher):
            self._hasher.close()
        if self.parts is not None:
            self.parts.close()
            self.offset = self.parts.present
            self._spoiled |= self.parts.damaged
        if self._fd < 0:
            return
        if not self._committed and (self._spoiled or self.offset == 0 or not keep):
            with suppress(OSError):
                self.path.unlink()
        release(self._fd)
        self._fd = -1

    def _open_file(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self.path, flags, 0o600)
        except PermissionError:
            if not self.path.exists():
                raise
            self.path.chmod(0o600)  # a commit was killed between making the file read-only and the rename
            return os.open(self.path, flags, 0o600)

    def _open_locked(self, wait_s: float | None, on_wait: Callable[[int], None] | None) -> int:
        while True:
            fd = self._open_file()
            tell = None
            if on_wait is not None and self._expected is not None:
                tell = functools.partial(_tell_size, fd, self._expected.size, on_wait)
            try:
                if not acquire(fd, wait_s=wait_s, on_wait=tell):
                    raise IngestBusy(str(self._expected.digest) if self._expected else self.path.name)
                if _is_named(fd, self.path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            release(fd)


@contextmanager
def ingesting(
    ingest: Ingest, expected: Descriptor | None, *, resume: bool, part_size: int | None = None
) -> Iterator[Ingest]:
    """Run an opened ``ingest``: look what is there, check for room, and end it whatever happens. What is
    larger than ``part_size`` is taken in parts.

    Raises: DiskFull before anything is written where the rest of ``expected`` does not fit.
    """
    try:
        if expected is not None and not ingest.present:
            if part_size is not None and expected.size > part_size:
                ingest.use_parts(part_size)
            elif resume:
                ingest.take_over()
            require_room(ingest.path, expected.size - ingest.offset)
            if ingest.parts is None:
                ingest.use_background_hasher(expected.size)
        yield ingest
    finally:
        ingest.end(keep=resume and not ingest.present)


def _tell_size(fd: int, size: int, on_wait: Callable[[int], None]) -> None:
    on_wait(bytes_present(fd, size))


def _is_published(path: Path, digest: Digest, size: int) -> bool:
    """Whether the file is there, has ``size`` bytes and bears the mark of having been verified."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size == size and has_mark(facts, digest)


def _is_named(fd: int, path: Path) -> bool:
    ours = os.fstat(fd)
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def _fresh_name() -> str:
    return f"new-{secrets.token_hex(8)}"
