"""Requests and answers of the routes that llama-server has beside OpenAI's, as types.

llama-server serves one model, so that its clients name none; here a request without ``model`` is for the
model that is loaded, if there is one only.

Source: llama.cpp's tools/server/README.md, as of 2026-09.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..field_status import Ignored, Refused


class Request(msgspec.Struct):
    """Base of requests: every field may be absent."""


class _Common(Request):
    model: str = ""
    # Ours, as in the other dialects.
    options: dict[str, Any] = {}
    keep_alive: Any = None


class Document(Request):
    text: str = ""


class TokenizeRequest(_Common):
    content: str = ""
    add_special: bool = False
    parse_special: bool = True
    with_pieces: Annotated[Any, Refused("only the numbers of tokens can be had; see /detokenize")] = None


class DetokenizeRequest(_Common):
    tokens: list[int] = []


class RerankRequest(_Common):
    query: str = ""
    documents: list[str | Document] = []
    top_n: int | None = None
    return_documents: bool = False
    max_chunks_per_doc: Annotated[Any, Ignored("the end of a long document is not read")] = None


class Answer(msgspec.Struct, omit_defaults=True):
    """Base of answers."""


class TokenList(Answer):
    tokens: tuple[int, ...]


class TokenText(Answer):
    content: str


class RankedDocument(Answer):
    text: str


class RankedRow(Answer):
    index: int
    """The document's place in the request."""
    relevance_score: float
    document: RankedDocument | None = None


class RankUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class Ranking(Answer):
    model: str
    object: Literal["list"]
    usage: RankUsage
    results: list[RankedRow]
