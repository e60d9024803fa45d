"""Requests and answers of OpenAI's Responses API (``/v1/responses``), as types.

A response names every setting that it was made with, null where there is none: newer clients check that all
are there. Events are made in `responses_encode`.

Source: OpenAI's API reference and its Python client's types, as of 2026-10.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..field_status import Ignored, Refused
from .schema import LogprobContent

# Requests


class Request(msgspec.Struct):
    """Base of requests: every field may be absent."""


class ReasoningIn(Request):
    effort: str = ""
    summary: str = ""


class TextIn(Request):
    format: dict[str, Any] = {}


class ResponsesRequest(Request):
    model: str = ""
    input: str | list[Any] = ""
    instructions: str = ""
    previous_response_id: str = ""
    store: bool = True
    stream: bool = False
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    text: TextIn = msgspec.field(default_factory=TextIn)
    reasoning: ReasoningIn = msgspec.field(default_factory=ReasoningIn)
    include: list[str] = []
    max_output_tokens: int | None = None
    max_thinking_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int = 0
    truncation: str = ""
    metadata: dict[str, Any] = {}
    # Ours, as in the other dialects.
    options: dict[str, Any] = {}
    num_ctx: int | None = None
    keep_alive: Any = None
    user: Annotated[Any, Ignored("nothing is kept of who asked")] = None
    safety_identifier: Annotated[Any, Ignored("nothing is kept of who asked")] = None
    prompt_cache_key: Annotated[Any, Ignored("beginnings that prompts share are always kept")] = None
    prompt_cache_retention: Annotated[Any, Ignored("beginnings that prompts share are always kept")] = None
    prompt_cache_options: Annotated[Any, Ignored("beginnings that prompts share are always kept")] = None
    service_tier: Annotated[Any, Ignored("there is one")] = None
    stream_options: Annotated[Any, Ignored("nothing is padded")] = None
    context_management: Annotated[Any, Ignored("see `truncation`")] = None
    max_tool_calls: Annotated[Any, Ignored("the server calls no tools by itself")] = None
    background: Annotated[Any, Refused("answers are made while the client waits")] = None
    conversation: Annotated[Any, Refused("conversations are not kept; use previous_response_id")] = None
    prompt: Annotated[Any, Refused("no prompts are kept; send instructions and input")] = None


# Answers


class Answer(msgspec.Struct, kw_only=True):
    """Base of answers: whatever has no value is null."""


class InputTokensDetails(Answer):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(Answer):
    reasoning_tokens: int


class Usage(Answer):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class SummaryText(Answer, tag_field="type", tag="summary_text"):
    text: str


class OutputText(Answer, tag_field="type", tag="output_text"):
    text: str = ""
    annotations: list[Any] = []
    logprobs: list[LogprobContent] = []


class ReasoningItem(Answer, tag_field="type", tag="reasoning", omit_defaults=True):
    id: str
    summary: list[SummaryText]
    status: str
    encrypted_content: str = ""
    """Where asked for: the thought once more, in plain text, for clients that keep only this of it."""


class MessageItem(Answer, tag_field="type", tag="message"):
    id: str
    role: Literal["assistant"]
    content: list[OutputText]
    status: str


class FunctionCallItem(Answer, tag_field="type", tag="function_call", omit_defaults=True):
    id: str
    call_id: str
    name: str
    arguments: str
    status: str
    namespace: str = ""


Item = ReasoningItem | MessageItem | FunctionCallItem


class IncompleteDetails(Answer):
    reason: Literal["max_output_tokens"]


class ResponseError(Answer):
    code: str
    message: str


class Response(Answer):
    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: str
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, Any]
    model: str
    output: list[Item]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, str | None]
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: str
    usage: Usage | None


class Deleted(Answer):
    id: str
    object: Literal["response"]
    deleted: bool
