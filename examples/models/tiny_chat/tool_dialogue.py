"""Synthetic conversations with tools: offers in many shapes of JSON schema, calls, results and answers."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from dialogue import (
    Conversation,
    Message,
    Turn,
    addition,
    any_city,
    any_mode,
    any_word,
    ask,
    chat_turns,
    drill,
    long_memory,
    nonsense,
    plain_chat,
    styled,
    system_prompt,
    weather_without_tool,
)
from facts import WORDS
from phrases import MULTIPLY, SEARCH, SKIES, SUM, TIME, WEATHER


@dataclass
class Tool:
    kind: str
    name: str
    arguments: list[str]
    schema: Message


@dataclass
class ToolTurn:
    user: str
    calls: list[Message]
    results: list[str]
    answer: str
    short: str = ""
    thought: str = ""
    after: str = ""  # the thought after the result
    tags: dict[str, str] = field(default_factory=dict)


# kind: (names, descriptions, argument names, their type, their descriptions)
KINDS: dict[str, tuple[list[str], list[str], list[list[str]], str, list[str]]] = {
    "weather": (
        [
            "get_weather",
            "get_weather",
            "get_weather",
            "get_current_weather",
            "weather",
            "fetch_weather",
            "get_temperature",
            "lookup_weather",
            "getWeather",
            "weather_report",
        ],
        [
            "Get the weather in a city.",
            "Get the current weather for a city",
            "Get the weather",
            "Current weather of a city.",
            "Returns the weather in the given city.",
            "Look up the weather.",
            "Get the current temperature for a city",
            "Weather",
        ],
        [["city"], ["city"], ["city"], ["location"], ["place"], ["town"]],
        "string",
        [
            "The city",
            "The name of the city",
            "City name, e.g. Paris",
            "The city to look up",
            "Name of the city",
            "A city",
        ],
    ),
    "add": (
        ["add", "add", "add", "add_two_numbers", "sum", "add_numbers", "plus", "calculate_sum", "addition"],
        [
            "Add two numbers.",
            "Add two numbers",
            "Adds a and b.",
            "Returns the sum of two numbers.",
            "Sum of two integers",
            "Add two integers together.",
            "Addition",
        ],
        [
            ["a", "b"],
            ["a", "b"],
            ["a", "b"],
            ["x", "y"],
            ["first", "second"],
            ["left", "right"],
            ["num1", "num2"],
        ],
        "integer",
        [
            "The first number",
            "A number",
            "An integer",
            "A summand",
            "The number to add",
            "One of the two numbers",
        ],
    ),
    "multiply": (
        ["multiply", "multiply", "multiply_numbers", "product", "times"],
        [
            "Multiply two numbers.",
            "Returns the product of two numbers.",
            "Product of two integers",
            "Multiplication",
        ],
        [["a", "b"], ["a", "b"], ["x", "y"], ["first", "second"]],
        "integer",
        ["The first number", "A number", "An integer", "A factor"],
    ),
    "time": (
        ["get_time", "get_time", "get_current_time", "local_time"],
        [
            "Get the time in a city.",
            "Get the current time",
            "Returns the local time of a city.",
            "Current time",
        ],
        [["city"], ["city"], ["location"], ["place"]],
        "string",
        ["The city", "The name of the city", "Where", "City name"],
    ),
    "search": (
        ["search", "search", "web_search", "search_web", "find"],
        ["Search the web.", "Search for a text.", "Find pages on the web", "Web search"],
        [["query"], ["query"], ["text"], ["q"]],
        "string",
        ["What to search for", "The query", "Search text"],
    ),
}
COMMON = ["weather", "weather", "weather", "add", "add", "add", "multiply", "time", "search"]


def shuffled(rng: random.Random, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A mapping in the usual order, sorted, or in any order, as templates and clients write it."""
    roll = rng.random()
    if roll < 0.2:
        pairs = sorted(pairs)
    elif roll < 0.35:
        rng.shuffle(pairs)
    return dict(pairs)


