"""The web application: routes, error handlers, nothing else. Pure wiring: `create_app(services)`."""

from __future__ import annotations

import logging
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

from ..modelfile.errors import LadingError
from . import health
from .answers import dialect_of, problem_answer
from .anthropic import messages as anthropic
from .description import Description
from .errors import INTERNAL, Problem, problem_of
from .figures import Figures
from .guard import request_id
from .llama import rerank as llama_rerank
from .llama import tokens as llama_tokens
from .metrics import Metrics
from .native import blobs as native_blobs
from .native import hosted
from .native import inference as native_inference
from .native import models as native_models
from .native import transfer as native_transfer
from .openai import chat as openai_chat
from .openai import completions as openai_completions
from .openai import embeddings as openai_embeddings
from .openai import models as openai_models
from .openai import responses
from .openai.response_memory import ResponseMemory
from .operations import Dialect
from .registry.names import RegistryNames
from .registry.routes import add_registry_routes
from .services import Services

log = logging.getLogger("lading.server")


def create_app(services: Services, metrics: Metrics | None = None) -> falcon.asgi.App[Any, Any]:
    """The application over `services`, which the caller made and closes."""
    app: falcon.asgi.App[Any, Any] = falcon.asgi.App()
    app.req_options.auto_parse_qs_csv = False
    app.resp_options.xml_error_serialization = False
    _add_native_routes(app, services)
    _add_openai_routes(app, services)
    app.add_route("/tokenize", llama_tokens.Tokenize(services))
    app.add_route("/detokenize", llama_tokens.Detokenize(services))
    rerank = llama_rerank.Rerank(services)
    app.add_route("/v1/rerank", rerank)
    app.add_route("/rerank", rerank)
    app.add_route("/v1/messages", anthropic.Messages(services))
    app.add_route("/v1/messages/count_tokens", anthropic.CountTokens(services))
    if services.settings.registry:
        defaults = services.settings.runtime
        names = RegistryNames(defaults.default_registry, defaults.default_namespace)
        add_registry_routes(app, services.store, names=names)
    app.add_route("/livez", health.Live())
    app.add_route("/readyz", health.Ready(services, detailed=True))
    app.add_route("/health", health.Ready(services, detailed=False))
    app.add_route("/openapi.json", Description(services, with_metrics=metrics is not None))
    if metrics is not None:
        app.add_route("/metrics", Figures(services, metrics))
    app.add_error_handler(Exception, _on_bug)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(LadingError, _on_error)
    return app


def _add_native_routes(app: falcon.asgi.App[Any, Any], services: Services) -> None:
    app.add_route("/", native_models.Root())
    app.add_route("/api/version", native_models.Version(services))
    app.add_route("/api/tags", native_models.Tags(services))
    app.add_route("/api/show", native_models.Show(services))
    app.add_route("/api/ps", native_models.Ps(services))
    app.add_route("/api/copy", native_models.Copy(services))
    app.add_route("/api/delete", native_models.Delete(services))
    app.add_route("/api/status", hosted.Status())
    for route in hosted.ROUTES:
        app.add_route(route, hosted.Hosted())
    app.add_route("/api/pull", native_transfer.Pull(services))
    app.add_route("/api/push", native_transfer.Push(services))
    app.add_route("/api/create", native_transfer.Create(services))
    app.add_route("/api/blobs/{digest}", native_blobs.Blobs(services))
    app.add_route("/api/generate", native_inference.Generate(services))
    app.add_route("/api/chat", native_inference.Chat(services))
    app.add_route("/api/embed", native_inference.Embed(services))
    app.add_route("/api/embeddings", native_inference.Embeddings(services))


def _add_openai_routes(app: falcon.asgi.App[Any, Any], services: Services) -> None:
    chat = openai_chat.ChatCompletions(services)
    app.add_route("/v1/chat/completions", chat)
    app.add_route("/chat/completions", chat)
    app.add_route("/v1/completions", openai_completions.Completions(services))
    app.add_route("/v1/embeddings", openai_embeddings.Embeddings(services))
    memory = ResponseMemory()
    app.add_route("/v1/responses", responses.Responses(services, memory))
    app.add_route("/v1/responses/{response_id}", responses.StoredResponse(memory))
    app.add_route("/v1/models", openai_models.Models(services))
    app.add_sink(openai_models.Model(services).serve, r"/v1/models/(?P<model>.+)")


async def _on_error(req: Request, resp: Response, error: LadingError, params: dict[str, Any]) -> None:
    problem = problem_of(error)
    if problem.status >= 500:
        log.warning(
            "a request failed",
            extra={"facts": {"request_id": request_id(req.scope), "status": problem.status}},
            exc_info=error,
        )
    render(req, resp, problem)


async def _on_http_error(
    req: Request, resp: Response, error: falcon.HTTPError, params: dict[str, Any]
) -> None:
    """What Falcon itself refuses: unknown paths, wrong methods, malformed requests."""
    status = error.status_code
    resp.set_headers(error.headers or {})
    words = {404: "404 page not found", 405: "405 method not allowed"}.get(status)
    if words is not None and dialect_of(req.path) is Dialect.NATIVE:
        # Exactly what Ollama's router says.
        resp.status, resp.text, resp.content_type = status, words, "text/plain"
        return
    text = words[4:] if words else error.title or "bad request"
    render(req, resp, Problem(status, "invalid_request", text))


async def _on_bug(req: Request, resp: Response, error: Exception, params: dict[str, Any]) -> None:
    """The HTTP boundary: the client learns nothing of our insides, the log all, under the request's id."""
    log.exception("a request failed", extra={"facts": {"request_id": request_id(req.scope)}}, exc_info=error)
    render(req, resp, INTERNAL)


def render(req: Request, resp: Response, problem: Problem) -> None:
    """Answer with a problem in the shape of the dialect that the path belongs to."""
    answer = problem_answer(req.path, problem, request_id(req.scope))
    resp.status, resp.data = answer.status, answer.body
    resp.set_headers(answer.headers)
