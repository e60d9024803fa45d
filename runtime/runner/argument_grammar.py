"""Rules for the arguments of a call where they are not a JSON object: one by one, in the order in which the
schema lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .lark_text import ANY, FIXED, json_value, slashed, string
from .tool_formats.tool_format import ParameterShape

_DEFINITIONS = ("$defs", "definitions")
_MAX_DEPTH = 6
_ANY_KEY = "/[A-Za-z_][A-Za-z0-9_-]{0,63}/"


class ArgumentRules:
    """``root`` is the schema of all arguments, where definitions are found; ``spelling`` says how a text is
    written in a rule."""

    def __init__(
        self,
        shape: ParameterShape,
        root: Mapping[str, Any],
        spelling: Callable[[str], str],
        *,
        is_strict: bool,
    ) -> None:
        self._shape = shape
        self._root = root
        self._spelling = spelling
        self._is_strict = is_strict

    def arguments(self, rule: str) -> Iterator[str]:
        """Rules, of which ``rule`` is for all arguments."""
        schema = self._resolved(self._root)
        if _is_open(schema):
            yield from self._of_any_name(rule)
        else:
            yield from self._listed(rule, schema, self._shape, 0)

    def _listed(
        self, rule: str, schema: Mapping[str, Any], shape: ParameterShape, depth: int
    ) -> Iterator[str]:
        """``rule_n_a`` and ``rule_n_b`` are all properties from the nth on, after one that was written and
        before any."""
        properties = schema.get("properties") or {}
        required = schema.get("required")
        needed = [key for key in required if isinstance(key, str)] if isinstance(required, list) else []
        between = self._spelling(shape.between)
        yield f"{rule}: {rule}_0_b"
        for i, (key, value) in enumerate(properties.items()):
            one, after_a, after_b = f"{rule}_{i}", f"{rule}_{i + 1}_a", f"{rule}_{i + 1}_b"
            is_needed = key in needed
            yield f"{one}_a: {between} {one} {after_a}" + ("" if is_needed else f" | {after_a}")
            yield f"{one}_b: {one} {after_a}" + ("" if is_needed else f" | {after_b}")
            after_key = (shape.after_key_of_text if _is_text(value) else "") or shape.after_key
            yield f"{one}: {self._spelling(shape.before_key + key + after_key)} {one}_v"
            yield from self._value(f"{one}_v", value, shape.after_value, depth)
        yield f'{rule}_{len(properties)}_a: ""'
        yield f'{rule}_{len(properties)}_b: ""'

    def _of_any_name(self, rule: str) -> Iterator[str]:
        shape, spell = self._shape, self._spelling
        yield f'{rule}: "" | {rule}_0 ({spell(shape.between)} {rule}_0)*'
        yield f"{rule}_0: {spell(shape.before_key)} {_ANY_KEY} {spell(shape.after_key)} {rule}_0_v"
        yield from self._value(f"{rule}_0_v", {}, shape.after_value, 0)

    def _value(self, rule: str, schema: Any, after: str, depth: int) -> Iterator[str]:
        """A value and what stands behind it."""
        if self._shape.quote:
            yield from self._quoted(rule, schema, after, depth)
        elif self._shape.bare_strings and _may_be_text(schema):
            yield from self._text(rule, schema, "", after)
        else:
            yield f"{rule}: {self._json(schema)} {self._spelling(after)}"

    def _quoted(self, rule: str, schema: Any, after: str, depth: int) -> Iterator[str]:
        """A value in a notation like JSON's, where names have no quotes, and strings have others."""
        schema, spell, quote = self._resolved(schema), self._spelling, self._shape.quote
        options: list[Any] = next(
            (schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)), []
        )
        if depth > _MAX_DEPTH:
            yield f"{rule}: {spell('null' + after)}"
        elif options:
            yield f"{rule}: ({' | '.join(f'{rule}_{i}' for i in range(len(options)))}) {spell(after)}"
            for i, option in enumerate(options):
                yield from self._quoted(f"{rule}_{i}", option, "", depth + 1)
        elif isinstance(schema.get("properties"), Mapping):
            shape = ParameterShape(before_key="", after_key=":", between=",", quote=quote)
            yield f"{rule}: {spell('{')} {rule}_o {spell('}' + after)}"
            yield from self._listed(f"{rule}_o", schema, shape, depth + 1)
        elif schema.get("type") == "array":
            yield f"{rule}: {spell('[')} {_repeated(f'{rule}_i', schema, spell(','))} {spell(']' + after)}"
            yield from self._quoted(f"{rule}_i", schema.get("items", {}), "", depth + 1)
        elif _may_be_text(schema):
            yield from self._text(rule, schema, quote, quote + after)
        else:
            yield f"{rule}: {self._json(schema)} {spell(after)}"

    def _text(self, rule: str, schema: Any, before: str, after: str) -> Iterator[str]:
        """A string without JSON's quotes and escapes; it ends where what stands behind it first comes."""
        opening, ending = self._spelling(before), self._spelling(after)
        if choices := _choices(schema):
            yield f"{rule}: {opening} ({' | '.join(map(string, choices))}) {ending}"
            return
        terminal = rule.upper()
        yield f"{terminal}: {_terminal(schema)}"
        if ending.startswith("<["):  # a control token, which is no text
            yield f"{rule}: {opening} {terminal} {ending}"
        else:
            yield f"{rule}: {opening} {rule}_t"
            yield f"{rule}_t[lazy]: {terminal} {string(after)}"

    def _json(self, schema: Any) -> str:
        if isinstance(schema, Mapping):
            schema = {**{key: self._root[key] for key in _DEFINITIONS if key in self._root}, **schema}
        return json_value(schema, is_strict=self._is_strict, style=FIXED)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """What a reference to a definition leads to; references in a circle lead nowhere."""
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, Mapping):
                return {}
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                return schema
            _, _, path = reference.partition("#/")
            place, _, name = path.partition("/")
            definitions = self._root.get(place) if place in _DEFINITIONS else None
            schema = definitions.get(name) if isinstance(definitions, Mapping) else None
        return {}


def _is_open(schema: Mapping[str, Any]) -> bool:
    """Whether the schema does not say the names of all properties."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return True
    return not properties and schema.get("additionalProperties") is not False


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
    options = [schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)]
    return "$ref" not in schema and all(any(map(_may_be_text, some)) for some in options)


def _choices(schema: Any) -> list[str]:
    """The strings that a value is one of; none where it may be another."""
    if not isinstance(schema, Mapping):
        return []
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    return given if isinstance(given, list) and all(isinstance(one, str) and one for one in given) else []


def _terminal(schema: Any) -> str:
    """What a string may be."""
    if not _is_text(schema):
        return ANY
    parts = []
    if isinstance(pattern := schema.get("pattern"), str):
        start = "" if pattern.startswith("^") else "(?s:.*)"
        end = "" if pattern.endswith("$") and not pattern.endswith("\\$") else "(?s:.*)"
        inner = pattern if start else pattern.removeprefix("^")
        parts.append(f"/{start}({slashed(inner if end else inner.removesuffix('$'))}){end}/")
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    if least or most != "":
        parts.append(f"/(?s:.){{{least},{most}}}/")
    return " & ".join(parts) or ANY


def _repeated(rule: str, schema: Mapping[str, Any], between: str) -> str:
    """Items of a list, as many as its schema wants."""
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if most == 0:
        return '""'
    more = f"({between} {rule}){{{max(0, least - 1)},{'' if most is None else most - 1}}}"
    return f"{rule} {more}" if least else f"({rule} {more})?"
