"""From requests of the Responses API to the runtime's. Pure; every refusal is a `BadField` that names the
field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from ...runtime.inference import ChatRequest, Settings
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Think
from ..answer_form import response_format
from ..errors import BadField
from ..field_status import refuse_unsupported
from ..message_parts import MessageParts
from ..native.inference import arguments_of, parse_seconds
from ..tool_choice import chosen_tools
from . import responses_schema as schema
from .request import think_of_effort

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
# Offered by programs whether or not there is somebody to run them: the model is not told of these.
_HOSTED_TOOLS = ("web_search", "web_search_preview", "web_search_2025_08_26")
# What hosted tools left in a conversation.
_FOREIGN_ITEMS = ("web_search_call", "file_search_call", "image_generation_call", "code_interpreter_call")


def chat_request(request: schema.ResponsesRequest, messages: tuple[Message, ...]) -> ChatRequest:
    """The conversation with its tools and settings. ``messages`` are what was said before and the request's
    own, without its instructions."""
    refuse_unsupported(request)
    if not request.model:
        raise BadField("model is required", field="model")
    tools, choice = chosen_tools(
        tools_of(request.tools), request.tool_choice, parallel=request.parallel_tool_calls
    )
    if not messages:
        raise BadField("input: expected a text or items, got none", field="input")
    if request.instructions:
        messages = (Message(role="system", content=request.instructions), *messages)
    return ChatRequest(
        model=request.model, messages=messages, tools=tools, tool_choice=choice, settings=_settings(request)
    )


def _settings(request: schema.ResponsesRequest) -> Settings:
    if request.truncation not in ("", "auto", "disabled"):
        raise BadField("truncation: expected auto or disabled", field="truncation")
    if not 0 <= request.top_logprobs <= 20:
        raise BadField("top_logprobs must be between 0 and 20", field="top_logprobs")
    think, effort = _thinking(request.reasoning.effort)
    return Settings(
        options=_options(request),
        keep_alive=parse_seconds(request.keep_alive),
        think=think,
        effort=effort,
        max_thinking_tokens=request.max_thinking_tokens,
        format=response_format(request.text.format, "text.format"),
        truncate=request.truncation == "auto",
        logprobs=LOGPROBS in request.include,
        top_logprobs=request.top_logprobs,
    )


def _options(request: schema.ResponsesRequest) -> dict[str, Any]:
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        raise BadField("max_output_tokens: expected at least 1", field="max_output_tokens")
    named = {
        "num_predict": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "num_ctx": request.num_ctx,
    }
    return {name: value for name, value in named.items() if value is not None} | request.options


def _thinking(effort: str) -> tuple[Literal[False] | None, Think | None]:
    """Whether to leave thinking to the model, and how much it is to think then."""
    think = think_of_effort(effort, field="reasoning")
    return (False, None) if think is False else (None, think)


# Tools


def tools_of(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """In the shape of chat completions; before the name of a tool in a namespace stands the namespace's."""
    result = []
    for tool in tools:
        match tool:
            case {"type": "function", "name": str(name)}:
                result.append(_function(tool, name))
            case {"type": "namespace", "name": str(namespace), "tools": list(inner)}:
                result += [
                    _function(one, f"{namespace}.{one.get('name', '')}")
                    for one in inner
                    if isinstance(one, dict)
                ]
            case {"type": kind} if kind in _HOSTED_TOOLS:
                pass
            case _:
                kind = tool.get("type")
                raise BadField(
                    f"tools: a tool of type {kind!r}: only functions can be offered", field="tools"
                )
    return result


def namespaces_of(tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(tool.get("name", "")) for tool in tools if tool.get("type") == "namespace")


def _function(tool: Mapping[str, Any], name: str) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if tool.get("description"):
        function["description"] = tool["description"]
    function["parameters"] = tool.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


# Items


