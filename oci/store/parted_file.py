"""Blobs that arrive in parts: which bytes are there, remembered so that nothing is fetched twice.

While its parts come in, the ingest file of a blob is longer than the blob: the journal stands behind it.

    0 … size                the blob, with holes where nothing has come yet
    next multiple of 4096   the journal: magic (8 bytes), size of a part (8), boot id (16), then for each part
                            how many of its bytes were written, from its start (8), and how many of those
                            were put on disk (8); numbers are little-endian

So there is one file, one lock and one thing to sweep; a file that is not longer than its blob has no journal,
and holds the beginning of the blob.

Rules for editing this file:

- Data is written before the journal says so. What is written survives the death of the process, and only
  what was put on disk survives that of the machine: after another boot, only that counts.
- The journal is believed only about what need not be fetched. A digest over the whole file decides.
- What does not look like a journal of ours is none: the blob is fetched from its start.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from ..digest import Hasher
from ..errors import SizeMismatch
from .disk import translating
from .hashing import CHUNK
from .writeback import start_writeback

MAX_PARTS = 4096
MIN_PART_SIZE = 4096

_MAGIC = b"LDGPART1"
_HEADER = struct.Struct("<8sQ16s")
_ENTRY = struct.Struct("<QQ")
_PAGE = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes ``start`` to ``end`` (exclusive) of a blob."""

    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Journal:
    """What a file's journal says: for each part, how many bytes of it are there, and how many of them are
    known to be on disk."""

    part_size: int
    written: tuple[int, ...]
    synced: tuple[int, ...]

    def prefix(self) -> int:
        """The bytes that are there without a hole, from the blob's start."""
        total = 0
        for written in self.written:
            total += written
            if written < self.part_size:
                break
        return total


