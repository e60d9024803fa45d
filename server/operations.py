"""Every operation of the server: who may use it, what it reads, what it answers.

The one table that keys, metrics, the OpenAPI document and docs/api.md go by. The routes of `app` and those of
this table are the same; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from .access.role import Role
from .anthropic import schema as anthropic
from .llama import schema as llama
from .native import schema as native
from .openai import responses_schema as responses
from .openai import schema as openai
from .wire import EVENT_STREAM, JSON, NDJSON


class Dialect(StrEnum):
    """Whose shapes an operation has, errors included."""

    NATIVE = "Ollama"
    OPENAI = "OpenAI"
    ANTHROPIC = "Anthropic"
    REGISTRY = "OCI registry"
    OPERATIONS = "Operations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path. ``{name}`` in a path is one segment, ``{name+}`` one or more."""

    method: str
    path: str
    does: str
    """What docs/api.md says of it."""
    dialect: Dialect
    role: Role | None = None
    """What a key must allow; None: any key will do."""
    public: bool = False
    """Needs no key at all."""
    request: type[msgspec.Struct] | None = None
    answer: Any = None
    """The type of a successful JSON answer; None: no body, or none that is JSON."""
    media: str = JSON
    """Of a successful answer that is not streamed."""
    stream: str | None = None
    """The media type of a streamed answer, which the request can ask for."""
    statuses: tuple[int, ...] = (200,)
    """Of success."""
    body: str | None = None
    """The media type of a request that is not JSON."""
    query: tuple[str, ...] = ()
    """Names of parameters in the URL's query."""
    compressed: bool = False
    """Whether a large answer is worth compressing."""

    @property
    def errors(self) -> tuple[int, ...]:
        """The other statuses that it can answer with; 405 is for methods that are none of its path's."""
        if self.public:
            return (400, 503)
        found = {400, 401, 403, 429}
        if self.request is not None:
            found |= {413, 415}
        if self.dialect is Dialect.REGISTRY:
            found |= {404, 405, 413, 415, 416, 500, 507}
        elif self.role in (Role.INFER, Role.MANAGE):
            found |= {404, 500, 503, 507}
        if self.role is Role.MANAGE:
            found |= {413, 502}
        return tuple(sorted(found.difference(self.statuses)))

    @property
    def generates(self) -> bool:
        """Whether it answers with the tokens of a model."""
        return self.stream is not None and self.role is Role.INFER


def _native(method: str, path: str, role: Role | None, does: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, role=role, does=does, dialect=Dialect.NATIVE, **more)


def _openai(method: str, path: str, does: str, **more: Any) -> Operation:
    return Operation(method=method, path=path, role=Role.INFER, does=does, dialect=Dialect.OPENAI, **more)


def _anthropic(path: str, does: str, **more: Any) -> Operation:
    return Operation(method="POST", path=path, role=Role.INFER, does=does, dialect=Dialect.ANTHROPIC, **more)


def _registry(method: str, path: str, does: str, **more: Any) -> Operation:
    reads = method in ("GET", "HEAD") and "/uploads/" not in path
    role = Role.PULL if reads else Role.PUSH
    return Operation(method=method, path=path, role=role, does=does, dialect=Dialect.REGISTRY, **more)


def _health(method: str, path: str, does: str) -> Operation:
    return Operation(
        method=method, path=path, does=does, dialect=Dialect.OPERATIONS, public=True, answer=dict[str, Any]
    )


_TEXT = "text/plain"
_BYTES = "application/octet-stream"
_ROOT = "says `Ollama is running`, which is how clients find a server"
_VERSION = "the version of the API, as a number of Ollama's, and Lading's own"
_TAGS = "lists the models of the store"
_CHAT = "continues a conversation"
_RANK = "scores documents by how well they answer a query, with a model made for that"

