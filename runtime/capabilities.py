"""What a model can do, and which of its templates is used, as far as the texts of the templates say.

Nothing is rendered or parsed here: only the names that a template mentions count. A runner, which has
compiled the template, knows better; this is for refusing early and for listings.

Source: Ollama's server/images.go (``Capabilities``), template/template.go (``Vars``) and the choice between a
Go and a Jinja template in server/model.go, as of 2026-08. Departure: thoughts are known by all tags that the
runner tells from content, not by ``<think>`` alone.
"""

from __future__ import annotations

import re
from typing import Literal

from ..oci.gguf.header import GgufHeader
from .runner.thinking import tags_of_template
from .runner.tool_formats.harmony import is_harmony

TemplateKind = Literal["go", "jinja"]

_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|/\*.*?\*/', re.DOTALL)
_NAME = re.compile(r"[.$]([A-Za-z_][A-Za-z0-9_]*)")
_TOOL_ROLE = re.compile(r"tool_response|ipython|[\"'`]tool[\"'`]")
_POOLING_RANK = 4
_FILL_IN = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


def go_names(template: str) -> frozenset[str]:
    """Fields and variables that a Go template mentions, in lower case."""
    names: set[str] = set()
    for action in _ACTION.findall(template):
        names.update(name.lower() for name in _NAME.findall(_LITERAL.sub(" ", action)))
    return frozenset(names)


def go_capabilities(template: str) -> tuple[str, ...]:
    """Of tools, insert and thinking, what a Go template can express."""
    names = go_names(template)
    said = (("tools", "tools"), ("suffix", "insert"), ("thinking", "thinking"))
    return tuple(capability for name, capability in said if name in names)


def jinja_capabilities(template: str) -> tuple[str, ...]:
    """Of tools and thinking, what a Jinja template seems to express."""
    found = []
    if "tools" in template or "tool_call" in template:
        found.append("tools")
    if is_harmony(template) or tags_of_template(template):
        found.append("thinking")
    return tuple(found)


def prefers_jinja(go: str, jinja: str) -> bool:
    """Whether, of a model that has both, the Jinja template is used.

    It is where it can do more, without losing the way that results of tools take back into the conversation;
    or where both can do the same, tools among it, and only Jinja has that way.
    """
    go_can, jinja_can = go_capabilities(go), jinja_capabilities(jinja)
    go_returns, jinja_returns = _go_returns_results(go), _jinja_returns_results(jinja)
    if len(jinja_can) > len(go_can):
        return jinja_returns or not go_returns
    return go_can == jinja_can and "tools" in go_can and jinja_returns and not go_returns


def choose_template(
    go: str | None, jinja: str | None, *, forced: TemplateKind | None = None
) -> TemplateKind | None:
    """Which of the templates of a model is used; None where it has none."""
    if go is None or jinja is None:
        return "go" if go is not None else "jinja" if jinja is not None else None
    if forced is not None:
        return forced
    return "jinja" if prefers_jinja(go, jinja) else "go"


def capabilities(
    header: GgufHeader, *, kind: TemplateKind | None, template: str | None, projector: bool
) -> tuple[str, ...]:
    """In the order that Ollama lists them."""
    if header.pooling_type == _POOLING_RANK:
        return ("rerank",)
    if header.pooling_type is not None:
        return ("embedding",)
    found = ["completion"]
    if kind == "go" and template is not None:
        found += go_capabilities(template)
    elif kind == "jinja" and template is not None:
        found += jinja_capabilities(template)
    if "insert" not in found and any(key in header.metadata for key in _FILL_IN):
        found.append("insert")
    if projector or header.kv("vision.block_count") is not None:
        found.append("vision")
    return tuple(found)


def _go_returns_results(template: str) -> bool:
    names = go_names(template)
    return "tools" in names and "toolcalls" in names and _TOOL_ROLE.search(template) is not None


def _jinja_returns_results(template: str) -> bool:
    return "tools" in template and "tool_calls" in template and _TOOL_ROLE.search(template) is not None
