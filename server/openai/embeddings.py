"""``POST /v1/embeddings``; little-endian float32 in base64 where asked for, as OpenAI's clients do."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

from falcon.asgi import Request, Response

from ..errors import BadField, asked_for
from ..guard import note
from ..json_body import read_request
from ..native.inference import parse_seconds
from ..services import Services
from ..streaming import in_time
from ..wire import JSON, json_bytes
from . import schema as schema
from .request import is_tokens

MAX_INPUTS = 2048


class Embeddings:
    """POST /v1/embeddings"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.EmbeddingRequest)
        note(req.scope, model=request.model)
        if not request.model:
            raise BadField("model is required", field="model")
        if request.encoding_format not in ("float", "base64"):
            raise BadField("encoding_format: expected float or base64", field="encoding_format")
        if request.dimensions < 0:
            raise BadField("dimensions: expected at least 1", field="dimensions")
        inputs = _inputs(request.input)
        with asked_for(request.model):
            asked = self._services.inference.embed(
                request.model,
                tuple([await self._text(request, one) for one in inputs]),
                options=request.options,
                keep_alive=parse_seconds(request.keep_alive),
                dimensions=request.dimensions,
            )
            done = await in_time(asked, req.scope)
        note(req.scope, prompt_tokens=done.prompt_tokens)
        encode = _base64 if request.encoding_format == "base64" else tuple
        answer = schema.EmbeddingList(
            object="list",
            data=[
                schema.EmbeddingRow(object="embedding", index=index, embedding=encode(vector))
                for index, vector in enumerate(done.vectors)
            ],
            model=request.model,
            usage=schema.EmbeddingUsage(prompt_tokens=done.prompt_tokens, total_tokens=done.prompt_tokens),
        )
        resp.data, resp.content_type = json_bytes(answer), JSON

    async def _text(self, request: schema.EmbeddingRequest, given: str | list[int]) -> str:
        """A text as it is, or the text that the model's tokens stand for."""
        if isinstance(given, str):
            return given
        return await self._services.inference.detokenize(
            request.model,
            tuple(given),
            options=request.options,
            keep_alive=parse_seconds(request.keep_alive),
        )


def _inputs(value: object) -> list[str | list[int]]:
    """Texts, or tokens of the model's own vocabulary in their place."""
    inputs = [value] if isinstance(value, str) or is_tokens(value) else value
    if not isinstance(inputs, list) or not inputs:
        raise BadField("invalid input", field="input")
    if not all(isinstance(one, str) or is_tokens(one) for one in inputs):
        raise BadField("invalid input", field="input")
    if len(inputs) > MAX_INPUTS:
        raise BadField(f"input: expected at most {MAX_INPUTS} texts, got {len(inputs)}", field="input")
    return inputs


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
