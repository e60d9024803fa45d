"""Which of the offered tools a model may call, and whether it must: ``tool_choice`` in OpenAI's words, into
which other dialects' are put. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from ..runtime.protocol import ToolChoice
from .errors import BadField


def chosen_tools(
    offered: Sequence[dict[str, Any]], choice: Any, *, parallel: bool
) -> tuple[tuple[dict[str, Any], ...], ToolChoice]:
    """The tools to offer, and what may be done with them. Raises: BadField."""
    tools = tuple(offered)
    match choice:
        case None | "auto":
            return tools, ToolChoice(parallel=parallel)
        case "none":
            return (), ToolChoice()
        case "required":
            return tools, _required(tools, (), parallel=parallel)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return tools, _required(tools, (name,), parallel=parallel)
        case {"type": "allowed_tools", "allowed_tools": {"tools": list(allowed), **rest}} | {
            "type": "allowed_tools",
            "tools": list(allowed),
            **rest,
        }:
            names = tuple(_name(tool) for tool in allowed if isinstance(tool, dict))
            required = _required(tools, names, parallel=parallel)
            is_required = rest.get("mode", "auto") == "required"
            return tools, required if is_required else structs.replace(required, mode="auto")
    raise BadField(
        "tool_choice: expected none, auto, required, a function's name or allowed_tools", field="tool_choice"
    )


def _required(tools: Sequence[dict[str, Any]], names: tuple[str, ...], *, parallel: bool) -> ToolChoice:
    if not tools:
        raise BadField("tool_choice: expected tools to choose from", field="tool_choice")
    known = {_name(tool) for tool in tools}
    for name in names:
        if name not in known:
            raise BadField(f"tool_choice: no tool is named {name!r}", field="tool_choice")
    return ToolChoice(mode="required", names=names, parallel=parallel)


def _name(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    return str(function.get("name", "")) if isinstance(function, dict) else ""
