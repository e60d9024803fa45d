"""A web worker's way to the keeper process: a `KeeperPort` over its Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from ...runtime.frame import BadFrame, receive_frame
from ...runtime.grant import Acquire, Grant, LoadedModel
from ..errors import KeeperAway
from . import wire as wire

_RESTART_S = 10.0
"""A killed keeper is back within this time; connecting is tried as long."""
_RETRY_S = 0.05
_PAUSES_S = (0.2, 1.0)
"""Before a call that was hung up on is made again: a dying keeper still takes connections for a moment."""


class KeeperClient:
    """One connection for each call, so that a long load holds up nothing and leaving it cancels the call. One
    that is not answered because the keeper died is made again, to the next: repeating it does no harm.

    Raises, in every method: `KeeperAway`, and whatever the keeper raised.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._attached: asyncio.Task[None] | None = None

    async def acquire(self, request: Acquire) -> Grant:
        reply = await self._call(wire.AcquireCall(request=request))
        assert isinstance(reply, wire.Granted)
        return reply.grant

    async def unload(self, model: str) -> bool:
        reply = await self._call(wire.UnloadCall(model=model))
        assert isinstance(reply, wire.Unloaded)
        return reply.was_loaded

    async def loaded(self) -> tuple[LoadedModel, ...]:
        reply = await self._call(wire.LoadedCall())
        assert isinstance(reply, wire.LoadedModels)
        return reply.models

    async def health(self) -> wire.Health:
        """What confines runners, and what became of models that were to be loaded at the start."""
        reply = await self._call(wire.HealthCall())
        assert isinstance(reply, wire.Health)
        return reply

    def attach(self) -> None:
        """Stay connected from now on: while the server drains, the keeper outlives whoever is attached."""
        self._attached = asyncio.get_running_loop().create_task(self._stay())

    async def aclose(self) -> None:
        if self._attached is not None:
            self._attached.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._attached

    async def _stay(self) -> None:
        while True:
            with contextlib.suppress(KeeperAway, OSError):
                reader, writer = await self._connect()
                try:
                    writer.write(wire.pack(wire.Attach()))
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(_RETRY_S)

    async def _call(self, call: wire.Call) -> wire.Reply:
        body = await self._exchange(call)
        for pause_s in _PAUSES_S:
            if body is None:
                await asyncio.sleep(pause_s)
                body = await self._exchange(call)
        if body is None:
            raise KeeperAway()
        reply = wire.unpack(wire.REPLIES, body)
        if isinstance(reply, wire.Refused):
            raise wire.error_of(reply)
        return reply

    async def _exchange(self, call: wire.Call) -> bytes | None:
        """None: it hung up."""
        reader, writer = await self._connect()
        try:
            writer.write(wire.pack(call))
            return await receive_frame(reader)
        except ConnectionError:
            return None
        except (OSError, BadFrame) as error:
            raise KeeperAway() from error
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = asyncio.get_running_loop().time() + _RESTART_S
        while True:
            try:
                return await asyncio.open_unix_connection(str(self._path))
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise KeeperAway() from error
            await asyncio.sleep(_RETRY_S)