class PartedFile:
    """An ingest file that parts are written to, each by one thread at a time, while another thread hashes
    what is there from the start without a hole. ``close`` ends that thread."""

    def __init__(self, fd: int, path: Path, size: int, journal: _Journal, hasher: Hasher) -> None:
        self.size = size
        self.part_size = journal.part_size
        self._fd = fd
        self._path = path
        self._written = list(journal.written)
        self._synced = list(journal.synced)
        self.damaged = False
        """Whether the system lost what was written: then nothing of the file can be relied on."""
        self._lock = threading.Lock()
        self._front = 0
        self._present = sum(journal.written)
        self._written_back = [self._part(index).start for index in range(len(journal.written))]
        self._hasher = _PrefixHasher(fd, hasher)
        self._follow()

    @classmethod
    def open(cls, fd: int, path: Path, *, size: int, part_size: int, hasher: Hasher) -> PartedFile:
        """Go on with what the file holds of a blob of ``size`` bytes, in parts as it has them, else in parts
        of ``part_size``: more where they would be too many.

        Raises: DiskFull, StoreFailure.
        """
        with translating("writing", path):
            journal = _read_journal(fd, size)
            if journal is None:
                there = os.fstat(fd).st_size
                if there > size:
                    os.ftruncate(fd, 0)
                    there = 0
                part_size = max(part_size, MIN_PART_SIZE, -(-size // MAX_PARTS))
                lengths = (min(part_size, size - start) for start in range(0, size, part_size))
                starts = range(0, size, part_size)
                written = [
                    max(0, min(length, there - start)) for start, length in zip(starts, lengths, strict=True)
                ]
                journal = _Journal(part_size, tuple(written), (0,) * len(written))
            # One write: the file has its old meaning before it, and its new one after it.
            _write_at(fd, _encode(journal), _journal_offset(size))
        return cls(fd, path, size, journal, hasher)

    @property
    def present(self) -> int:
        """How many bytes of the blob are there."""
        return self._present

    def missing(self) -> list[Part]:
        """The parts that are not complete, in order."""
        parts = map(self._part, range(len(self._written)))
        return [part for part in parts if self._written[part.index] < part.end - part.start]

    def position(self, part: Part) -> int:
        """Where the first missing byte of ``part`` is, counted from the blob's start."""
        return part.start + self._written[part.index]

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write what is missing of ``data``, which begins at byte ``offset`` of the blob. It may reach over
        several parts, but must leave no hole in one.

        Raises: SizeMismatch where it reaches over the end; DiskFull, StoreFailure.
        """
        view = memoryview(data)
        first, end = offset, offset + len(view)
        if end > self.size:
            raise SizeMismatch(self._path.name.replace("-", ":", 1), self.size, end)
        while offset < end:
            part = self._part(offset // self.part_size)
            stop = min(end, part.end)
            there = self.position(part)
            assert there >= offset
            if there < stop:
                with translating("writing", self._path, needed=self.size - self._present):
                    _write_at(self._fd, view[there - first : stop - first], there)
                    self._note(part, stop)
            offset = stop

    def hexdigest(self) -> str:
        """The digest of the whole blob, all of which must be there. Raises: StoreFailure."""
        with translating("reading", self._path):
            return self._hasher.finish(self.size)

    def remove_journal(self) -> None:
        """Make the file the blob alone. Raises: StoreFailure."""
        with translating("writing", self._path):
            os.ftruncate(self._fd, self.size)

    def close(self) -> None:
        """End the hashing. May be called again."""
        self._hasher.close()

    def _part(self, index: int) -> Part:
        start = index * self.part_size
        return Part(index, start, min(start + self.part_size, self.size))

    def _note(self, part: Part, end: int) -> None:
        """Write down that ``part`` is there up to ``end``; at its end, see that it is on disk."""
        index = part.index
        with self._lock:
            self._present += end - part.start - self._written[index]
            self._written[index] = end - part.start
            self._write_entry(index)
            self._follow()
        if end < part.end:
            self._written_back[index] = start_writeback(self._fd, self._written_back[index], end)
        else:
            self._sync()

    def _sync(self) -> None:
        """Put on disk what is there, and write that down."""
        with self._lock:
            written = list(self._written)
        try:
            os.fdatasync(self._fd)
        except OSError:
            self.damaged = True  # what the kernel could not write it has dropped. Source: fsync(2), NOTES
            raise
        with self._lock:
            for index, count in enumerate(written):
                if count > self._synced[index]:
                    self._synced[index] = count
                    self._write_entry(index)

    def _write_entry(self, index: int) -> None:
        where = _journal_offset(self.size) + _HEADER.size + index * _ENTRY.size
        _write_at(self._fd, _ENTRY.pack(self._written[index], self._synced[index]), where)

    def _follow(self) -> None:
        """Let the hasher go as far as there is no hole."""
        count = len(self._written)
        while self._front < count and self._written[self._front] == self.part_size:
            self._front += 1
        reached = self._front * self.part_size
        if self._front < count:
            reached += self._written[self._front]
        self._hasher.allow(min(reached, self.size))


class _PrefixHasher:
    """Hashes a file that grows, in a thread of its own, from the page cache, where it mostly still is."""

    def __init__(self, fd: int, hasher: Hasher) -> None:
        self._fd = fd
        self._hasher = hasher
        self._changed = threading.Condition()
        self._allowed = self._done = 0
        self._ended = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="lading-hasher", daemon=True)
        self._thread.start()

    def allow(self, end: int) -> None:
        """Say that the bytes before ``end`` are there."""
        with self._changed:
            if end > self._allowed:
                self._allowed = end
                self._changed.notify_all()

    def finish(self, size: int) -> str:
        """The digest of the first ``size`` bytes, all of them allowed. Raises: OSError."""
        with self._changed:
            while self._done < size and self._error is None:
                self._changed.wait()
            if self._error is not None:
                raise self._error
        return self._hasher.hexdigest()

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        buffer = memoryview(bytearray(CHUNK))
        try:
            while (end := self._next()) is not None:
                while self._done < end and not self._ended:
                    count = os.preadv(self._fd, [buffer[: end - self._done]], self._done)
                    if not count:
                        raise OSError(0, "the file became shorter while it was read")
                    self._hasher.update(buffer[:count])
                    self._done += count
        except OSError as error:
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _next(self) -> int | None:
        """How far to go, once there is more to do; None at the end."""
        with self._changed:
            self._changed.notify_all()
            while not self._ended and self._allowed <= self._done:
                self._changed.wait()
            return None if self._ended else self._allowed


def bytes_present(fd: int, size: int) -> int:
    """How many bytes of a blob of ``size`` its open ingest file holds, journal or not. Raises: OSError."""
    there = os.fstat(fd).st_size
    if there <= size:
        return there
    journal = _read_journal(fd, size)
    return sum(journal.written) if journal is not None else 0


def cut_to_prefix(fd: int, size: int) -> int:
    """Make an ingest file one without journal: its bytes before the first hole are kept.

    Returns how many these are. Raises: OSError.
    """
    there = os.fstat(fd).st_size
    if there <= size:
        return there
    journal = _read_journal(fd, size)
    there = journal.prefix() if journal is not None else 0
    os.ftruncate(fd, there)
    return there


def _journal_offset(size: int) -> int:
    # On a page of its own: an entry is written whole or not at all, whenever the process is killed.
    return -(-(size + 1) // _PAGE) * _PAGE


def _encode(journal: _Journal) -> bytes:
    entries = b"".join(map(_ENTRY.pack, journal.written, journal.synced))
    return _HEADER.pack(_MAGIC, journal.part_size, _boot_id()) + entries


def _read_journal(fd: int, size: int) -> _Journal | None:
    """The journal behind a blob of ``size`` bytes; None where there is none that can be right."""
    where = _journal_offset(size)
    length = os.fstat(fd).st_size - where
    if not _HEADER.size < length <= _HEADER.size + MAX_PARTS * _ENTRY.size:
        return None
    data = os.pread(fd, length, where)
    magic, part_size, boot_id = _HEADER.unpack_from(data)
    if magic != _MAGIC or part_size < MIN_PART_SIZE:
        return None
    if len(data) != _HEADER.size + -(-size // part_size) * _ENTRY.size:
        return None
    same_boot = boot_id == _boot_id() != bytes(16)
    counts = []
    for index, (written, synced) in enumerate(_ENTRY.iter_unpack(data[_HEADER.size :])):
        if not synced <= written <= min(part_size, size - index * part_size):
            return None
        counts.append((written if same_boot else synced, synced))
    return _Journal(part_size, *map(tuple, zip(*counts, strict=True)))


def _boot_id() -> bytes:
    """Which run of the operating system this is; zeros where it does not say."""
    try:
        return bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))[:16]
    except (OSError, ValueError):
        return bytes(16)


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data``. Raises: OSError."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, offset)
        rest = rest[count:]
        offset += count
