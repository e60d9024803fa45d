"""Every format of tool calls, in text that is cut anywhere; and that none of it gets lost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading.runtime.runner.answer import Call, Content, Piece, Thought, merged
from lading.runtime.runner.output import AnswerReader
from lading.runtime.runner.tool_formats import harmony
from lading.runtime.runner.tool_formats.go_calls import GoCalls
from lading.runtime.runner.tool_formats.parser import ToolCallParser
from lading.runtime.runner.tool_formats.registry import FORMATS, format_mentioned, format_named
from lading.runtime.runner.tool_formats.tool_format import CallShape, OfferedTools, ToolFormat

TOOLS: tuple[dict[str, Any], ...] = (
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        },
    },
    {"type": "function", "function": {"name": "note", "parameters": {"properties": {"text": {}}}}},
)
OFFERED = OfferedTools(TOOLS)
PARIS = Call("get_weather", {"city": "Paris"})
PARIS_2 = Call("get_weather", {"city": "Paris", "days": 2})
HARD = {"city": 'Zürich {"a": [1}] 日本 🎉 <b>', "days": 2}

Reader = ToolCallParser | harmony.HarmonyReader


def reader_of(form: ToolFormat | None) -> Reader:
    return ToolCallParser(form, OFFERED) if form else harmony.HarmonyReader(OFFERED)


def read(reader: Reader, chunks: Iterable[str]) -> list[Piece]:
    pieces = [piece for chunk in chunks for piece in reader.push(chunk)]
    return merged([*pieces, *reader.finish()])


def cuts(text: str) -> Iterable[Sequence[str]]:
    """``text`` whole, in single characters, and in two parts, cut anywhere."""
    yield [text]
    yield list(text)
    for at in range(1, len(text)):
        yield [text[:at], text[at:]]


def shape_of(name: str) -> CallShape:
    shape = harmony.SHAPE if name == "harmony" else FORMATS[name].shape
    assert shape is not None
    return shape


def form_of(name: str) -> ToolFormat | None:
    return None if name == "harmony" else FORMATS[name]


SHAPED = [*(name for name, form in FORMATS.items() if form.shape), "harmony"]


@pytest.mark.parametrize("name", SHAPED)
def test_a_call_as_its_shape_writes_it_is_read_wherever_it_is_cut(name: str) -> None:
    text = shape_of(name).example("get_weather", HARD)
    for chunks in cuts(text):
        assert read(reader_of(form_of(name)), chunks) == [Call("get_weather", HARD)], chunks


@pytest.mark.parametrize("name", SHAPED)
def test_calls_side_by_side_between_texts(name: str) -> None:
    shape = shape_of(name)
    one, two = {"city": "Rome"}, {"city": "Oslo", "days": 1}
    calls = [Call("get_weather", one), Call("get_weather", two)]
    if shape.between is None:
        text, calls = shape.example("get_weather", one), calls[:1]
    else:
        whole = shape.example("get_weather", one)
        second = shape.example("get_weather", two)
        opening, closing = len(shape.opening), len(shape.closing)
        text = whole[: len(whole) - closing] + shape.between + second[opening:]
    if not shape.trigger:
        expected: list[Piece] = [*calls, Content("That is all.")]
        text += "\nThat is all."
    elif name == "harmony":
        expected = [Content("Let me see."), *calls]
        text = f"<|channel|>final<|message|>Let me see.<|end|><|start|>assistant{text}"
    else:
        expected = [Content("Let me see."), *calls, Content("That is all.")]
        text = f"Let me see.\n{text}\n\nThat is all."
    for chunks in cuts(text):
        assert read(reader_of(form_of(name)), chunks) == expected, chunks


@pytest.mark.parametrize("name", SHAPED)
def test_a_tool_that_was_not_offered_is_text(name: str) -> None:
    text = shape_of(name).example("delete_all", {"city": "Rome"})
    for chunks in cuts(text):
        assert read(reader_of(form_of(name)), chunks) == [Content(text)], chunks


@pytest.mark.parametrize("name", SHAPED)
def test_no_arguments(name: str) -> None:
    text = shape_of(name).example("get_weather", {})
    assert read(reader_of(form_of(name)), [text]) == [Call("get_weather", {})]


@pytest.mark.parametrize("name", SHAPED)
def test_an_answer_cut_short_is_a_call_or_its_text(name: str) -> None:
    text = shape_of(name).example("get_weather", {"city": "Rome"})
    for size in range(1, len(text)):
        pieces = read(reader_of(form_of(name)), [text[:size]])
        called = any(isinstance(piece, Call) for piece in pieces)
        content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
        # Of harmony's header nothing is worth showing; a call without its closing tag is whole.
        assert called or content == text[:size] or (name == "harmony" and not content)


DEEPSEEK = "<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>"  # noqa: RUF001 - its tags
DEEPSEEK_CALL = (
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"  # noqa: RUF001
    '```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>'  # noqa: RUF001
)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        pytest.param(
            "hermes",
            'A.\n<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}</tool_call>',
            [Content("A."), PARIS],
            id="hermes: arguments as text",
        ),
        pytest.param(
            "hermes",
            '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}',
            [PARIS],
            id="hermes: no closing tag",
        ),
        pytest.param(
            "hermes",
            '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}'
            '<tool_call>{"name": "note"}</tool_call>!',
            [PARIS, Call("note"), Content("!")],
            id="hermes: no closing tag, then another",
        ),
        pytest.param(
            "hermes",
            '<tools>{"function": {"name": "note", "arguments": null}}</tools>',
            [Call("note")],
            id="hermes: another tag, the function inside",
        ),
        pytest.param(
            "hermes",
            '<tool_call>{"name": "note", "arguments": {"text": "</tool_call> {"}}</tool_call>',
            [Call("note", {"text": "</tool_call> {"})],
            id="hermes: closing tag in an argument",
        ),
        pytest.param(
            "hermes",
            "<tool_call>oops</tool_call> a < b <tool",
            [Content("<tool_call>oops</tool_call> a < b <tool")],
            id="hermes: no call at all",
        ),
        pytest.param(
            "hermes",
            '<tool_call>x <tool_call>{"name": "note"}</tool_call>',
            [Content("<tool_call>x"), Call("note")],
            id="hermes: a call after a broken one",
        ),
        pytest.param(
            "hermes",
            '<tool_call>{"name": "rm", "arguments": '
            '{"x": "<tool_call>{\\"name\\": \\"note\\"}"}}</tool_call>',
            [
                Content(
                    '<tool_call>{"name": "rm", "arguments": '
                    '{"x": "<tool_call>{\\"name\\": \\"note\\"}"}}</tool_call>'
                )
            ],
            id="hermes: a call quoted in an argument is none",
        ),
        pytest.param(
            "hermes",
            '<tool_call>{"name": "note", "arguments": {"text": "a\nb"}}</tool_call>',
            [Call("note", {"text": "a\nb"})],
            id="hermes: a line end in a string",
        ),
        pytest.param(
            "qwen-coder",
            "<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
            [PARIS],
            id="qwen: no opening tag",
        ),
        pytest.param(
            "qwen-coder",
            "<tool_call>\n<function=note>\n<parameter=text>\n<a>\n  </parameter>\n</a>\n</parameter>\n"
            "</function>\n</tool_call>",
            [Call("note", {"text": "<a>\n  </parameter>\n</a>"})],
            id="qwen: its own tag in a value",
        ),
        pytest.param(
            "qwen-coder",
            '<tool_call>\n<function=note>\n<parameter=text>\n{"a": [1]}\n</parameter>\n'
            "</function>\n</tool_call>",
            [Call("note", {"text": {"a": [1]}})],
            id="qwen: an object",
        ),
        pytest.param(
            "qwen-coder",
            "<tool_call>\n<function=get_weather>\n<parameter=city>\n4\n</parameter>\n"
            "<parameter=days>\nmany\n</parameter>\n</function>\n</tool_call>",
            [Call("get_weather", {"city": "4", "days": "many"})],
            id="qwen: typed by the schema, as far as that goes",
        ),
        pytest.param(
            "glm-4.5",
            "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
            [PARIS],
            id="glm",
        ),
        pytest.param(
            "minimax-m2",
            '<minimax:tool_call>\n<invoke name="note">\n</invoke>\nno\n</minimax:tool_call>',
            [Call("note"), Content("no\n</minimax:tool_call>")],
            id="minimax: text in the section",
        ),
        pytest.param(
            "minimax-m2",
            "<minimax:tool_call>\n</minimax:tool_call>",
            [Content("<minimax:tool_call>\n</minimax:tool_call>")],
            id="minimax: an empty section",
        ),
        pytest.param("deepseek-v3", DEEPSEEK.format(DEEPSEEK_CALL), [PARIS], id="deepseek"),
        pytest.param(
            "deepseek-v3",
            DEEPSEEK.format(DEEPSEEK_CALL + "\n" + DEEPSEEK_CALL),
            [PARIS, PARIS],
            id="deepseek: two",
        ),
        pytest.param(
            "kimi-k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:12"
            '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>',
            [PARIS],
            id="kimi",
        ),
        pytest.param("mistral", '[TOOL_CALLS]get_weather{"city": "Paris"}', [PARIS], id="mistral: no [ARGS]"),
        pytest.param(
            "mistral",
            '[TOOL_CALLS]get_weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}',
            [PARIS],
            id="mistral: with an id",
        ),
        pytest.param(
            "mistral",
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "123456789"}]',
            [PARIS],
            id="mistral: the list of earlier models",
        ),
        pytest.param(
            "llama-3",
            '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
            [PARIS],
            id="llama: tag",
        ),
        pytest.param(
            "llama-3",
            '<|python_tag|>get_weather.call(city="Paris")',
            [PARIS],
            id="llama: as its own tools are called",
        ),
        pytest.param(
            "llama-3",
            '{"name": "note", "parameters": {}}; {"name": "note", "parameters": {}}',
            [Call("note"), Call("note")],
            id="llama: two",
        ),
        pytest.param("json", '{"answer": 42}', [Content('{"answer": 42}')], id="bare JSON, but no call"),
        pytest.param("json", '[{"name": "note"}]', [Call("note")], id="bare list"),
        pytest.param("json", 'Well: {"name": "note"}', [Content('Well: {"name": "note"}')], id="text first"),
        pytest.param("json", '{"name": ', [Content('{"name": ')], id="bare, cut short"),
        pytest.param("json", "  plain \n", [Content("  plain \n")], id="white space of an answer stays"),
        pytest.param(
            "command-r7b",
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
            '"parameters": {"city": "Paris"}}\n]<|END_ACTION|>',
            [PARIS],
            id="command-r7b",
        ),
        pytest.param(
            "command-r",
            'Plan.\nAction: ```json\n[\n    {\n        "tool_name": "get_weather",\n        "parameters": '
            '{\n            "city": "Paris"\n        }\n    }\n]```',
            [Content("Plan."), PARIS],
            id="command-r",
        ),
        pytest.param(
            "gemma-code",
            "OK.\n```tool_code\nprint(get_weather(city='Paris', days=2))\n```",
            [Content("OK."), PARIS_2],
            id="gemma: printed",
        ),
        pytest.param(
            "gemma-code",
            "```tool_code\nget_weather('Paris', 2)\nnote(text=[-1, {'a': None}, true])\n```",
            [PARIS_2, Call("note", {"text": [-1, {"a": None}, True]})],
            id="gemma: two lines, by position",
        ),
        pytest.param(
            "gemma-code",
            "```tool_code\nimport os\nget_weather('Paris')\n```",
            [Content("```tool_code\nimport os\nget_weather('Paris')\n```")],
            id="gemma: other code is text",
        ),
        pytest.param(
            "gemma-code",
            "```tool_code\nnote(text=open('/etc/passwd').read())\n```",
            [Content("```tool_code\nnote(text=open('/etc/passwd').read())\n```")],
            id="gemma: nothing is run",
        ),
        pytest.param("pythonic", "[get_weather(city='Pa]ris')]", [Call("get_weather", {"city": "Pa]ris"})]),
        pytest.param("pythonic", "[1] is a citation", [Content("[1] is a citation")], id="a list, no call"),
        pytest.param(
            "gemma-4",
            '<|tool_call>call:note{text:{a:[1,<|"|>x, {y}<|"|>,true]}}<tool_call|>',
            [Call("note", {"text": {"a": [1, "x, {y}", True]}})],
            id="gemma 4: nested",
        ),
        pytest.param(
            "functiongemma",
            "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:2}<end_function_call>",
            [PARIS_2],
            id="functiongemma",
        ),
        pytest.param(
            "gemma-4",
            "<|tool_call>call:note{text:}<tool_call|>",
            [Content("<|tool_call>call:note{text:}<tool_call|>")],
            id="gemma 4: no value",
        ),
        pytest.param(
            "gemma-code",
            '```tool_code\nnote(text="""a "(" b""")\nnote(text=\'it\\\'s (\'); note(text="")\n```',
            [Call("note", {"text": 'a "(" b'}), Call("note", {"text": "it's ("}), Call("note", {"text": ""})],
            id="gemma: strings of all kinds",
        ),
        pytest.param(
            "lfm2",
            "<|tool_call_start|>[note(text='a'), note(text='b'), no",
            [Call("note", {"text": "a"}), Call("note", {"text": "b"}), Content(", no")],
            id="lfm2: a list cut short",
        ),
        pytest.param(
            "apriel",
            '<tool_calls>[{"name": "note"}, {"name": "get_weather", "arguments": {"city": "Paris"}}, {"na',
            [Call("note"), PARIS, Content(', {"na')],
            id="apriel: a list cut short",
        ),
        pytest.param(
            "json",
            '[{"name": "note"}, 42] and so on',
            [Call("note"), Content(", 42] and so on")],
            id="a list with something else in it",
        ),
        pytest.param("granite-3", '<|tool_call|>[{"name": "note", "arguments": {}}]', [Call("note")]),
        pytest.param("phi-4", '<|tool_call|>[{"name": "note"}]<|/tool_call|>', [Call("note")]),
        pytest.param("firefunction", 'functools[{"name": "note", "arguments": {}}]', [Call("note")]),
        pytest.param(
            "apertus", '<|tools_prefix|>[{"note": {"text": 1}}]<|tools_suffix|>', [Call("note", {"text": 1})]
        ),
    ],
)
def test_what_models_write(name: str, text: str, pieces: list[Piece]) -> None:
    for chunks in cuts(text):
        assert read(ToolCallParser(FORMATS[name], OFFERED), chunks) == pieces, chunks


@pytest.mark.parametrize(
    ("tag", "text", "pieces"),
    [
        pytest.param(
            "<tool_call>",
            'A.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
            [Content("A."), PARIS],
            id="tags",
        ),
        pytest.param("[CALL]", '[CALL] get_weather {"city": "Paris"}', [PARIS], id="name, then arguments"),
        pytest.param("[CALL]", '[CALL]{"get_weather": {"city": "Paris"}}', [PARIS], id="the name as key"),
        pytest.param(
            "[CALL]",
            '[CALL] I shall ask get_weather {"city": "Paris"} and then see.',
            [Content("I shall ask"), PARIS, Content("and then see.")],
            id="words around are content",
        ),
        pytest.param(
            "[CALL]",
            '[CALL][{"function": {"name": "note", "parameters": {}}}, {"name": "get_weather", '
            '"arguments": {"city": "Paris"}}]',
            [Call("note"), PARIS],
            id="a list, nested",
        ),
        pytest.param(
            "[CALL]", "[CALL] nothing of the kind", [Content("[CALL] nothing of the kind")], id="no name"
        ),
        pytest.param("[CALL]", "[CALL] note", [Content("[CALL] note")], id="no arguments"),
        pytest.param("{", '{"name": "get_weather", "parameters": {"city": "Paris"}}', [PARIS], id="bare"),
        pytest.param(
            "{", 'So: {"name": "note", "parameters": {}}', [Content('So: {"name": "note", "parameters": {}}')]
        ),
        pytest.param("{", '{"a": 1}', [Content('{"a": 1}')], id="bare, no call"),
        pytest.param("[", '[{"name": "note", "parameters": {}}]', [Call("note")], id="bare list"),
    ],
)
def test_calls_as_a_go_template_implies(tag: str, text: str, pieces: list[Piece]) -> None:
    for chunks in cuts(text):
        assert read(ToolCallParser(GoCalls(tag=tag), OFFERED), chunks) == pieces, chunks


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        pytest.param(
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
            [Thought("Hm."), Content("Yes.")],
            id="a thought, then content",
        ),
        pytest.param(
            "<|channel|>analysis<|message|>A<|end|>"
            "<|start|>assistant<|channel|>analysis<|message|>B<|end|>"
            "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"
            '{"city": "Paris"}'
            "<|call|>",
            [Thought("A\n\nB"), PARIS],
            id="two thoughts, the recipient first",
        ),
        pytest.param(
            ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}<|call|>',
            [PARIS],
            id="the recipient in the first header",
        ),
        pytest.param(
            "<|channel|>commentary<|message|>Plan.<|end|><|start|>assistant<|channel|>final<|message|>Done.",
            [Content("Plan.\n\nDone.")],
            id="commentary for the user",
        ),
        pytest.param("Just text.", [Content("Just text.")], id="no harmony at all"),
        pytest.param("<|channel|>final<|message|>a < b <| c", [Content("a < b <| c")], id="almost a tag"),
        pytest.param("<|channel|>ana", [], id="half a header"),
        pytest.param(
            "<|channel|>commentary to=functions.note<|message|>{oops<|call|>",
            [Content("<|channel|>commentary to=functions.note<|message|>{oops<|call|>")],
            id="no arguments",
        ),
        pytest.param("<|channel|>analysis<|message|>Hm", [Thought("Hm")], id="an unfinished thought"),
    ],
)
def test_harmony(text: str, pieces: list[Piece]) -> None:
    for chunks in cuts(text):
        assert read(harmony.HarmonyReader(OFFERED), chunks) == pieces, chunks


# Nothing is lost


def _parts() -> list[str]:
    """Everything that means something to some format."""
    parts = {
        "{",
        "}",
        "[",
        "]",
        '"',
        '{"name": "note"',
        '"arguments": {',
        "note",
        "get_weather",
        "(",
        ")",
        "\n",
    }
    parts |= {marker for form in FORMATS.values() for marker in form.markers if marker}
    parts |= {*harmony.MARKERS, "analysis", "commentary to=functions.note", "final", "<tool_call", "call:"}
    return sorted(parts)


WORDS = st.integers(100, 999).map(lambda number: f" w{number} ")


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(_parts()), WORDS), max_size=24), size=st.integers(1, 9))
def test_every_word_comes_out(parts: list[str], size: int) -> None:
    text = "".join(parts)
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    go = [GoCalls(tag="<tool_call>"), GoCalls(tag="{")]
    for form in [*FORMATS.values(), *go, None]:
        pieces = read(reader_of(form), chunks)
        said = " ".join(_said(piece) for piece in pieces)
        assert re.findall(r"w\d+", said) == re.findall(r"w\d+", text), form
        if form and not any(isinstance(piece, Call) for piece in pieces):
            assert said == text, form


def _said(piece: Piece) -> str:
    return f"{piece.name} {piece.arguments}" if isinstance(piece, Call) else piece.text


@pytest.mark.parametrize("name", ["hermes", "qwen-coder", "gemma-4"])
def test_an_endless_call_becomes_text(name: str) -> None:
    form = FORMATS[name]
    shape = shape_of(name)
    begun = f"{shape.opening}{shape.before_name}get_weather{shape.after_name}"
    if not isinstance(shape.arguments, str):
        begun += f"{shape.arguments.before_key}city{shape.arguments.after_key}"
    parser = ToolCallParser(form, OFFERED)
    pieces = list(parser.push(begun + "{"))
    for _ in range(1100):
        pieces += parser.push("[" * 1000)
    content = "".join(piece.text for piece in pieces if isinstance(piece, Content))
    assert content.startswith(begun + "{[[[")


def test_without_tools_nothing_is_looked_for() -> None:
    text = shape_of("hermes").example("get_weather", {"city": "Rome"})
    assert ToolCallParser(FORMATS["hermes"], OfferedTools(())).push(text) == [Content(text)]


def test_bytes_of_a_call_may_be_cut_anywhere() -> None:
    data = shape_of("hermes").example("get_weather", HARD).encode()
    for at in range(len(data)):
        reader = AnswerReader(tools=ToolCallParser(FORMATS["hermes"], OFFERED))
        pieces = [*reader.push(data[:at]), *reader.push(data[at:]), *reader.finish()]
        assert merged(pieces) == [Call("get_weather", HARD)]


# Shapes and recognition


@pytest.mark.parametrize("name", SHAPED)
def test_a_shape_begins_with_its_trigger(name: str) -> None:
    shape = shape_of(name)
    assert (shape.opening + shape.before_name).startswith(shape.trigger)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("… <tool_call> …", "hermes"),
        ("<tool_call><function=f><parameter=p>", "qwen-coder"),
        ("<tool_call>…<arg_key>", "glm-4.5"),
        ("[TOOL_CALLS]…[ARGS]", "mistral"),
        ("[TOOL_CALLS]", "mistral-nemo"),
        ("{{ messages }}", "json"),
    ],
)
def test_a_format_that_a_template_mentions(template: str, name: str) -> None:
    assert format_mentioned(template).name == name


def test_formats_by_name() -> None:
    assert format_named("go", "<x>").openings == ("<x>",)
    assert format_named("hermes") is FORMATS["hermes"]
    assert format_named("no such format") is FORMATS["json"]


def test_types_of_arguments_come_from_the_schema() -> None:
    def tool(schema: Mapping[str, Any]) -> OfferedTools:
        return OfferedTools([{"name": "f", "parameters": {"properties": {"a": schema}}}])

    for schema, text, value in (
        ({"type": "string"}, "12", "12"),
        ({"type": "integer"}, " 12 ", 12),
        ({"type": "integer"}, "twelve", "twelve"),
        ({"type": "boolean"}, "True", True),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": ["string", "null"]}, "12", "12"),
        ({"type": "array"}, "[1, 2]", [1, 2]),
        ({}, "plain", "plain"),
        ({}, "3", 3),
    ):
        assert tool(schema).typed("f", "a", text) == value, (schema, text)
