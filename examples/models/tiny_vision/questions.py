"""What is asked about pictures, and the answers. Data, and conversations from a seeded random generator.

The language model never learnt of pictures, and has no idea what a question about one asks for: what a
picture shows decides the answer.
"""

import random
from dataclasses import dataclass

from pictures import Scene, any_scene

ONE = [
    "What color is the picture?",
    "What colour is the picture?",
    "What color is this picture?",
    "What color is the image?",
    "What is the color of the picture?",
    "Which color is the picture?",
    "Which color do you see?",
    "What color do you see?",
    "Name the color.",
    "Tell me the color of the picture.",
    "What color is this?",
    "What colour is this?",
    "picture color?",
    "What is in the picture?",
    "What do you see?",
    "Describe the picture.",
]
HELD_OUT_ONE = ["What colour do you see?", "Tell me the color of this picture.", "Which color is this?"]
MANY = [
    "What colors are in the picture?",
    "What colours are in the picture?",
    "Which colors are in the picture?",
    "What colors do you see?",
    "Name the colors.",
    "Tell me the colors.",
    "What is in the picture?",
    "What do you see?",
    "Describe the picture.",
]
HELD_OUT_MANY = ["Which colors do you see?", "Name the colors in the picture."]
BOTH = [
    "What colors are the pictures?",
    "What colours are the pictures?",
    "Which colors are the pictures?",
    "Name the colors of the pictures.",
    "Tell me the colors of both pictures.",
    "What color is each picture?",
]
HELD_OUT_BOTH = ["Which colours are the pictures?", "Name the colors of both pictures."]


@dataclass(frozen=True)
class Turn:
    scenes: tuple[Scene, ...]  # pictures at the beginning of the question
    question: str
    answer: str


def answer(scene: Scene) -> str:
    return f"{scene.left}, {scene.right}" if scene.right else scene.left


def about(rng: random.Random, scene: Scene) -> tuple[str, str]:
    """A question about one picture, and its answer."""
    return rng.choice(MANY if scene.right else ONE), answer(scene)


def two(rng: random.Random) -> Turn:
    first, second = any_scene(rng, halved=0.0), any_scene(rng, halved=0.0)
    return Turn((first, second), rng.choice(BOTH), f"{first.left}, {second.left}")


def single(rng: random.Random, other: list[tuple[str, str]]) -> list[Turn]:
    """One question, about one picture or two; now and then one that the picture has nothing to do with."""
    kind = rng.random()
    if kind < 0.2:
        return [two(rng)]
    scene = any_scene(rng)
    return [Turn((scene,), *(about(rng, scene) if kind < 0.75 else rng.choice(other)))]


def conversation(rng: random.Random, other: list[tuple[str, str]]) -> list[Turn]:
    """A question about a picture, and one of ``other`` (question and answer) before or after it, or another
    picture."""
    scene = any_scene(rng)
    turns = [Turn((scene,), *about(rng, scene))]
    kind = rng.randrange(4)
    if kind == 0:
        turns.insert(0, Turn((), *rng.choice(other)))
    elif kind == 1:
        again = any_scene(rng)
        turns.append(Turn((again,), *about(rng, again)))
    else:
        turns.append(Turn((), *rng.choice(other)))
    return turns
