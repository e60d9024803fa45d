"""Ollama's prompt templates: a Go template, what can be told from its text, and prompts rendered with it.

Source: Ollama, template/template.go, thinking/template.go and tools/template.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from .go_template_data import message_record, tool_record
from .go_template_error import EXECUTION, BadTemplate, bad_template
from .go_template_exec import execute
from .go_template_sniff import cut_after_response, identifiers, thinking_tags, tool_call_tag
from .go_template_syntax import parse
from .go_template_tree import Action, Command, Field, Pipeline, Tree
from .go_value import Record, Value

__all__ = ["BadTemplate", "GoTemplate", "parse_template", "render_chat", "render_generate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoTemplate:
    """A parsed template, and what its text tells about the model. Made by `parse_template`."""

    source: str
    tree: Tree
    """With ``{{ .Response }}`` at its end, where the text mentions neither messages nor a response."""
    identifiers: frozenset[str]
    """Every field and variable that the text names, in lower case."""
    thinking_tags: tuple[str, str] | None
    """What stands before and after a message's thinking."""
    tool_call_tag: str
    """What the model writes before a tool call: a tag, or ``{`` or ``[``."""
    cut: Tree
    """The tree up to where a response goes: for templates that know a prompt instead of messages."""

    @property
    def mentions_messages(self) -> bool:
        """Whether it takes the whole conversation at once, rather than one prompt and response at a time."""
        return "messages" in self.identifiers

    @property
    def capabilities(self) -> frozenset[str]:
        """Of ``tools``, ``insert`` and ``thinking``, those that the template knows of."""
        known = {
            "tools": "tools" in self.identifiers,
            "insert": "suffix" in self.identifiers,
            "thinking": self.thinking_tags is not None,
        }
        return frozenset(name for name, has in known.items() if has)


def parse_template(text: str) -> GoTemplate:
    """Raises: BadTemplate, where `text` is no template, or is longer than 256 Ki characters."""
    tree = parse(text)
    names = identifiers(tree)
    if "messages" not in names and "response" not in names:
        end = len(text)
        response = Pipeline(end, (), True, (Command(end, (Field(end, ("Response",)),)),))
        tree = Tree(text, (*tree.body, Action(end, response)), tree.defined)
        names |= {"response"}
    return GoTemplate(
        source=text,
        tree=tree,
        identifiers=frozenset(names),
        thinking_tags=thinking_tags(tree),
        tool_call_tag=tool_call_tag(tree),
        cut=cut_after_response(tree),
    )


def render_chat(
    template: GoTemplate,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] = (),
    think: bool | str | None = None,
    *,
    today: date | None = None,
) -> str:
    """The prompt that asks for the answer to `messages`, which are as in a chat request, and so are `tools`.

    `think` None: not said; a string is a level. `today` is for templates that write a date; None: the clock
    says. Where the template does not know messages, they are put into it one prompt and response after
    another, and the last is cut off where the answer begins; an assistant's message at the end is then the
    answer's beginning.

    Raises: BadTemplate.
    """
    day = today or _today()
    try:
        system, records = _collated(messages)
        thinking = _thinking(think)
        if template.mentions_messages:
            data = {
                "System": system,
                "Messages": records,
                "Tools": [tool_record(tool) for tool in tools],
                "Response": "",
                **thinking,
            }
            return execute(template.tree, data, today=day)
        return _render_turns(template, records, thinking, day)
    except RecursionError:
        message = "the messages or tools are nested too deeply"
        raise bad_template(template.source, EXECUTION, message, 0) from None


def render_generate(
    template: GoTemplate,
    prompt: str,
    suffix: str = "",
    system: str = "",
    messages: Sequence[Mapping[str, Any]] = (),
    think: bool | str | None = None,
    *,
    today: date | None = None,
) -> str:
    """The prompt of a completion. With a `suffix` (and a prompt) the model is asked for what stands between;
    `system` and `messages`, which come before the prompt, then have no place.

    Raises: BadTemplate.
    """
    if prompt and suffix:
        data = {"Prompt": prompt, "Suffix": suffix, "Response": "", **_thinking(think)}
        return execute(template.tree, data, today=today or _today())
    first = [{"role": "system", "content": system}] if system else []
    turns = [*first, *messages, {"role": "user", "content": prompt}]
    return render_chat(template, turns, (), think, today=today)


def _today() -> date:
    return datetime.now().astimezone().date()


def _thinking(think: bool | str | None) -> dict[str, Value]:
    level = think if isinstance(think, str) else "medium" if think else ""
    return {"Think": bool(think), "ThinkLevel": level, "IsThinkSet": think is not None}


def _collated(messages: Iterable[Mapping[str, Any]]) -> tuple[str, list[Record]]:
    """All system messages in one, and the messages with those of one role in a row made one (but a
    tool's)."""
    system: list[str] = []
    collated: list[dict[str, Any]] = []
    for message in messages:
        role, content = message.get("role"), message.get("content")
        content = content if isinstance(content, str) else ""
        if role == "system":
            system.append(content)
        if collated and role != "tool" and collated[-1].get("role") == role:
            _merge(collated[-1], message, content)
        else:
            collated.append({**message, "content": content})
    return "\n\n".join(system), [message_record(message) for message in collated]


def _merge(earlier: dict[str, Any], later: Mapping[str, Any], content: str) -> None:
    earlier["content"] += "\n\n" + content
    for key in ("tool_calls", "images"):  # Ollama loses these; a call must not get lost
        more = later.get(key)
        if isinstance(more, list | tuple):
            before = earlier.get(key)
            earlier[key] = [*(before if isinstance(before, list | tuple) else ()), *more]


def _render_turns(
    template: GoTemplate, messages: Sequence[Record], thinking: Mapping[str, Value], today: date
) -> str:
    """For templates with a prompt and a response: each turn is one execution, the last up to the response."""
    parts: list[str] = []
    pending = {"System": "", "Prompt": "", "Response": ""}

    def finish(tree: Tree) -> None:
        parts.append(execute(tree, {**pending, **thinking}, today=today))
        pending.update(System="", Prompt="", Response="")

    for message in messages:
        content = message.fields["Content"]
        match message.fields["Role"]:
            case "system":
                if pending["Prompt"] or pending["Response"]:
                    finish(template.tree)
                pending["System"] = content
            case "user":
                if pending["Response"]:
                    finish(template.tree)
                pending["Prompt"] = content
            case "assistant":
                pending["Response"] = content
    finish(template.cut)
    return "".join(parts)
