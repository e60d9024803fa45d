"""A problem as the answer to a request: in the shape of the dialect that its path belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .anthropic.encode import anthropic_body
from .errors import Problem, native_body, openai_body
from .guard import Scope, Send, request_id
from .operations import Dialect
from .wire import JSON, json_bytes

ANTHROPIC_REQUEST_ID = "request-id"
"""The header in which Anthropic's clients look for the id."""

_OPENAI_OUTSIDE_V1 = ("/chat/completions", "/tokenize", "/detokenize", "/rerank")
_REGISTRY_CODES = {401: "UNAUTHORIZED", 403: "DENIED", 413: "SIZE_INVALID", 429: "TOOMANYREQUESTS"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def dialect_of(path: str) -> Dialect:
    """Whose shapes an answer at this path has, whether there is such a path or not."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return Dialect.ANTHROPIC
    if path.startswith("/v1/") or path in _OPENAI_OUTSIDE_V1:
        return Dialect.OPENAI
    if path == "/v2" or path.startswith("/v2/"):
        return Dialect.REGISTRY
    return Dialect.NATIVE


def problem_answer(path: str, problem: Problem, id_: str) -> Answer:
    """What is said of a problem; ``id_`` is the request's."""
    headers = {"content-type": JSON}
    if problem.wait_s is not None:
        headers["retry-after"] = str(problem.wait_s)
    body: dict[str, object]
    match dialect_of(path):
        case Dialect.ANTHROPIC:
            body = anthropic_body(problem, id_)
            headers[ANTHROPIC_REQUEST_ID] = id_
        case Dialect.OPENAI:
            body = openai_body(problem)
        case Dialect.REGISTRY:
            code = _REGISTRY_CODES.get(problem.status, "UNKNOWN")
            body = {"errors": [{"code": code, "message": problem.text}]}
        case _:
            body = native_body(problem)
    return Answer(problem.status, headers, json_bytes(body))


async def send_problem(
    scope: Scope, send: Send, problem: Problem, extra: Mapping[str, str] | None = None
) -> None:
    """Answer a request that does not reach the application."""
    answer = problem_answer(scope["path"], problem, request_id(scope))
    headers = {**answer.headers, "content-length": str(len(answer.body)), **(extra or {})}
    written = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": written})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})
