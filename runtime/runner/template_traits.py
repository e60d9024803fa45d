"""What a chat template tells about its model, and what it asks of the conversations that it is given.

Some of it can be read in the template's text. The rest is found out by trials: the template is asked to
write conversations of every kind, and what it leaves out or refuses it does not take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import BadTemplate
from .answer import Call
from .chat_template import ChatTemplate, template_variables
from .thinking import KNOWN_TAGS, ThinkingTags, tags_of_template
from .tool_formats import harmony
from .tool_formats.registry import BARE, format_mentioned, format_written

if TYPE_CHECKING:
    from ...modelfile.go_template import GoTemplate

HARMONY = "harmony"
"""The format of tools of a model that writes all in harmony, thoughts as well."""


class TemplateTraits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The defaults are those of a template that takes everything."""

    thinking: tuple[str, str, str, str, bool] | None = None
    """The fields of `ThinkingTags`; None: no thoughts, or harmony's."""
    tool_format: str = BARE.name
    """A name in `tool_formats.registry`, "go", or "harmony"."""
    tool_tag: str = ""
    """What calls begin with in the format "go"."""
    capabilities: tuple[str, ...] = ()
    """Of insert, tools and thinking."""
    switches_thinking: bool = False
    """The prompt says whether to think."""
    takes_system: bool = True
    """It has a place for a system message."""
    takes_late_system: bool = True
    """… after other messages as well."""
    takes_neighbours: bool = True
    """Two messages of one role may follow each other."""
    takes_tools: bool = True
    """It tells the model which tools there are."""
    takes_calls: bool = True
    """It writes the calls of a message."""
    takes_results: bool = True
    """It takes messages of tools."""
    takes_orphans: bool = True
    """… without a call before them as well."""
    takes_many_calls: bool = True
    """A message may have several calls."""
    takes_call_text: bool = True
    """A message with calls may have thoughts and content."""
    wants_short_ids: bool = False
    """Identifiers of calls are nine letters or digits."""
    wants_text_arguments: bool = False
    """Arguments of calls are JSON in a string."""
    wants_parts: bool = False
    """Content is a list of parts."""
    wants_tool_list: bool = False
    """No tools are an empty list of tools."""
    wants_whole_tools: bool = False
    """Tools and their arguments all have descriptions, and tools have arguments."""

    @property
    def thinking_tags(self) -> ThinkingTags | None:
        return ThinkingTags(*self.thinking) if self.thinking else None

    @property
    def is_harmony(self) -> bool:
        return self.tool_format == HARMONY


def traits_of_go(template: GoTemplate) -> TemplateTraits:
    """The format of calls is a known one where the template writes the tag of one; otherwise what the tag and
    the tools' names tell."""
    found = set(template.capabilities)
    if harmony.is_harmony(template.source):
        return TemplateTraits(
            tool_format=HARMONY,
            capabilities=tuple(sorted(found | {"thinking", "tools"})),
            switches_thinking=True,
        )
    tags = None
    if template.thinking_tags:
        opening, closing = template.thinking_tags
        known = (tags for tags in KNOWN_TAGS if (tags.opening, tags.closing) == (opening, closing))
        tags = next(known, ThinkingTags(opening, closing))
    form = format_mentioned(template.source)
    is_known = form is not BARE and template.tool_call_tag.startswith(form.openings or ("\0",))
    return TemplateTraits(
        thinking=_fields(tags),
        tool_format=form.name if is_known else "go",
        tool_tag="" if is_known else template.tool_call_tag,
        capabilities=tuple(sorted(found)),
        switches_thinking=bool({"think", "isthinkset", "thinklevel"} & template.identifiers),
    )


def traits_of_jinja(template: ChatTemplate, source: str) -> TemplateTraits:
    """Renders the template about a dozen times."""
    trial = _Trial(template)
    is_harmony = harmony.is_harmony(source)
    tags = None if is_harmony else tags_of_template(source)
    style = trial.call_style()
    thinks = is_harmony or tags is not None
    takes_tools = trial.takes_tools
    capabilities = [
        *(["tools"] if takes_tools or style.form else []),
        *(["thinking"] if thinks else []),
    ]
    form = style.form or format_mentioned(source).name
    return TemplateTraits(
        thinking=_fields(tags),
        tool_format=HARMONY if is_harmony else form,
        capabilities=tuple(capabilities),
        switches_thinking=trial.switches_thinking,
        takes_system=trial.takes_system,
        takes_late_system=trial.takes_late_system,
        takes_neighbours=trial.takes_neighbours,
        takes_tools=takes_tools,
        takes_calls=style.written,
        takes_results=style.results,
        takes_orphans=style.results and trial.takes_orphans,
        takes_many_calls=style.many,
        takes_call_text=style.text,
        wants_short_ids=style.short_ids,
        wants_text_arguments=style.text_arguments,
        wants_parts=trial.wants_parts,
        wants_tool_list=trial.wants_tool_list,
        wants_whole_tools=takes_tools and trial.wants_whole_tools,
    )


def _fields(tags: ThinkingTags | None) -> tuple[str, str, str, str, bool] | None:
    if tags is None:
        return None
    return tags.opening, tags.closing, tags.answer_opening, tags.answer_closing, tags.is_prose


# Trials

_ASK, _AGAIN, _RULE = "What is it about?", "And now?", "Answer in one word."
_CITY, _OTHER = "Oberammergau", "Kleinmachnow"
_NAME = "get_weather"
_THOUGHT, _SAID = "This is a thought.", "Let me look."
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city."},
                "days": {"type": "integer", "description": "How many."},
            },
            "required": ["city"],
        },
    },
}
_RESULT = "Deep snow."
_BARE_TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_outside"}}
_POOR_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_inside",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}},
    },
}
_SHORT_ID, _LONG_ID = "a1B2c3D4e", "call_a1b2c3d4"

