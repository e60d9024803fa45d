"""The runtime inside one process: the keeper and runners that `lading serve` has, without the server.

async with EmbeddedRuntime(store_root, RuntimeSettings()) as runtime:
    async for event in runtime.inference.chat(ChatRequest(model="llama3.2", messages=(…,))):
        …
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from .grant import Acquire, Grant, LoadedModel
from .inference import Inference
from .keeper import Keeper
from .runner_pool import Caller
from .settings import RuntimeSettings

_T = TypeVar("_T")


class DirectKeeper:
    """A `KeeperPort` to a keeper in this process. Each call waits in a thread of its own."""

    def __init__(self, keeper: Keeper, *, max_waiting: int) -> None:
        self._keeper = keeper
        # Idle threads are reused, none is made ahead.
        self._threads = ThreadPoolExecutor(max_waiting + 8, thread_name_prefix="keeper-call")

    async def acquire(self, request: Acquire) -> Grant:
        caller = Caller()
        try:
            return await self._in_thread(partial(self._keeper.acquire, request, caller))
        except asyncio.CancelledError:
            self._keeper.leave(caller)
            raise

    async def unload(self, model: str) -> bool:
        return await self._in_thread(partial(self._keeper.unload, model))

    async def loaded(self) -> tuple[LoadedModel, ...]:
        return tuple(await self._in_thread(self._keeper.loaded))

    async def aclose(self) -> None:
        """Close the keeper; callers that wait for it are refused."""
        await asyncio.to_thread(self._keeper.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


class EmbeddedRuntime:
    """Models run in child processes that end with the ``async with``, or with this process."""

    inference: Inference

    def __init__(self, store_root: Path, settings: RuntimeSettings) -> None:
        self._store_root = store_root
        self._settings = settings
        self._port: DirectKeeper | None = None

    async def __aenter__(self) -> Self:
        """Raises: NotAStore, StoreFailure; BadRuntimeDir."""
        keeper = await asyncio.to_thread(Keeper, self._store_root, self._settings)
        self._port = DirectKeeper(keeper, max_waiting=self._settings.max_queue)
        self.inference = Inference(self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._port is not None:
            await self.inference.aclose()
            await self._port.aclose()
            self._port = None
