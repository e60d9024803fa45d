"""Downloading one blob.

The bytes go straight to a sink that counts and hashes them; the connection may break any number of times, as
long as each new one brings something. What is wrong with the bytes is found by the sink, at the end at the
latest: nothing is visible before.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from ..descriptor import Descriptor
from ..digest import Digest, new_hasher
from ..errors import DigestMismatch, SizeMismatch
from ..media_type import OCTET_STREAM
from ..store.disk import translating, write_all
from .errors import RegistryError, RegistryUnreachable, RemoteBlobNotFound
from .repository import Repository
from .retry import delay_s
from .transport import content_length


class Sink(Protocol):
    """Where a blob goes: `offset` bytes of it are there. A store's `Ingest` is one."""

    @property
    def offset(self) -> int: ...

    def write(self, data: bytes, /) -> None: ...


def download(repository: Repository, descriptor: Descriptor, sink: Sink) -> int:
    """Brings the rest of the blob, from ``sink.offset`` on, into `sink`, reconnecting where that helps.

    Returns how many connections it took. Then the sink has exactly ``descriptor.size`` bytes, not yet
    verified. On failure it keeps what came.
    Raises: RegistryUnreachable when attempts in a row bring nothing, RemoteBlobNotFound, RegistryDenied,
    RegistryError, SizeMismatch, and what the sink raises.
    """
    policy = repository.settings.retry
    fruitless = connections = 0
    while sink.offset < descriptor.size:
        before = sink.offset
        connections += 1
        try:
            _receive(repository, descriptor, sink)
        except RegistryUnreachable as error:
            fruitless = 1 if sink.offset > before else fruitless + 1
            if not error.transient or fruitless >= policy.tries:
                raise
            repository.sleep(delay_s(policy, fruitless, None, lambda: 0.5))
    return connections


def _receive(repository: Repository, descriptor: Descriptor, sink: Sink) -> None:
    """One connection's worth. Raises: RegistryUnreachable when it ends too early."""
    with repository.open_blob(descriptor, offset=sink.offset) as body:
        # A registry that cannot resume sends all of it again: what is there already is let pass.
        skip = sink.offset - body.start
        for piece in body.pieces:
            fresh = piece[skip:] if skip else piece
            skip = max(0, skip - len(piece))
            if sink.offset + len(fresh) > descriptor.size:
                raise SizeMismatch(str(descriptor.digest), descriptor.size, sink.offset + len(fresh))
            if fresh:
                sink.write(fresh)
    if sink.offset < descriptor.size:
        raise RegistryUnreachable(
            repository.origin.netloc,
            f"fetching blob {descriptor.digest.short}",
            f"the answer ended after {sink.offset} of {descriptor.size} bytes",
            transient=True,
        )


class _FileSink:
    """A file beside its final name, with a running digest."""

    def __init__(self, fd: int, path: Path, digest: Digest) -> None:
        self.offset = 0
        self._fd = fd
        self._path = path
        self._expected = digest
        self._hasher = new_hasher(digest.algorithm)

    def write(self, data: bytes, /) -> None:
        self._hasher.update(data)
        with translating("writing", self._path):
            write_all(self._fd, data)
        self.offset += len(data)

    def verify(self) -> None:
        """Raises: DigestMismatch."""
        got = Digest(self._expected.algorithm, self._hasher.hexdigest())
        if got != self._expected:
            raise DigestMismatch(str(self._expected), str(got))


def download_file(repository: Repository, digest: Digest, path: Path) -> None:
    """Downloads a blob into a file, which is there, whole and verified, or untouched.

    Raises: DigestMismatch, SizeMismatch, DiskFull, StoreFailure, and what `download` raises.
    """
    descriptor = Descriptor(OCTET_STREAM, digest, _size_of(repository, digest))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with translating("writing", path):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            sink = _FileSink(fd, path, digest)
            download(repository, descriptor, sink)
            sink.verify()
            with translating("writing", path):
                os.fsync(fd)
        finally:
            os.close(fd)
        with translating("writing", path):
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _size_of(repository: Repository, digest: Digest) -> int:
    doing = f"looking for blob {digest.short}"
    response = repository.request("HEAD", f"{repository.base}/blobs/{digest}")
    if response.status_code == 404:
        response.close()
        raise RemoteBlobNotFound(digest, repository.origin.netloc)
    if response.status_code != 200:
        raise repository.refusal(response, doing)
    response.close()
    told = content_length(response)
    if told is None:
        raise RegistryError(repository.origin.netloc, doing, "the registry does not tell its size")
    return told
