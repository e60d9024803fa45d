"""Grammars for tool calls, in the way in which a format writes them (`CallShape`).

A grammar here is a text in Lark's notation with llguidance's extensions. Its rule ``start`` is what an answer
may be from the place on where a call may begin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from .argument_grammar import ArgumentRules
from .lark_text import ANY, BLANK, FIXED, FREE, Spelling, flexible, flexible_regex, json_value, regex
from .tool_formats.tool_format import CallShape
from .tool_schema import CallableTool


def required_calls(
    shape: CallShape,
    tools: Sequence[CallableTool],
    spelling: Spelling,
    *,
    many: bool,
    thought: tuple[str, str] | None = None,
) -> str:
    """An answer that is calls and nothing else; ``many``: more than one. Before them may stand a ``thought``
    between its two tags, of which the second begins with a control token."""
    start = f"({spelling(thought[0])} {ANY} {spelling(thought[1])})?" if thought else ""
    return f"start: {start} section\n" + _Section(shape, tools, spelling).rules(many=many)


def possible_calls(shape: CallShape, tools: Sequence[CallableTool], spelling: Spelling, *, many: bool) -> str:
    """An answer from the first character on of what may turn out to be the shape's trigger; without one, from
    its own beginning."""
    section = _Section(shape, tools, spelling)
    begun = regex(shape.trigger) if shape.trigger else section.begun()
    lines = ["start: section | OTHER", f"OTHER: {ANY} & ~/{begun}(?s:.*)/"]
    control = spelling.control_at_start(shape.trigger)
    if control and (rest := shape.trigger.removeprefix(control)):  # a trigger of which only a part is text
        lines[0] += f" | {spelling(control)} OTHER_REST"
        lines.append(f"OTHER_REST: {ANY} & ~/{regex(rest)}(?s:.*)/")
    return "\n".join(lines) + "\n" + section.rules(many=many)


def calls_or_form(calls: str, form: str, before: str = "") -> str:
    """`required_calls`, or what ``form``, a grammar in llguidance's notation, allows; in that notation.
    ``before`` is a part of a rule: what stands before what has that form."""
    start, _, rest = calls.partition("\n")
    (other,) = json.loads(form)["grammars"]
    lark = f"{start} | {before} @form\n{rest}"
    grammars = [{"name": "calls", "lark_grammar": lark}, {**other, "name": "form"}]
    return json.dumps({"grammars": grammars})


class _Section:
    """The rule ``section``: one or more calls with what stands around them."""

    def __init__(self, shape: CallShape, tools: Sequence[CallableTool], spelling: Spelling) -> None:
        self._shape = shape
        self._tools = tools
        # Behind a trigger we say how a call is written. Without one, models write as they please.
        self._spelling: Callable[[str], str] = spelling if shape.trigger else flexible
        self._style = FIXED if shape.trigger else FREE

    def rules(self, *, many: bool) -> str:
        shape, spell = self._shape, self._spelling
        more = f"({spell(shape.between)} call)*" if many and shape.between is not None else ""
        count = range(len(self._tools))
        # Without a trigger, all up to behind the name is one piece, which can be told from other text.
        first, opening = ("call", shape.opening) if shape.trigger else ("first", "")
        lines = [
            f"section: {spell(opening)} {first} {more} {spell(shape.closing)}",
            f"first: {' | '.join(f'first_{i}' for i in count)}",
            f"call: {' | '.join(f'call_{i}' for i in count)}",
        ]
        for i, tool in enumerate(self._tools):
            before = shape.before_name + tool.name + shape.after_name
            after = f"args_{i} {spell(shape.after_arguments)}"
            lines.append(f"first_{i}: {spell(shape.opening + before)} {after}")
            lines.append(f"call_{i}: {spell(before)} {after}")
            if shape.arguments == "json":
                value = json_value(tool.schema, is_strict=tool.is_strict, style=self._style)
                lines.append(f"args_{i}: {value}")
            else:
                rules = ArgumentRules(shape.arguments, tool.schema, spell, is_strict=tool.is_strict)
                lines += rules.arguments(f"args_{i}")
        return "\n".join(lines) + "\n"

    def begun(self) -> str:
        """A regular expression for an answer up to behind the name of a tool."""
        names = "|".join(regex(tool.name) for tool in self._tools)
        before = flexible_regex(self._shape.opening + self._shape.before_name)
        return f"{BLANK}{before}({names}){BLANK}{regex(self._shape.after_name.lstrip()[:1])}"


def json_rule(tool: CallableTool) -> str:
    """The arguments of a tool as JSON."""
    return json_value(tool.schema, is_strict=tool.is_strict, style=FREE)
