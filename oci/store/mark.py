"""The verification mark: knowing, without reading it, that a blob was verified and not written since.

A store must notice a damaged blob before it relies on it, but cannot hash 40 GB for every pull. So whoever
verifies a blob sets the nanoseconds of its modification time to a value computed from the blob's digest,
size, inode and modification second. Any write moves the modification time, any copy has another inode, and
then the mark is gone and the blob is hashed again. The mark is part of the file: it is made durable and
visible by the same ``fsync`` and ``rename``, and there is no second file that could disagree.

What it cannot see is decay below the file system, where nobody writes: ``fsck`` ignores marks.
On a file system with coarse time stamps the mark does not hold, and blobs are hashed each time.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress

from ..digest import Digest

_NS = 1_000_000_000
_STEP_NS = 100
"""The coarsest step that common file systems with fine time stamps have (NTFS, CIFS)."""


def set_mark(fd: int, digest: Digest) -> None:
    """Mark the open file as verified. Does nothing where we may not: the file is then hashed again."""
    with suppress(OSError):
        facts = os.fstat(fd)
        second = int(time.time())
        os.utime(fd, ns=(facts.st_atime_ns, second * _NS + _nanoseconds(digest, facts, second)))


def has_mark(facts: os.stat_result, digest: Digest) -> bool:
    """Whether a file with these ``facts`` was verified to be ``digest`` and not written since."""
    second, nanoseconds = divmod(facts.st_mtime_ns, _NS)
    return nanoseconds == _nanoseconds(digest, facts, second)


def _nanoseconds(digest: Digest, facts: os.stat_result, second: int) -> int:
    text = f"{digest} {facts.st_size} {facts.st_ino} {second}".encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    return (number * _STEP_NS) % _NS
