"""``POST /v1/rerank``: which documents answer a query, the best first, as llama-server and Jina have it."""

from __future__ import annotations

from falcon.asgi import Request, Response

from ...runtime.protocol import Scores
from ..errors import BadField, asked_for
from ..guard import note
from ..json_body import read_request
from ..native.inference import parse_seconds
from ..services import Services
from ..streaming import in_time
from ..wire import JSON, json_bytes
from . import schema as schema
from .tokens import model_of

MAX_DOCUMENTS = 1024


class Rerank:
    """POST /v1/rerank"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.RerankRequest)
        documents = _documents(request)
        inference = self._services.inference
        model = await model_of(request.model, inference)
        note(req.scope, model=model)
        with asked_for(model):
            asked = inference.rank(
                model,
                request.query,
                documents,
                options=request.options,
                keep_alive=parse_seconds(request.keep_alive),
            )
            scores = await in_time(asked, req.scope)
        note(req.scope, prompt_tokens=scores.prompt_tokens)
        resp.data, resp.content_type = json_bytes(_ranking(model, scores, documents, request)), JSON


def _documents(request: schema.RerankRequest) -> tuple[str, ...]:
    if not request.query:
        raise BadField("query: expected a text, got none", field="query")
    if not 1 <= len(request.documents) <= MAX_DOCUMENTS:
        raise BadField(
            f"documents: expected 1 to {MAX_DOCUMENTS}, got {len(request.documents)}", field="documents"
        )
    if request.top_n is not None and request.top_n < 1:
        raise BadField("top_n: expected at least 1", field="top_n")
    return tuple(one if isinstance(one, str) else one.text for one in request.documents)


def _ranking(
    model: str, scores: Scores, documents: tuple[str, ...], request: schema.RerankRequest
) -> schema.Ranking:
    rows = [
        schema.RankedRow(
            index=index,
            relevance_score=score,
            document=schema.RankedDocument(documents[index]) if request.return_documents else None,
        )
        for index, score in enumerate(scores.scores)
    ]
    rows.sort(key=lambda row: -row.relevance_score)  # equal ones stay in the order of the request
    tokens = scores.prompt_tokens
    return schema.Ranking(
        model=model,
        object="list",
        usage=schema.RankUsage(prompt_tokens=tokens, total_tokens=tokens),
        results=rows[: request.top_n],
    )
