"""Several choices as one stream, and answers that become tool calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from lading.runtime.errors import RunnerLost
from lading.runtime.inference import Done, InferenceEvent
from lading.runtime.protocol import Text, Usage
from lading.server.openai.chat import merged

DONE = Done(reason="stop", usage=Usage(), total_duration_ns=1, load_duration_ns=1)


class Source:
    """A stream that tells whether it was closed."""

    def __init__(
        self, *events: InferenceEvent, endless: bool = False, error: Exception | None = None
    ) -> None:
        self.events = events
        self.endless = endless
        self.error = error
        self.closed = False

    async def stream(self) -> AsyncGenerator[InferenceEvent, None]:
        try:
            for event in self.events:
                await asyncio.sleep(0)
                yield event
            while self.endless:
                await asyncio.sleep(0)
                yield Text(id=0, text=".")
            if self.error:
                raise self.error
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [1, 3])
def test_all_choices_arrive_whole_and_in_their_own_order(count: int) -> None:
    sources = [
        Source(Text(id=0, text=f"{index}a"), Text(id=0, text=f"{index}b"), DONE) for index in range(count)
    ]

    async def collect() -> dict[int, list[InferenceEvent]]:
        seen: dict[int, list[InferenceEvent]] = {}
        async for index, event in merged([source.stream() for source in sources]):
            seen.setdefault(index, []).append(event)
        return seen

    seen = asyncio.run(collect())
    assert seen == {index: list(source.events) for index, source in enumerate(sources)}


@pytest.mark.parametrize("count", [1, 2])
def test_closing_closes_every_stream(count: int) -> None:
    sources = [Source(endless=True) for _ in range(count)]

    async def leave() -> None:
        stream = merged([source.stream() for source in sources])
        for _ in range(10):
            await anext(stream)
        await stream.aclose()

    asyncio.run(leave())
    assert all(source.closed for source in sources)


def test_a_failure_of_one_ends_all() -> None:
    broken, other = Source(Text(id=0, text="x"), error=RunnerLost("gone")), Source(endless=True)

    async def collect() -> None:
        async for _ in merged([broken.stream(), other.stream()]):
            pass

    with pytest.raises(RunnerLost):
        asyncio.run(collect())
    assert broken.closed and other.closed
