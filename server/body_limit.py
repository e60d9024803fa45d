"""Refusing a JSON body by the length that it announces, before any of it is read.

Falcon waits for the first piece of a body before it calls a route, and so would let a client that announces a
terabyte, and sends nothing, wait with it. `read_body` counts what comes; this looks at what is promised.
"""

from __future__ import annotations

from .answers import send_problem
from .errors import BodyTooLarge, problem_of
from .guard import Application, Receive, Scope, Send
from .json_body import BODY_LIMIT

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
            # The body is on its way and will not be read: this connection cannot go on.
            await send_problem(scope, send, problem_of(BodyTooLarge(self._limit)), {"connection": "close"})
        else:
            await self._app(scope, receive, send)

    def _is_too_large(self, scope: Scope) -> bool:
        path = scope["path"]
        if not path.startswith(_JSON_ROUTES) or path.startswith(_STREAMED_ROUTES):
            return False
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        return announced.isdigit() and int(announced) > self._limit
