"""Answers cut to what a client wants to see of them, whatever its dialect."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from ..runtime.inference import InferenceEvent
from ..runtime.protocol import Thinking

Events = AsyncGenerator[InferenceEvent, None]


async def without_thoughts(events: Events) -> Events:
    """What is thought is still counted; it is not shown."""
    async with contextlib.aclosing(events):
        async for event in events:
            if not isinstance(event, Thinking):
                yield event
