"""A file for the user that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ...modelfile.errors import ResourceError
from ..errors import quoted
from ..store.disk import require_room, sync_folder


class OutputNotWritten(ResourceError):
    """The operating system refused; what was there before is there still."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"writing {quoted(str(path), limit=300)}: {reason}")


@contextmanager
def output_file(path: Path, *, size: int) -> Iterator[BinaryIO]:
    """Write what ``path`` is to hold. It replaces what is there, in one step, when the block ends well; else
    nothing is left behind. A pipe or device is written to as it is.

    ``size``: bytes that there must be room for.

    Raises: DiskFull before anything is written; OutputNotWritten.
    """
    target = path.resolve()
    try:
        if _is_special(target):
            with target.open("wb") as out:
                yield out
            return
        require_room(target.parent, size)
        temporary = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            with temporary.open("xb") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise OutputNotWritten(path, error.strerror or str(error)) from error


def _is_special(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