_NATIVE: Sequence[Operation] = (
    _native("GET", "/", None, _ROOT, media=_TEXT),
    _native("HEAD", "/", None, _ROOT, media=_TEXT),
    _native("GET", "/api/version", None, _VERSION, answer=native.VersionAnswer),
    _native("HEAD", "/api/version", None, _VERSION, answer=native.VersionAnswer),
    _native("GET", "/api/tags", Role.INFER, _TAGS, answer=native.TagsAnswer, compressed=True),
    _native("HEAD", "/api/tags", Role.INFER, _TAGS, answer=native.TagsAnswer),
    _native("POST", "/api/show", Role.INFER, "describes a model",
            request=native.ShowRequest, answer=native.ShowAnswer, compressed=True),
    _native("GET", "/api/ps", Role.INFER, "lists the models that are loaded", answer=native.PsAnswer),
    _native("POST", "/api/generate", Role.INFER,
            "continues a prompt; without a prompt, loads or unloads the model",
            request=native.GenerateRequest, answer=native.GenerateChunk, stream=NDJSON),
    _native("POST", "/api/chat", Role.INFER, "continues a conversation, with tools and thinking",
            request=native.ChatRequest, answer=native.ChatChunk, stream=NDJSON),
    _native("POST", "/api/embed", Role.INFER, "turns texts into vectors",
            request=native.EmbedRequest, answer=native.EmbedAnswer),
    _native("POST", "/api/embeddings", Role.INFER, "the older form of it: one text",
            request=native.EmbeddingsRequest, answer=native.EmbeddingsAnswer),
    _native("POST", "/api/create", Role.MANAGE, "builds a model from another, or from uploaded blobs",
            request=native.CreateRequest, answer=native.ProgressLine, stream=NDJSON),
    _native("HEAD", "/api/blobs/{digest}", Role.MANAGE, "asks for a blob"),
    _native("POST", "/api/blobs/{digest}", Role.MANAGE, "uploads a blob", statuses=(200, 201),
            body=_BYTES),
    _native("POST", "/api/copy", Role.MANAGE, "gives a model another name", request=native.CopyRequest),
    _native("DELETE", "/api/delete", Role.MANAGE, "removes a name, and frees what no other model needs",
            request=native.DeleteRequest),
    _native("POST", "/api/pull", Role.MANAGE, "fetches a model from a registry",
            request=native.TransferRequest, answer=native.ProgressLine, stream=NDJSON),
    _native("POST", "/api/push", Role.MANAGE, "sends a model to a registry",
            request=native.TransferRequest, answer=native.ProgressLine, stream=NDJSON),
    _native("GET", "/api/status", None, "says that no model runs anywhere else", answer=native.StatusAnswer),
)  # fmt: skip

_OPENAI: Sequence[Operation] = (
    _openai("GET", "/v1/models", _TAGS, answer=openai.ModelList, compressed=True),
    _openai("GET", "/v1/models/{id+}", "one of them", answer=openai.ModelRow),
    _openai("POST", "/v1/chat/completions", _CHAT, request=openai.ChatCompletionRequest,
            answer=openai.ChatCompletion, stream=EVENT_STREAM),
    _openai("POST", "/chat/completions", "the same, for clients that were given no `/v1`",
            request=openai.ChatCompletionRequest, answer=openai.ChatCompletion, stream=EVENT_STREAM),
    _openai("POST", "/v1/completions", "continues a prompt as it is, without a template",
            request=openai.CompletionRequest, answer=openai.TextCompletion, stream=EVENT_STREAM),
    _openai("POST", "/v1/embeddings", "turns texts into vectors",
            request=openai.EmbeddingRequest, answer=openai.EmbeddingList),
    _openai("POST", "/v1/responses", "continues a conversation, the newer way",
            request=responses.ResponsesRequest, answer=responses.Response, stream=EVENT_STREAM),
    _openai("GET", "/v1/responses/{response_id}", "shows a response that is kept", answer=responses.Response),
    _openai("DELETE", "/v1/responses/{response_id}", "forgets it", answer=responses.Deleted),
    _openai("POST", "/v1/rerank", _RANK, request=llama.RerankRequest, answer=llama.Ranking),
    _openai("POST", "/rerank", "the same", request=llama.RerankRequest, answer=llama.Ranking),
    _openai("POST", "/tokenize", "turns a text into a model's tokens",
            request=llama.TokenizeRequest, answer=llama.TokenList),
    _openai("POST", "/detokenize", "turns tokens into a text",
            request=llama.DetokenizeRequest, answer=llama.TokenText),
)  # fmt: skip

