"""Several streams of events as one, for requests that ask for several answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence

from ..runtime.inference import InferenceEvent

Numbered = tuple[int, InferenceEvent]
"""An event and which of the streams it belongs to."""


async def merged(
    streams: Sequence[AsyncGenerator[InferenceEvent, None]],
) -> AsyncGenerator[Numbered, None]:
    """The events of all streams as they come, numbered. The first failure ends all; closing closes all."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]):
            async for event in streams[0]:
                yield 0, event
        return
    queue: asyncio.Queue[Numbered | BaseException | None] = asyncio.Queue(maxsize=64)
    tasks = [asyncio.create_task(_feed(queue, index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _feed(
    queue: asyncio.Queue[Numbered | BaseException | None],
    index: int,
    stream: AsyncGenerator[InferenceEvent, None],
) -> None:
    async with contextlib.aclosing(stream):
        try:
            async for event in stream:
                await queue.put((index, event))
            await queue.put(None)
        except Exception as error:  # raised again by the one who reads the queue
            await queue.put(error)
