"""GET /openapi.json."""

from __future__ import annotations

from functools import cached_property

from falcon.asgi import Request, Response

from .openapi import document
from .operations import OPERATIONS, Dialect, Operation
from .services import Services
from .wire import JSON, json_bytes


class Description:
    """Of what this server has: without the registry or figures where they are switched off."""

    def __init__(self, services: Services, *, with_metrics: bool) -> None:
        self._services = services
        self._with_metrics = with_metrics

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.data, resp.content_type = self._document, JSON

    @cached_property
    def _document(self) -> bytes:
        operations = [one for one in OPERATIONS if self._has(one)]
        return json_bytes(document(operations, self._services.version))

    def _has(self, one: Operation) -> bool:
        if one.dialect is Dialect.REGISTRY:
            return self._services.settings.registry
        return one.path != "/metrics" or self._with_metrics
