"""What is sniffed from templates, and which template wins."""

from __future__ import annotations

import pytest

from lading.runtime.capabilities import (
    TemplateKind,
    choose_template,
    go_capabilities,
    go_names,
    jinja_capabilities,
)

GO_PLAIN = "{{ .System }} {{ .Prompt }}"
GO_TOOLS = "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Tools }}"
GO_ROUND_TRIP = GO_TOOLS + '{{ range .ToolCalls }}{{ end }}{{ if eq .Role "tool" }}{{ end }}'
GO_ALL = GO_ROUND_TRIP + "{{ .Thinking }}{{ .Suffix }}"
JINJA_PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
JINJA_TOOLS = JINJA_PLAIN + "{{ tools }}"
JINJA_ROUND_TRIP = JINJA_TOOLS + "{{ message.tool_calls }}{% if message.role == 'tool' %}{% endif %}"
JINJA_THINKS = JINJA_ROUND_TRIP + "<think></think>"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        pytest.param("no actions at all .Tools", set(), id="text is not looked at"),
        pytest.param("{{ .System }}{{- if .Tools -}}", {"system", "tools"}, id="fields"),
        pytest.param("{{ range $i, $Last := .Messages }}", {"i", "last", "messages"}, id="variables"),
        pytest.param("{{ .Message.Role }}", {"message", "role"}, id="chains"),
        pytest.param('{{ "a .Tools" }}{{ `.Tools` }}{{/* .Tools */}}', set(), id="strings and comments"),
        pytest.param('{{ printf "\\".Tools" .X }}', {"x"}, id="escaped quotes"),
        pytest.param("{{ .Tools", set(), id="an action that never ends"),
    ],
)
def test_names_of_go_templates(template: str, names: set[str]) -> None:
    assert go_names(template) == names


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (GO_PLAIN, ()),
        (GO_TOOLS, ("tools",)),
        (GO_ALL, ("tools", "insert", "thinking")),
    ],
    ids=["plain", "tools", "all"],
)
def test_go_capabilities(template: str, found: tuple[str, ...]) -> None:
    assert go_capabilities(template) == found


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (JINJA_PLAIN, ()),
        (JINJA_TOOLS, ("tools",)),
        (JINJA_THINKS, ("tools", "thinking")),
        ("<think>", ()),
        ("[THINK][/THINK]", ("thinking",)),
        ("<|start|><|channel|>analysis<|message|>", ("thinking",)),
    ],
    ids=["plain", "tools", "thinking", "half a tag", "other tags", "harmony"],
)
def test_jinja_capabilities(template: str, found: tuple[str, ...]) -> None:
    assert jinja_capabilities(template) == found


@pytest.mark.parametrize(
    ("go", "jinja", "forced", "chosen"),
    [
        pytest.param(None, None, None, None, id="none"),
        pytest.param(None, JINJA_PLAIN, None, "jinja", id="only jinja"),
        pytest.param(GO_PLAIN, None, None, "go", id="only go"),
        pytest.param(GO_PLAIN, JINJA_PLAIN, None, "go", id="go by default"),
        pytest.param(GO_PLAIN, JINJA_TOOLS, None, "jinja", id="jinja can do more"),
        pytest.param(
            GO_ROUND_TRIP, JINJA_TOOLS + "<think></think>", None, "go", id="more, but loses the way back"
        ),
        pytest.param(GO_ROUND_TRIP, JINJA_THINKS, None, "jinja", id="more, and has the way back"),
        pytest.param(GO_TOOLS, JINJA_TOOLS, None, "go", id="equal, neither has the way back"),
        pytest.param(GO_TOOLS, JINJA_ROUND_TRIP, None, "jinja", id="equal, only jinja has the way back"),
        pytest.param(GO_ROUND_TRIP, JINJA_ROUND_TRIP, None, "go", id="equal, both have it"),
        pytest.param(GO_ALL, JINJA_THINKS, None, "go", id="go can do more"),
        pytest.param(GO_ALL, JINJA_PLAIN, "jinja", "jinja", id="jinja forced"),
        pytest.param(GO_PLAIN, JINJA_THINKS, "go", "go", id="go forced"),
        pytest.param(None, JINJA_PLAIN, "go", "jinja", id="nothing to force"),
    ],
)
def test_which_template_wins(
    go: str | None, jinja: str | None, forced: TemplateKind | None, chosen: TemplateKind | None
) -> None:
    assert choose_template(go, jinja, forced=forced) == chosen