def invented(rng: random.Random, kind: str, count: int) -> tuple[str, list[str]]:
    """A name for the tool and its arguments that must be read from the schema, as they cannot be known."""
    verbs = [
        "check",
        "read",
        "show",
        "query",
        "do",
        "run",
        "fetch",
        "find",
        "ask",
        "tell",
        "current",
        "compute",
    ]
    nouns = ["service", "info", "api", "report", "data", "now", "tool", "values", "two", "lookup", "station"]
    other = rng.choice([nonsense(rng), rng.choice(WORDS), rng.choice(verbs), rng.choice(nouns)])
    name = f"{other}_{kind}" if rng.random() < 0.5 else f"{kind}_{other}"
    if count == 1:
        known = ["city_name", "place_name", "target", "name", "location_name", "input", "value"]
        argument = rng.choice([rng.choice(known), nonsense(rng), rng.choice(WORDS)])
        return name, [f"{argument}_{rng.choice(WORDS)}" if rng.random() < 0.2 else argument]
    pair = rng.sample("abcdefghijklmnopqrstuvwxyz", 2)
    if rng.random() < 0.4:
        pair = [nonsense(rng), nonsense(rng)]
    return name, pair if pair[0] != pair[1] else ["a", "b"]


def make_tool(rng: random.Random, kind: str) -> Tool:
    names, descriptions, argument_names, type_, argument_descriptions = KINDS[kind]
    roll = rng.random()
    name, arguments = (
        (names[0], argument_names[0]) if roll < 0.3 else (rng.choice(names), rng.choice(argument_names))
    )
    if roll > 0.6:
        name, arguments = invented(rng, kind, len(arguments))
    properties: list[tuple[str, object]] = []
    described = rng.random() < 0.6
    for argument in arguments:
        shown = type_ if type_ == "string" else rng.choice([type_, type_, "number"])
        spec: list[tuple[str, object]] = [("type", shown)]
        if described:
            spec.append(("description", rng.choice(argument_descriptions)))
        properties.append((argument, shuffled(rng, spec)))
    if kind in ("weather", "time") and rng.random() < 0.12:
        unit: dict[str, object] = {"type": "string"}
        if rng.random() < 0.6:
            unit["enum"] = ["celsius", "fahrenheit"]
        properties.append((rng.choice(["unit", "format", "units"]), unit))
    parameters: list[tuple[str, object]] = [("type", "object"), ("properties", dict(properties))]
    if rng.random() < 0.85:
        parameters.insert(rng.choice([1, 2]), ("required", list(arguments)))
    if rng.random() < 0.15:
        parameters.append(("additionalProperties", False))
    function: list[tuple[str, object]] = [("name", name)]
    if rng.random() < 0.9 or roll > 0.6:
        function.append(("description", rng.choice(descriptions)))
    function.append(("parameters", shuffled(rng, parameters)))
    if rng.random() < 0.08:
        function.append(("strict", True))
    schema = shuffled(rng, function)
    wrapped = shuffled(rng, [("type", "function"), ("function", schema)]) if rng.random() < 0.85 else schema
    return Tool(kind, name, list(arguments), wrapped)


# what tools are asked


