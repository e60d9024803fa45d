"""Responses that a later request may continue or ask for, in the memory of one web process.

What was used longest ago is forgotten first, when there are too many or they take too much. Nothing of it
outlives the process. For use in one event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from ...runtime.protocol import Message
from .responses_schema import Response

MAX_COUNT = 512
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Remembered:
    response: Response
    messages: tuple[Message, ...]
    """What the model has seen and said, without the instructions, which are not carried on."""
    size: int = field(init=False)
    """Bytes as JSON, which is about what it takes."""

    def __post_init__(self) -> None:
        size = len(msgspec.json.encode(self.messages)) + len(msgspec.json.encode(self.response))
        object.__setattr__(self, "size", size)


class ResponseMemory:
    def __init__(self, *, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Remembered] = OrderedDict()
        self._bytes = 0

    def put(self, response: Response, messages: tuple[Message, ...]) -> None:
        """Keep it, and forget others for it; one that is too large by itself is not kept."""
        entry = Remembered(response, messages)
        self.remove(response.id)
        self._kept[response.id] = entry
        self._bytes += entry.size
        while self._bytes > self._max_bytes or len(self._kept) > self._max_count:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.size

    def get(self, response_id: str) -> Remembered | None:
        entry = self._kept.get(response_id)
        if entry is not None:
            self._kept.move_to_end(response_id)
        return entry

    def remove(self, response_id: str) -> bool:
        entry = self._kept.pop(response_id, None)
        if entry is not None:
            self._bytes -= entry.size
        return entry is not None
