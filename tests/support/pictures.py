"""Pictures for tests, made as a user's would be: files of every kind, and files that are none."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def picture_file(
    left: str, right: str = "", *, size: tuple[int, int] = (64, 64), form: str = "PNG", **options: Any
) -> bytes:
    """A file that shows one color, or one on the left and another on the right."""
    picture = Image.new("RGB", size, left)
    if right:
        picture.paste(right, (size[0] // 2, 0, *size))
    return encoded(picture, form, **options)


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def png_claiming(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size, whatever it holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def hostile_files() -> dict[str, tuple[bytes, str]]:
    """Files that must be refused, each with a part of the reason."""
    whole = picture_file("red", size=(200, 200), form="JPEG")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>'
    return {
        "empty": (b"", "empty"),
        "text": (b"hello", "no picture"),
        "SVG": (svg, "no picture"),
        "TIFF": (picture_file("red", form="TIFF"), "no picture"),
        "ICO": (picture_file("red", form="ICO"), "no picture"),
        "PPM": (picture_file("red", form="PPM"), "no picture"),
        "PDF": (b"%PDF-1.4\n", "no picture"),
        "EPS, which others hand to Ghostscript": (picture_file("red", form="EPS"), "no picture"),
        "sound": (b"RIFF$\x00\x00\x00WAVEfmt ", "no picture"),
        "header alone": (b"\x89PNG\r\n\x1a\n", "no picture"),
        "JPEG cut short": (whole[: len(whole) // 2], "damaged"),
        "PNG cut short": (picture_file("red", size=(200, 200))[:90], "damaged"),
        "PNG bomb": (png_claiming(150_000, 150_000, bytes(1000)), "pixels"),
        "PNG beyond what can be counted": (png_claiming(2**31 - 1, 2**31 - 1), "pixels"),
        "a little too large": (png_claiming(8001, 8000), "pixels"),
        "nothing behind the header": (png_claiming(4000, 4000), "damaged"),
        "no width": (png_claiming(0, 10), "no picture"),
        "a strip": (picture_file("red", size=(1010, 10)), "shape"),
        "a strip that stands": (picture_file("red", size=(1, 200)), "shape"),
    }
