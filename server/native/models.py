"""The native routes around models: listing, showing, naming, removing, and what is loaded.

Source: Ollama's server/routes.go; the texts are its own.
"""

from __future__ import annotations

import asyncio
import time

from falcon.asgi import Request, Response
from msgspec import UNSET

from ...oci.errors import BadReference, ModelNotFound
from ...runtime.grant import LoadedModel
from ..errors import BadField, NoSuchModel, asked_for
from ..guard import note
from ..json_body import read_request
from ..services import Services
from ..wire import JSON, json_bytes, rfc3339
from . import schema as schema

OLLAMA_VERSION = "0.33.0"
"""The Ollama whose API this is: clients refuse to work with one that is too old. Three plain numbers."""

_COPILOT = "GitHubCopilotChat/"
"""It shows a model's base name where the name that was asked for is meant."""

_FOREVER_S = 200 * 365 * 86400
"""How far ahead a model that stays for ever is said to expire; clients show "Forever"."""


class Root:
    """GET / — what clients ask to see whether a server is there."""

    async def on_get(self, req: Request, resp: Response) -> None:
        resp.text, resp.content_type = "Ollama is running", "text/plain; charset=utf-8"

    on_head = on_get


class Version:
    """GET /api/version"""

    def __init__(self, services: Services) -> None:
        self._lading = services.version

    async def on_get(self, req: Request, resp: Response) -> None:
        _answer(resp, schema.VersionAnswer(version=OLLAMA_VERSION, lading=self._lading))

    on_head = on_get


class Tags:
    """GET /api/tags"""

    def __init__(self, services: Services) -> None:
        self._catalogue = services.catalogue

    async def on_get(self, req: Request, resp: Response) -> None:
        _answer(resp, await asyncio.to_thread(self._catalogue.tags))

    on_head = on_get


class Show:
    """POST /api/show"""

    def __init__(self, services: Services) -> None:
        self._catalogue = services.catalogue

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.ShowRequest)
        model = required(request.model_name)
        note(req.scope, model=model)
        with asked_for(model):
            answer = await asyncio.to_thread(self._catalogue.show, request)
        if (req.user_agent or "").startswith(_COPILOT):
            answer.model_info["general.basename"] = model
        _answer(resp, answer)


class Ps:
    """GET /api/ps"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_get(self, req: Request, resp: Response) -> None:
        loaded = await self._services.inference.loaded()
        _answer(resp, schema.PsAnswer(models=[self._row(model) for model in loaded]))

    def _row(self, model: LoadedModel) -> schema.PsRow:
        name = self._services.names.short(self._services.names.parse(model.full_name))
        expires = model.expires_at if model.expires_at is not None else time.time() + _FOREVER_S
        details = model.details
        return schema.PsRow(
            name=name,
            model=name,
            size=model.size,
            digest=model.digest.partition(":")[2],
            details=schema.Details(
                parent_model=details.parent_model,
                format=details.format,
                family=details.family,
                families=list(details.families),
                parameter_size=details.parameter_size,
                quantization_level=details.quantization_level,
            ),
            expires_at=rfc3339(int(expires * 1e9)),
            size_vram=model.size_vram,
            context_length=model.context_length,
            pinned=model.pinned or UNSET,
        )


class Copy:
    """POST /api/copy"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.CopyRequest)
        for role, name in (("source", request.source), ("destination", request.destination)):
            try:
                self._services.names.parse(name)
            except BadReference as error:
                raise BadField(f'{role} "{name}" is invalid', field=role) from error
        try:
            await asyncio.to_thread(self._services.catalogue.copy, request.source, request.destination)
        except ModelNotFound as error:
            raise NoSuchModel(f'model "{request.source}" not found') from error
        resp.content_length = 0


class Delete:
    """DELETE /api/delete. A model that is loaded stays loaded until it is idle."""

    def __init__(self, services: Services) -> None:
        self._catalogue = services.catalogue

    async def on_delete(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.DeleteRequest)
        model = required(request.model_name)
        try:
            with asked_for(model):
                note(req.scope, freed_bytes=await asyncio.to_thread(self._catalogue.delete, model))
        except BadField as error:
            raise BadField(f'name "{model}" is invalid', field="model") from error
        resp.content_length = 0


def required(model: str) -> str:
    if not model:
        raise BadField("model is required", field="model")
    return model


def _answer(resp: Response, value: object) -> None:
    resp.data, resp.content_type = json_bytes(value), JSON