Turn = dict[str, Any]


class CallStyle(msgspec.Struct, frozen=True):
    """How a conversation with calls must be put; ``form`` "": calls are written in no known form, or not."""

    form: str = ""
    many: bool = True
    short_ids: bool = False
    text_arguments: bool = False
    written: bool = True
    text: bool = True
    results: bool = True


class _Trial:
    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self.wants_tool_list = False
        self.wants_parts = False
        self.wants_tool_list = not self._written(_user(_ASK))[1] and self._takes_tool_list()
        self.wants_parts = _ASK not in self._written(_user(_ASK))[0] and bool(self._parts_work())

    def _takes_tool_list(self) -> bool:
        self.wants_tool_list = True
        works = self._written(_user(_ASK))[1]
        self.wants_tool_list = False
        return works

    def _parts_work(self) -> bool:
        self.wants_parts = True
        works = _ASK in self._written(_user(_ASK))[0]
        self.wants_parts = False
        return works

    def _written(
        self,
        *turns: Turn,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | None = None,
        asks: bool = True,
    ) -> tuple[str, bool]:
        """What the template makes of ``turns``, and whether it did not refuse them."""
        given = [dict(turn) for turn in turns]
        if self.wants_parts:
            given = [as_parts(turn) for turn in given]
        variables = template_variables(given, tools, think=think, bos="<s>", eos="</s>")
        if not tools and self.wants_tool_list:
            variables["tools"] = []
        variables["add_generation_prompt"] = asks
        try:
            return self._template.render(variables), True
        except BadTemplate:
            return "", False

    @property
    def takes_system(self) -> bool:
        return _RULE in self._written({"role": "system", "content": _RULE}, _user(_ASK))[0]

    @property
    def takes_late_system(self) -> bool:
        turns = _user(_ASK), _said(_SAID), {"role": "system", "content": _RULE}, _user(_AGAIN)
        return _RULE in self._written(*turns)[0]

    @property
    def takes_neighbours(self) -> bool:
        return self._written(_user(_ASK), _user(_AGAIN))[1]

    @property
    def takes_tools(self) -> bool:
        return _NAME in self._written(_user(_ASK), tools=(_TOOL,))[0]

    @property
    def wants_whole_tools(self) -> bool:
        return not self._written(_user(_ASK), tools=(_TOOL, _BARE_TOOL, _POOR_TOOL))[1]

    @property
    def takes_orphans(self) -> bool:
        orphan = {"role": "tool", "content": _RESULT, "tool_call_id": _SHORT_ID}
        return _RESULT in self._written(_user(_ASK), _said(_SAID), orphan, _user(_AGAIN), tools=(_TOOL,))[0]

    @property
    def switches_thinking(self) -> bool:
        on, off = (self._written(_user(_ASK), think=think)[0] for think in (True, False))
        return on != off

    def call_style(self) -> CallStyle:
        """The first style that the template takes; those come first that change the least."""
        for short_ids in (False, True):
            for text_arguments in (False, True):
                for many in (True, False):
                    style = CallStyle("", many, short_ids, text_arguments)
                    if found := self._called(style):
                        return found
        result, _ = self._written(_user(_ASK), _said(_SAID), _result(CallStyle()))
        return CallStyle(written=False, results=_RESULT in result)

    def _called(self, style: CallStyle) -> CallStyle | None:
        """``style`` with the form that is found, if all calls are written."""
        places: list[dict[str, Any]] = [{"city": _CITY, "days": 2}, {"city": _OTHER, "days": 3}]
        places = places if style.many else places[:1]
        turn = {"role": "assistant", "content": "", "tool_calls": [_call(place, style) for place in places]}
        text, taken = self._written(_user(_ASK), turn, tools=(_TOOL,), asks=False)
        if not taken or not all(place["city"] in text for place in places):
            return None
        calls = [Call(_NAME, place) for place in places]
        form = format_written(self._candidates(text), calls, (_TOOL,))
        whole = {**turn, "content": _SAID, "reasoning_content": _THOUGHT, "thinking": _THOUGHT}
        _, takes_text = self._written(_user(_ASK), whole, _result(style), tools=(_TOOL,))
        results, _ = self._written(_user(_ASK), turn, _result(style), tools=(_TOOL,))
        return msgspec.structs.replace(
            style, form=form.name if form else "", text=takes_text, results=_RESULT in results
        )

    def _candidates(self, text: str) -> list[str]:
        """Where in ``text`` the answer may begin: behind the question, and behind what asks for an answer."""
        asked, _ = self._written(_user(_ASK), tools=(_TOOL,))
        common = next((i for i, (a, b) in enumerate(zip(asked, text, strict=False)) if a != b), len(asked))
        return [text.rpartition(_ASK)[2], text[common:]]


def _user(text: str) -> Turn:
    return {"role": "user", "content": text}


def _said(text: str) -> Turn:
    return {"role": "assistant", "content": text}


def _call(arguments: Mapping[str, Any], style: CallStyle) -> Turn:
    written = msgspec.json.encode(arguments).decode() if style.text_arguments else dict(arguments)
    identity = _SHORT_ID if style.short_ids else _LONG_ID
    return {"id": identity, "type": "function", "function": {"name": _NAME, "arguments": written}}


def _result(style: CallStyle) -> Turn:
    identity = _SHORT_ID if style.short_ids else _LONG_ID
    return {"role": "tool", "content": _RESULT, "name": _NAME, "tool_call_id": identity}


def as_parts(turn: Turn) -> Turn:
    """A message whose content is a list of parts."""
    content = turn.get("content")
    return {**turn, "content": [{"type": "text", "text": content}] if content else []}
