"""Pictures that requests bring, decoded with Pillow. Runner process only: the bytes may come from anybody.

What kind of file it is and how large it says to be is read from its header and checked before any of it is
decoded; only the first picture of an animation is.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

from PIL import Image, ImageOps

from ..errors import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_BYTES = 32 * 1024 * 1024
"""Of one file."""
MAX_PIXELS = 64 * 1000 * 1000
"""Of one picture: what the largest cameras make, 200 MB when decoded."""
MAX_SIDE = 4096
"""Pixels of the longer side; larger pictures are made smaller. No projector looks at more at a time."""
MAX_RATIO = 100
"""Between the sides. Projectors cut pictures into tiles and count on a sensible shape."""

_HINT = f"send a file of one of these kinds: {', '.join(FORMATS)}"


@dataclass(frozen=True, slots=True)
class Picture:
    """Rows of pixels from the top, three bytes for each: red, green, blue."""

    width: int
    height: int
    pixels: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of what is to be seen, whatever file it came in."""
        size = self.width.to_bytes(4, "big") + self.height.to_bytes(4, "big")
        return hashlib.sha256(size + self.pixels).digest()


def read_picture(data: bytes) -> Picture:
    """The picture in a file, upright, on white where it is transparent.

    Raises: BadRequest.
    """
    if not data:
        raise BadRequest("reading a picture: it is empty", hint=_HINT)
    if len(data) > MAX_BYTES:
        raise BadRequest(f"reading a picture: expected at most {MAX_BYTES} bytes, got {len(data)}")
    with _opened(data) as image:
        _check_size(*image.size)
        try:
            return _decoded(image)
        except Exception as error:  # of many kinds; what they say may tell of this process
            raise BadRequest("reading a picture: the file is damaged or cut short", hint=_HINT) from error


def _opened(data: bytes) -> Image.Image:
    """With its header read, and nothing more."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    except Exception as error:
        raise BadRequest("reading a picture: it is no picture that can be read", hint=_HINT) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large()
    if min(width, height) < 1 or max(width, height) > MAX_RATIO * min(width, height):
        raise BadRequest(
            f"reading a picture: {width} x {height} is no shape for a picture",
            hint=f"one side may be {MAX_RATIO} times as long as the other, at most",
        )


def _too_large() -> BadRequest:
    return BadRequest(f"reading a picture: it has more than {MAX_PIXELS} pixels", hint="make it smaller")


def _decoded(image: Image.Image) -> Picture:
    image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # a large JPEG is decoded at half its size, or less
    image.load()
    upright = ImageOps.exif_transpose(image)
    if "A" in upright.getbands() or "transparency" in upright.info:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    plain = upright.convert("RGB")
    plain.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    return Picture(plain.width, plain.height, plain.tobytes())
