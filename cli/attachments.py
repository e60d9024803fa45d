"""Pictures that a prompt names by their paths, as users of Ollama's ``run`` do: `what is this? ./cat.png`.

Source: Ollama, cmd/interactive.go (``extractFileData``). Here ``../`` and ``~/`` are understood as well, and
GIF and BMP.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..modelfile.errors import UsageError

MAX_IMAGE_SIZE = 32 << 20
"""Bytes of one file: what a runner takes at most."""

_PATH = re.compile(r"(?:~/|\.{1,2}/|/)[\S\\ ]+?\.(?:jpe?g|png|webp|gif|bmp)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")


def names_images(text: str) -> bool:
    """Whether ``text`` names a file that exists and may be a picture."""
    return any(_file(found) for found in _PATH.findall(text))


def take_images(text: str) -> tuple[str, tuple[bytes, ...]]:
    """The text without the paths of pictures, and the pictures' files, in order. Paths where there is no file
    stay text.

    Raises: UsageError where a file cannot be read or is too large.
    """
    images: list[bytes] = []
    for found in _PATH.findall(text):
        path = _file(found)
        if path is None:
            continue
        images.append(_read(path))
        for named in (f"'{found}'", f'"{found}"', found):
            text = text.replace(named, "")
    return text.strip(), tuple(images)


def _file(found: str) -> Path | None:
    """The file at a path as it is typed or dropped into a terminal; None: there is none."""
    for name in (found, _ESCAPE.sub(r"\1", found)):
        path = Path(name).expanduser()
        if path.is_file():
            return path
    return None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IMAGE_SIZE + 1)
    except OSError as error:
        raise UsageError(f"reading {path}: {error.strerror}") from error
    if len(data) > MAX_IMAGE_SIZE:
        raise UsageError(f"reading {path}: expected at most {MAX_IMAGE_SIZE} bytes for a picture")
    return data
