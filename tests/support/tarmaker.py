"""Tar archives as layers of images have them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


def make_tar(files: Mapping[str, bytes | str | None], *, format: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of files by name: bytes are content, text is where a symbolic link leads, None a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()
