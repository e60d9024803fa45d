"""Reading blobs: opening, checking and loading what lies under a digest."""

from __future__ import annotations

import errno
import os

from ..digest import Digest
from ..errors import BlobNotFound, DigestMismatch, SizeMismatch
from .contents import find_assembled, hash_assembled, is_marked, mark_contents
from .disk import open_regular, translating
from .hashing import hash_file
from .layout import StoreLayout
from .mark import has_mark, set_mark

REPAIR_HINT = "lading fsck --repair takes damaged blobs away; then pull or create the model again"

NOT_A_BLOB = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV}
)
"""What opening says where there is no file, or a link, folder or device. Other refusals are not "absent"."""


def find_blob(layout: StoreLayout, digest: Digest) -> int | None:
    """The blob opened for reading; None where there is none. The caller closes it.

    Raises: StoreReadOnly, StoreFailure where it may be there but cannot be opened.
    """
    path = layout.blob(digest)
    with translating("reading", path):
        try:
            return open_regular(path, follow_links=False)
        except OSError as error:
            if error.errno in NOT_A_BLOB:
                return None
            raise


def open_blob(layout: StoreLayout, digest: Digest) -> int:
    """The blob opened for reading; the caller closes it. Raises: BlobNotFound, StoreFailure."""
    fd = find_blob(layout, digest)
    if fd is None:
        raise BlobNotFound(str(digest))
    return fd


def read_blob(layout: StoreLayout, digest: Digest, *, limit: int) -> bytes:
    """The bytes of a blob, verified. ``limit`` is the most bytes that are accepted.

    Raises: BlobNotFound; DigestMismatch; SizeMismatch where it is larger than ``limit``; StoreFailure.
    """
    with translating("reading", layout.blob(digest)), os.fdopen(open_blob(layout, digest), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise SizeMismatch(str(digest), limit, size, hint="it is larger than such content may be")
        data = file.read(limit + 1)
    found = Digest.of(data, algorithm=digest.algorithm)
    if found != digest:
        raise DigestMismatch(str(digest), str(found), hint=REPAIR_HINT)
    return data


def is_intact(layout: StoreLayout, digest: Digest, size: int | None) -> bool:
    """Whether the blob is there with the right content, and ``size`` bytes where that is given.

    Reads all of it, unless it bears the mark of having been verified; then marks it. A layer that is
    assembled is as sound as its record and its files.

    Raises: StoreFailure.
    """
    fd = find_blob(layout, digest)
    if fd is None:
        return _is_assembled_intact(layout, digest, size)
    try:
        facts = os.fstat(fd)
        if size is not None and facts.st_size != size:
            return False
        if has_mark(facts, digest):
            return True
        with translating("reading", layout.blob(digest)):
            found, _ = hash_file(fd, algorithm=digest.algorithm)
        if found == digest:
            set_mark(fd, digest)
        return found == digest
    finally:
        os.close(fd)


def _is_assembled_intact(layout: StoreLayout, digest: Digest, size: int | None) -> bool:
    contents = find_assembled(layout, digest)
    if contents is None or (size is not None and size != contents.size):
        return False
    if not all(is_intact(layout, file.digest, file.size) for file in contents.files):
        return False
    if is_marked(layout, digest):
        return True
    with translating("reading", layout.contents_of(digest)):
        if hash_assembled(layout, contents) != digest:
            return False
    mark_contents(layout, digest)
    return True
