"""Conversations as a chat template takes them.

Clients differ in what they send: tool results without a name or an identifier, several messages of one role
in a row, system messages anywhere. Templates differ in what they take. Between the two a conversation is put
so that nothing said in it is lost.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import structs

from ..protocol import Message, MessageToolCall
from .shield import Shield
from .template_traits import TemplateTraits, as_parts
from .tool_formats.registry import format_named

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


def template_messages(
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    traits: TemplateTraits,
    shield: Shield,
) -> tuple[dict[str, Any], ...]:
    """``messages`` in the shape that published templates expect. ``tools`` are told of in them where the
    template itself does not."""
    turns = with_paired_results(messages, invents_ids=traits.takes_calls)
    if tools and not traits.takes_tools:
        turns = _with_tools_said(turns, template_tools(tools, traits, shield), traits)
    turns = _without_refused(turns, traits)
    if not traits.takes_system:
        turns = _with_system_in_question(turns)
    if not traits.takes_late_system:
        turns = _with_late_system_said(turns)
    if not traits.takes_neighbours:
        turns = _without_neighbours(turns)
    if not traits.takes_many_calls:
        turns = _one_call_at_a_time(turns)
    written = (_template_message(turn, traits, shield) for turn in turns)
    return tuple(as_parts(turn) if traits.wants_parts else turn for turn in written)


def template_tools(
    tools: Sequence[Mapping[str, Any]], traits: TemplateTraits, shield: Shield
) -> tuple[dict[str, Any], ...]:
    """``tools`` in the shape that the template expects."""
    given = [_whole_tool(tool) for tool in tools] if traits.wants_whole_tools else tools
    return tuple(shield.value(given))


def without_prefill(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """An assistant's message at the end is the beginning of the answer, which the model is to go on with."""
    last = messages[-1] if messages else None
    if last is None or len(messages) < 2 or last.role != "assistant" or last.tool_calls or not last.content:
        return messages, ""
    return messages[:-1], last.content


def with_paired_results(messages: Iterable[Message], *, invents_ids: bool = True) -> list[Message]:
    """Calls all have identifiers, and results those of their calls, and their names.

    A result is the one of the call with its identifier, or else of the first call without a result that has
    its name, or else of the first without a result. One that belongs to no call stays as it is.
    """
    open_calls: deque[MessageToolCall] = deque()
    turns: list[Message] = []
    count = 0
    for message in messages:
        if message.tool_calls:
            calls = []
            for call in message.tool_calls:
                invented = "" if call.id or not invents_ids else f"call_{count:08d}"
                calls.append(structs.replace(call, id=invented) if invented else call)
                count += 1
            open_calls = deque(calls)
            message = structs.replace(message, tool_calls=tuple(calls))
        elif message.role == "tool" and (answered := _answered(message, open_calls)):
            open_calls.remove(answered)
            name = message.tool_name or answered.function.name
            message = structs.replace(message, tool_call_id=answered.id, tool_name=name)
        turns.append(message)
    return turns


def _answered(result: Message, calls: Iterable[MessageToolCall]) -> MessageToolCall | None:
    known = list(calls)
    if result.tool_call_id:
        return next((call for call in known if call.id == result.tool_call_id), None)
    name = result.tool_name or result.name
    return next((call for call in known if not name or call.function.name == name), None)


def _with_tools_said(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], traits: TemplateTraits
) -> list[Message]:
    """For templates that leave it to the operator to tell the model of its tools."""
    shape = format_named(traits.tool_format).shape
    lines = ["You may call these tools:", *(msgspec.json.encode(tool).decode() for tool in tools)]
    if shape:
        lines += ["To call one, write exactly:", shape.example("NAME", {"ARGUMENT": "VALUE"})]
    text = "\n".join(lines)
    turns = list(messages)
    if turns and turns[0].role == "system":
        turns[0] = structs.replace(turns[0], content=f"{turns[0].content}\n\n{text}")
    else:
        turns.insert(0, Message(role="system", content=text))
    return turns


def _without_refused(messages: Sequence[Message], traits: TemplateTraits) -> list[Message]:
    """Calls that the template does not write are the assistant's words; results that it does not take, the
    user's."""
    shape = format_named(traits.tool_format).shape
    turns: list[Message] = []
    called: set[str] = set()
    for message in messages:
        if message.tool_calls:
            called = {call.id for call in message.tool_calls}
            if not traits.takes_calls and shape:
                calls = (call.function for call in message.tool_calls)
                said = [message.content, *(shape.example(call.name, call.arguments) for call in calls)]
                message = structs.replace(message, content="\n".join(filter(None, said)), tool_calls=())
        elif message.role == "tool":
            is_orphan = not message.tool_call_id or message.tool_call_id not in called
            if not traits.takes_results or (is_orphan and not traits.takes_orphans):
                message = Message(role="user", content=message.content, images=message.images)
        turns.append(message)
    return turns


