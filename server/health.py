"""``/livez``, ``/readyz`` and ``/health``: for those who restart and those who route."""

from __future__ import annotations

import asyncio

from falcon.asgi import Request, Response

from ..modelfile.errors import LadingError
from .services import Services
from .wire import JSON, json_bytes


class Live:
    """GET /livez: the event loop turns. Nothing else is looked at, for a restart would mend nothing else."""

    async def on_get(self, req: Request, resp: Response) -> None:
        _say(resp, 200, "ok")

    async def on_head(self, req: Request, resp: Response) -> None:
        _say(resp, 200, "ok")


class Ready:
    """GET /readyz and /health: requests can be taken: the store is readable and the keeper answers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_get(self, req: Request, resp: Response) -> None:
        try:
            await asyncio.to_thread(self._services.store.tags)
            await asyncio.wait_for(self._services.inference.loaded(), timeout=2)
        except (LadingError, TimeoutError):
            _say(resp, 503, "unavailable")
        else:
            _say(resp, 200, "ok")

    async def on_head(self, req: Request, resp: Response) -> None:
        await self.on_get(req, resp)


def _say(resp: Response, status: int, word: str) -> None:
    resp.status, resp.data, resp.content_type = status, json_bytes({"status": word}), JSON
    resp.cache_control = ["no-store"]
