"""``POST /tokenize`` and ``POST /detokenize``, as llama-server has them."""

from __future__ import annotations

from falcon.asgi import Request, Response

from ...runtime.inference import Inference
from ..errors import BadField, asked_for
from ..field_status import refuse_unsupported
from ..guard import note
from ..json_body import read_request
from ..native.inference import parse_seconds
from ..services import Services
from ..streaming import in_time
from ..wire import JSON, json_bytes
from . import schema as schema

MAX_TEXT = 2 * 1024 * 1024
"""Bytes of a text, each of which may become a token."""
MAX_TOKENS = 1_000_000


class Tokenize:
    """POST /tokenize"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.TokenizeRequest)
        refuse_unsupported(request)
        size = len(request.content.encode())
        if size > MAX_TEXT:
            raise BadField(f"content: expected at most {MAX_TEXT} bytes, got {size}", field="content")
        inference = self._services.inference
        model = await model_of(request.model, inference)
        note(req.scope, model=model)
        with asked_for(model):
            asked = inference.tokenize(
                model,
                request.content,
                add_special=request.add_special,
                parse_special=request.parse_special,
                options=request.options,
                keep_alive=parse_seconds(request.keep_alive),
            )
            tokens = await in_time(asked, req.scope)
        resp.data, resp.content_type = json_bytes(schema.TokenList(tokens)), JSON


class Detokenize:
    """POST /detokenize"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.DetokenizeRequest)
        if len(request.tokens) > MAX_TOKENS:
            raise BadField(
                f"tokens: expected at most {MAX_TOKENS}, got {len(request.tokens)}", field="tokens"
            )
        inference = self._services.inference
        model = await model_of(request.model, inference)
        note(req.scope, model=model)
        with asked_for(model):
            asked = inference.detokenize(
                model,
                tuple(request.tokens),
                options=request.options,
                keep_alive=parse_seconds(request.keep_alive),
            )
            text = await in_time(asked, req.scope)
        resp.data, resp.content_type = json_bytes(schema.TokenText(text)), JSON


async def model_of(name: str, inference: Inference) -> str:
    """The model to ask.

    Raises:
        BadField: none is named, and not exactly one is loaded.
    """
    if name:
        return name
    loaded = await inference.loaded()
    if len(loaded) != 1:
        raise BadField(f"model is required: {len(loaded)} models are loaded", field="model")
    return loaded[0].name
