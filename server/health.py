"""``/livez``, ``/readyz`` and ``/health``: for those who restart and those who route."""

from __future__ import annotations

import asyncio
from typing import Any

from falcon.asgi import Request, Response
from msgspec import structs

from ..modelfile.errors import LadingError
from .access.gate import is_stranger
from .keeper.wire import Health, PreloadState
from .services import Services
from .wire import JSON, json_bytes

_KEEPER_TIMEOUT_S = 2.0


class Live:
    """GET /livez: the event loop turns. Nothing else is looked at, for a restart would mend nothing else."""

    async def on_get(self, req: Request, resp: Response) -> None:
        _say(resp, 200, {"status": "ok"})

    async def on_head(self, req: Request, resp: Response) -> None:
        _say(resp, 200, {"status": "ok"})


class Ready:
    """GET /readyz and /health: requests can be taken: the store is readable, the keeper answers, and models
    that were to be loaded at the start are, or cannot be.

    ``detailed``: say what was found; otherwise the word alone, which is what clients of llama-server expect.
    """

    def __init__(self, services: Services, *, detailed: bool) -> None:
        self._services = services
        self._detailed = detailed

    async def on_get(self, req: Request, resp: Response) -> None:
        store = await self._store()
        health = await self._keeper()
        if store != "ok" or health is None:
            word = "unavailable"
        else:
            word = "loading" if any(map(_is_under_way, health.preloads)) else "ok"
        body: dict[str, Any] = {"status": word}
        if self._detailed and not is_stranger(req.scope):
            body |= {"store": store, "keeper": "ok" if health else "no answer"}
            body |= _details(health) if health else {}
        _say(resp, 200 if word == "ok" else 503, body)

    async def on_head(self, req: Request, resp: Response) -> None:
        await self.on_get(req, resp)

    async def _store(self) -> str:
        try:
            await asyncio.to_thread(self._services.store.tags)
        except LadingError as error:
            return error.message
        return "ok"

    async def _keeper(self) -> Health | None:
        try:
            return await asyncio.wait_for(self._services.keeper.health(), _KEEPER_TIMEOUT_S)
        except (LadingError, TimeoutError):
            return None


def _is_under_way(preload: PreloadState) -> bool:
    return preload.state in ("waiting", "loading")


def _details(health: Health) -> dict[str, Any]:
    """What is empty is left out."""
    sandbox = {name: value for name, value in structs.asdict(health.sandbox).items() if value}
    preloads = [
        {name: value for name, value in structs.asdict(preload).items() if value}
        for preload in health.preloads
    ]
    return {"sandbox": sandbox} | ({"preload": preloads} if preloads else {})


def _say(resp: Response, status: int, body: dict[str, Any]) -> None:
    resp.status, resp.data, resp.content_type = status, json_bytes(body), JSON
