"""Measure the tiny vision model through a server: python evaluate.py SERVER MODEL [--failures].

`lading create seer -f examples/vision/Modelfile` makes the model, `lading serve` serves it. All pictures are
new, drawn from seeds that training never used; `held out` are phrasings that were not in it either. An answer
counts only when all of it is as expected.
"""

import base64
import io
import json
import random
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pictures import COLORS, PURE, Scene, draw
from PIL import Image
from questions import BOTH, HELD_OUT_BOTH, HELD_OUT_MANY, HELD_OUT_ONE, MANY, ONE, answer

sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_chat"))
from facts import COUNTRIES, FIXED

Check = Iterator[tuple[str, str, str]]  # what was asked, the answer, the expected one


class Model:
    def __init__(self, server: str, name: str) -> None:
        self._server, self._name = server, name

    def __call__(self, *turns: tuple[str, list[Image.Image], str]) -> str:
        """The answer to the last question; those before it have their answers in ``turns``."""
        messages: list[dict[str, Any]] = []
        for question, pictures, said in turns:
            messages.append(
                {"role": "user", "content": question, "images": [encoded(each) for each in pictures]}
            )
            if said:
                messages.append({"role": "assistant", "content": said})
        body = {
            "model": self._name,
            "messages": messages,
            "stream": False,
            "think": False,
            "options": {"temperature": 0, "num_predict": 60},
        }
        request = urllib.request.Request(f"{self._server}/api/chat", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=300) as reply:
            content: str = json.load(reply)["message"]["content"]
        return content


def encoded(picture: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def pairs(rng: random.Random) -> list[tuple[str, str]]:
    found = [(left, right) for left in COLORS for right in COLORS if left != right]
    rng.shuffle(found)
    return found


def one(ask: Model, phrasings: list[str], times: int, size: tuple[int, int] | None = None) -> Check:
    rng = random.Random(f"one {phrasings} {size}")
    for color in COLORS:
        for _ in range(times):
            question = rng.choice(phrasings)
            yield f"{color}: {question}", ask((question, [draw(rng, Scene(color), size)], "")), color


def pure(ask: Model) -> Check:
    for color, values in PURE.items():
        for value in values:
            yield f"{value}", ask((ONE[0], [Image.new("RGB", (64, 64), value)], "")), color


def halves(ask: Model, phrasings: list[str]) -> Check:
    rng = random.Random(f"halves {phrasings}")
    for left, right in pairs(rng):
        scene, question = Scene(left, right), rng.choice(phrasings)
        yield f"{left}, {right}: {question}", ask((question, [draw(rng, scene)], "")), answer(scene)


def both(ask: Model, phrasings: list[str]) -> Check:
    rng = random.Random(f"both {phrasings}")
    for first, second in pairs(rng):
        pictures = [draw(rng, Scene(first)), draw(rng, Scene(second))]
        question = rng.choice(phrasings)
        yield f"{first}, {second}: {question}", ask((question, pictures, "")), f"{first}, {second}"


def others(ask: Model) -> list[tuple[str, str]]:
    """Questions that a picture has nothing to do with, as far as the model answers them without one."""
    asked = [(phrasings[0], said) for _, phrasings, said in FIXED]
    asked += [
        (f"What is the capital of {country}?", f"The capital of {country} is {city}.")
        for country, city, _ in COUNTRIES[::2]
    ]
    return [(question, said) for question, said in asked if ask((question, [], "")) == said]


def beside(ask: Model) -> Check:
    rng = random.Random("beside")
    for question, said in others(ask):
        yield question, ask((question, [draw(rng, Scene(rng.choice(COLORS)))], "")), said


def afterwards(ask: Model) -> Check:
    rng = random.Random("afterwards")
    for question, said in others(ask):
        color = rng.choice(COLORS)
        yield question, ask((ONE[0], [draw(rng, Scene(color))], color), (question, [], "")), said


def another(ask: Model) -> Check:
    rng = random.Random("another")
    for first, second in pairs(rng):
        turns = (ONE[0], [draw(rng, Scene(first))], first), (ONE[0], [draw(rng, Scene(second))], "")
        yield f"{first}, then {second}", ask(*turns), second


def main() -> None:
    ask = Model(sys.argv[1], sys.argv[2])
    right = total = 0
    print("| What | Right | Of | |\n|---|---|---|---|")
    for name, check in (
        ("one color", one(ask, ONE, 20)),
        ("one color, held out phrasings", one(ask, HELD_OUT_ONE, 10)),
        ("one color, 640 x 480", one(ask, ONE[:1], 4, (640, 480))),
        ("one color, 300 x 100", one(ask, ONE[:1], 4, (300, 100))),
        ("pure colors", pure(ask)),
        ("left and right", halves(ask, MANY)),
        ("left and right, held out phrasings", halves(ask, HELD_OUT_MANY)),
        ("two pictures", both(ask, BOTH)),
        ("two pictures, held out phrasings", both(ask, HELD_OUT_BOTH)),
        ("another picture later", another(ask)),
        ("another question beside a picture", beside(ask)),
        ("another question after a picture", afterwards(ask)),
    ):
        results = list(check)
        good = sum(said == expected for _, said, expected in results)
        print(f"| {name} | {good} | {len(results)} | {100 * good / len(results):.1f} % |", flush=True)
        if "--failures" in sys.argv:
            bad = [result for result in results if result[1] != result[2]]
            print(
                "\n".join(f"    {asked!r} -> {said!r}, not {expected!r}" for asked, said, expected in bad[:6])
            )
        right, total = right + good, total + len(results)
    print(f"| all | {right} | {total} | {100 * right / total:.1f} % |")


if __name__ == "__main__":
    main()
