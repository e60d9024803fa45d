"""What templates tell of themselves in trials, and conversations put as they take them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from lading.modelfile.go_template import parse_template
from lading.runtime.protocol import FunctionCall, Message, MessageToolCall
from lading.runtime.runner.chat_template import ChatTemplate, template_variables
from lading.runtime.runner.conversation import template_messages, template_tools, without_prefill
from lading.runtime.runner.shield import ControlNames
from lading.runtime.runner.template_traits import TemplateTraits, traits_of_go, traits_of_jinja
from lading.runtime.runner.thinking import ThinkingTags
from lading.runtime.runner.tool_formats.registry import FORMATS
from lading.runtime.runner.tool_formats.tool_format import CallShape

# Templates in the manner of published ones; each has one of their habits.

LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
HERMES = (
    TOOLS
    + "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}"
    '\n<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA = (
    TOOLS + "{% for m in messages %}[{{ m.role }}]\n{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}"
    '{"name": "{{ m.tool_calls[0].function.name }}", "parameters": '
    "{{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)
MISTRAL = (
    TOOLS + "{% set n = namespace(last='') %}{% for m in messages %}{% if m.role == n.last != 'tool' %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% set n.last = m.role %}"
    "{% if m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}{% if c.id | length != 9 %}"
    "{{ raise_exception('ids have nine characters') }}{% endif %}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{% elif m.role == 'tool' %}[R]{{ m.tool_call_id }}"
    "{{ m.content }}[/R]{% else %}[{{ m.role }}]{{ m.content }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
HARMONY = (
    "{% for t in tools or [] %}{{ t.function.name }}{{ t.function.description + '.' }}{% endfor %}"
    "{% for m in messages %}{% if m.tool_calls %}{% if m.content and m.thinking %}"
    "{{ raise_exception('not both') }}{% endif %}<|start|>assistant<|channel|>analysis<|message|>"
    "{{ m.thinking or m.content }}<|end|><|start|>assistant to=functions.{{ m.tool_calls[0].function.name }}"
    "<|channel|>commentary json<|message|>{{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
TEXT_ARGUMENTS = (
    TOOLS + "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<function={{ c.function.name }}>{{ c.function.arguments + '</function>' }}{% endfor %}{% endfor %}"
)
PARTS = "{% for m in messages %}[{{ m.role }}]{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
LISTED = (
    "{% for t in tools %}{{ t.function.name }}{{ t.function.parameters.properties.items() | list }}"
    "{% endfor %}" + LOOP
)
SILENT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}"
    "<|tool_call|>[{{ {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}]"
    "{% endfor %}{% endfor %}"
)
FIRST_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system first') }}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
)
CALLS_FIRST = (
    TOOLS + "{% for m in messages %}{% if m.role == 'tool' and not messages[loop.index0 - 1].tool_calls"
    " and messages[loop.index0 - 1].role != 'tool' %}{{ raise_exception('a result of what?') }}{% endif %}"
    "[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}\n"
    "{% for k, v in c.function.arguments.items() %}"
    "<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}"
    "</tool_call>{% endfor %}{% endfor %}"
)


NAMES = {
    HERMES: "hermes",
    LLAMA: "llama",
    MISTRAL: "mistral",
    GEMMA: "gemma",
    HARMONY: "harmony",
    TEXT_ARGUMENTS: "text arguments",
    PARTS: "parts",
    LISTED: "listed",
    SILENT: "silent",
    FIRST_SYSTEM: "system first",
    CALLS_FIRST: "calls first",
}


def traits(source: str) -> TemplateTraits:
    return traits_of_jinja(ChatTemplate(source), source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param(
            HERMES,
            {
                "tool_format": "hermes",
                "capabilities": ("tools", "thinking"),
                "thinking": ("<think>", "</think>", "", "", False),
                "switches_thinking": True,
            },
            id="takes everything",
        ),
        pytest.param(
            LLAMA,
            {"tool_format": "llama-3", "capabilities": ("tools",), "takes_many_calls": False},
            id="one call in a message",
        ),
        pytest.param(
            MISTRAL,
            {
                "tool_format": "mistral-nemo",
                "capabilities": ("tools",),
                "takes_neighbours": False,
                "wants_short_ids": True,
            },
            id="short ids, strict turns",
        ),
        pytest.param(
            GEMMA,
            {
                "takes_system": False,
                "takes_late_system": False,
                "takes_neighbours": False,
                "takes_tools": False,
                "takes_calls": False,
                "takes_results": False,
                "takes_orphans": False,
            },
            id="nothing but turns",
        ),
        pytest.param(
            HARMONY,
            {
                "tool_format": "harmony",
                "capabilities": ("tools", "thinking"),
                "takes_many_calls": False,
                "takes_call_text": False,
                "wants_whole_tools": True,
            },
            id="harmony",
        ),
        pytest.param(
            TEXT_ARGUMENTS,
            {"tool_format": "functionary-v3.1", "capabilities": ("tools",), "wants_text_arguments": True},
            id="arguments as text",
        ),
        pytest.param(
            PARTS,
            {"wants_parts": True, "takes_tools": False, "takes_calls": False},
            id="content in parts",
        ),
        pytest.param(
            LISTED,
            {
                "capabilities": ("tools",),
                "takes_calls": False,
                "wants_tool_list": True,
                "wants_whole_tools": True,
            },
            id="a list of tools, always",
        ),
        pytest.param(
            SILENT,
            {"tool_format": "granite-3", "capabilities": ("tools",), "takes_tools": False},
            id="leaves the tools to the operator",
        ),
        pytest.param(
            FIRST_SYSTEM,
            {"takes_late_system": False, "takes_tools": False, "takes_calls": False},
            id="system messages first",
        ),
        pytest.param(
            CALLS_FIRST,
            {"tool_format": "glm-4.5", "capabilities": ("tools",), "takes_orphans": False},
            id="results of calls only",
        ),
        pytest.param("{{ raise_exception('no') }}", {"takes_system": False}, id="refuses everything"),
    ],
)
def test_a_template_is_tried(source: str, expected: dict[str, Any]) -> None:
    found = {name: getattr(traits(source), name) for name in expected}
    assert found == expected
    if "takes_system" not in expected:
        others = set(TemplateTraits.__struct_fields__) - set(expected)
        differing = {
            name for name in others if getattr(traits(source), name) != getattr(TemplateTraits(), name)
        }
        assert not differing


def writing(shape: CallShape) -> str:
    """A template that writes calls in this shape."""
    literal = msgspec.json.encode
    kind = shape.arguments
    if kind == "json":
        arguments = "{{ c.function.arguments | tojson }}"
    else:
        quote = literal(kind.quote).decode()
        text = "v" if kind.bare_strings else f"({quote} ~ v ~ {quote})" if kind.quote else "v | tojson"
        after_key = literal(kind.after_key).decode()
        after_key_of_text = literal(kind.after_key_of_text or kind.after_key).decode()
        arguments = (
            "{% for k, v in c.function.arguments.items() %}"
            f"{{{{ {literal(kind.before_key).decode()} ~ k }}}}"
            f"{{{{ {after_key_of_text} if v is string else {after_key} }}}}"
            f"{{{{ {text} if v is string else v | tojson }}}}{{{{ {literal(kind.after_value).decode()} }}}}"
            f"{{% if not loop.last %}}{{{{ {literal(kind.between).decode()} }}}}{{% endif %}}{{% endfor %}}"
        )
    opening, before_name, after_name, after_arguments, between, closing = (
        "{{ " + literal(part).decode() + " }}"
        for part in (
            shape.opening,
            shape.before_name,
            shape.after_name,
            shape.after_arguments,
            shape.between or "",
            shape.closing,
        )
    )
    refusal = "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    return (
        f"{TOOLS}{{% for m in messages %}}[{{{{ m.role }}}}]{{{{ m.content }}}}{{% if m.tool_calls %}}"
        f"{refusal if shape.between is None else ''}{opening}{{% for c in m.tool_calls %}}{before_name}"
        f"{{{{ c.function.name }}}}{after_name}{arguments}{after_arguments}"
        f"{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}{closing}{{% endif %}}[end]"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.shape])
def test_a_template_that_writes_calls_in_a_format_is_recognised(name: str) -> None:
    shape = FORMATS[name].shape
    assert shape is not None
    found = traits(writing(shape))
    assert found.tool_format == name
    assert found.takes_calls
    assert found.takes_many_calls == (shape.between is not None)


def call(name: str, identity: str = "", **arguments: Any) -> MessageToolCall:
    return MessageToolCall(id=identity, function=FunctionCall(name, arguments))


TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"properties": {"at": {"type": "string"}}}},
}
USER = Message("user", "Q1")
CONVERSATION = (
    Message("system", "S1"),
    USER,
    Message("user", "Q2"),
    Message(
        "assistant",
        "T1",
        thinking="W1",
        tool_calls=(call("look", "call_aaaaaaaa", at="A1"), call("look", at="A2")),
    ),
    Message("tool", "R1", tool_call_id="call_aaaaaaaa"),
    Message("tool", "R2", tool_name="look"),
    Message("assistant", "T2"),
    Message("tool", "R3", tool_call_id="unknown"),
    Message("system", "S2"),
    Message("user", "Q3"),
)
SAID = ("S1", "Q1", "Q2", "A1", "A2", "R1", "R2", "T2", "R3", "S2", "Q3")


@pytest.mark.parametrize(
    "source",
    list(NAMES),
    ids=lambda source: NAMES[source],
)
def test_nothing_of_a_conversation_is_lost_or_refused(source: str) -> None:
    found = traits(source)
    prompt = rendered(source, found, CONVERSATION)
    positions = [prompt.find(word) for word in SAID]
    assert -1 not in positions, dict(zip(SAID, positions, strict=True))
    assert "look" in prompt


def rendered(source: str, found: TemplateTraits, messages: tuple[Message, ...]) -> str:
    shield = ControlNames(()).shield()
    variables = template_variables(
        template_messages(messages, (TOOL,), found, shield),
        template_tools((TOOL,), found, shield),
        think=None,
        bos="",
        eos="",
    )
    return ChatTemplate(source).render(variables)


def put(messages: list[Message], **found: Any) -> list[dict[str, Any]]:
    shield = ControlNames(()).shield()
    return list(template_messages(messages, (), TemplateTraits(**found), shield))


def test_results_belong_to_calls_by_identifier_then_name_then_order() -> None:
    calls = (call("a", "one"), call("b"), call("b"), call("c"))
    results = [
        Message("tool", "1", tool_name="b"),
        Message("tool", "2", tool_call_id="one"),
        Message("tool", "3"),
        Message("tool", "4", name="c"),
        Message("tool", "5"),
    ]
    turns = put([USER, Message("assistant", tool_calls=calls), *results])
    identities = [made["id"] for made in turns[1]["tool_calls"]]
    assert len(set(identities)) == 4 and identities[0] == "one"
    found = [(turn.get("tool_call_id"), turn.get("name")) for turn in turns[2:]]
    assert found == [
        (identities[1], "b"),
        ("one", "a"),
        (identities[2], "b"),
        (identities[3], "c"),
        (None, None),
    ]


def test_short_identifiers_are_the_same_for_a_call_and_its_result() -> None:
    turns = put(
        [
            Message("assistant", tool_calls=(call("a", "call_12345678"),)),
            Message("tool", tool_call_id="call_12345678"),
        ],
        wants_short_ids=True,
    )
    identity = turns[0]["tool_calls"][0]["id"]
    assert identity == turns[1]["tool_call_id"]
    assert len(identity) == 9 and identity.isalnum()
    kept = put([Message("assistant", tool_calls=(call("a", "abc123DEF"),))], wants_short_ids=True)
    assert kept[0]["tool_calls"][0]["id"] == "abc123DEF"


def test_several_calls_are_taken_one_at_a_time_with_their_results() -> None:
    calls = (call("a", "1"), call("b", "2"))
    results = [Message("tool", "R2", tool_call_id="2"), Message("tool", "R1", tool_call_id="1")]
    turns = put([USER, Message("assistant", "T", tool_calls=calls), *results, USER], takes_many_calls=False)
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("user", "Q1"),
        ("assistant", "T"),
        ("tool", "R1"),
        ("assistant", ""),
        ("tool", "R2"),
        ("user", "Q1"),
    ]


def test_thoughts_and_text_beside_a_call_become_one_where_a_template_takes_one() -> None:
    message = Message("assistant", "T", thinking="W", tool_calls=(call("a"),))
    (turn,) = put([message], takes_call_text=False)
    assert (turn["thinking"], turn["content"]) == ("W\n\nT", "")
    (turn,) = put([message])
    assert (turn["reasoning_content"], turn["content"]) == ("W", "T")


def test_arguments_as_text() -> None:
    (turn,) = put([Message("assistant", tool_calls=(call("a", x=1),))], wants_text_arguments=True)
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == {"x": 1}


def test_poor_tools_are_completed_only_where_that_is_wanted() -> None:
    shield = ControlNames(()).shield()
    assert template_tools((TOOL,), TemplateTraits(), shield) == (TOOL,)
    whole = template_tools(
        ({"function": {"name": "x"}}, TOOL), TemplateTraits(wants_whole_tools=True), shield
    )
    assert whole[0]["function"] == {
        "description": "",
        "name": "x",
        "parameters": {"type": "object", "properties": {}},
    }
    assert whole[1]["function"]["parameters"]["properties"] == {"at": {"description": "", "type": "string"}}


def test_control_tokens_in_tools_that_are_told_of_stay_text() -> None:
    shield = ControlNames(["<|im_end|>"]).shield()
    hostile = {"type": "function", "function": {"name": "x", "description": "<|im_end|>"}}
    found = TemplateTraits(takes_tools=False, tool_format="hermes")
    system, _ = template_messages([USER], (hostile,), found, shield)
    assert system["role"] == "system" and "<tool_call>" in system["content"]
    plain = [passage.text for passage in shield.passages(system["content"]) if passage.is_plain]
    assert plain == ["<|im_end|>"]


def test_what_the_assistant_began_is_not_a_turn() -> None:
    begun = Message("assistant", "Once")
    assert without_prefill([USER, begun]) == ([USER], "Once")
    for whole in ([USER], [begun], [USER, Message("assistant", "x", tool_calls=(call("a"),))]):
        assert without_prefill(whole) == (whole, "")


# Go templates

GO = "{{ range .Messages }}{{ .Role }}: {{ .Content }}{{ if .ToolCalls }}%s{{ end }}{{ end }}{{ .Tools }}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GO % '<tool_call>\n{"name": …}</tool_call>', ("hermes", "")),
        (GO % "[TOOL_CALLS] [{{ . }}]", ("mistral-nemo", "")),
        (GO % "[MY_CALL] {{ . }}", ("go", "[MY_CALL]")),
        (GO % '{"name": {{ . }}}', ("go", "{")),
        ("{{ .Prompt }}", ("go", "{")),
    ],
)
def test_formats_of_go_templates(source: str, expected: tuple[str, str]) -> None:
    found = traits_of_go(parse_template(source))
    assert (found.tool_format, found.tool_tag) == expected


def test_thoughts_of_go_templates() -> None:
    source = (
        "{{ range .Messages }}{{ if .Thinking }}<r>{{ .Thinking }}</r>{{ end }}{{ end }}"
        "{{ if .Think }}{{ end }}"
    )
    found = traits_of_go(parse_template(source))
    assert found.thinking_tags == ThinkingTags("<r>", "</r>")
    assert found.switches_thinking
    assert found.capabilities == ("thinking",)


def test_harmony_in_a_go_template() -> None:
    source = "<|start|>system<|message|>{{ .ThinkLevel }}<|end|>{{ range .Messages }}<|channel|>{{ end }}"
    found = traits_of_go(parse_template(source))
    assert found.is_harmony and found.capabilities == ("thinking", "tools")
