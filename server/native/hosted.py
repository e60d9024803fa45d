"""Routes of Ollama's hosted service, which this server does not have: they say so instead of 404."""

from __future__ import annotations

from falcon.asgi import Request, Response

from ..errors import Problem, native_body
from ..wire import JSON, json_bytes
from . import schema as schema

ROUTES = (
    "/api/me",
    "/api/signout",
    "/api/user/keys/{key}",
    "/api/experimental/web_search",
    "/api/experimental/web_fetch",
    "/api/experimental/model-recommendations",
)

_PROBLEM = Problem(501, "not_implemented", "this server has no hosted service and needs no account")


class Status:
    """GET /api/status: clients ask whether models may be run elsewhere. None are."""

    async def on_get(self, req: Request, resp: Response) -> None:
        answer = schema.StatusAnswer(cloud=schema.Cloud(disabled=True, source="config"))
        resp.data, resp.content_type = json_bytes(answer), JSON


class Hosted:
    """Whatever is sent to one of `ROUTES`."""

    async def on_get(self, req: Request, resp: Response, **_: str) -> None:
        resp.status, resp.data, resp.content_type = 501, json_bytes(native_body(_PROBLEM)), JSON

    on_post = on_get
    on_delete = on_get