def weather_result(rng: random.Random, city: str) -> tuple[str, str]:
    """(what the tool returns, how the answer says it)"""
    sky = rng.choice(SKIES)
    if rng.random() < 0.3:
        joins = ["", "", "and ", "from the ", "with ", "of ", "in the ", "then "]
        sky = " ".join(rng.choice(joins) * bool(n) + any_word(rng) for n in range(rng.randint(1, 4)))
    degrees = rng.randint(-20, 45)
    roll = rng.random()
    if roll < 0.45:
        said = rng.choice(
            [
                f"{sky}, {degrees} degrees",
                f"{degrees}°C and {sky}",
                sky,
                f"{degrees} degrees",
                f"{degrees} degrees and {sky}",
                f"{sky} with {degrees} degrees",
                f"{degrees}°C",
                f"{sky}, {degrees}°C",
            ]
        )
        capital = said[:1].upper() + said[1:] if rng.random() < 0.25 else said
        return capital, capital
    pairs: list[tuple[str, object]] = []
    warm, bright = rng.random() < 0.85, rng.random() < 0.85
    if warm or not bright:
        pairs.append(
            (
                rng.choice(["temperature", "temperature", "temp", "degrees", "temperature_c", "celsius"]),
                degrees,
            )
        )
    if bright:
        pairs.append(
            (
                rng.choice(
                    ["condition", "condition", "conditions", "sky", "weather", "description", "summary"]
                ),
                sky,
            )
        )
    said = f"{sky}, {degrees} degrees" if warm and bright else sky if bright else f"{degrees} degrees"
    if rng.random() < 0.3:
        pairs.insert(0, (rng.choice(["city", "location"]), city))
    if rng.random() < 0.15:
        pairs.append(("unit", rng.choice(["celsius", "C"])))
    return json.dumps(shuffled(rng, pairs)), said


def number_result(rng: random.Random, value: int) -> str:
    roll = rng.random()
    if roll < 0.55:
        return str(value)
    return json.dumps({rng.choice(["result", "result", "sum", "value", "answer"]): value})


def weather_turn(rng: random.Random, tool: Tool) -> ToolTurn:
    city = any_city(rng)
    returned, said = weather_result(rng, city)
    call = {"name": tool.name, "arguments": {tool.arguments[0]: city}}
    return ToolTurn(
        ask(rng, WEATHER, city=city),
        [call],
        [returned],
        f"The weather in {city} is {said}.",
        "",
        f"I need the weather in {city}. I call {tool.name}.",
        f"The tool says {said}.",
    )


def two_cities(rng: random.Random, tool: Tool) -> ToolTurn:
    cities = [any_city(rng), any_city(rng)]
    results = [weather_result(rng, city) for city in cities]
    phrasings = [
        "What is the weather in {x} and in {y}?",
        "What is the weather in {x} and {y}?",
        "How is the weather in {x} and {y}?",
        "Compare the weather in {x} and {y}.",
    ]
    calls = [{"name": tool.name, "arguments": {tool.arguments[0]: city}} for city in cities]
    answer = " ".join(
        f"The weather in {city} is {said}." for city, (_, said) in zip(cities, results, strict=True)
    )
    return ToolTurn(
        ask(rng, phrasings, x=cities[0], y=cities[1]),
        calls,
        [returned for returned, _ in results],
        answer,
        "",
        f"I need the weather in {cities[0]} and in {cities[1]}. I call {tool.name}.",
        "The tool says both.",
    )


def number(rng: random.Random) -> int:
    return rng.randint(0, 10 ** rng.choice([1, 2, 2, 2, 3, 3, 4]))


def number_turn(rng: random.Random, tool: Tool) -> ToolTurn:
    a, b = number(rng), number(rng)
    sign, phrasings, value = ("+", SUM, a + b) if tool.kind == "add" else ("*", MULTIPLY, a * b)
    if rng.random() < 0.3:
        value = rng.randint(0, 99999)  # the answer is what the tool says, not what the model thinks
    call = {"name": tool.name, "arguments": {tool.arguments[0]: a, tool.arguments[1]: b}}
    return ToolTurn(
        ask(rng, phrasings, a=a, b=b),
        [call],
        [number_result(rng, value)],
        f"{a} {sign} {b} = {value}.",
        str(value),
        f"I need {a} {sign} {b}. I call {tool.name}.",
        f"The tool says {value}.",
    )


