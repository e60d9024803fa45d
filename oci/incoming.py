"""Uploads in the making: blobs that clients of our own registry send in several requests.

An upload is one file in the store's ``ingest/`` folder, ``upload-<id>``, and nothing else: its size is how
far it is. So any process can go on with it, a crash loses nothing that was written, and the sweep removes
what nobody came back for. Whoever writes holds the file locked.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ..modelfile.errors import BusyError, NotFoundError
from .descriptor import Descriptor
from .digest import Digest, Hasher, new_hasher
from .media_type import OCTET_STREAM
from .store import Store
from .store.disk import translating, write_all
from .store.lock import acquire, release
from .store.writeback import start_writeback

MAX_OPEN = 512
"""Uploads that may be unfinished at the same time: a bound on what clients that never finish can leave."""

_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = "upload-"
_ALGORITHM = "sha256"
"""Hashed on arrival. Which one is wanted is said at the end; it is hardly ever another."""


class UploadUnknown(NotFoundError):
    """There is no such upload: finished, cancelled, swept, or never begun."""

    def __init__(self) -> None:
        super().__init__("the upload is unknown")


class UploadBusy(BusyError):
    """Another request is writing to the same upload."""

    def __init__(self) -> None:
        super().__init__("another request is writing to the same upload")


class TooManyUploads(BusyError):
    """Too many uploads are unfinished."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_OPEN} uploads are unfinished", hint="lading gc removes old ones")


class Upload:
    """An upload, open and locked for writing at its end. `size`: the bytes that have arrived; `hashed`: how
    many of them the hasher has seen."""

    def __init__(self, fd: int, path: Path, hasher: Hasher, hashed: int) -> None:
        self.size = os.fstat(fd).st_size
        self.hasher = hasher
        self.hashed = hashed
        self._fd = fd
        self._path = path
        self._written_back = self.size

    def append(self, data: bytes) -> None:
        """Raises: DiskFull, StoreFailure; then what was written of `data` is cut off again, if possible."""
        with translating("writing", self._path):
            try:
                write_all(self._fd, data)
            except OSError:
                os.ftruncate(self._fd, self.size)
                raise
        if self.hashed == self.size:  # else another process has written between, and the rest is read later
            self.hasher.update(data)
            self.hashed += len(data)
        self.size += len(data)
        self._written_back = start_writeback(self._fd, self._written_back, self.size)


@dataclass(frozen=True, slots=True)
class IncomingUploads:
    """The unfinished uploads of a store. Safe to use from several threads and processes.

    Each object remembers the hashes of what it has received, so that the end of an upload need not read all
    of it again. Uploads only grow, so what another process adds meanwhile does not matter.
    """

    store: Store
    _hashed: dict[str, tuple[Hasher, int]] = field(default_factory=dict)

    def begin(self) -> str:
        """A new upload's id. Raises: TooManyUploads, DiskFull, StoreReadOnly, StoreFailure."""
        folder = self.store.layout.ingest
        with translating("writing", folder):
            folder.mkdir(exist_ok=True)
            if sum(1 for _ in folder.glob(f"{_PREFIX}*")) >= MAX_OPEN:
                raise TooManyUploads
            upload_id = secrets.token_hex(16)
            os.close(os.open(folder / f"{_PREFIX}{upload_id}", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return upload_id

    def size(self, upload_id: str) -> int:
        """The bytes that have arrived. Raises: UploadUnknown."""
        path = self._path(upload_id)
        try:
            return path.lstat().st_size
        except FileNotFoundError:
            raise UploadUnknown from None

    @contextmanager
    def open(self, upload_id: str) -> Iterator[Upload]:
        """The upload, to be written to. Raises: UploadUnknown, UploadBusy."""
        path = self._path(upload_id)
        with translating("opening", path):
            try:
                fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise UploadUnknown from None
        if not acquire(fd, wait_s=0):
            os.close(fd)
            raise UploadBusy
        hasher, hashed = self._hashed.pop(upload_id, (new_hasher(_ALGORITHM), 0))
        upload = Upload(fd, path, hasher, hashed)
        try:
            yield upload
        finally:
            self._remember(upload_id, upload)
            release(fd)

    def commit(self, upload_id: str, digest: Digest) -> int:
        """Makes the upload a blob and returns its size. An upload that is not what the digest says is gone.

        Raises: UploadUnknown, DigestMismatch, IngestBusy.
        """
        size = self.size(upload_id)
        known = self._hashed.pop(upload_id, None)
        self.store.adopt(
            self._path(upload_id),
            Descriptor(OCTET_STREAM, digest, size),
            known=known if digest.algorithm == _ALGORITHM else None,
        )
        return size

    def cancel(self, upload_id: str) -> None:
        """Forgets the upload. Raises: UploadUnknown."""
        path = self._path(upload_id)
        self._hashed.pop(upload_id, None)
        with translating("removing", path):
            try:
                path.unlink()
            except FileNotFoundError:
                raise UploadUnknown from None

    def _remember(self, upload_id: str, upload: Upload) -> None:
        while len(self._hashed) >= MAX_OPEN:  # of uploads that nobody has finished, the oldest
            self._hashed.pop(next(iter(self._hashed)))
        self._hashed[upload_id] = (upload.hasher, upload.hashed)

    def _path(self, upload_id: str) -> Path:
        if not _ID.fullmatch(upload_id):
            raise UploadUnknown
        return self.store.layout.ingest / f"{_PREFIX}{upload_id}"
