"""``POST /v1/chat/completions`` (and ``/chat/completions``, for clients that were given no ``/v1``)."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from falcon.asgi import Request, Response

from ...runtime.inference import ChatRequest, InferenceEvent
from ..errors import BadField, asked_for
from ..field_status import refuse_unsupported
from ..guard import note
from ..json_body import read_request
from ..keep_alive_events import COMMENT, with_pings
from ..merging import merged
from ..request_size import check_choices, check_size
from ..services import Services
from ..streaming import Body, gathered, noted, open_stream
from ..wire import EVENT_STREAM, JSON, json_bytes
from . import schema as schema
from .encode import Head, chat_events, problem_event, whole_chat
from .request import chat_settings, messages_of, new_id, tools_of


class ChatCompletions:
    """POST /v1/chat/completions"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.ChatCompletionRequest)
        note(req.scope, model=request.model)
        if not request.model:
            raise BadField("model is required", field="model")
        with asked_for(request.model):
            refuse_unsupported(request)
            streams = [noted(events, req.scope) for events in self._choices(request)]
            opened = await open_stream(merged(streams))
        head = Head(id=new_id("chatcmpl"), created=int(time.time()), model=request.model)
        if request.stream:
            usage = request.stream_options.include_usage

            def encode(events: AsyncIterator[tuple[int, InferenceEvent]]) -> AsyncIterator[bytes]:
                chunks = chat_events(events, head=head, include_usage=usage)
                # Text comes token by token; a call is sent when it is complete.
                return with_pings(chunks, COMMENT) if request.tools else chunks

            resp.content_type, resp.stream = EVENT_STREAM, Body(opened, encode, problem_event)
            resp.cache_control = ["no-cache"]
        else:
            whole = await gathered(opened, functools.partial(whole_chat, head=head, n=request.n))
            resp.data, resp.content_type = json_bytes(whole), JSON

    def _choices(self, request: schema.ChatCompletionRequest) -> list[AsyncGenerator[InferenceEvent, None]]:
        """One stream for each choice; with a seed, each has the next."""
        limits = self._services.settings.limits
        check_choices(request.n, limits)
        settings = chat_settings(request)
        tools, choice = tools_of(request)
        chat = ChatRequest(
            model=request.model,
            messages=messages_of(request.messages),
            tools=tools,
            tool_choice=choice,
            settings=settings,
        )
        check_size(chat, limits)
        streams = []
        for index in range(request.n):
            options = dict(settings.options)
            if index and options.get("seed") is not None:
                options["seed"] += index
            one = replace(chat, settings=replace(settings, options=options))
            streams.append(self._services.inference.chat(one))
        return streams