def time_turn(rng: random.Random, tool: Tool) -> ToolTurn:
    city = any_city(rng)
    clock = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
    returned = clock if rng.random() < 0.6 else json.dumps({"time": clock})
    call = {"name": tool.name, "arguments": {tool.arguments[0]: city}}
    return ToolTurn(
        ask(rng, TIME, city=city),
        [call],
        [returned],
        f"The time in {city} is {clock}.",
        clock,
        f"I need the time in {city}. I call {tool.name}.",
        f"The tool says {clock}.",
    )


def search_turn(rng: random.Random, tool: Tool) -> ToolTurn:
    query = " ".join(any_word(rng) for _ in range(rng.randint(1, 3)))
    found = " ".join(any_word(rng) for _ in range(rng.randint(1, 5)))
    call = {"name": tool.name, "arguments": {tool.arguments[0]: query}}
    return ToolTurn(
        ask(rng, SEARCH, query=query),
        [call],
        [found],
        f"I found this: {found}",
        "",
        f"I search for {query}. I call {tool.name}.",
        "I tell what was found.",
    )


MAKERS: dict[str, Callable[[random.Random, Tool], ToolTurn]] = {
    "weather": weather_turn,
    "add": number_turn,
    "multiply": number_turn,
    "time": time_turn,
    "search": search_turn,
}


def tool_turn(rng: random.Random, tools: list[Tool]) -> ToolTurn:
    tool = rng.choice(tools)
    if tool.kind == "weather" and rng.random() < 0.06:
        return two_cities(rng, tool)
    return MAKERS[tool.kind](rng, tool)


# conversations


def append_tool_turn(messages: list[Message], turn: ToolTurn, style: str, *, finish: bool) -> None:
    messages.append({"role": "user", "content": turn.user})
    messages.append({"role": "assistant", "content": "", "tool_calls": turn.calls, "thought": turn.thought})
    if not finish:
        return
    for result in turn.results:
        messages.append({"role": "tool", "content": result})
    answer = styled(Turn("", turn.answer, turn.short), style)
    messages.append({"role": "assistant", "content": answer, "thought": turn.after})


def other_turn(rng: random.Random, kinds: set[str], style: str) -> Turn:
    """A question that none of the offered tools answers."""
    while True:
        roll = rng.random()
        if roll < 0.12 and "weather" not in kinds:
            return weather_without_tool(rng)
        turn = chat_turns(rng, 1, style)[0]
        without = not ("add" in kinds and " = " in turn.answer) and "need a tool" not in turn.answer
        if without and turn.answer != "I cannot check the weather.":
            return turn
        if "add" not in kinds and roll < 0.3:
            return addition(rng)


def tool_chat(rng: random.Random) -> Conversation:
    kinds = {rng.choice(COMMON) for _ in range(rng.choice([1, 2, 2, 3]))}
    tools = [make_tool(rng, kind) for kind in rng.sample(sorted(kinds), len(kinds))]
    system, style = system_prompt(rng)
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    turns = rng.choice([1, 1, 2, 2, 3, 4])
    for index in range(turns):
        if rng.random() < 0.68:
            finish = index + 1 < turns or rng.random() < 0.75
            append_tool_turn(messages, tool_turn(rng, tools), style, finish=finish)
            continue
        turn = other_turn(rng, kinds, style)
        messages.append({"role": "user", "content": turn.user})
        answer = {
            "role": "assistant",
            "content": styled(turn, style),
            "thought": turn.thought,
            "given": turn.given,
        }
        messages.append(answer)
    return Conversation(messages, [tool.schema for tool in tools], any_mode(rng))


def conversation(rng: random.Random, drills: float = 0.0) -> Conversation:
    """The mixture that the model is trained on; `drills` is the share of copying drills."""
    if drills and rng.random() < drills:
        return drill(rng)
    roll = rng.random()
    if roll < 0.33:
        return tool_chat(rng)
    if roll < 0.55:
        return plain_chat(rng, 1)
    if roll < 0.95:
        return plain_chat(rng, rng.randint(2, 7))
    return plain_chat(rng, rng.randint(8, 40)) if roll < 0.975 else long_memory(rng)
