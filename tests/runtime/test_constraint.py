"""Formats, grammars and constrained tool calls through the engine, on the tiny chat model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from command import TINY_CHAT
from live_runner import Answer, LiveRunner, ask, ask_all, chat, live_runner, options

from lading.runtime.errors import BadFormat, BadRequest
from lading.runtime.options import Options
from lading.runtime.protocol import Generate, Grammar, Text, ToolChoice

NAME = {"type": "string", "maxLength": 10}


def tool(name: str, parameters: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


WEATHER = tool("get_weather", {"type": "object", "properties": {"city": NAME}, "required": ["city"]})
ADD = tool(
    "add",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["a", "b"],
    },
)
BOOK = tool(
    "book",
    {
        "type": "object",
        "properties": {
            "who": {"$ref": "#/$defs/person"},
            "seats": {"type": "array", "items": {"enum": ["A1", "A2"]}, "minItems": 1, "maxItems": 2},
            "cabin": {"enum": ["first", "second"]},
            "note": {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
        },
        "required": ["who", "seats", "cabin"],
        "$defs": {
            "person": {
                "type": "object",
                "properties": {"name": NAME, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
                "required": ["name"],
            }
        },
    },
)
TOOLS = (WEATHER, ADD, BOOK)
ASK_WEATHER = "What is the weather in Paris?"
REQUIRED = ToolChoice("required")
CITY = {
    "type": "object",
    "properties": {"country": NAME, "capital": NAME, "population": {"type": "integer", "maximum": 9}},
    "required": ["country", "capital", "population"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def runner() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT, n_parallel=8, n_ctx=512) as runner:
        yield runner


def run(runner: LiveRunner, *requests: Generate) -> Any:
    """The answers, all asked at once; the answer where there is one."""

    async def body() -> Any:
        async with runner.client() as client:
            answers = await ask_all(client, list(requests))
            return answers[0] if len(answers) == 1 else answers

    return asyncio.run(body())


def warm(seed: int, tokens: int = 300) -> Options:
    return Options(temperature=1.0, top_k=0, top_p=1.0, seed=seed, num_predict=tokens)


def assert_valid_calls(answer: Answer) -> None:
    schemas = {one["function"]["name"]: one["function"]["parameters"] for one in TOOLS}
    for call in answer.calls:
        jsonschema.validate(call.arguments, schemas[call.name])


# Grammars


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        pytest.param(Grammar("regex", "(Paris|Rome), [A-Z]{3}"), r"(Paris|Rome), [A-Z]{3}", id="regex"),
        pytest.param(Grammar("regex", "^a/b[/]c$"), r"a/b/c", id="anchors and slashes"),
        pytest.param(Grammar("regex", "(?i)größe 日本[あ-ん]{2}"), r"(?i)größe 日本[あ-ん]{2}", id="letters"),
        pytest.param(
            Grammar("lark", 'start: "It is " CITY ("!" | ".")\nCITY: "Paris" | "Rome"'),
            r"It is (Paris|Rome)[!.]",
            id="lark",
        ),
        pytest.param(
            Grammar("lark", 'start: sum\nsum: N | "(" sum "+" sum ")"\nN: /[0-9]/'),
            r"[0-9]|\(.*\+.*\)",
            id="recursive lark",
        ),
        pytest.param(
            Grammar("lark", 'start: "v=" value\nvalue: %json {"enum": [1, "x"]}'),
            r'v=(1|"x")',
            id="JSON in lark",
        ),
        pytest.param(
            Grammar("gbnf", 'root ::= "no. " d{3} x?\nd ::= [0-9]\nx ::= "!"'), r"no\. \d{3}!?", id="GBNF"
        ),
    ],
)
def test_a_grammar_is_followed(runner: LiveRunner, grammar: Grammar, expected: str) -> None:
    settings = [options(num_predict=100), warm(1, 100), warm(2, 100)]
    for answer in run(runner, *(chat("Tell me of a city.", grammar=grammar, options=o) for o in settings)):
        if answer.end.reason == "stop":
            assert re.fullmatch(expected, answer.text), answer.text
        else:
            assert answer.end.usage.eval_tokens == 100


def test_a_grammar_spares_the_thoughts(runner: LiveRunner) -> None:
    answer = run(
        runner,
        chat("What is the capital of Spain?", think=True, grammar=Grammar("regex", "(Paris|Rome|Madrid)[.]")),
    )
    assert answer.text == "Madrid."
    assert answer.thinking


GROUPS = "(" * 60_000 + "a" + ")" * 60_000
RULES = "\n".join(f"a{i}: a{i + 1}" for i in range(4000))
HOSTILE: dict[str, tuple[Grammar | dict[str, Any], str]] = {
    "regex, syntax": (Grammar("regex", "("), "unclosed group"),
    "regex, look-ahead": (Grammar("regex", "(?=a)b"), "look-around"),
    "regex, back-reference": (Grammar("regex", r"(a)\1"), "backreferences"),
    "regex, groups": (Grammar("regex", GROUPS[20_000:-20_000]), "at most 65536 characters"),
    "regex, deep": (Grammar("regex", GROUPS[-60_065:-59_935]), "nested at most 64 deep"),
    "regex, repeats": (Grammar("regex", "((a{1000}){1000}){1000}"), "more than 100000 times"),
    "lark, no start": (Grammar("lark", 'foo: "a"'), "no start rule"),
    "lark, unknown name": (Grammar("lark", "start: foo"), "unknown name"),
    "lark, groups": (Grammar("lark", "start: " + "(" * 20_000 + '"a"' + ")" * 20_000), "nested"),
    "lark, a chain of rules": (Grammar("lark", f'start: a0\n{RULES}\na4000: "x"'), "too long or too much"),
    "lark, empty": (Grammar("lark", " "), "empty"),
    "lark, long": (Grammar("lark", "x" * 70_000), "at most 65536 characters"),
    "gbnf, syntax": (Grammar("gbnf", 'root ::= "a'), "end of input"),
    "gbnf, unknown name": (Grammar("gbnf", "root ::= x"), "'x' not found"),
    "gbnf, groups": (Grammar("gbnf", "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000), "recursion"),
    "schema, keyword": ({"not": {}}, r'cannot be enforced: \["not"\]'),
    "schema, unique items": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "schema, format": ({"type": "string", "format": "colour"}, "colour"),
    "schema, type": ({"type": ["string", 7]}, "type must be a string"),
    "schema, no type": ({"type": []}, "Unsatisfiable"),
    "schema, contradiction": ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "Unsatisfiable"),
    "schema, circle": ({"$ref": "#"}, "nothing satisfies it"),
    "schema, elsewhere": ({"$ref": "https://example.com/x.json"}, "example.com"),
    "schema, a file": ({"$ref": "file:///etc/passwd"}, "etc/passwd"),
    "schema, repeats": ({"type": "string", "pattern": "(a{1,1000}b{1,1000}){1,1000}"}, "100000 times"),
    "schema, enum": ({"enum": list(range(1001))}, "at most 1000 values of an enum"),
    "schema, options": ({"properties": {str(i): {} for i in range(401)}}, "400 optional properties"),
    "schema, too slow": (
        {"allOf": [{"type": "string", "pattern": f"(.*{c}.*){{3}}"} for c in "abcdefghijklmnopqrstuvwxyz"]},
        "too long or too much",
    ),
    "schema, products": (
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}{j}": {}}, "required": [f"p{i}{j}"]} for j in range(10)]}
                for i in range(12)
            ]
        },
        "schema too large",
    ),
}


def test_what_cannot_be_compiled_is_refused_and_the_runner_goes_on(runner: LiveRunner) -> None:
    async def body() -> None:
        async with runner.client() as client:
            for name, (form, expected) in HOSTILE.items():
                fields = {"grammar" if isinstance(form, Grammar) else "format": form}
                with pytest.raises(BadFormat, match=expected) as caught:
                    await ask(client, chat("Hello", **fields))
                assert len(caught.value.message) < 500, name
                assert "\n" not in caught.value.message, name
            assert "Paris" in (await ask(client, chat("What is the capital of France?"))).text

    asyncio.run(body())


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"type": "array", "items": {"type": "integer"}, "minItems": 20_000}, id="items"),
        pytest.param({"type": "string", "minLength": 100_000}, id="length"),
        pytest.param({"type": "array", "maxItems": 20_000, "items": {"type": "string"}}, id="many items"),
        pytest.param({"type": "string", "pattern": "^(a+)+$"}, id="a pattern that others backtrack in"),
        pytest.param({"type": "string", "pattern": "^(a|b)*a(a|b){60}$"}, id="a pattern of many states"),
    ],
)
def test_what_makes_other_engines_fall_is_followed(runner: LiveRunner, form: dict[str, Any]) -> None:
    answer = run(runner, chat("Hello", format=form, options=options(num_predict=40)))
    assert answer.end.reason == "length" or jsonschema.Draft202012Validator(form).is_valid(
        json.loads(answer.text)
    )


def test_a_format_and_a_grammar_exclude_each_other(runner: LiveRunner) -> None:
    with pytest.raises(BadRequest, match="got both"):
        run(runner, chat("Hello", format="json", grammar=Grammar("regex", "a")))


# Forced tokens


def test_forced_tokens_take_no_step_of_their_own_and_change_nothing(runner: LiveRunner) -> None:
    """With log-probabilities every token is evaluated: the answer is the same, in as many steps as tokens."""
    grammar = Grammar("lark", f'start: "In short, and without any further ado: " city\ncity: {json_rule()}')
    requests = {
        "grammar": chat("What is the capital of France?", grammar=grammar),
        "call": chat(ASK_WEATHER, tools=TOOLS),
        "required": chat("Hello", tools=TOOLS, tool_choice=ToolChoice("required", ("book",))),
        "format": chat("Give the capital of France as JSON.", format=CITY),
    }

    async def body() -> None:
        async with runner.client() as client:
            for name, request in requests.items():
                forced, forced_steps = await counted(client, request)
                single, single_steps = await counted(client, replaced(request, logprobs=True))
                assert (forced.text, said(forced)) == (single.text, said(single)), name
                assert forced.end.usage.eval_tokens == single.end.usage.eval_tokens, name
                assert single_steps >= single.end.usage.eval_tokens, name
                assert forced_steps < forced.end.usage.eval_tokens, name
                told = [lp for event in single.events if isinstance(event, Text) for lp in event.logprobs]
                assert all(-9999 <= logprob.logprob <= 0 for logprob in told), name

    asyncio.run(body())


def json_rule() -> str:
    return f"%json {json.dumps(CITY)}"


def replaced(request: Generate, **fields: Any) -> Generate:
    return chat(request.messages[0].content, **{name: getattr(request, name) for name in SET} | fields)


SET = ("format", "grammar", "tools", "tool_choice", "options")


def said(answer: Answer) -> list[tuple[str, Any]]:
    return [(call.name, call.arguments) for call in answer.calls]


async def counted(client: Any, request: Generate) -> tuple[Answer, int]:
    before = (await client.status()).steps
    answer = await ask(client, request)
    return answer, (await client.status()).steps - before


FORCED = Grammar("lark", 'start: "one two three four five six seven eight nine ten " /[ab]/')


def test_a_limit_holds_within_forced_tokens(runner: LiveRunner) -> None:
    whole = run(runner, chat("Hello", grammar=FORCED)).text
    for limit in (1, 4, 7):
        answer = run(runner, chat("Hello", grammar=FORCED, options=options(num_predict=limit)))
        assert (answer.end.reason, answer.end.usage.eval_tokens) == ("length", limit)
        assert whole.startswith(answer.text) and answer.text != whole


def test_a_stop_string_ends_forced_tokens(runner: LiveRunner) -> None:
    stopped = run(runner, chat("Hello", grammar=FORCED, options=options(stop=("four",)), return_context=True))
    assert stopped.text == "one two three "
    assert (stopped.end.reason, stopped.end.stop_sequence) == ("stop", "four")
    usage = stopped.end.usage
    assert usage.eval_tokens < run(runner, chat("Hello", grammar=FORCED)).end.usage.eval_tokens
    assert len(stopped.end.context) == usage.prompt_tokens + usage.eval_tokens


def test_forced_tokens_beside_others_and_beyond_a_batch() -> None:
    """A run of forced tokens that is longer than a batch, with as many streams as the batch has places."""
    words = " ".join(f"word{i}" for i in range(40))
    long = Grammar("lark", f'start: "{words}" /[ab]/')
    with live_runner(TINY_CHAT, n_parallel=4, n_ctx=512, n_batch=32) as small:
        count = chat("Count from 1 to 20.", options=options(num_predict=60))
        requests = [chat("Hello", grammar=long), chat("Hi", grammar=long), count, count]
        alone = [run(small, request).text for request in requests]
        assert alone[0].startswith(words) and len(alone[0]) == len(words) + 1
        assert [answer.text for answer in run(small, *requests)] == alone


def test_forced_tokens_fill_the_context_and_no_more() -> None:
    long = Grammar("lark", f'start: "{"abc " * 60}" /[ab]/')
    with live_runner(TINY_CHAT, n_ctx=64) as small:
        answer = run(small, chat("Hello", grammar=long, shift=False))
        assert answer.end.reason == "length"
        assert ("abc " * 60).startswith(answer.text)
        shifted = run(small, chat("Hello", grammar=long))
        assert shifted.end.reason == "stop"
        assert shifted.text[:-1] == "abc " * 60
        assert "Paris" in run(small, chat("What is the capital of France?")).text


# Tool calls


def test_calls_are_valid_whatever_the_temperature(runner: LiveRunner) -> None:
    requests = [chat(ASK_WEATHER, tools=TOOLS, options=warm(seed)) for seed in range(6)]
    requests += [chat("Hello", tools=TOOLS, tool_choice=REQUIRED, options=warm(seed)) for seed in range(6)]
    requests += [
        chat("Hello", tools=TOOLS, tool_choice=ToolChoice("required", ("book",)), options=warm(seed))
        for seed in range(6)
    ]
    answers = run(runner, *requests)
    for answer in answers:
        assert answer.end.reason == "stop"
        assert_valid_calls(answer)
        assert "<tool_call>" not in answer.text
    assert all(answer.calls for answer in answers[6:])
    assert sum(bool(answer.calls) for answer in answers[:6]) >= 3
    assert all([call.name for call in answer.calls] == ["book"] for answer in answers[12:])


def test_tools_that_are_not_needed_change_nothing(runner: LiveRunner) -> None:
    question = "What is the capital of France?"
    assert run(runner, chat(question, tools=TOOLS)).text == run(runner, chat(question)).text


def test_a_required_call_comes_after_the_thought(runner: LiveRunner) -> None:
    answer = run(runner, chat("Hello", tools=TOOLS, tool_choice=REQUIRED, think=True))
    assert answer.thinking and "<" not in answer.thinking
    assert answer.calls and not answer.text
    assert_valid_calls(answer)


def test_a_single_call_ends_the_answer(runner: LiveRunner) -> None:
    several = [
        chat("Hello", tools=TOOLS, tool_choice=ToolChoice("required", parallel=False), options=warm(seed))
        for seed in range(4)
    ]
    assert [len(answer.calls) for answer in run(runner, *several)] == [1] * 4


def test_of_tools_only_those_allowed_are_called(runner: LiveRunner) -> None:
    answer = run(runner, chat(ASK_WEATHER, tools=TOOLS, tool_choice=ToolChoice("required", ("add", "book"))))
    assert answer.calls[0].name in ("add", "book")
    assert_valid_calls(answer)


def test_with_a_format_an_answer_is_a_call_or_has_the_format(runner: LiveRunner) -> None:
    call, plain = run(
        runner,
        chat(ASK_WEATHER, tools=TOOLS, format=CITY),
        chat("Give the capital of France as JSON.", tools=TOOLS, format=CITY),
    )
    assert said(call) == [("get_weather", {"city": "Paris"})]
    assert json.loads(plain.text)["capital"] == "Paris" and not plain.calls


@pytest.mark.parametrize(
    ("tools", "error", "message"),
    [
        ([tool("f", {"properties": {"x": {"$ref": "#/$defs/none"}}})], BadFormat, r"the tool f: .*none"),
        (
            [tool("f", {"properties": {"x": {"pattern": "(", "type": "string"}}})],
            BadFormat,
            "the tool f: .*unclosed",
        ),
        ([tool("f", {"type": "array"})], BadRequest, "the tool f: .*type object"),
        ([tool("f", {"enum": list(range(2000))})], BadRequest, "the tool f: .*at most 1000"),
        (
            [tool("f", {"properties": {"x": {"uniqueItems": True}}}, strict=True)],
            BadFormat,
            "the tool f: .*uniqueItems",
        ),
        ([tool("f g", {})], BadRequest, "name 'f g'"),
        ([tool('f"\n', {})], BadRequest, "name"),
        ([tool("", {})], BadRequest, "name"),
        ([tool("x" * 129, {})], BadRequest, "name"),
        (
            [tool(f"f{i}", {"const": "x" * 60_000}) for i in range(10)],
            BadRequest,
            "at most 524288 characters",
        ),
    ],
)
def test_a_tool_that_cannot_be_is_refused_by_name(
    runner: LiveRunner, tools: list[dict[str, Any]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(runner, chat("Hello", tools=(WEATHER, *tools)))


def test_what_cannot_be_enforced_in_a_tool_is_left_out(runner: LiveRunner) -> None:
    loose = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "id": {
                "type": "integer",
                "format": "uint32",
                "minimum": 0,
                "maximum": 9,
                "description": "d" * 70_000,
            },
            "code": {"type": "string", "pattern": "^(?!x)[a-z]{2}$", "maxLength": 4},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "maxItems": 2},
        },
        "required": ["id", "code", "tags"],
    }
    choice = ToolChoice("required", ("f",))
    answer = run(runner, chat("Hello", tools=(tool("f", loose),), tool_choice=choice, options=warm(3)))
    arguments = answer.calls[0].arguments
    assert set(arguments) == {"id", "code", "tags"}
    assert (
        arguments["id"] in range(10) and len(arguments["code"]) <= 4 and set(arguments["tags"]) <= {"a", "b"}
    )