def _whole_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """``tool`` with descriptions wherever there may be one, and arguments."""
    function = tool.get("function")
    if not isinstance(function, Mapping):
        return dict(tool)
    parameters = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    properties = parameters["properties"]
    if isinstance(properties, Mapping):
        parameters["properties"] = {
            key: {"description": "", **schema} if isinstance(schema, Mapping) else schema
            for key, schema in properties.items()
        }
    return {**tool, "function": {"description": "", **function, "parameters": parameters}}


def _with_system_in_question(messages: Sequence[Message]) -> list[Message]:
    """For templates that take no system message: it goes before the question that follows it."""
    turns = list(messages)
    if len(turns) >= 2 and turns[0].role == "system" and turns[1].role == "user":
        turns[:2] = [structs.replace(turns[1], content=f"{turns[0].content}\n\n{turns[1].content}")]
    return turns


def _with_late_system_said(messages: Sequence[Message]) -> list[Message]:
    """For templates that take system messages only at the beginning: later ones are the user's words."""
    return [
        structs.replace(turn, role="user") if turn.role == "system" and i else turn
        for i, turn in enumerate(messages)
    ]


def _without_neighbours(messages: Sequence[Message]) -> list[Message]:
    """For templates that insist on turns: what one side says in a row is one message."""
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        same = last is not None and last.role == message.role and message.role in ("user", "assistant")
        if last is None or not same or last.tool_calls:
            turns.append(message)
            continue
        turns[-1] = structs.replace(
            last,
            content="\n\n".join(text for text in (last.content, message.content) if text),
            thinking="\n\n".join(text for text in (last.thinking, message.thinking) if text),
            images=last.images + message.images,
            tool_calls=message.tool_calls,
        )
    return turns


def _one_call_at_a_time(messages: Sequence[Message]) -> list[Message]:
    """For templates that take one call in a message: each stands alone, with its result behind it."""
    turns: list[Message] = []
    waiting = list(messages)
    while waiting:
        message = waiting.pop(0)
        if len(message.tool_calls) < 2:
            turns.append(message)
            continue
        size = next((i for i, turn in enumerate(waiting) if turn.role != "tool"), len(waiting))
        results, waiting = waiting[:size], waiting[size:]
        for i, call in enumerate(message.tool_calls):
            alone = structs.replace(message, tool_calls=(call,))
            turns.append(alone if i == 0 else structs.replace(alone, content="", thinking="", images=()))
            turns += [result for result in results if result.tool_call_id == call.id]
        known = {call.id for call in message.tool_calls}
        turns += [result for result in results if result.tool_call_id not in known]
    return turns


def _template_message(message: Message, traits: TemplateTraits, shield: Shield) -> dict[str, Any]:
    """A message as published templates expect it: absent fields absent, calls in OpenAI's shape."""
    # What the model itself and its operator wrote may well contain control tokens.
    is_trusted = message.role in ("system", "assistant")
    content = message.content if is_trusted else shield.text(message.content)
    thinking = message.thinking
    if message.tool_calls and thinking and content and not traits.takes_call_text:
        thinking, content = f"{thinking}\n\n{content}", ""
    result: dict[str, Any] = {"role": message.role, "content": content}
    if thinking:
        result["reasoning_content"] = result["thinking"] = thinking
    if message.tool_calls:
        result["tool_calls"] = [_template_call(call, traits) for call in message.tool_calls]
    for key, value in (
        ("name", message.name or message.tool_name),
        ("tool_name", message.tool_name),
        ("tool_call_id", _identity(message.tool_call_id, traits)),
    ):
        if value:
            result[key] = value
    return result


def _template_call(call: MessageToolCall, traits: TemplateTraits) -> dict[str, Any]:
    arguments: object = call.function.arguments
    if traits.wants_text_arguments:
        arguments = msgspec.json.encode(arguments).decode()
    return {
        "id": _identity(call.id, traits),
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _identity(text: str, traits: TemplateTraits) -> str:
    if not text or not traits.wants_short_ids or _SHORT_ID.fullmatch(text):
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:9]
