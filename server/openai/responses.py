"""``POST /v1/responses``, ``GET`` and ``DELETE /v1/responses/{id}``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from falcon.asgi import Request, Response

from ...runtime.inference import InferenceEvent
from ...runtime.protocol import Message
from ..errors import BadField, NoSuchResponse, asked_for
from ..guard import note
from ..json_body import read_request
from ..keep_alive_events import COMMENT, with_pings
from ..request_size import check_size
from ..services import Services
from ..streaming import Body, gathered, noted, open_stream
from ..wire import EVENT_STREAM, JSON, json_bytes
from . import responses_schema as schema
from .response_memory import ResponseMemory
from .responses_encode import ResponseWriter, new_response
from .responses_request import chat_request, messages_of


class Responses:
    """POST /v1/responses"""

    def __init__(self, services: Services, memory: ResponseMemory) -> None:
        self._services = services
        self._memory = memory

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.ResponsesRequest)
        note(req.scope, model=request.model)
        earlier = self._earlier(request.previous_response_id)
        asked = (*earlier, *messages_of(request.input, earlier))
        chat = chat_request(request, asked)
        check_size(chat, self._services.settings.limits)
        with asked_for(request.model):
            events = self._services.inference.chat(chat)
            opened = await open_stream(noted(events, req.scope))
        writer = ResponseWriter(request, new_response(request))
        if request.stream:

            async def written(events: AsyncIterator[InferenceEvent]) -> AsyncIterator[bytes]:
                async for chunk in writer.events(events):
                    yield chunk
                self._keep(writer, asked)

            def encode(events: AsyncIterator[InferenceEvent]) -> AsyncIterator[bytes]:
                return with_pings(written(events), COMMENT) if request.tools else written(events)

            resp.content_type, resp.stream = EVENT_STREAM, Body(opened, encode, writer.failed)
            resp.cache_control = ["no-cache"]
        else:
            whole = await gathered(opened, writer.whole)
            self._keep(writer, asked)
            resp.data, resp.content_type = json_bytes(whole), JSON

    def _earlier(self, response_id: str) -> tuple[Message, ...]:
        if not response_id:
            return ()
        found = self._memory.get(response_id)
        if found is None:
            raise BadField(
                f"previous response with id '{response_id}' not found", field="previous_response_id"
            )
        return found.messages

    def _keep(self, writer: ResponseWriter, asked: tuple[Message, ...]) -> None:
        if writer.response.store:
            said = (writer.answer(),) if writer.response.output else ()
            self._memory.put(writer.response, (*asked, *said))


class StoredResponse:
    """GET and DELETE /v1/responses/{id}"""

    def __init__(self, memory: ResponseMemory) -> None:
        self._memory = memory

    async def on_get(self, req: Request, resp: Response, response_id: str) -> None:
        found = self._memory.get(response_id)
        if found is None:
            raise NoSuchResponse(response_id)
        resp.data, resp.content_type = json_bytes(found.response), JSON

    async def on_delete(self, req: Request, resp: Response, response_id: str) -> None:
        if not self._memory.remove(response_id):
            raise NoSuchResponse(response_id)
        answer = schema.Deleted(id=response_id, object="response", deleted=True)
        resp.data, resp.content_type = json_bytes(answer), JSON
