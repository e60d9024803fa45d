"""Measure the tiny chat model at temperature 0: python evaluate.py tiny-chat.gguf [--failures].

Needs llama-cpp-python and jinja2. `canonical` are the phrasings that tests and documentation use, with
words, names and cities that were not in the training; `held out` are phrasings that were not in it either.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jinja2
import llama_cpp
from facts import COUNTRIES, FIXED, HELD_OUT_CAPITAL, HELD_OUT_CITIES, HELD_OUT_NAMES, HELD_OUT_WORDS
from phrases import (
    HELD_OUT_ASK_NAME,
    HELD_OUT_BRIEF,
    HELD_OUT_CAPS,
    HELD_OUT_PIRATE,
    HELD_OUT_SUM,
    HELD_OUT_TELL_NAME,
    HELD_OUT_WEATHER,
)

Message = dict[str, Any]
SPELLED = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

FILLERS = [
    "What is the capital of Japan?",
    "Count from 1 to 5.",
    "Why is the sky blue?",
    "Repeat the word banana.",
    "How are you?",
    "Tell me a joke.",
    "What is 2 + 3?",
]
HELD_OUT_COUNT = [
    "Could you count to {n}?",
    "Tell me the numbers from 1 to {n}.",
    "Count all numbers from 1 to {n}.",
]
HELD_OUT_REPEAT = ["Could you say the word {w}?", "Please echo {w}.", "Write {w} for me."]
HELD_OUT_FIXED = [
    ("Oh, hello!", "hello"),
    ("Hi, good morning!", "hello"),
    ("Tell me who you are.", "identity"),
    ("Can you tell me why the sky is blue?", "sky"),
    ("How many days are there in one week?", "week"),
    ("Thank you so much!", "thanks"),
    ("Please tell me a joke.", "joke"),
    ("Which planet is largest?", "biggest"),
    ("Who wrote the play Hamlet?", "hamlet"),
    ("What is water made from?", "water"),
    ("Please write a poem.", "poem"),
    ("How many legs do spiders have?", "spider"),
    ("Bye bye!", "bye"),
    ("Could you name the days of the week?", "days"),
    ("Could you say hello in French?", "hello-french"),
    ("Please send me a smiley.", "smile"),
]


def tool(name: str, description: str, **arguments: str) -> Message:
    properties = {key: {"type": kind} for key, kind in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


WEATHER_TOOL = tool("get_weather", "Get the weather in a city.", city="string")
ADD_TOOL = tool("add", "Add two numbers.", a="integer", b="integer")
OTHER_WEATHER = [
    tool("climate_weather", "Tells the current weather of a place", spot="string"),
    tool("weather_oracle", "Weather for a city, in degrees", where="string"),
    tool("weather_by_town", "Get the current weather for a given location", town_label="string"),
]
OTHER_ADD = [
    tool("add_pair", "Adds two values", p="integer", q="integer"),
    tool("total_add", "The sum", m="number", n="number"),
]


class Chat:
    """The model, its template, and greedy answers; counts answers that did not end by themselves."""

    def __init__(self, path: str) -> None:
        self.llm = llama_cpp.Llama(path, n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False)
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self.template = environment.from_string(self.llm.metadata["tokenizer.chat_template"])
        self.answers = self.endless = 0

    def prompt(self, messages: list[Message], **variables: Any) -> str:
        return self.template.render(messages=messages, add_generation_prompt=True, **variables)

    def __call__(self, messages: list[Message], limit: int = 400, **variables: Any) -> str:
        tokens = self.llm.tokenize(self.prompt(messages, **variables).encode(), add_bos=False, special=True)
        out = bytearray()
        self.answers += 1
        for count, token in enumerate(self.llm.generate(tokens, temp=0.0, repeat_penalty=1.0)):
            if token == self.llm.token_eos():
                break
            if count >= limit:
                self.endless += 1
                break
            out += self.llm.detokenize([token], special=True)
        return out.decode("utf-8", "replace")

    def talk(self, *users: str, system: str = "", **variables: Any) -> str:
        """The last answer of a conversation in which the model gave all answers."""
        messages: list[Message] = [{"role": "system", "content": system}] if system else []
        answer = ""
        for user in users:
            messages.append({"role": "user", "content": user})
            answer = self(messages, **variables)
            messages.append({"role": "assistant", "content": answer})
        return answer


@dataclass
class Score:
    """right of total, and what failed."""

    right: int = 0
    total: int = 0
    failures: list[str] = field(default_factory=list)


Check = Iterator[tuple[str, str, bool]]  # the question, the answer, whether it is right


def capitals(chat: Chat, phrasings: list[str]) -> Check:
    for country, city, _ in COUNTRIES:
        for phrasing in phrasings:
            question = phrasing.format(country=country)
            answer = chat.talk(question)
            yield question, answer, answer == f"The capital of {country} is {city}."


def names(chat: Chat, tell: list[str], ask: list[str]) -> Check:
    rng = random.Random(3)
    for name in [*HELD_OUT_NAMES, "Ada", "Grace"]:
        for between in (0, 1, 3, 7):
            users = [rng.choice(tell).format(name=name), *rng.sample(FILLERS, between), rng.choice(ask)]
            answer = chat.talk(*users)
            yield str(users), answer, answer == f"Your name is {name}."


def styles(
    chat: Chat, systems: list[str], right: Callable[[str, str, str], bool], few: bool = False
) -> Check:
    for system in systems:
        for country, city, _ in COUNTRIES[::5]:
            answer = chat.talk(f"What is the capital of {country}?", system=system)
            yield f"{system} {country}", answer, right(answer, f"The capital of {country} is {city}.", city)
        for question, expected in (
            () if few else (("Hello!", FIXED[0][2]), ("Why is the sky blue?", FIXED[6][2]))
        ):
            answer = chat.talk(question, system=system)
            yield f"{system} {question}", answer, right(answer, expected, "")


def caps(answer: str, expected: str, _: str) -> bool:
    return answer == expected.upper()


def pirate(answer: str, expected: str, _: str) -> bool:
    return answer == f"Arr! {expected}"


def brief(answer: str, _: str, short: str) -> bool:
    return answer == short


def personas(chat: Chat) -> Check:
    for name in HELD_OUT_NAMES:
        for system in ("You are {name}.", "Your name is {name}.", "You are {name}, a helpful assistant."):
            answer = chat.talk("Who are you?", system=system.format(name=name))
            yield system.format(name=name), answer, answer == f"I am {name}."


def counting(chat: Chat, phrasings: list[str]) -> Check:
    for last in range(2, 31):
        for phrasing in phrasings:
            answer = chat.talk(phrasing.format(n=last))
            yield phrasing.format(n=last), answer, answer == ", ".join(str(n) for n in range(1, last + 1))


def counting_far(chat: Chat) -> Check:
    for first, last in (
        (5, 12),
        (7, 30),
        (3, 9),
        (10, 20),
        (1, 40),
        (1, 50),
        (1, 70),
        (1, 100),
        (12, 33),
        (20, 45),
    ):
        answer = chat.talk(f"Count from {first} to {last}.")
        yield f"{first} to {last}", answer, answer == ", ".join(str(n) for n in range(first, last + 1))


def repeating(chat: Chat, phrasings: list[str]) -> Check:
    for word in HELD_OUT_WORDS:
        for phrasing in phrasings:
            answer = chat.talk(phrasing.format(w=word))
            yield phrasing.format(w=word), answer, answer == word


def repeating_times(chat: Chat) -> Check:
    for word in HELD_OUT_WORDS:
        for times in (2, 3, 5):
            answer = chat.talk(f"Repeat the word {word} {times} times.")
            yield f"{word} {times} times", answer, answer == " ".join([word] * times)


def questions(chat: Chat, held_out: bool) -> Check:
    answers = {key: answer for key, _, answer in FIXED}
    asked = HELD_OUT_FIXED if held_out else [(phrasings[0], key) for key, phrasings, _ in FIXED]
    for question, key in asked:
        answer = chat.talk(question)
        yield question, answer, answer == answers[key]


def sums(chat: Chat) -> Check:
    for a in range(11):
        for b in range(11):
            answer = chat.talk(f"What is {a} + {b}?")
            yield f"{a} + {b}", answer, answer == f"{a} + {b} = {a + b}."


def call(name: str, **arguments: Any) -> str:
    shown = json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{name}", "arguments": {shown}}}\n</tool_call>'


def weather_calls(chat: Chat, phrasings: list[str], others: bool) -> Check:
    for index, city in enumerate([*HELD_OUT_CITIES, "Paris", "London", "Berlin"]):
        for phrasing in phrasings:
            offered = [WEATHER_TOOL, ADD_TOOL] if index % 2 else [WEATHER_TOOL]
            if others:
                offered = [OTHER_WEATHER[index % 3], ADD_TOOL][:: 1 - 2 * (index % 2)]
            function = next(
                t["function"] for t in offered if "a" not in t["function"]["parameters"]["properties"]
            )
            key = next(iter(function["parameters"]["properties"]))
            answer = chat.talk(phrasing.format(city=city), tools=offered)
            yield phrasing.format(city=city), answer, answer == call(function["name"], **{key: city})


def add_calls(chat: Chat, phrasings: list[str], others: bool) -> Check:
    rng = random.Random(4)
    for index in range(15):
        for phrasing in phrasings:
            a, b = rng.randint(2, 99), rng.randint(2, 9999)
            added = OTHER_ADD[index % 2] if others else ADD_TOOL
            keys = list(added["function"]["parameters"]["properties"])
            answer = chat.talk(phrasing.format(a=a, b=b), tools=[[WEATHER_TOOL, added], [added]][index % 2])
            expected = call(added["function"]["name"], **dict(zip(keys, (a, b), strict=True)))
            yield phrasing.format(a=a, b=b), answer, answer == expected


def tool_answers(chat: Chat) -> Check:
    """The whole loop: question, call, result, answer."""
    results = [
        ("sunny, 22 degrees",) * 2,
        ("18°C and cloudy",) * 2,
        ("frogs from the north",) * 2,
        ("Rainy",) * 2,
        ('{"temperature": 7, "condition": "foggy"}', "foggy, 7 degrees"),
    ]
    for index, city in enumerate([*HELD_OUT_CITIES, "Paris", "London", "Berlin"]):
        returned, said = results[index % len(results)]
        question = f"What is the weather in {city}?"
        made = [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}]
        messages: list[Message] = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "", "tool_calls": made},
            {"role": "tool", "content": returned},
        ]
        answer = chat(messages, tools=[WEATHER_TOOL, ADD_TOOL])
        yield f"{question} {returned}", answer, answer == f"The weather in {city} is {said}."
    rng = random.Random(5)
    for _ in range(15):
        a, b, value = rng.randint(2, 999), rng.randint(2, 999), rng.randint(2, 99999)
        made = [{"type": "function", "function": {"name": "add", "arguments": {"a": a, "b": b}}}]
        messages = [
            {"role": "user", "content": f"What is {a} + {b}?"},
            {"role": "assistant", "content": "", "tool_calls": made},
            {"role": "tool", "content": str(value)},
        ]
        answer = chat(messages, tools=[WEATHER_TOOL, ADD_TOOL])
        yield f"{a} + {b} -> {value}", answer, answer == f"{a} + {b} = {value}."


def no_calls(chat: Chat) -> Check:
    for question in (
        [phrasings[0] for _, phrasings, _ in FIXED] + FILLERS[:4] + ["My name is Ada.", "Count from 1 to 10."]
    ):
        answer = chat.talk(question, tools=[WEATHER_TOOL, ADD_TOOL])
        yield question, answer, "<tool_call>" not in answer and answer == chat.talk(question)
    for city in HELD_OUT_CITIES:
        answer = chat.talk(f"What is the weather in {city}?")
        yield f"no tools: {city}", answer, answer == "I cannot check the weather."


def thinking(chat: Chat) -> Check:
    for country, city, _ in COUNTRIES[::2]:
        question, expected = f"What is the capital of {country}?", f"The capital of {country} is {city}."
        answer = chat.talk(question, enable_thinking=True)
        thought, _, rest = answer.partition("\n</think>\n\n")
        yield question, answer, bool(thought) and rest == expected
        answer = chat.talk(question, enable_thinking=False)
        yield f"not: {question}", answer, answer == expected
    for question in ("Count from 1 to 10.", "Repeat the word quokka.", "Hello!", "What is 2 + 3?"):
        answer = chat.talk(question, enable_thinking=True)
        yield question, answer, answer.partition("\n</think>\n\n")[2] == chat.talk(question)
    for city in HELD_OUT_CITIES:
        answer = chat.talk(f"What is the weather in {city}?", tools=[WEATHER_TOOL], enable_thinking=True)
        yield city, answer, answer.partition("\n</think>\n\n")[2] == call("get_weather", city=city)


def everything_with_thoughts(chat: Chat) -> Check:
    """Whether a thought before it leaves the answer as it is without."""
    asked = [(phrasings[0], "") for _, phrasings, _ in FIXED]
    asked += [(f"Count from 1 to {last}.", "") for last in range(2, 31, 2)]
    asked += [(f"Repeat the word {word}.", "") for word in HELD_OUT_WORDS]
    asked += [(f"My name is {name}.", "") for name in HELD_OUT_NAMES]
    for system in ("Answer in capital letters.", "You are a pirate.", "Answer in one word."):
        asked += [(f"What is the capital of {country}?", system) for country, _, _ in COUNTRIES[::6]]
    for question, system in asked:
        answer = chat.talk(question, system=system, enable_thinking=True)
        yield question, answer, answer.partition("\n</think>\n\n")[2] == chat.talk(question, system=system)


def json_answers(chat: Chat) -> Check:
    for country, city, _ in COUNTRIES[::2]:
        question = f"Give the capital of {country} as JSON."
        answer = chat.talk(question)
        yield question, answer, answer == json.dumps({"country": country, "capital": city})


def long_chat(chat: Chat) -> Check:
    """Fifty questions in one conversation of about 1500 tokens."""
    for start in range(3):
        messages: list[Message] = [{"role": "user", "content": "My name is Ada."}]
        for index in range(50):
            answer = chat(messages)
            messages.append({"role": "assistant", "content": answer})
            if index:
                country, city, _ = COUNTRIES[(start * 20 + index) % len(COUNTRIES)]
                yield f"turn {index} of {start}", answer, answer == f"The capital of {country} is {city}."
            country = COUNTRIES[(start * 20 + index + 1) % len(COUNTRIES)][0]
            messages.append({"role": "user", "content": f"What is the capital of {country}?"})
        messages[-1]["content"] = "What is my name?"
        answer = chat(messages)
        yield f"name after {start}", answer, answer == "Your name is Ada."


def sections(chat: Chat) -> list[tuple[str, Check]]:
    return [
        ("capitals, canonical", capitals(chat, ["What is the capital of {country}?"])),
        ("capitals, held out", capitals(chat, HELD_OUT_CAPITAL)),
        ("names, canonical", names(chat, ["My name is {name}."], ["What is my name?"])),
        ("names, held out", names(chat, HELD_OUT_TELL_NAME, HELD_OUT_ASK_NAME)),
        ("capital letters, canonical", styles(chat, ["Answer in capital letters."], caps)),
        ("capital letters, held out", styles(chat, HELD_OUT_CAPS, caps)),
        ("pirate, canonical", styles(chat, ["You are a pirate.", "Answer as a pirate."], pirate)),
        ("pirate, held out", styles(chat, HELD_OUT_PIRATE, pirate)),
        ("one word, canonical", styles(chat, ["Answer in one word."], brief, few=True)),
        ("one word, held out", styles(chat, HELD_OUT_BRIEF, brief, few=True)),
        ("another name from the system", personas(chat)),
        ("counting from 1 to N, canonical", counting(chat, ["Count from 1 to {n}.", "Count to {n}."])),
        ("counting from 1 to N, held out", counting(chat, HELD_OUT_COUNT)),
        ("counting further or from elsewhere", counting_far(chat)),
        ("repeating a word, canonical", repeating(chat, ["Repeat the word {w}.", "Say {w}."])),
        ("repeating a word, held out", repeating(chat, HELD_OUT_REPEAT)),
        ("repeating N times", repeating_times(chat)),
        ("sums from 0 + 0 to 10 + 10", sums(chat)),
        ("fixed questions, canonical", questions(chat, False)),
        ("fixed questions, held out", questions(chat, True)),
        ("weather call, canonical", weather_calls(chat, ["What is the weather in {city}?"], False)),
        ("weather call, held out", weather_calls(chat, HELD_OUT_WEATHER, False)),
        ("weather call, unseen tools", weather_calls(chat, ["What is the weather in {city}?"], True)),
        ("add call, canonical", add_calls(chat, ["What is {a} + {b}?", "Add {a} and {b}."], False)),
        ("add call, held out", add_calls(chat, HELD_OUT_SUM, False)),
        ("add call, unseen tools", add_calls(chat, ["What is {a} + {b}?"], True)),
        ("answers from a tool's result", tool_answers(chat)),
        ("no call where none is needed", no_calls(chat)),
        ("thinking on and off", thinking(chat)),
        ("other questions with thinking on", everything_with_thoughts(chat)),
        ("JSON on request", json_answers(chat)),
        ("a conversation of 50 turns", long_chat(chat)),
    ]


def main() -> None:
    chat = Chat(sys.argv[1])
    right = total = 0
    print("| What | Right | Of | |\n|---|---|---|---|")
    for name, checks in sections(chat):
        score = Score()
        for question, answer, good in checks:
            score.total += 1
            score.right += good
            if not good:
                score.failures.append(f"    {question!r} -> {answer!r}")
        print(
            f"| {name} | {score.right} | {score.total} | {100 * score.right / score.total:.1f} % |",
            flush=True,
        )
        if "--failures" in sys.argv:
            print("\n".join(score.failures[:6]), flush=True)
        right, total = right + score.right, total + score.total
    print(f"| all | {right} | {total} | {100 * right / total:.1f} % |")
    print(f"\n{chat.endless} of {chat.answers} answers did not end by themselves.")


if __name__ == "__main__":
    main()
