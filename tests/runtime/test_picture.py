"""Pictures from anybody: what is decoded, what is refused, and that refusing costs nothing."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, hostile_files, picture_file, png_claiming
from PIL import Image

from lading.runtime.errors import BadRequest
from lading.runtime.runner.image_cells import cells_of, whole_images
from lading.runtime.runner.picture import FORMATS, MAX_BYTES, MAX_SIDE, read_picture


@pytest.mark.parametrize("form", FORMATS)
def test_every_kind_of_file(form: str) -> None:
    seen = read_picture(picture_file("red", size=(30, 20), form=form))
    assert (seen.width, seen.height, len(seen.pixels)) == (30, 20, 30 * 20 * 3)
    red, green, blue = seen.pixels[:3]
    assert red > 250 and green < 5 and blue < 5


def test_what_is_seen() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert read_picture(encoded(clear)).pixels == b"\xff" * 192, "transparent: white"
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([*[0] * 9, 0, 128, 0])
    assert read_picture(encoded(palette, "GIF")).pixels[:3] == b"\x00\x80\x00"
    assert read_picture(encoded(Image.new("L", (8, 8), 7))).pixels[:3] == b"\x07\x07\x07"
    assert read_picture(encoded(Image.new("CMYK", (8, 8)), "JPEG")).pixels[:3] == b"\xff\xff\xff"
    lying = Image.new("RGB", (30, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    assert read_picture(encoded(lying, "JPEG", exif=exif)).width == 20
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    for form in ("GIF", "WEBP", "PNG"):
        first = read_picture(encoded(frames[0], form, save_all=True, append_images=frames[1:]))
        assert first.pixels[0] > 250, "of an animation the first picture"


def test_large_pictures_are_made_smaller() -> None:
    seen = read_picture(picture_file("blue", size=(MAX_SIDE + 904, 500), form="JPEG"))
    assert seen.width <= MAX_SIDE and seen.height == round(500 * seen.width / (MAX_SIDE + 904))


def test_digests_are_of_what_is_seen() -> None:
    red = read_picture(picture_file("red")).digest
    assert red == read_picture(picture_file("red", form="BMP")).digest
    others = [picture_file("blue"), picture_file("red", size=(32, 128)), picture_file("red", size=(128, 32))]
    assert len({red, *(read_picture(other).digest for other in others)}) == 4


@pytest.mark.parametrize("name", hostile_files())
def test_what_is_refused(name: str) -> None:
    data, reason = hostile_files()[name]
    with pytest.raises(BadRequest, match=reason) as caught:
        read_picture(data)
    assert "0x" not in str(caught.value) and "PIL" not in str(caught.value)
    assert caught.value.hint


def test_a_file_that_is_too_large() -> None:
    with pytest.raises(BadRequest, match="bytes"):
        read_picture(bytes(MAX_BYTES + 1))


def test_bombs_take_no_memory() -> None:
    """In a process that has little: what the header claims is never allocated."""
    program = (
        "import sys\n"
        "from lading.runtime.runner.picture import read_picture\n"
        "try:\n    read_picture(sys.stdin.buffer.read())\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=png_claiming(20_000, 20_000, bytes(50_000)),
        capture_output=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20)),
    )
    assert done.stdout.startswith(b"BadRequest") and b"pixels" in done.stdout


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_a_picture_or_a_refusal(form: str, data: st.DataObject) -> None:
    file = bytearray(picture_file("red", "white", size=(40, 30), form=form))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        seen = read_picture(bytes(file[: data.draw(st.integers(1, len(file)))]))
    except BadRequest:
        return
    assert len(seen.pixels) == seen.width * seen.height * 3


# What stands for them in a prompt


def test_cells_tell_pictures_and_their_pieces_apart() -> None:
    red, blue = (read_picture(picture_file(color)).digest for color in ("red", "blue"))
    assert (cells_of(red, 0, 64) == cells_of(red, 0, 64)).all()
    for other in (cells_of(blue, 0, 64), cells_of(red, 1, 64)):
        assert (cells_of(red, 0, 64) != other).all()
    assert (cells_of(red, 0, 5000) < -1).all()


def test_cuts_go_around_pieces() -> None:
    first, second = cells_of(b"a" * 32, 0, 5).tolist(), cells_of(b"b" * 32, 0, 3).tolist()
    cells = [10, 11, *first, *second, 12, 13]
    wanted = [0, 1, 2, 2, 2, 2, 2, 7, 7, 7, 10, 11, 12]
    assert [whole_images(cells, size) for size in range(len(cells) + 1)] == wanted