def messages_of(value: str | list[Any], earlier: Sequence[Message] = ()) -> tuple[Message, ...]:
    """Items as messages: an assistant's thought, words and calls are one. ``earlier`` messages may have the
    calls whose results are among the items."""
    if isinstance(value, str):
        return (Message(role="user", content=value),) if value else ()
    reader = _Items({call.id: call.function.name for message in earlier for call in message.tool_calls})
    for item in value:
        reader.read(item)
    return reader.finish()


class _Items:
    def __init__(self, names: dict[str, str]) -> None:
        self._messages: list[Message] = []
        self._names = names
        self._turn: Message | None = None
        """The assistant's, as far as it is read."""

    def read(self, item: Any) -> None:
        match item:
            case {"type": "function_call", "name": str(name)}:
                self._add_call(name, item)
            case {"type": "function_call_output"}:
                self._add_result(item)
            case {"type": "reasoning"}:
                self._add_to_turn(thinking=_thought(item))
            case {"type": str(kind)} if kind in _FOREIGN_ITEMS:
                pass
            case {"type": "message", "role": str(role)}:
                self._add_message(role, item.get("content"))
            case {"role": str(role)} if "type" not in item:
                self._add_message(role, item.get("content"))
            case _:
                shown = item.get("type") if isinstance(item, dict) else None
                raise BadField(f"input: an item of type {shown!r} cannot be read", field="input")

    def finish(self) -> tuple[Message, ...]:
        self._end_turn()
        return tuple(self._messages)

    def _add_message(self, role: str, content: object) -> None:
        fields = _content(content or "")
        if role == "assistant":
            self._add_to_turn(content=fields["content"])
            return
        if role not in ("user", "system", "developer"):
            raise BadField(f"input: unexpected role {role[:40]!r}", field="input")
        self._end_turn()
        role = "system" if role == "developer" else role
        self._messages.append(Message(role=role, **fields))

    def _add_call(self, name: str, item: Mapping[str, Any]) -> None:
        full_name = f"{item['namespace']}.{name}" if item.get("namespace") else name
        call_id = str(item.get("call_id") or item.get("id") or "")
        self._names[call_id] = full_name
        arguments = arguments_of(item.get("arguments") or {})
        call = MessageToolCall(id=call_id, function=FunctionCall(name=full_name, arguments=arguments))
        self._add_to_turn(calls=(call,))

    def _add_result(self, item: Mapping[str, Any]) -> None:
        self._end_turn()
        call_id = str(item.get("call_id") or "")
        name = self._names.get(call_id, "")
        fields = _content(item.get("output") or "")
        self._messages.append(Message(role="tool", tool_call_id=call_id, tool_name=name, **fields))

    def _add_to_turn(
        self, *, content: str = "", thinking: str = "", calls: tuple[MessageToolCall, ...] = ()
    ) -> None:
        turn = self._turn or Message(role="assistant")
        self._turn = msgspec.structs.replace(
            turn,
            content="\n".join(text for text in (turn.content, content) if text),
            thinking=turn.thinking + thinking,
            tool_calls=turn.tool_calls + calls,
        )

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._messages.append(self._turn)
        self._turn = None


def _thought(item: Mapping[str, Any]) -> str:
    for parts in (item.get("content"), item.get("summary")):
        texts = [part["text"] for part in parts or () if isinstance(part, dict) and "text" in part]
        if texts:
            return "\n".join(map(str, texts))
    return str(item.get("encrypted_content") or "")


def _content(content: Any) -> dict[str, Any]:
    """Fields of `Message`."""
    if isinstance(content, str):
        return {"content": content}
    parts = MessageParts("input")
    for part in content if isinstance(content, list) else [content]:
        match part:
            case {"type": "input_text" | "output_text" | "text" | "summary_text", "text": str(text)}:
                parts.add_text(text)
            case {"type": "refusal", "refusal": str(text)}:
                parts.add_text(text)
            case {"type": "input_image"}:
                parts.add_image_url(part.get("image_url"))
            case _:
                kind = part.get("type") if isinstance(part, dict) else None
                raise BadField(f"input: content of type {kind!r} cannot be read", field="input")
    return parts.fields()
