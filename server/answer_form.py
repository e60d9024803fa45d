"""What a client may ask of the form of an answer, in the words of every dialect. Pure; every refusal is a
`BadField` that names the field.

A grammar is ``{"syntax": "regex" | "lark" | "gbnf", "definition": …}``, as in OpenAI's custom tools, or a
text: llama.cpp's notation as llama-server takes it, or Lark's where it begins with ``%llguidance``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..runtime.inference import Form
from ..runtime.protocol import Grammar
from .errors import BadField

_LARK_MARK = "%llguidance"
_MAX_CHOICES = 1000


def one_form(**given: Form | None) -> Form | None:
    """The form that was asked for, by the name of its field; None where none was.

    Raises: BadField for two of them: only one can hold.
    """
    named = {name: form for name, form in given.items() if form is not None}
    if len(named) > 1:
        first, second = list(named)[:2]
        raise BadField(f"{second}: expected one of {first} and {second}, got both", field=second)
    return next(iter(named.values()), None)


def native_format(value: object) -> Form | None:
    """Ollama's ``format``: "json", or a JSON Schema."""
    if value is None or value == "":
        return None
    if value == "json":
        return "json"
    if isinstance(value, dict):
        return value
    shown = json.dumps(value)[:80]
    raise BadField(f'invalid format: {shown}; expected "json" or a valid JSON Schema object', field="format")


def grammar_of(value: object, field: str = "grammar") -> Grammar | None:
    match value:
        case None | "":
            return None
        case str(text):
            return Grammar("lark" if text.lstrip().startswith(_LARK_MARK) else "gbnf", text)
        case {"syntax": ("regex" | "lark" | "gbnf") as syntax, "definition": str(definition)}:
            return Grammar(syntax, definition)
    raise BadField(
        f'{field}: expected {{"syntax": "regex", "lark" or "gbnf", "definition": a text}}, or a grammar in '
        "llama.cpp's notation as a text",
        field=field,
    )


def response_format(value: Mapping[str, Any], field: str = "response_format") -> Form | None:
    """OpenAI's: the schema stands in ``json_schema`` (chat completions) or beside ``type`` (responses)."""
    match value:
        case {"type": "text"}:
            return None
        case {"type": "json_object", "schema": dict(schema)} | {
            "type": "json_schema",
            "schema": dict(schema),
        }:
            return schema
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return schema
        case {"type": "json_schema"}:
            raise BadField(
                f"{field}: expected json_schema.schema to be a JSON Schema object",
                field=field.partition(".")[0],
            )
        case {"type": "grammar", "grammar": str(text)}:
            return grammar_of(text, field)
        case {"type": "grammar"}:
            return grammar_of({key: value.get(key) for key in ("syntax", "definition")}, field)
        case _ if not value:
            return None
    raise BadField(
        f"{field}: expected type text, json_object, json_schema or grammar", field=field.partition(".")[0]
    )


def structured_outputs(value: Mapping[str, Any]) -> Form | None:
    """vLLM's: one of ``json``, ``regex``, ``choice`` and ``grammar``."""
    field = "structured_outputs"
    asked = {key: one for key, one in value.items() if one is not None}
    match asked:
        case {"json": dict(schema), **rest} if not rest:
            return schema
        case {"json_object": True, **rest} if not rest:
            return "json"
        case {"regex": str(pattern), **rest} if not rest:
            return Grammar("regex", pattern)
        case {"choice": list(choices), **rest} if not rest:
            return _choice(choices, field)
        case {"grammar": str(text), **rest} if not rest:
            return grammar_of(text, field)
        case _ if not asked:
            return None
    raise BadField(
        f"{field}: expected one of json (an object), json_object (true), regex (a text), choice (a list of "
        "texts) and grammar (a text)",
        field=field,
    )


def _choice(choices: list[Any], field: str) -> Grammar:
    if not choices or not all(isinstance(one, str) and one for one in choices):
        raise BadField(f"{field}: expected choice to be a list of texts", field=field)
    if len(choices) > _MAX_CHOICES:
        raise BadField(f"{field}: expected at most {_MAX_CHOICES} choices, got {len(choices)}", field=field)
    # As JSON writes a text, so does Lark.
    return Grammar("lark", "start: " + " | ".join(json.dumps(one, ensure_ascii=False) for one in choices))
