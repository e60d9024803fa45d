"""From OpenAI's requests to the runtime's. Pure; every refusal is a `BadField` that names the field.

What OpenAI defaults to (temperature 1, top_p 1) is not forced on a model: where the request is silent, the
model's own parameters hold.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ...runtime.inference import Settings
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Think
from ..errors import BadField
from ..message_parts import MessageParts
from ..native.inference import arguments_of, parse_seconds
from . import schema as schema

MAX_CHOICES = 8
_EFFORTS: Mapping[str, Think | None] = {
    "": None,
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "max": "max",
    "xhigh": "max",
    "ultra": "max",
}


def new_id(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(12)}"


def options_of(request: schema.ChatCompletionRequest | schema.CompletionRequest) -> dict[str, Any]:
    """The runtime's options; what stands in ``options`` itself wins."""
    limit = request.max_tokens
    if isinstance(request, schema.ChatCompletionRequest) and request.max_completion_tokens is not None:
        limit = request.max_completion_tokens
    if limit == -1:  # not OpenAI's, but some clients mean "no limit" by it
        limit = None
    if limit is not None and limit < 1:
        raise BadField(f"max_tokens: expected at least 1, got {limit}", field="max_tokens")
    if not 1 <= request.n <= MAX_CHOICES:
        raise BadField(f"n: expected 1 to {MAX_CHOICES}, got {request.n}", field="n")
    named = {
        "num_predict": limit,
        "seed": request.seed,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "min_p": request.min_p,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "num_ctx": request.num_ctx,
        "stop": ([request.stop] if isinstance(request.stop, str) else request.stop) or None,
        "logit_bias": request.logit_bias or None,
    }
    return {name: value for name, value in named.items() if value is not None} | request.options


def chat_settings(request: schema.ChatCompletionRequest) -> Settings:
    """All but the messages and the tools."""
    if not 0 <= request.top_logprobs <= 20:
        raise BadField("top_logprobs must be between 0 and 20", field="top_logprobs")
    return Settings(
        options=options_of(request),
        keep_alive=parse_seconds(request.keep_alive),
        think=think_of_effort(request.reasoning_effort or request.reasoning.effort),
        format=response_format(request.response_format),
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
    )


def response_format(value: Mapping[str, Any]) -> Literal["json"] | dict[str, Any] | None:
    match value.get("type"):
        case None | "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            wrapper = value.get("json_schema")
            found = wrapper.get("schema") if isinstance(wrapper, dict) else None
            if isinstance(found, dict):
                return found
            raise BadField(
                "response_format: expected json_schema.schema to be a JSON Schema object",
                field="response_format",
            )
    raise BadField("response_format: expected type text, json_object or json_schema", field="response_format")


def messages_of(messages: Sequence[schema.MessageIn]) -> tuple[Message, ...]:
    """Messages as templates see them; a tool's result gets its tool's name from the call that it answers."""
    if not messages:
        raise BadField("[] is too short - 'messages'", field="messages")
    names: dict[str, str] = {}
    result: list[Message] = []
    for message in messages:
        names.update({call.id: call.function.name for call in message.tool_calls})
        result.append(_message(message, names))
    return tuple(result)


def _message(message: schema.MessageIn, names: Mapping[str, str]) -> Message:
    return Message(
        role="system" if message.role == "developer" else message.role,
        thinking=message.reasoning or message.reasoning_content,
        tool_calls=tuple(
            MessageToolCall(
                id=call.id,
                function=FunctionCall(
                    name=call.function.name, arguments=arguments_of(call.function.arguments)
                ),
            )
            for call in message.tool_calls
        ),
        tool_call_id=message.tool_call_id,
        tool_name=(message.name or names.get(message.tool_call_id, "")) if message.role == "tool" else "",
        name="" if message.role == "tool" else message.name,
        **_content(message.content),
    )


def _content(content: str | list[Any]) -> dict[str, Any]:
    """Fields of `Message`."""
    if isinstance(content, str):
        return {"content": content}
    parts = MessageParts("messages")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "input_text", "refusal"):
            parts.add_text(str(part.get("text") or part.get("refusal") or ""))
        elif kind == "image_url":
            parts.add_image_url(part.get("image_url"))
        else:
            raise BadField(f"messages: invalid message format: part of type {kind!r}", field="messages")
    return parts.fields()


def think_of_effort(effort: str, *, field: str = "reasoning_effort") -> Think | None:
    try:
        return _EFFORTS[effort.lower()]
    except KeyError:
        known = ", ".join(name for name in _EFFORTS if name)
        raise BadField(f"{field}: expected one of {known}", field=field) from None


# Tools


class ForcedTool(msgspec.Struct, frozen=True):
    """A call that must happen: the answer is constrained to `schema`, and read as a call afterwards."""

    schema: dict[str, Any]


def tools_of(
    request: schema.ChatCompletionRequest,
) -> tuple[tuple[dict[str, Any], ...], ForcedTool | None]:
    """The tools to offer, and whether one of them must be called."""
    return chosen_tools(request.tools, request.tool_choice)


def chosen_tools(
    offered: Sequence[dict[str, Any]], choice: Any
) -> tuple[tuple[dict[str, Any], ...], ForcedTool | None]:
    """As `tools_of`, for tools and a choice at hand."""
    tools = tuple(offered)
    match choice:
        case None | "auto":
            return tools, None
        case "none":
            return (), None
        case "required":
            return tools, _forced(tools)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            named = tuple(tool for tool in tools if _function(tool).get("name") == name)
            if not named:
                raise BadField(f"tool_choice: no tool is named {name!r}", field="tool_choice")
            return tools, _forced(named)
    raise BadField("tool_choice: expected none, auto, required or a function's name", field="tool_choice")


def _forced(tools: Sequence[dict[str, Any]]) -> ForcedTool:
    if not tools:
        raise BadField("tool_choice: expected tools to choose from", field="tool_choice")
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": _function(tool).get("name", "")},
                "arguments": _function(tool).get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return ForcedTool(calls[0] if len(calls) == 1 else {"anyOf": calls})


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function")
    return function if isinstance(function, dict) else {}
