"""From OpenAI's requests to the runtime's. Pure; every refusal is a `BadField` that names the field.

What OpenAI defaults to (temperature 1, top_p 1) is not forced on a model: where the request is silent, the
model's own parameters hold.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from ...runtime.inference import Form, Settings
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Think, ToolChoice
from ..answer_form import grammar_of, one_form, response_format, structured_outputs
from ..errors import BadField
from ..message_parts import MessageParts
from ..native.inference import arguments_of, parse_seconds
from ..tool_choice import chosen_tools
from . import schema as schema

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
        max_thinking_tokens=_thinking_limit(request),
        truncate=request.truncate,
        format=form_of(request),
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if request.logprobs else 0,
    )


def _thinking_limit(request: schema.ChatCompletionRequest) -> int | None:
    """Not OpenAI's: under our own name, or under the one that routers between models use."""
    limit = request.max_thinking_tokens
    return request.reasoning.max_tokens if limit is None else limit


def form_of(request: schema.ChatCompletionRequest | schema.CompletionRequest) -> Form | None:
    """OpenAI's way of asking for a form, or one of others'."""
    return one_form(
        response_format=response_format(request.response_format),
        grammar=grammar_of(request.grammar),
        structured_outputs=structured_outputs(request.structured_outputs),
    )


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


def tools_of(request: schema.ChatCompletionRequest) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools to offer, and what may be done with them."""
    return chosen_tools(request.tools, request.tool_choice, parallel=request.parallel_tool_calls)


def is_tokens(value: object) -> bool:
    """Whether it is a list of tokens of a vocabulary, in place of a text."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(token, int) and not isinstance(token, bool) for token in value)
