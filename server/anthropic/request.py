"""From Anthropic's requests to the runtime's. Pure; every refusal is a `BadField` that names the field.

One message of Anthropic's may be several here: a tool's result is a message of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...runtime.inference import ChatRequest, Settings
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Think, ToolChoice
from ..errors import BadField
from ..field_status import refuse_unsupported
from ..message_parts import MessageParts, joined
from ..native.inference import parse_seconds
from ..tool_choice import chosen_tools
from . import schema as schema

_EFFORTS: Mapping[str, Think] = {
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "max",
    "max": "max",
}
# What Anthropic's own tools left in a conversation: no model here can have caused it, and none can read it.
_FOREIGN_BLOCKS = ("redacted_thinking", "server_tool_use")


def chat_request(request: schema.CountTokensRequest) -> ChatRequest:
    """The conversation with its tools and settings."""
    refuse_unsupported(request)
    if not request.model:
        raise BadField("model is required", field="model")
    if not request.messages:
        raise BadField("messages: expected at least one message, got none", field="messages")
    tools, choice = chosen_tools(
        [_tool(tool) for tool in request.tools],
        _choice(request.tool_choice),
        parallel=not request.tool_choice.disable_parallel_tool_use,
    )
    messages = (*_system(request.system), *messages_of(request.messages))
    settings = _settings(request, choice)
    return ChatRequest(
        model=request.model, messages=messages, tools=tools, tool_choice=choice, settings=settings
    )


def _settings(request: schema.CountTokensRequest, choice: ToolChoice) -> Settings:
    """A prompt that is too long is refused, not cut: clients shorten it by themselves once they are told.
    Where a tool must be called there is no thinking, as at Anthropic."""
    thinks = _thinks(request.thinking) and choice.mode == "auto"
    return Settings(
        options=_options(request),
        keep_alive=parse_seconds(request.keep_alive),
        think=None if thinks else False,
        effort=_effort(request.output_config.effort),
        max_thinking_tokens=request.thinking.budget_tokens if thinks else None,
        format=_format(request),
        truncate=False,
    )


def _options(request: schema.CountTokensRequest) -> dict[str, Any]:
    named: dict[str, Any] = {"num_ctx": request.num_ctx}
    if isinstance(request, schema.MessagesRequest):
        if request.max_tokens is None or request.max_tokens < 1:
            raise BadField("max_tokens is required and must be positive", field="max_tokens")
        named |= {
            "num_predict": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": request.stop_sequences or None,
        }
    return {name: value for name, value in named.items() if value is not None} | request.options


def _thinks(thinking: schema.ThinkingIn) -> bool:
    """As Anthropic's, no thoughts unless they are asked for."""
    match thinking.type:
        case "" | "disabled":
            return False
        case "enabled" | "adaptive" | "between_tools":
            if thinking.budget_tokens is not None and thinking.budget_tokens < 1:
                raise BadField("thinking.budget_tokens: expected at least 1", field="thinking")
            return True
    raise BadField("thinking.type: expected enabled, adaptive, between_tools or disabled", field="thinking")


def _effort(effort: str) -> Think | None:
    if not effort:
        return None
    if effort not in _EFFORTS:
        raise BadField(f"output_config.effort: expected one of {', '.join(_EFFORTS)}", field="output_config")
    return _EFFORTS[effort]


def _format(request: schema.CountTokensRequest) -> dict[str, Any] | None:
    given = request.output_config.format
    if not given and isinstance(request, schema.MessagesRequest):
        given = request.output_format
    if not given:
        return None
    if given.get("type") == "json_schema" and isinstance(given.get("schema"), dict):
        return dict(given["schema"])
    raise BadField("output_config.format: expected type json_schema and a schema", field="output_config")


# Tools


def _tool(tool: schema.ToolIn) -> dict[str, Any]:
    if tool.input_schema is None:
        kind = tool.type or "custom"
        raise BadField(
            f"tools: {tool.name or kind}: expected an input_schema; there are no tools that the server runs",
            field="tools",
        )
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": {**function, "parameters": tool.input_schema}}


def _choice(choice: schema.ToolChoiceIn) -> Any:
    """In the words of OpenAI's API."""
    match choice.type:
        case "" | "auto":
            return "auto"
        case "none":
            return "none"
        case "any":
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": choice.name}}
    raise BadField("tool_choice.type: expected auto, any, tool or none", field="tool_choice")


# Messages


def _system(system: str | list[Any]) -> tuple[Message, ...]:
    text = _text_of(system, "system")
    return (Message(role="system", content=text),) if text else ()


