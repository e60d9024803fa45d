"""All formats of tool calls by name, and which of them a chat template uses."""

# ruff: noqa: RUF001 - DeepSeek's tags are made of such bars

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..answer import Call
from .gemma_calls import GemmaCalls
from .go_calls import GoCalls
from .json_calls import JsonCalls
from .llama_calls import LlamaCalls
from .named_calls import MistralCalls, NamedCalls
from .parser import ToolCallParser
from .python_calls import PythonCalls
from .tag_calls import TagCalls
from .tool_format import OfferedTools, ToolFormat
from .xml_calls import XmlCalls

BARE = JsonCalls(name="json", bare=True)
"""For templates that say nothing: an answer that is a JSON object or list of calls."""

_DSML = "｜DSML｜"


def _dsml(name: str, section: str) -> XmlCalls:
    return XmlCalls(
        name=name,
        opening=f"<{_DSML}{section}>",
        closing=f"</{_DSML}{section}>",
        before_name=f'<{_DSML}invoke name="',
        after_name='">',
        before_key=f'<{_DSML}parameter name="',
        after_key='" string="false">',
        after_key_of_text='" string="true">',
        after_value=f"</{_DSML}parameter>",
        after_arguments=f"</{_DSML}invoke>",
    )


def _function_elements(name: str, tag: str, *, padded: bool) -> XmlCalls:
    return XmlCalls(
        name=name,
        opening=f"<{tag}>",
        closing=f"</{tag}>",
        before_name="<function=",
        after_name=">",
        before_key="<parameter=",
        after_key=">",
        after_value="</parameter>",
        after_arguments="</function>",
        padded=padded,
        one_to_a_section=True,
    )


def _invoke_elements(name: str, section: str) -> XmlCalls:
    return XmlCalls(
        name=name,
        opening=f"<{section}>",
        closing=f"</{section}>",
        before_name='<invoke name="',
        after_name='">',
        before_key='<parameter name="',
        after_key='">',
        after_value="</parameter>",
        after_arguments="</invoke>",
    )


_ALL: tuple[ToolFormat, ...] = (
    _function_elements("qwen-coder", "tool_call", padded=True),
    _function_elements("seed-oss", "seed:tool_call", padded=False),
    TagCalls(name="glm-4.5"),
    TagCalls(name="glm-4.7", line=""),
    _invoke_elements("minimax-m2", "minimax:tool_call"),
    _invoke_elements("invoke", "function_calls"),
    XmlCalls(
        name="minicpm",
        before_name='<function name="',
        after_name='">',
        before_key='<param name="',
        after_key='">',
        after_value="</param>",
        after_arguments="</function>",
    ),
    _dsml("deepseek-v3.2", "function_calls"),
    _dsml("deepseek-v4", "tool_calls"),
    NamedCalls(
        name="deepseek-v3",
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
        after_name="\n```json\n",
        after_arguments="\n```<｜tool▁call▁end｜>",
        between="\n",
        closing="<｜tool▁calls▁end｜>",
    ),
    NamedCalls(
        name="deepseek-v3.1",
        opening="<｜tool▁calls▁begin｜>",
        before_name="<｜tool▁call▁begin｜>",
        after_name="<｜tool▁sep｜>",
        after_arguments="<｜tool▁call▁end｜>",
        closing="<｜tool▁calls▁end｜>",
    ),
    NamedCalls(
        name="kimi-k2",
        opening="<|tool_calls_section_begin|>",
        before_name="<|tool_call_begin|>",
        after_name="<|tool_call_argument_begin|>",
        after_arguments="<|tool_call_end|>",
        closing="<|tool_calls_section_end|>",
        numbered=True,
    ),
    NamedCalls(
        name="solar",
        opening="<|tool_calls|>",
        before_name="<|tool_call:begin|>",
        identified="<|tool_call:name|>",
        after_name="<|tool_call:args|>",
        after_arguments="<|tool_call:end|>",
        closing="<|calls|>",
    ),
    NamedCalls(
        name="functionary-v3.1", before_name="<function=", after_name=">", after_arguments="</function>"
    ),
    MistralCalls(),
    MistralCalls(name="mistral-nemo", listed=True),
    JsonCalls(
        name="hermes", opening="<tool_call>", closing="</tool_call>", others=("<function_call>", "<tools>")
    ),
    JsonCalls(name="phi-4", opening="<|tool_call|>", closing="<|/tool_call|>", listed=True),
    JsonCalls(name="granite-3", opening="<|tool_call|>", listed=True),
    JsonCalls(
        name="command-r7b",
        opening="<|START_ACTION|>",
        closing="<|END_ACTION|>",
        keys=("tool_name", "parameters"),
        listed=True,
    ),
    JsonCalls(
        name="command-r",
        opening="Action: ```json",
        closing="```",
        others=("Action:```json",),
        keys=("tool_name", "parameters"),
        listed=True,
    ),
    JsonCalls(name="apriel", opening="<tool_calls>", closing="</tool_calls>", listed=True),
    JsonCalls(name="minimax-m1", opening="<tool_calls>", closing="</tool_calls>"),
    JsonCalls(name="nemotron", opening="<TOOLCALL>", closing="</TOOLCALL>", listed=True),
    JsonCalls(name="firefunction", opening="functools", listed=True),
    JsonCalls(
        name="apertus", opening="<|tools_prefix|>", closing="<|tools_suffix|>", keys=("", ""), listed=True
    ),
    JsonCalls(name="gigachat-3.1", opening="<|function_call|>"),
    JsonCalls(name="gigachat-3", opening="function call<|role_sep|>"),
    GemmaCalls(name="gemma-4", opening="<|tool_call>", closing="<tool_call|>", quote='<|"|>'),
    GemmaCalls(
        name="functiongemma",
        opening="<start_function_call>",
        closing="<end_function_call>",
        quote="<escape>",
    ),
    PythonCalls(name="gemma-code", opening="```tool_code", closing="```", listed=False),
    PythonCalls(name="lfm2", opening="<|tool_call_start|>", closing="<|tool_call_end|>"),
    PythonCalls(name="pythonic"),
    LlamaCalls(),
    BARE,
)

