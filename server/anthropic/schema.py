"""Requests and answers of Anthropic's Messages API, as types.

In answers a field that has a default is left out while it has that value. The nulls of ``stop_reason`` and
``stop_sequence`` are part of Anthropic's contract, and so have no default.

Source: Anthropic's API reference and its Python client's types, as of 2026-10.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..field_status import Ignored, Refused

# Requests


class Request(msgspec.Struct):
    """Base of requests: every field may be absent."""


class MessageIn(Request):
    role: str = ""
    content: str | list[Any] = ""


class ToolIn(Request):
    name: str = ""
    type: str = ""
    description: str = ""
    input_schema: dict[str, Any] | None = None


class ToolChoiceIn(Request):
    type: str = ""
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingIn(Request):
    type: str = ""
    budget_tokens: int | None = None
    display: str = ""


class OutputConfigIn(Request):
    effort: str = ""
    format: dict[str, Any] = {}


class CountTokensRequest(Request):
    model: str = ""
    messages: list[MessageIn] = []
    system: str | list[Any] = ""
    tools: list[ToolIn] = []
    tool_choice: ToolChoiceIn = msgspec.field(default_factory=ToolChoiceIn)
    thinking: ThinkingIn = msgspec.field(default_factory=ThinkingIn)
    output_config: OutputConfigIn = msgspec.field(default_factory=OutputConfigIn)
    # Ours, as in the OpenAI dialect.
    options: dict[str, Any] = {}
    num_ctx: int | None = None
    keep_alive: Any = None


class MessagesRequest(CountTokensRequest):
    max_tokens: int | None = None
    stream: bool = False
    stop_sequences: list[str] = []
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    output_format: dict[str, Any] = {}
    metadata: Annotated[Any, Ignored("nothing is kept of who asked")] = None
    cache_control: Annotated[Any, Ignored("beginnings that prompts share are always kept")] = None
    context_management: Annotated[Any, Ignored("a prompt that is too long is refused")] = None
    service_tier: Annotated[Any, Ignored("there is one")] = None
    inference_geo: Annotated[Any, Ignored("it happens on this machine")] = None
    speed: Annotated[Any, Ignored("it is always as fast as it can be")] = None
    diagnostics: Annotated[Any, Ignored("there are none")] = None
    user_profile_id: Annotated[Any, Ignored("there are no accounts")] = None
    workspace_id: Annotated[Any, Ignored("there are no accounts")] = None
    container: Annotated[Any, Refused("nothing is executed on the server")] = None
    mcp_servers: Annotated[Any, Refused("the server calls no tools by itself")] = None


# Answers


class Answer(msgspec.Struct, omit_defaults=True):
    """Base of answers."""


class Usage(Answer):
    """``input_tokens`` are those that were evaluated; the rest of the prompt is ``cache_read``."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class TextBlock(Answer, tag_field="type", tag="text"):
    text: str


class ThinkingBlock(Answer, tag_field="type", tag="thinking"):
    thinking: str
    signature: str


class ToolUseBlock(Answer, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ThinkingBlock | ToolUseBlock


class MessageOut(Answer, tag_field="type", tag="message"):
    id: str
    role: Literal["assistant"]
    model: str
    content: list[Block]
    stop_reason: str | None
    stop_sequence: str | None
    usage: Usage


class TokenCount(Answer):
    input_tokens: int


# Events of a stream


class TextDelta(Answer, tag_field="type", tag="text_delta"):
    text: str


class ThinkingDelta(Answer, tag_field="type", tag="thinking_delta"):
    thinking: str


class SignatureDelta(Answer, tag_field="type", tag="signature_delta"):
    signature: str


class InputJsonDelta(Answer, tag_field="type", tag="input_json_delta"):
    partial_json: str


class StopDelta(Answer):
    stop_reason: str
    stop_sequence: str | None


class MessageStart(Answer, tag_field="type", tag="message_start"):
    message: MessageOut


class Ping(Answer, tag_field="type", tag="ping"):
    pass


class BlockStart(Answer, tag_field="type", tag="content_block_start"):
    index: int
    content_block: Block


class BlockDelta(Answer, tag_field="type", tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(Answer, tag_field="type", tag="content_block_stop"):
    index: int


class MessageDelta(Answer, tag_field="type", tag="message_delta"):
    delta: StopDelta
    usage: Usage


class MessageStop(Answer, tag_field="type", tag="message_stop"):
    pass


Event = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
