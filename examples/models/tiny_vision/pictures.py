"""Pictures that the tiny vision model sees: of one color, or of one on the left and another on the right.

`draw` makes a picture as a user would send it, of any size; `seen` is what llama.cpp makes of it for a
projector of the kind `mlp`: made to fit a square by bicubic resampling, the rest filled with a gray.
"""

import colorsys
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageFilter

SIDE = 48  # pixels of what the model sees
PAD = (122, 116, 104)  # llama.cpp, tools/mtmd/clip.cpp: image_pad_color of llava

# Hue in degrees, saturation and value in percent: from, to.
RANGES = {
    "red": ((-8, 8), (80, 100), (70, 100)),
    "orange": ((25, 37), (85, 100), (90, 100)),
    "yellow": ((52, 62), (75, 100), (88, 100)),
    "green": ((95, 145), (60, 100), (40, 100)),
    "blue": ((212, 248), (70, 100), (55, 100)),
    "purple": ((272, 292), (55, 100), (40, 80)),
    "pink": ((325, 345), (30, 60), (92, 100)),
    "black": ((0, 360), (0, 60), (0, 10)),
    "white": ((0, 360), (0, 4), (93, 100)),
}
COLORS = list(RANGES)
PURE = {
    "red": [(255, 0, 0), (220, 20, 60)],
    "orange": [(255, 165, 0), (255, 140, 0)],
    "yellow": [(255, 255, 0), (255, 215, 0)],
    "green": [(0, 128, 0), (0, 255, 0)],
    "blue": [(0, 0, 255), (30, 100, 255)],
    "purple": [(128, 0, 128), (148, 0, 211)],
    "pink": [(255, 192, 203), (255, 105, 180)],
    "black": [(0, 0, 0)],
    "white": [(255, 255, 255)],
}


@dataclass(frozen=True)
class Scene:
    """What is to be seen: ``left`` alone, or beside ``right``."""

    left: str
    right: str = ""


def any_scene(rng: random.Random, halved: float = 0.4) -> Scene:
    left = rng.choice(COLORS)
    if rng.random() >= halved:
        return Scene(left)
    return Scene(left, rng.choice([color for color in COLORS if color != left]))


def shade(rng: random.Random, color: str) -> tuple[int, int, int]:
    if rng.random() < 0.3:
        return rng.choice(PURE[color])
    hue, saturation, value = (rng.uniform(*ends) for ends in RANGES[color])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation / 100, value / 100)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw(rng: random.Random, scene: Scene, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture of ``scene``; without ``size`` a random one, up to three times as wide as high, or as high as
    wide."""
    if size is None:
        side = rng.randint(40, 120)
        ratio = 1.0 if rng.random() < 0.5 else 3 ** rng.uniform(-1, 1)
        size = max(24, round(side * ratio**0.5)), max(24, round(side / ratio**0.5))
    picture = Image.new("RGB", size, shade(rng, scene.left))
    if scene.right:
        half = round(size[0] * rng.uniform(0.45, 0.55))
        picture.paste(shade(rng, scene.right), (half, 0, *size))
    if rng.random() < 0.3:
        noise = Image.effect_noise(size, rng.uniform(5, 25)).convert("RGB")
        picture = Image.blend(picture, noise, rng.uniform(0.02, 0.08))
    if rng.random() < 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
    return picture


def seen(picture: Image.Image) -> Image.Image:
    """What reaches the model."""
    width, height = picture.size
    scale = SIDE / max(width, height)
    inner = min(SIDE, math.ceil(width * scale)), min(SIDE, math.ceil(height * scale))
    square = Image.new("RGB", (SIDE, SIDE), PAD)
    resized = picture.resize(inner, Image.Resampling.BICUBIC)
    square.paste(resized, ((SIDE - inner[0]) // 2, (SIDE - inner[1]) // 2))
    return square