FORMATS: Mapping[str, ToolFormat] = {form.name: form for form in _ALL}

# For templates that tell the model how to write a call, but do not write one themselves. The first wins.
_HINTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qwen-coder", ("<tool_call>", "<function=", "<parameter=")),
    ("seed-oss", ("<seed:tool_call>",)),
    ("glm-4.5", ("<tool_call>", "<arg_key>")),
    ("minimax-m2", ("<minimax:tool_call>",)),
    ("deepseek-v3.2", ("DSML", "function_calls")),
    ("deepseek-v4", ("DSML", "tool_calls")),
    ("deepseek-v3", ("<｜tool▁calls▁begin｜>", "```json")),
    ("deepseek-v3.1", ("<｜tool▁calls▁begin｜>",)),
    ("kimi-k2", ("<|tool_calls_section_begin|>",)),
    ("mistral", ("[TOOL_CALLS]", "[ARGS]")),
    ("mistral-nemo", ("[TOOL_CALLS]",)),
    ("phi-4", ("<|tool_call|>", "<|/tool_call|>")),
    ("granite-3", ("<|tool_call|>",)),
    ("command-r7b", ("<|START_ACTION|>",)),
    ("command-r", ("Action:", "```json", "tool_name")),
    ("gemma-4", ("<|tool_call>", "<tool_call|>")),
    ("functiongemma", ("<start_function_call>",)),
    ("gemma-code", ("tool_code",)),
    ("lfm2", ("<|tool_call_start|>",)),
    ("lfm2", ("<|tool_list_start|>",)),
    ("nemotron", ("<TOOLCALL>",)),
    ("apriel", ("<tool_calls>",)),
    ("firefunction", ("functools",)),
    ("llama-3", ("<|python_tag|>",)),
    ("llama-3", ('"parameters": dictionary of argument',)),
    ("functionary-v3.1", ("<function=", "</function>")),
    ("hermes", ("<tool_call>",)),
    ("hermes", ("<function_call>",)),
)


def format_named(name: str, tag: str = "") -> ToolFormat:
    """The format of that name; ``tag`` is for "go". `BARE` where there is none."""
    return GoCalls(tag=tag) if name == "go" else FORMATS.get(name, BARE)


def format_written(
    texts: Sequence[str], calls: Sequence[Call], tools: Sequence[Mapping[str, Any]]
) -> ToolFormat | None:
    """The format in which one of ``texts``, which a template wrote, has just these calls.

    Of several the one that leaves the least of a text unread, and writes itself what it has read. None: no
    known format.
    """
    offered = OfferedTools(tools)
    ranked: list[tuple[int, bool, int, ToolFormat]] = []
    for i, form in enumerate(_ALL):
        for text in texts:
            parser = ToolCallParser(form, offered)
            pieces = [*parser.push(text), *parser.finish()]
            if [piece for piece in pieces if isinstance(piece, Call)] == list(calls):
                unread = sum(len(piece.text) for piece in pieces if not isinstance(piece, Call))
                ranked.append((unread, not _writes(form, calls[0], text), i, form))
    return min(ranked, key=lambda entry: entry[:3])[3] if ranked else None


def _writes(form: ToolFormat, call: Call, text: str) -> bool:
    """Whether the beginning of the call that ``form`` would write is in ``text``, and the end."""
    shape = form.shape
    if shape is None:
        return False
    return (
        f"{shape.opening}{shape.before_name}{call.name}{shape.after_name}" in text and shape.closing in text
    )


def format_mentioned(template: str) -> ToolFormat:
    """The format that the text of a template speaks of; `BARE` where it speaks of none."""
    for name, texts in _HINTS:
        if all(text in template for text in texts):
            return FORMATS[name]
    return BARE
