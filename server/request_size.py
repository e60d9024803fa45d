"""How much one request may bring, whichever dialect it came in. Pure.

The runner has bounds of its own, above these, for those who do not come through the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..runtime.inference import ChatRequest, GenerateRequest
from .errors import BadField
from .settings import Limits


def check_size(request: ChatRequest | GenerateRequest, limits: Limits) -> None:
    """Raises: BadField, which names the field that has too much."""
    images: Iterable[bytes]
    if isinstance(request, ChatRequest):
        _at_most("messages", len(request.messages), limits.messages)
        _at_most("tools", len(request.tools), limits.tools)
        images = (image for message in request.messages for image in message.images)
    else:
        images = request.images
    _check_images([len(image) for image in images], limits)
    _check_stops(list(_stops(request.settings.options.get("stop"))), limits)


def check_choices(n: int, limits: Limits) -> None:
    """How many answers to one prompt. Raises: BadField."""
    if not 1 <= n <= limits.choices:
        raise BadField(f"n: expected 1 to {limits.choices}, got {n}", field="n")


def _check_images(sizes: list[int], limits: Limits) -> None:
    _at_most("images", len(sizes), limits.images)
    if max(sizes, default=0) > limits.image:
        raise BadField(
            f"images: expected at most {limits.image} bytes each, got {max(sizes)}", field="images"
        )


def _check_stops(stops: list[str], limits: Limits) -> None:
    _at_most("stop", len(stops), limits.stops)
    longest = max((len(stop.encode()) for stop in stops), default=0)
    if longest > limits.stop_length:
        raise BadField(f"stop: expected at most {limits.stop_length} bytes each, got {longest}", field="stop")


def _stops(value: object) -> Iterator[str]:
    """Those of a client's option, which nobody has looked at yet; what is no text is refused elsewhere."""
    for stop in value if isinstance(value, list | tuple) else [value]:
        if isinstance(stop, str):
            yield stop


def _at_most(field: str, count: int, limit: int) -> None:
    if count > limit:
        raise BadField(f"{field}: expected at most {limit}, got {count}", field=field)
