"""Prompts from Ollama's templates: conversations, turns, tools, thinking, completion; and what a template
tells."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from lading.modelfile.go_template import BadTemplate, parse_template, render_chat, render_generate

LEGACY = "{{ if .System }}S:{{ .System }}|{{ end }}U:{{ .Prompt }}|A:{{ .Response }}|E"


def _turn(text: str) -> dict[str, Any]:
    role, _, content = text.partition(":")
    return {"role": {"s": "system", "u": "user", "a": "assistant", "t": "tool"}[role], "content": content}


@pytest.mark.parametrize(
    ("turns", "prompt"),
    [
        # Vectors of Ollama.
        ("u:hi", "U:hi|A:"),
        ("s:s u:hi", "S:s|U:hi|A:"),
        ("u:a a:b u:c", "U:a|A:b|EU:c|A:"),
        ("u:a a:b", "U:a|A:b"),
        ("u:a u:b", "U:a\n\nb|A:"),
        # The rest of the rules.
        ("s:s u:a a:b s:t u:c", "S:s|U:a|A:b|ES:t|U:c|A:"),
        ("u:a s:s u:b", "U:a|A:|ES:s|U:b|A:"),
        ("s:s", "S:s|U:|A:"),
        ("", "U:|A:"),
    ],
)
def test_turns_of_a_prompt_template(turns: str, prompt: str) -> None:
    messages = [_turn(turn) for turn in turns.split()]
    assert render_chat(parse_template(LEGACY), messages) == prompt


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{ .Prompt }}", "hi"),
        ("{{ .System }}{{ .Prompt }}{{ if .Response }}{{ .Response }}END{{ end }}x", "hi"),
        ("{{ if true }}{{ .Prompt }}{{ .Response }}a{{ end }}b", "hi"),
        ("{{ if false }}{{ .Response }}{{ end }}b{{ .Prompt }}", ""),
        ("{{ .Prompt }}{{ with .Response }}{{ . }}{{ end }}{{ .Response }}c", "hi"),
        ("{{ .Prompt }}[{{ $.Response }}]", "hi["),
        ("{{ .Prompt }}{{ range .Empty }}{{ .Response }}{{ else }}e{{ end }}b", "hi"),
        ('{{ .Prompt }}{{ printf "%s" .Response }}b', "hi"),
    ],
)
def test_the_last_turn_ends_where_the_response_goes(template: str, prompt: str) -> None:
    assert render_chat(parse_template(template), [_turn("u:hi")]) == prompt


MESSAGES = "{{ .System }}#{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}{{ .Response }}"


def test_messages_are_collated() -> None:
    turns = ["s:one", "u:a", "u:b", "t:x", "t:y", "a:c", "s:two"]
    prompt = render_chat(parse_template(MESSAGES), [_turn(turn) for turn in turns])
    assert prompt == "one\n\ntwo#system=one;user=a\n\nb;tool=x;tool=y;assistant=c;system=two;"


def test_calls_of_collated_messages_are_kept() -> None:
    template = parse_template(
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .Function.Name }},{{ end }};{{ end }}"
    )
    messages = [
        {"role": "assistant", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
    ]
    assert render_chat(template, messages) == "f,;"
    assert "tool_calls" not in messages[0]


@pytest.mark.parametrize(
    ("think", "written"),
    [(None, "false//false"), (False, "false//true"), (True, "true/medium/true"), ("high", "true/high/true")],
)
def test_thinking(think: bool | str | None, written: str) -> None:
    template = parse_template(
        "{{ .Think }}/{{ .ThinkLevel }}/{{ .IsThinkSet }}{{ range .Messages }}{{ end }}"
    )
    assert render_chat(template, [_turn("u:x")], think=think) == written
    assert render_generate(template, "x", think=think) == written


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "weather <now>",
        "parameters": {
            "type": "object",
            "properties": {
                "when": {"type": ["string", "null"], "enum": ["now", "later"]},
                "city": {"description": "where", "type": "string", "minLength": 1},
                "days": {"type": "array", "items": {"type": "integer"}},
                "any": {"anyOf": [{"type": "string"}, {"type": "number"}]},
            },
            "required": ["city"],
        },
    },
}
PROPERTIES = (
    '{"any":{"anyOf":[{"type":"string"},{"type":"number"}]},'
    '"city":{"type":"string","description":"where","minLength":1},'
    '"days":{"type":"array","items":{"type":"integer"}},'
    '"when":{"type":["string","null"],"enum":["now","later"]}}'
)
PARAMETERS = '{"type":"object","required":["city"],"properties":' + PROPERTIES + "}"
FUNCTION = '{"name":"get_weather","description":"weather <now>","parameters":' + PARAMETERS + "}"


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("{{ .Tools }}", '[{"type":"function","function":' + FUNCTION + "}]"),
        ("{{ json .Tools }}", '[{"type":"function","function":' + FUNCTION + "}]"),
        ("{{ range .Tools }}{{ .Function }}{{ end }}", FUNCTION),
        ("{{ range .Tools }}{{ .Function.Parameters }}{{ end }}", PARAMETERS),
        ("{{ range .Tools }}{{ .Function.Parameters.Properties }}{{ end }}", PROPERTIES),
        (
            "{{ range .Tools }}{{ .Type }} {{ .Function.Name }}: {{ .Function.Description }}{{ end }}",
            "function get_weather: weather <now>",
        ),
        (
            "{{ range .Tools }}{{ .Function.Parameters.Required }}{{ .Function.Parameters.Type }}{{ end }}",
            "[city]object",
        ),
        (
            "{{ range (index .Tools 0).Function.Parameters.Properties }}{{ .Type }}/"
            "{{ .ToTypeScriptType }};{{ end }}",
            "/string | number;string/string;array/any[];[string null]/string | null;",
        ),
        (
            "{{ range $k, $p := (index .Tools 0).Function.Parameters.Properties }}"
            "{{ $k }}: {{ toTypeScriptType $p }},{{ end }}",
            "any: string | number,city: string,days: any[],when: string | null,",
        ),
        (
            "{{ range (index .Tools 0).Function.Parameters.Properties }}"
            '{{ if eq (len .Type) 1 }}{{ eq .Type "string" }},{{ end }}{{ end }}',
            "true,false,",
        ),
        ("{{ if .Tools }}yes{{ end }}", "yes"),
    ],
)
def test_tools(expression: str, written: str) -> None:
    template = parse_template(expression + "{{ range .Messages }}{{ end }}")
    assert render_chat(template, [_turn("u:x")], [TOOL]) == written


def test_tool_calls() -> None:
    template = parse_template(
        "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }}|{{ .Function.Index }}|{{ .Function.Name }}|"
        "{{ .Function.Arguments }}|{{ range $k, $v := .Function.Arguments }}{{ $k }}="
        "{{ $v }} {{ end }}{{ end }}"
        "{{ .ToolName }}{{ .ToolCallID }};{{ end }}"
    )
    arguments = {"b": 1.0, "a": "<x>"}
    messages = [
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": arguments}}],
        },
        {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "c1"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": '{"z": [1, null]}'}}]},
    ]
    assert render_chat(template, messages) == (
        'c1|0|f|{"a":"<x>","b":1}|a=<x> b=1 ;fc1;|0|g|{"z":[1,null]}|z=[1 <nil>] ;'
    )


def test_messages_print_as_json() -> None:
    template = parse_template("{{ .Messages }}")
    assert render_chat(template, [_turn("u:<x>")]) == '[{"role":"user","content":"<x>"}]'


def test_unknown_fields_of_a_message_are_refused() -> None:
    with pytest.raises(BadTemplate, match=r"can't evaluate field Nope in type api\.Message"):
        render_chat(parse_template("{{ range .Messages }}{{ .Nope }}{{ end }}"), [_turn("u:x")])


def test_completion() -> None:
    template = parse_template(
        "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}" + LEGACY + "{{ end }}"
    )
    assert render_generate(template, "a", "b", "system is not used") == "<P>a<S>b<M>"
    assert render_generate(template, "a") == "U:a|A:"
    assert render_generate(template, "a", "", "s") == "S:s|U:a|A:"
    assert render_generate(template, "c", "", "s", [_turn("u:a"), _turn("a:b")]) == "S:s|U:a|A:b|EU:c|A:"


def test_dates() -> None:
    template = parse_template("{{ currentDate }} {{ yesterdayDate }}{{ range .Messages }}{{ end }}")
    assert render_chat(template, [_turn("u:x")], today=date(2026, 1, 1)) == "2026-01-01 2025-12-31"
    assert date.fromisoformat(render_chat(template, [_turn("u:x")]).split()[0])


@pytest.mark.parametrize(
    ("text", "capabilities"),
    [
        ("{{ .Prompt }}", set()),
        ("{{ if .Tools }}{{ end }}{{ .Messages }}", {"tools"}),
        ("{{ .Prompt }}{{ .Suffix }}", {"insert"}),
        ('{{ define "t" }}{{ $.tools }}{{ end }}', {"tools"}),
        (
            "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}",
            {"thinking"},
        ),
    ],
)
def test_capabilities(text: str, capabilities: set[str]) -> None:
    assert parse_template(text).capabilities == capabilities


def test_identifiers() -> None:
    template = parse_template(
        "{{ range $i, $m := .Messages }}{{ $m.Role }}{{ (index $.Tools 0).Type }}{{ end }}"
    )
    assert template.identifiers == {"messages", "$m", "role", "$", "tools", "type"}
    assert template.mentions_messages
    assert parse_template("{{ .Prompt }}").identifiers == {"prompt", "response"}


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}", ("<think>", "</think>")),
        (
            "{{ range .Messages }}{{ if .Thinking }}\n <a>\n{{ .Thinking }} </a> "
            "{{ end }}{{ .Content }}{{ end }}",
            ("<a>", "</a>"),
        ),
        ("{{ range $i, $_ := .Messages }}{{ with .Thinking }}<t>{{ . }}</t>{{ end }}{{ end }}", None),
        ("{{ range .Messages }}{{ .Thinking }}{{ end }}", None),
        ("{{ range .Messages }}<t>{{ .Thinking }}{{ end }}", None),
        ("<t>{{ .Thinking }}</t>{{ range .Messages }}{{ end }}", None),
        ("{{ range .Tools }}<t>{{ .Thinking }}</t>{{ end }}", None),
    ],
)
def test_thinking_tags(text: str, tags: tuple[str, str] | None) -> None:
    assert parse_template(text).thinking_tags == tags


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (
            "{{ if .ToolCalls }}<tool_call>\n{{ range .ToolCalls }}{}{{ end }}</tool_call>{{ end }}",
            "<tool_call>",
        ),
        (
            "{{ if .Content }}x{{ else if .ToolCalls }}[TOOL_CALLS] ["
            "{{ range .ToolCalls }}{{ end }}{{ end }}",
            "[TOOL_CALLS] [",
        ),
        (
            '{{ if .ToolCalls }}{{ range .ToolCalls }}\n{"name": "{{ .Function.Name }}"}{{ end }}{{ end }}',
            "{",
        ),
        ("{{ if and .A (gt (len .ToolCalls) 0) }} <|call|>{ {{ end }}", "<|call|>"),
        ("{{ if .ToolCalls }}{{ .ToolCalls }}<x>{{ end }}", "{"),
        ("{{ .Prompt }}", "{"),
    ],
)
def test_tool_call_tag(text: str, tag: str) -> None:
    assert parse_template(text).tool_call_tag == tag