_ANTHROPIC: Sequence[Operation] = (
    _anthropic("/v1/messages", "continues a conversation, for clients of Anthropic",
               request=anthropic.MessagesRequest, answer=anthropic.MessageOut, stream=EVENT_STREAM),
    _anthropic("/v1/messages/count_tokens", "says how many tokens that would read",
               request=anthropic.CountTokensRequest, answer=anthropic.TokenCount),
)  # fmt: skip

_PAGE = ("n", "last")
_UPLOADS = "/v2/{name+}/blobs/uploads/"
_UPLOAD = "/v2/{name+}/blobs/uploads/{upload}"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"

_REGISTRY: Sequence[Operation] = (
    *(
        _registry(method, path, does, **more)
        for path, does, more in (
            ("/v2/", "says that this is a registry", {"answer": dict[str, Any]}),
            ("/v2/_catalog", "lists the repositories", {"answer": dict[str, Any], "query": _PAGE}),
            ("/v2/{name+}/tags/list", "lists the tags of one", {"answer": dict[str, Any], "query": _PAGE}),
            ("/v2/{name+}/manifests/{reference}", "a manifest, by tag or digest", {"media": _MANIFEST}),
            ("/v2/{name+}/blobs/{digest}", "a blob, or a range", {"media": _BYTES, "statuses": (200, 206)}),
        )
        for method in ("GET", "HEAD")
    ),
    _registry("PUT", "/v2/{name+}/manifests/{reference}", "stores a manifest",
              statuses=(201,), body=_MANIFEST),
    _registry("POST", _UPLOADS, "begins an upload, or takes a blob from another repository",
              statuses=(201, 202), body=_BYTES, query=("mount", "from", "digest")),
    _registry("GET", _UPLOAD, "how far an upload is", statuses=(204,)),
    _registry("PATCH", _UPLOAD, "more of an upload", statuses=(202,), body=_BYTES),
    _registry("PUT", _UPLOAD, "the end of an upload", statuses=(201,), body=_BYTES, query=("digest",)),
    _registry("DELETE", _UPLOAD, "gives an upload up", statuses=(204,)),
)  # fmt: skip

_OPERATIONS: Sequence[Operation] = (
    _health("GET", "/livez", "the process is alive"),
    _health("HEAD", "/livez", "the process is alive"),
    _health("GET", "/readyz", "requests can be taken"),
    _health("HEAD", "/readyz", "requests can be taken"),
    _health("GET", "/health", "the same as `/readyz`"),
    _health("HEAD", "/health", "the same as `/readyz`"),
    Operation(method="GET", path="/openapi.json", does="describes all of this, for programs",
              answer=dict[str, Any], dialect=Dialect.OPERATIONS, compressed=True),
    Operation(method="GET", path="/metrics", role=Role.METRICS, does="figures for Prometheus",
              dialect=Dialect.OPERATIONS, media=_TEXT, compressed=True),
)  # fmt: skip

OPERATIONS: Sequence[Operation] = (*_NATIVE, *_OPENAI, *_ANTHROPIC, *_REGISTRY, *_OPERATIONS)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_FIXED = {(one.method, one.path): one for one in OPERATIONS if "{" not in one.path}


def find_operation(method: str, path: str) -> Operation | None:
    """The operation that a request asks for; None where there is none."""
    fixed = _FIXED.get((method, path))
    if fixed is not None:
        return fixed
    for operation, pattern in _patterns().get(method, ()):
        if pattern.fullmatch(path):
            return operation
    return None


@lru_cache(maxsize=1)
def _patterns() -> dict[str, list[tuple[Operation, re.Pattern[str]]]]:
    patterns: dict[str, list[tuple[Operation, re.Pattern[str]]]] = {}
    for operation in OPERATIONS:
        if "{" in operation.path:
            patterns.setdefault(operation.method, []).append((operation, _pattern(operation.path)))
    return patterns


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[a-z_]+\+?\})", path)
    words = (
        ".+" if one.endswith("+}") else "[^/]+" if one.startswith("{") else re.escape(one) for one in parts
    )
    return re.compile("".join(words), re.DOTALL)
