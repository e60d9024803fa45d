"""Pictures that a prompt names by their paths, as users of Ollama's ``run`` do: `what is this? ./cat.png`.

Source: Ollama, cmd/interactive.go (``extractFileData``). Here every path with a slash in it is understood,
not those alone that begin with one or with ``./``; GIF and BMP are pictures, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..modelfile.errors import UsageError

MAX_IMAGE_SIZE = 32 << 20
"""Bytes of one file: what a runner takes at most."""

_PATH = re.compile(r"[~\w.+-]*/[^\n\t]{1,1000}?\.(?:jpe?g|png|webp|gif|bmp)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_MAX_TYPED = 16_384
"""Characters of what somebody may have typed. Longer texts name no files."""


def names_images(text: str) -> bool:
    """Whether ``text`` names a file that exists and may be a picture."""
    return next(_named(text), None) is not None


def take_images(text: str) -> tuple[str, tuple[bytes, ...]]:
    """The text without the paths of pictures, and the pictures' files, in order. Paths where there is no file
    stay text.

    Raises: UsageError where a file cannot be read or is too large.
    """
    images: list[bytes] = []
    for found, path in list(_named(text)):
        images.append(_read(path))
        for named in (f"'{found}'", f'"{found}"', found):
            text = text.replace(named, "")
    return text.strip(), tuple(images)


def _named(text: str) -> Iterator[tuple[str, Path]]:
    """What names a file, and the file. Spaces belong to a path where it leads somewhere with them."""
    at = 0
    while len(text) <= _MAX_TYPED and (match := _PATH.search(text, at)):
        path = _file(match[0])
        if path is None:
            at = match.start() + 1
        else:
            yield match[0], path
            at = match.end()


def _file(found: str) -> Path | None:
    """The file at a path as it is typed or dropped into a terminal; None: there is none."""
    for name in (found, _ESCAPE.sub(r"\1", found)):
        try:
            path = Path(name).expanduser()
            if path.is_file():
                return path
        except (OSError, RuntimeError):  # too long a name; a user who has no home
            continue
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
