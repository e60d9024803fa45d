"""``POST /v1/messages`` and ``POST /v1/messages/count_tokens``."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

from falcon.asgi import Request, Response

from ...runtime.inference import ChatRequest, InferenceEvent
from ...runtime.protocol import Started, Usage
from ..errors import asked_for
from ..guard import note, request_id
from ..json_body import read_request
from ..keep_alive_events import with_pings
from ..openai.request import new_id
from ..request_size import check_size
from ..services import Services
from ..shaping import without_thoughts
from ..streaming import Body, gathered, in_time, noted, open_stream
from ..wire import EVENT_STREAM, JSON, json_bytes
from . import schema as schema
from .encode import PING, Head, message_events, problem_event, whole_message
from .request import chat_request

REQUEST_ID = "request-id"
"""The header in which Anthropic's clients look for what to tell when they complain."""


class Messages:
    """POST /v1/messages"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.MessagesRequest)
        note(req.scope, model=request.model)
        resp.set_header(REQUEST_ID, request_id(req.scope))
        chat = chat_request(request)
        check_size(chat, self._services.settings.limits)
        prompt: list[Usage] = []
        with asked_for(request.model):
            events = self._services.inference.chat(chat, started=lambda event: prompt.append(_counted(event)))
            if request.thinking.display == "omitted":
                events = without_thoughts(events)
            opened = await open_stream(noted(events, req.scope))
        head = Head(
            id=new_id("msg").replace("-", "_"), model=request.model, stops=tuple(request.stop_sequences)
        )
        if request.stream:
            counted = prompt[-1] if prompt else Usage()

            def encode(events: AsyncIterator[InferenceEvent]) -> AsyncIterator[bytes]:
                return with_pings(message_events(events, head=head, prompt=counted), PING)

            on_problem = functools.partial(problem_event, request_id=request_id(req.scope))
            resp.content_type, resp.stream = EVENT_STREAM, Body(opened, encode, on_problem)
            resp.cache_control = ["no-cache"]
        else:
            whole = await gathered(opened, functools.partial(whole_message, head=head))
            resp.data, resp.content_type = json_bytes(whole), JSON


class CountTokens:
    """POST /v1/messages/count_tokens: how long the prompt would be, by the model's own tokenizer."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.CountTokensRequest)
        note(req.scope, model=request.model)
        resp.set_header(REQUEST_ID, request_id(req.scope))
        chat = chat_request(request)
        check_size(chat, self._services.settings.limits)
        tokens = await in_time(self._count(chat), req.scope)
        resp.data, resp.content_type = json_bytes(schema.TokenCount(input_tokens=tokens)), JSON

    async def _count(self, chat: ChatRequest) -> int:
        with asked_for(chat.model):
            return (await self._services.inference.render(chat, whole=True)).tokens


def _counted(event: Started) -> Usage:
    return Usage(prompt_tokens=event.prompt_tokens, cached_tokens=event.cached_tokens)
