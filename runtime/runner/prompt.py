"""A prompt as it will be evaluated: tokens, and images among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec import structs

from ..protocol import Generate, Message
from .image_cells import ImagePiece, PlacedPiece
from .shield import Shield

_PLACE = "[img]"


@dataclass(frozen=True, slots=True)
class Prompt:
    """``tokens`` has the cells of ``images`` in it."""

    text: str
    """For people: images are ``[img-0]``, ``[img-1]``, …"""
    tokens: list[int]
    images: tuple[PlacedPiece, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of_parts(cls, text: str, parts: Iterable[Sequence[int] | ImagePiece]) -> Prompt:
        tokens: list[int] = []
        images: list[PlacedPiece] = []
        for part in parts:
            if isinstance(part, ImagePiece):
                images.append(PlacedPiece(len(tokens), part))
                tokens.extend(part.cells.tolist())
            else:
                tokens.extend(part)
        return cls(text, tokens, tuple(images))


def with_image_marks(message: Message, shield: Shield) -> Message:
    """The message with marks in its content where its images stand, in place of the images.

    Where it does not say where they stand, each stands where the text says ``[img]``, and those for which it
    does not, before all of it. Source: Ollama, server/prompt.go (``chatPrompt``).
    """
    if not message.images:
        return message
    marks = [shield.image(image) for image in message.images]
    content = message.content
    if message.image_at:
        ends = pairwise((*message.image_at, len(content)))
        texts = [content[: message.image_at[0]], *(content[at:end] for at, end in ends)]
    else:
        texts = content.split(_PLACE, len(marks))
    placed = "".join(mark + text for mark, text in zip(marks, texts[1:], strict=False))
    marked = "".join(marks[len(texts) - 1 :]) + texts[0] + placed
    return structs.replace(message, content=marked, images=(), image_at=())


def marked(request: Generate, shield: Shield) -> Generate:
    """The request with marks for the images of its messages and its prompt.

    In a ``raw`` prompt image number N stands where it says ``[img-N]``, and those that it does not name stand
    at its beginning; in any other prompt they stand as in a message.
    """
    messages = tuple(with_image_marks(message, shield) for message in request.messages)
    prompt = request.prompt
    if prompt is not None and request.images:
        if request.raw:
            prompt = _raw(prompt, request.images, shield)
        else:
            message = Message(role="user", content=prompt, images=request.images)
            prompt = with_image_marks(message, shield).content
    return structs.replace(request, messages=messages, prompt=prompt, images=())


def _raw(prompt: str, images: Sequence[bytes], shield: Shield) -> str:
    unnamed = ""
    for number, image in enumerate(images):
        name, mark = f"[img-{number}]", shield.image(image)
        if name in prompt:
            prompt = prompt.replace(name, mark, 1)
        else:
            unnamed += mark
    return unnamed + prompt