def messages_of(messages: Sequence[schema.MessageIn]) -> tuple[Message, ...]:
    """Messages as templates see them. Turns of one role that follow each other are one, as at Anthropic."""
    names: dict[str, str] = {}
    result: list[Message] = []
    for message in messages:
        if message.role not in ("user", "assistant", "system"):
            raise BadField(f"messages: unexpected role {message.role[:40]!r}", field="messages")
        for one in _Turn(message.role, names).read(message.content):
            _append(result, one)
    return tuple(result)


def _append(result: list[Message], message: Message) -> None:
    last = result[-1] if result else None
    if last is None or last.role != message.role or message.role not in ("user", "assistant"):
        result.append(message)
        return
    result[-1] = joined(last, message)


class _Turn:
    """One message's blocks, read into one or more messages. ``names`` has the tool of every call so far."""

    def __init__(self, role: str, names: dict[str, str]) -> None:
        self._role = role
        self._names = names
        self._results: list[Message] = []
        self._parts = MessageParts("messages")
        self._thoughts: list[str] = []
        self._calls: list[MessageToolCall] = []

    def read(self, content: str | list[Any]) -> list[Message]:
        if isinstance(content, str):
            return [Message(role=self._role, content=content)]
        for block in content:
            self._read(block)
        if not self._results or not self._parts.is_empty:
            # Results come first: they answer the turn before.
            return [*self._results, self._message()]
        return self._results

    def _message(self) -> Message:
        return Message(
            role=self._role,
            thinking="".join(self._thoughts),
            tool_calls=tuple(self._calls),
            **self._parts.fields(),
        )

    def _read(self, block: Any) -> None:
        match block:
            case {"type": "text", "text": str(text)}:
                self._parts.add_text(text)
            case {"type": "thinking"}:
                self._thoughts.append(str(block.get("thinking") or ""))
            case {"type": "image"}:
                self._parts.add_image(_image(block))
            case {"type": "document"} | {"type": "search_result"}:
                self._parts.add_text(_document(block))
            case {"type": "tool_use", "name": str(name)}:
                self._add_call(name, block)
            case {"type": "tool_result"}:
                self._add_result(block)
            case {"type": str(kind)} if kind in _FOREIGN_BLOCKS or kind.endswith("_tool_result"):
                pass
            case _:
                shown = block.get("type") if isinstance(block, dict) else None
                raise BadField(f"messages: content of type {shown!r} cannot be read", field="messages")

    def _add_call(self, name: str, block: Mapping[str, Any]) -> None:
        arguments = block.get("input") or {}
        if not isinstance(arguments, dict):
            raise BadField("messages: expected a tool_use's input to be an object", field="messages")
        call_id = str(block.get("id") or "")
        self._names[call_id] = name
        self._calls.append(MessageToolCall(id=call_id, function=FunctionCall(name=name, arguments=arguments)))

    def _add_result(self, block: Mapping[str, Any]) -> None:
        call_id = str(block.get("tool_use_id") or "")
        content = block.get("content") or ""
        parts = content if isinstance(content, list) else []
        for part in parts:
            if isinstance(part, dict) and part.get("type") == "image":
                self._parts.add_image(_image(part))
        rest = [part for part in parts if not (isinstance(part, dict) and part.get("type") == "image")]
        self._results.append(
            Message(
                role="tool",
                content=_text_of(rest if parts else content, "messages"),
                tool_call_id=call_id,
                tool_name=self._names.get(call_id, ""),
            )
        )


def _text_of(value: Any, field: Literal["system", "messages"]) -> str:
    """A text, or text blocks one below the other."""
    if isinstance(value, str):
        return value
    texts = []
    for block in value if isinstance(value, list) else [value]:
        match block:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "document"} | {"type": "search_result"} if field == "messages":
                texts.append(_document(block))
            case _:
                raise BadField(f"{field}: expected a text or a list of text blocks", field=field)
    return "\n".join(texts)


def _document(block: Mapping[str, Any]) -> str:
    """What can be read of a document: its text."""
    match block.get("source"), block.get("content"):
        case {"type": "text", "data": str(text)}, _:
            return text
        case {"type": "content", "content": content}, _:
            return _text_of(content, "messages")
        case _, list(content):
            return _text_of(content, "messages")
    raise BadField("messages: of documents, only text can be read", field="messages")


def _image(block: Mapping[str, Any]) -> str:
    match block.get("source"):
        case {"type": "base64", "data": str(data)}:
            return data
    raise BadField("messages: invalid image input: expected a base64 source", field="messages")
