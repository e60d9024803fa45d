"""Refusing a JSON body by the length that it announces, before any of it is read.

Falcon waits for the first piece of a body before it calls a route, and so would let a client that announces a
terabyte, and sends nothing, wait with it. `read_body` counts what comes; this looks at what is promised.
"""

from __future__ import annotations

from .errors import BodyTooLarge, native_body, openai_body, problem_of
from .guard import Application, Receive, Scope, Send
from .json_body import BODY_LIMIT
from .wire import json_bytes

_JSON_ROUTES = ("/api/", "/v1/", "/chat/")
_STREAMED_ROUTES = ("/api/blobs/",)


class BodyLimit:
    """The ASGI application that wraps another. Blobs, here and in the registry, have no such limit."""

    def __init__(self, app: Application, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[BODY_LIMIT] = self._limit  # for those who count what comes
        if scope["type"] == "http" and self._is_too_large(scope):
            await self._refuse(scope, send)
        else:
            await self._app(scope, receive, send)

    def _is_too_large(self, scope: Scope) -> bool:
        path = scope["path"]
        if not path.startswith(_JSON_ROUTES) or path.startswith(_STREAMED_ROUTES):
            return False
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        return announced.isdigit() and int(announced) > self._limit

    async def _refuse(self, scope: Scope, send: Send) -> None:
        problem = problem_of(BodyTooLarge(self._limit))
        render = native_body if scope["path"].startswith("/api/") else openai_body
        body = json_bytes(render(problem))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
