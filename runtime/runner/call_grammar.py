"""Grammars for tool calls, in the way in which a format writes them (`CallShape`).

A grammar here is a text in Lark's notation with llguidance's extensions. Its rule ``start`` is what an answer
may be from the place on where a call may begin.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .tool_formats.tool_format import CallShape, ParameterShape
from .tool_schema import CallableTool


class Spelling:
    """How a text is written in a rule. ``controls`` has the tokens of texts that are control tokens."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._controls = controls
        names = sorted(controls, key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def __call__(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for found in self._split.finditer(text):
            parts += (_string(text[at : found.start()]), f"<[{self._controls[found[0]]}]>")
            at = found.end()
        return " ".join(part for part in (*parts, _string(text[at:])) if part)

    def control_at_start(self, text: str) -> str:
        """The control token that ``text`` begins with; "" where it does not."""
        found = self._split.match(text)
        return found[0] if found else ""


_FIXED: Mapping[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""As ``json.dumps`` writes, and with it most calls that models have seen. What is fixed is not sampled."""
_FREE: Mapping[str, Any] = {"whitespace_pattern": r"[\x20\x0A]{1,32}"}
_ANY_TEXT = "/(?s:.*)/"
_BLANK = r"[ \n]{0,8}"
_PUNCTUATION = "{}[]():,="
_DEFINITIONS = ("$defs", "definitions")


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
    start = f"({spelling(thought[0])} {_ANY_TEXT} {spelling(thought[1])})?" if thought else ""
    return f"start: {start} section\n" + _Section(shape, tools, spelling).rules(many=many)


def possible_calls(shape: CallShape, tools: Sequence[CallableTool], spelling: Spelling, *, many: bool) -> str:
    """An answer from the first character on of what may turn out to be the shape's trigger; without one, from
    its own beginning."""
    section = _Section(shape, tools, spelling)
    begun = _regex(shape.trigger) if shape.trigger else section.begun()
    lines = ["start: section | OTHER", f"OTHER: {_ANY_TEXT} & ~/{begun}(?s:.*)/"]
    control = spelling.control_at_start(shape.trigger)
    if control and (rest := shape.trigger.removeprefix(control)):  # a trigger of which only a part is text
        lines[0] += f" | {spelling(control)} OTHER_REST"
        lines.append(f"OTHER_REST: {_ANY_TEXT} & ~/{_regex(rest)}(?s:.*)/")
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
        self._spelling: Callable[[str], str] = spelling if shape.trigger else _flexible
        self._style = _FIXED if shape.trigger else _FREE

    def rules(self, *, many: bool) -> str:
        shape, spell = self._shape, self._spelling
        calls = " | ".join(f"call_{i}" for i in range(len(self._tools)))
        more = f"({spell(shape.between)} call)*" if many and shape.between is not None else ""
        lines = [
            f"section: {spell(shape.opening)} call {more} {spell(shape.closing)}",
            f"call: {calls}",
        ]
        for i, tool in enumerate(self._tools):
            before = spell(shape.before_name + tool.name + shape.after_name)
            rule = f"args_{i}" if shape.arguments == "json" else f"args_{i}_0_b"
            lines.append(f"call_{i}: {before} {rule} {spell(shape.after_arguments)}")
            if shape.arguments == "json":
                lines.append(f"args_{i}: {_json(tool.schema, tool, self._style)}")
            else:
                lines += _Parameters(shape.arguments, tool, spell, f"args_{i}").rules()
        return "\n".join(lines) + "\n"

    def begun(self) -> str:
        """A regular expression for an answer up to behind the name of a tool."""
        names = "|".join(_regex(tool.name) for tool in self._tools)
        before = _flexible_regex(self._shape.opening + self._shape.before_name)
        return f"{_BLANK}{before}({names}){_BLANK}{_regex(self._shape.after_name.lstrip()[:1])}"


class _Parameters:
    """Rules for arguments that are written one by one, in the order of the schema's properties.

    ``…_n_a`` and ``…_n_b`` are all arguments from the nth on, after one that was written and before any.
    """

    def __init__(
        self, shape: ParameterShape, tool: CallableTool, spelling: Callable[[str], str], name: str
    ) -> None:
        self._shape = shape
        self._tool = tool
        self._spelling = spelling
        self._name = name

    def rules(self) -> Iterator[str]:
        schema, name = self._tool.schema, self._name
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or (
            not properties and schema.get("additionalProperties") is not False
        ):
            yield from self._any()
            return
        required = schema.get("required")
        needed = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        between = self._spelling(self._shape.between)
        for i, (key, value) in enumerate(properties.items()):
            skip_a, skip_b = ("", "") if key in needed else (f"| {name}_{i + 1}_a", f"| {name}_{i + 1}_b")
            yield f"{name}_{i}_a: {between} {name}_{i} {name}_{i + 1}_a {skip_a}"
            yield f"{name}_{i}_b: {name}_{i} {name}_{i + 1}_a {skip_b}"
            yield from self._parameter(f"{name}_{i}", key, value)
        yield f'{name}_{len(properties)}_a: ""'
        yield f'{name}_{len(properties)}_b: ""'

    def _any(self) -> Iterator[str]:
        """Arguments of which the schema does not say the names."""
        shape, name, spell = self._shape, self._name, self._spelling
        key = "/[A-Za-z_][A-Za-z0-9_-]{0,63}/"
        yield f"{name}_0: {spell(shape.before_key)} {key} {spell(shape.after_key)} {name}_0_v"
        yield from self._value(f"{name}_0_v", {})
        yield f'{name}_0_b: "" | {name}_0 ({spell(shape.between)} {name}_0)*'

    def _parameter(self, rule: str, key: str, schema: Any) -> Iterator[str]:
        shape = self._shape
        after_key = (shape.after_key_of_text if _is_text(schema) else "") or shape.after_key
        yield f"{rule}: {self._spelling(shape.before_key + key + after_key)} {rule}_v"
        yield from self._value(f"{rule}_v", schema)

    def _value(self, rule: str, schema: Any) -> Iterator[str]:
        shape = self._shape
        if (shape.bare_strings or shape.quote) and _may_be_text(schema):
            yield from self._text(rule, schema)
            return
        definitions = {key: self._tool.schema[key] for key in _DEFINITIONS if key in self._tool.schema}
        whole = {**definitions, **schema} if isinstance(schema, Mapping) else schema
        yield f"{rule}: {_json(whole, self._tool, _FIXED)} {self._spelling(shape.after_value)}"

    def _text(self, rule: str, schema: Any) -> Iterator[str]:
        """A string without JSON's quotes and escapes; it ends where what stands behind it first comes."""
        shape = self._shape
        before, after = self._spelling(shape.quote), shape.quote + shape.after_value
        choices = _choices(schema)
        if choices:
            options = " | ".join(_string(choice) for choice in choices)
            yield f"{rule}: {before} ({options}) {self._spelling(after)}"
            return
        terminal = rule.upper()
        yield f"{terminal}: {_text_terminal(schema)}"
        if self._spelling(after).startswith("<["):  # a control token, which is no text
            yield f"{rule}: {before} {terminal} {self._spelling(after)}"
        else:
            yield f"{rule}: {before} {rule}_t"
            yield f"{rule}_t[lazy]: {terminal} {_string(after)}"


# Schemas of single arguments


def _is_text(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "string"


def _may_be_text(schema: Any) -> bool:
    """Whether the value may be a string. References are not followed: what they lead to is JSON."""
    if not isinstance(schema, Mapping):
        return True
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return "string" in kinds
    if isinstance(kinds, str):
        return kinds == "string"
    if "enum" in schema or "const" in schema:
        return bool(_choices(schema))
    return "$ref" not in schema and not any(
        not all(map(_may_be_text, schema[key]))
        for key in ("anyOf", "oneOf")
        if isinstance(schema.get(key), list)
    )


def _choices(schema: Any) -> list[str]:
    """The strings that a value is one of; none where it may be another."""
    if not isinstance(schema, Mapping):
        return []
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    return given if isinstance(given, list) and all(isinstance(one, str) and one for one in given) else []


def _text_terminal(schema: Any) -> str:
    """What a string may be, as a terminal."""
    if not _is_text(schema):
        return _ANY_TEXT
    parts = []
    if isinstance(pattern := schema.get("pattern"), str):
        start = "" if pattern.startswith("^") else "(?s:.*)"
        end = "" if pattern.endswith("$") and not pattern.endswith("\\$") else "(?s:.*)"
        inner = pattern.removeprefix("^") if not start else pattern
        inner = inner.removesuffix("$") if not end else inner
        parts.append(f"/{start}({_slashed(inner)}){end}/")
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if least or most != "":
        parts.append(f"/(?s:.){{{least},{most}}}/")
    return " & ".join(parts) or _ANY_TEXT


# Notation


def json_rule(tool: CallableTool) -> str:
    """The arguments of a tool as JSON."""
    return _json(tool.schema, tool, _FREE)


def _json(schema: Any, tool: CallableTool, style: Mapping[str, Any]) -> str:
    if not isinstance(schema, Mapping):  # true, or what will be refused
        schema = {} if schema is True else {"not": schema}
    return "%json " + json.dumps({"x-guidance": {**style, "lenient": not tool.is_strict}, **schema})


def _string(text: str) -> str:
    """A text as Lark writes it, which is as JSON does; nothing where there is none."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _regex(text: str) -> str:
    return re.sub(r"[\\.+*?()|\[\]{}^$#&~/-]", r"\\\g<0>", text).replace("\n", "\\n")


def _slashed(pattern: str) -> str:
    r"""A regular expression between slashes: its own are escaped.

    >>> _slashed(r"a/b\/c")
    'a\\/b\\/c'
    """
    return re.sub(r"(\\.)|/", lambda found: found[1] or "\\/", pattern, flags=re.DOTALL)


def _flexible(text: str) -> str:
    """A text with as much white space around its punctuation as a model may like."""
    return f"/{_flexible_regex(text)}/" if text else ""


def _flexible_regex(text: str) -> str:
    parts: list[str] = []
    for char in text:
        if char in _PUNCTUATION:
            parts += (_BLANK, _regex(char), _BLANK)
        elif not char.isspace():
            parts.append(_regex(char))
    # Neighbours share their white space.
    return re.sub(rf"(?:{re.escape(_BLANK)})+", lambda _found: _BLANK, "".join(parts))
