"""``GET /v1/models`` and ``GET /v1/models/{id}``; an id may hold slashes."""

from __future__ import annotations

import asyncio
from typing import Any

import falcon
from falcon.asgi import Request, Response

from ...oci.store import TaggedManifest
from ..errors import asked_for
from ..services import Services
from ..wire import JSON, json_bytes, rfc3339_of
from . import schema as schema


class Models:
    """GET /v1/models"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_get(self, req: Request, resp: Response) -> None:
        listing = await asyncio.to_thread(self._services.catalogue.listing)
        rows = [_row(self._services, tagged) for tagged, _facts in listing]
        resp.data, resp.content_type = json_bytes(schema.ModelList(object="list", data=rows)), JSON


class Model:
    """GET /v1/models/{id}, as a sink: routes have no slashes in their fields."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def serve(self, req: Request, resp: Response | None, model: str = "", **_: Any) -> None:
        assert resp is not None  # only WebSocket sinks get none
        if req.method != "GET":
            raise falcon.HTTPMethodNotAllowed(["GET"])
        with asked_for(model):
            tagged = await asyncio.to_thread(self._services.catalogue.find, model)
        resp.data, resp.content_type = json_bytes(_row(self._services, tagged)), JSON


def _row(services: Services, tagged: TaggedManifest) -> schema.ModelRow:
    namespace, slash, _ = tagged.reference.repository.rpartition("/")
    name = services.names.short(tagged.reference)
    return schema.ModelRow(
        id=name,
        object="model",
        created=int(tagged.modified.timestamp()),
        owned_by=namespace if slash else "library",
        type="model",
        display_name=name,
        created_at=rfc3339_of(tagged.modified),
    )
