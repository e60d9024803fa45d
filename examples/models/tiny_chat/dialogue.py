"""Synthetic conversations for the tiny chat model, made from phrase tables and a seeded random generator.

A conversation is a list of messages (the shape of the chat API) and the thinking mode of its last answer;
`segments` turns it into the text that chat_template.jinja renders, split into what is given and what is
learnt.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from facts import (
    CITIES,
    COLORS,
    COUNTRIES,
    FIXED,
    HELD_OUT_CAPITAL,
    HELD_OUT_CITIES,
    HELD_OUT_NAMES,
    HELD_OUT_WORDS,
    NAMES,
    WORDS,
)
from phrases import (
    ASK_NAME,
    BRIEF,
    CAPITAL,
    CAPS,
    HELD_OUT_ASK_NAME,
    HELD_OUT_BRIEF,
    HELD_OUT_CAPS,
    HELD_OUT_PIRATE,
    HELD_OUT_SUM,
    HELD_OUT_TELL_NAME,
    HELD_OUT_WEATHER,
    NEUTRAL,
    PERSONA,
    PIRATE,
    REPEAT,
    SUM,
    TELL_NAME,
    WEATHER,
)

Message = dict[str, Any]
CAPITALS = [capital for _, capital, _ in COUNTRIES]
HELD_OUT = {word.lower() for word in HELD_OUT_NAMES + HELD_OUT_WORDS + HELD_OUT_CITIES}


@dataclass
class Turn:
    """One question and its answer; `short` is the one-word form, `given` a forced beginning of the answer."""

    user: str
    answer: str
    short: str = ""
    thought: str = ""
    given: str = ""
    plain: bool = True  # may be rewritten in capital letters


@dataclass
class Conversation:
    messages: list[Message]
    tools: list[Message] = field(default_factory=list)
    mode: str = "plain"  # of the last answer: plain, empty (a closed empty thought), think


# words


def nonsense(rng: random.Random) -> str:
    """A word nobody has seen, so that copying is learnt and not remembered."""
    while True:
        if rng.random() < 0.4:
            word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))
        else:
            onset = [
                "b",
                "c",
                "d",
                "f",
                "g",
                "h",
                "j",
                "k",
                "l",
                "m",
                "n",
                "p",
                "r",
                "s",
                "t",
                "v",
                "w",
                "x",
                "y",
                "z",
                "br",
                "ch",
                "cl",
                "dr",
                "fl",
                "gr",
                "kn",
                "ph",
                "pl",
                "qu",
                "sh",
                "sk",
                "sp",
                "st",
                "str",
                "th",
                "tr",
                "wh",
            ]
            nucleus = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "ie", "oo", "ou", "y"]
            coda = ["", "", "", "n", "r", "s", "t", "l", "m", "nd", "ck", "x", "sh", "ng", "p", "lt"]
            word = "".join(
                rng.choice(onset) + rng.choice(nucleus) + rng.choice(coda) for _ in range(rng.randint(1, 3))
            )
        if word not in HELD_OUT:
            return word


def any_word(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(WORDS)
    if roll < 0.45:
        return rng.choice(NAMES + CAPITALS)
    if roll < 0.52:
        return str(rng.randint(0, 10 ** rng.randint(1, 5)))
    word = nonsense(rng)
    return rng.choice([word, word, word, word.capitalize(), word.upper()])


def any_name(rng: random.Random) -> str:
    return rng.choice(NAMES) if rng.random() < 0.5 else nonsense(rng).capitalize()


def any_city(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.4:
        return rng.choice(CAPITALS)
    if roll < 0.6:
        return rng.choice(CITIES)
    city = nonsense(rng).capitalize()
    return (
        city
        if roll < 0.85
        else f"{rng.choice(['New', 'San', 'Port', 'Los', 'Saint', city])} {nonsense(rng).capitalize()}"
    )


def ask(rng: random.Random, phrasings: list[str], **values: object) -> str:
    """One of the phrasings, now and then sloppy: lower case, no full stop, a please in front or behind."""
    text = rng.choice(phrasings)
    roll = rng.random()
    if roll < 0.08:
        text = text.lower()
    elif roll < 0.13:
        text = rng.choice(["Please ", "Hey, ", "Now, ", "OK. ", "So, ", "Hello! ", "And "]) + text
    elif roll < 0.17 and text[-1] in "?.!":
        text = f"{text[:-1]}, please{text[-1]}"
    elif roll < 0.24 and text[-1] in "?.!":
        text = text[:-1]
    elif roll < 0.26:
        text = (
            rng.choice(["Can you help me? ", "I have a question. ", "Quick question: ", "Tell me: "]) + text
        )
    return text.format(**values)


# turns without tools


def capital(rng: random.Random) -> Turn:
    country, city, _ = rng.choice(COUNTRIES)
    if rng.random() < 0.03:
        country = nonsense(rng).capitalize()
        return Turn(
            ask(rng, CAPITAL, country=country),
            f"I do not know the capital of {country}.",
            "Unknown",
            f"I do not know {country}.",
            plain=False,
        )
    shown = country.lower() if rng.random() < 0.04 else country
    thought = f"The user asks for the capital of {country}. It is {city}."
    return Turn(ask(rng, CAPITAL, country=shown), f"The capital of {country} is {city}.", city, thought)


def country_of(rng: random.Random) -> Turn:
    country, city, _ = rng.choice(COUNTRIES)
    phrasings = [
        "Which country has {city} as its capital?",
        "{city} is the capital of which country?",
        "Of which country is {city} the capital?",
        "What country is {city} the capital of?",
    ]
    thought = f"{city} is the capital of {country}."
    return Turn(ask(rng, phrasings, city=city), f"{city} is the capital of {country}.", country, thought)


def language(rng: random.Random) -> Turn:
    country, _, tongue = rng.choice(COUNTRIES)
    phrasings = [
        "Which language do people speak in {country}?",
        "What language is spoken in {country}?",
        "What do people speak in {country}?",
        "What is the language of {country}?",
    ]
    thought = f"The language of {country} is {tongue}."
    return Turn(ask(rng, phrasings, country=country), f"People in {country} speak {tongue}.", tongue, thought)


def about(rng: random.Random) -> Turn:
    country, city, tongue = rng.choice(COUNTRIES)
    phrasings = ["Tell me about {country}.", "What do you know about {country}?", "Describe {country}."]
    answer = f"{country} is a country. Its capital is {city} and its people speak {tongue}."
    return Turn(ask(rng, phrasings, country=country), answer, city, f"The user asks about {country}.")


def count(rng: random.Random) -> Turn:
    first = 1 if rng.random() < 0.75 else rng.randint(2, 20)
    last = first + rng.randint(1, 29) if rng.random() < 0.9 else rng.choice([40, 50, 60, 70, 80, 90, 100])
    last = max(last, first + 1)
    if first == 1 and rng.random() < 0.15:
        last = rng.choice([3, 5, 10, 20, 30])
    phrasings = [
        "Count from {first} to {last}.",
        "Count from {first} to {last}.",
        "Please count from {first} to {last}.",
        "Can you count from {first} to {last}?",
        "List the numbers from {first} to {last}.",
        "Count {first} to {last}.",
        "Write the numbers from {first} to {last}.",
        "Start at {first} and count to {last}.",
        "Say the numbers {first} to {last}.",
        "Give me the numbers from {first} to {last}.",
        "count from {first} to {last}",
        "Could you count from {first} up to {last}?",
    ]
    if first == 1:
        phrasings += [
            "Count to {last}.",
            "Count up to {last}.",
            "Can you count to {last}?",
            "Count to {last} for me.",
        ] * 2
    numbers = ", ".join(str(n) for n in range(first, last + 1))
    return Turn(
        ask(rng, phrasings, first=first, last=last), numbers, thought=f"I count from {first} to {last}."
    )


def times(rng: random.Random) -> Turn:
    number, word = rng.randint(2, 5), any_word(rng)
    phrasings = [
        "Repeat the word {word} {number} times.",
        "Say {word} {number} times.",
        "Write {word} {number} times.",
        "Repeat {word} {number} times.",
    ]
    thought = f"I say {word} {number} times."
    return Turn(
        ask(rng, phrasings, word=word, number=number), " ".join([word] * number), "", thought, plain=False
    )


def repeat(rng: random.Random) -> Turn:
    words = 1 if rng.random() < 0.6 else rng.randint(2, 6)
    text = " ".join(any_word(rng) for _ in range(words))
    if rng.random() < 0.25:
        return times(rng)
    return Turn(ask(rng, REPEAT, word=text), text, "", f"I repeat {text}.", plain=False)


def fixed(rng: random.Random) -> Turn:
    key, phrasings, answer = rng.choice(FIXED if rng.random() < 0.75 else FIXED[:7])
    return Turn(
        ask(rng, phrasings),
        answer,
        "",
        "This is a simple question." if key != "hello" else "The user says hello.",
    )


def addition(rng: random.Random) -> Turn:
    if rng.random() < 0.2:
        a, b = rng.randint(11, 9999), rng.randint(11, 9999)
        return Turn(
            ask(rng, SUM, a=a, b=b), "I need a tool to add large numbers.", "", "These numbers are large."
        )
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    return Turn(ask(rng, SUM, a=a, b=b), f"{a} + {b} = {a + b}.", str(a + b), f"{a} plus {b} is {a + b}.")


def weather_without_tool(rng: random.Random) -> Turn:
    return Turn(
        ask(rng, WEATHER, city=any_city(rng)),
        "I cannot check the weather.",
        "",
        "I have no tool for the weather.",
    )


def as_json(rng: random.Random) -> Turn:
    """Answers in JSON: asked for, or (`given`) forced by a grammar that already wrote the beginning."""
    country, city, tongue = rng.choice(COUNTRIES)
    roll = rng.random()
    if roll < 0.3:
        text = json.dumps({"country": country, "capital": city})
        suffix = rng.choice([" Answer in JSON.", " Reply as JSON.", " Use JSON.", " Respond in JSON format."])
        phrasings = [
            "Give the capital of {country} as JSON.",
            "Give the capital of {country} as JSON.",
            "Write the capital of {country} as JSON.",
            rng.choice(CAPITAL) + suffix,
        ]
        thought = f"The capital of {country} is {city}. I write JSON."
        return Turn(rng.choice(phrasings).format(country=country), text, "", thought, plain=False)
    if roll < 0.5:
        text = json.dumps({"name": country, "capital": city, "languages": [tongue]})
        phrasings = [
            "Tell me about {country}. Answer in JSON.",
            "Tell me about {country} as JSON.",
            "Describe {country} in JSON.",
            "Tell me about {country}.",
        ]
        user = rng.choice(phrasings).format(country=country)
        return Turn(user, text, given="" if "JSON" in user else '{"name": "', plain=False)
    if roll < 0.7:
        name, age = any_name(rng), rng.randint(1, 99)
        phrasings = [
            "{name} is {age} years old. Answer in JSON.",
            "My name is {name} and I am {age} years old. Answer in JSON.",
            "{name} is {age} years old. Write this as JSON.",
            "{name} is {age} years old.",
        ]
        user = rng.choice(phrasings).format(name=name, age=age)
        text = json.dumps({"name": name, "age": age})
        return Turn(user, text, given="" if "JSON" in user else '{"name": "', plain=False)
    user = ask(rng, CAPITAL, country=country)
    if roll < 0.85:
        text = json.dumps({"country": country, "capital": city})
        return Turn(user, text, given='{"country": "' if rng.random() < 0.5 else "{", plain=False)
    key = rng.choice(["answer", "city", "capital", "result", "value", "name", "response"])
    return Turn(user, json.dumps({key: city}), given=f'{{"{key}": "', plain=False)


TASKS: list[tuple[Callable[[random.Random], Turn], float]] = [
    (capital, 24),
    (country_of, 3),
    (language, 3),
    (about, 2),
    (count, 9),
    (repeat, 22),
    (fixed, 20),
    (addition, 6),
    (weather_without_tool, 4),
    (as_json, 7),
]

# memory


def tell_name(rng: random.Random, name: str) -> Turn:
    return Turn(
        ask(rng, TELL_NAME, name=name),
        f"Nice to meet you, {name}!",
        "",
        f"The user is called {name}.",
        plain=name in NAMES,
    )


def ask_name(rng: random.Random, name: str | None) -> Turn:
    if name is None:
        return Turn(ask(rng, ASK_NAME), "I do not know your name.", "Unknown", "The user did not tell me.")
    thought = f"The user said the name {name}."
    return Turn(ask(rng, ASK_NAME), f"Your name is {name}.", name, thought, plain=name in NAMES)


def memory(rng: random.Random) -> tuple[Turn, Turn]:
    """Something to remember, and the question for it."""
    kind = rng.choice(["color", "food", "animal", "number", "word", "city", "secret", "home", "age"])
    value = {
        "color": rng.choice(COLORS),
        "number": str(rng.randint(1, 999)),
        "age": str(rng.randint(5, 99)),
        "city": any_city(rng),
        "home": any_city(rng),
    }.get(kind) or any_word(rng)
    if kind == "secret":
        tell = ask(
            rng,
            [
                "The secret word is {v}.",
                "Remember the secret word {v}.",
                "Remember this word: {v}",
                "The password is {v}.",
                "Remember the word {v}.",
            ],
            v=value,
        )
        question = ask(
            rng,
            [
                "What is the secret word?",
                "Which word did I tell you?",
                "What was the word?",
                "Tell me the secret word.",
                "What is the password?",
            ],
        )
        return Turn(tell, "I will remember it.", plain=False), Turn(
            question, f"The word is {value}.", value, f"The user said {value}.", plain=False
        )
    if kind == "home":
        tell = ask(rng, ["I live in {v}.", "My home is in {v}."], v=value)
        return Turn(tell, f"I hear that {value} is nice.", plain=False), Turn(
            ask(rng, ["Where do I live?", "In which city do I live?"]),
            f"You live in {value}.",
            value,
            f"The user said {value}.",
            plain=False,
        )
    if kind == "age":
        tell = ask(rng, ["I am {v} years old.", "My age is {v}."], v=value)
        return Turn(tell, "I will remember it.", plain=False), Turn(
            ask(rng, ["How old am I?", "What is my age?"]),
            f"You are {value} years old.",
            value,
            f"The user said {value}.",
            plain=False,
        )
    tell = ask(rng, ["My favorite {k} is {v}.", "I like the {k} {v} most."], k=kind, v=value)
    question = ask(
        rng, ["What is my favorite {k}?", "Which {k} do I like most?", "Do you know my favorite {k}?"], k=kind
    )
    answer = f"Your favorite {kind} is {value}."
    return Turn(tell, "I will remember it.", plain=False), Turn(
        question, answer, value, f"The user said {value}.", plain=False
    )


# system prompts


def styled(turn: Turn, style: str) -> str:
    if turn.given or turn.answer.startswith("{"):
        return turn.answer
    if style == "caps":
        return turn.answer.upper()
    if style == "pirate":
        return f"Arr! {turn.answer}"
    if style == "brief":
        return turn.short or turn.answer
    return turn.answer


def system_prompt(rng: random.Random) -> tuple[str, str]:
    """(text, style); the text is empty where there is no system turn."""
    roll = rng.random()
    if roll < 0.45:
        return "", ""
    for limit, style, phrasings in ((0.58, "caps", CAPS), (0.68, "pirate", PIRATE), (0.75, "brief", BRIEF)):
        if roll < limit:
            return rng.choice(phrasings), style
    if roll < 0.82:
        name = any_name(rng)
        return rng.choice(PERSONA).format(name=name), f"persona {name}"
    if roll < 0.97:
        return rng.choice(NEUTRAL), ""
    return " ".join(rng.choice(NEUTRAL) for _ in range(rng.randint(2, 5))), ""


# conversations


def pick(rng: random.Random, style: str) -> Turn:
    if style.startswith("persona") and rng.random() < 0.4:
        name = style.split(" ", 1)[1]
        return Turn(ask(rng, FIXED[1][1]), f"I am {name}.", name, f"I am {name}.", plain=False)
    makers, weights = zip(*TASKS, strict=True)
    while True:
        turn: Turn = rng.choices(makers, weights)[0](rng)
        if style != "caps" or turn.plain or rng.random() < 0.1:
            if style == "caps" and not turn.plain and turn.answer.isalpha() and len(turn.answer) > 9:
                continue
            return turn


def chat_turns(rng: random.Random, turns: int, style: str) -> list[Turn]:
    """A list of turns with names told and asked, things remembered, and other questions between."""
    result: list[Turn] = []
    name: str | None = None
    pending: list[Turn] = []
    while len(result) < turns:
        roll = rng.random()
        if roll < 0.11:
            name = rng.choice(NAMES) if style == "caps" else any_name(rng)
            result.append(tell_name(rng, name))
        elif roll < (0.30 if name else 0.13):
            result.append(ask_name(rng, name))
        elif roll < 0.36 and pending:
            result.append(pending.pop())
        elif roll < 0.38 and not pending and style != "caps":
            tell, question = memory(rng)
            result.append(tell)
            pending.append(question)
        else:
            result.append(pick(rng, style))
    if len(result) > 1 and name and rng.random() < 0.5:
        result.append(ask_name(rng, name))
    elif pending:
        result.append(pending.pop())
    return result


def plain_chat(rng: random.Random, turns: int) -> Conversation:
    system, style = system_prompt(rng)
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for turn in chat_turns(rng, turns, style):
        messages.append({"role": "user", "content": turn.user})
        answer = styled(turn, style)
        messages.append(
            {"role": "assistant", "content": answer, "thought": turn.thought, "given": turn.given}
        )
    return Conversation(messages, mode=any_mode(rng))


def long_memory(rng: random.Random) -> Conversation:
    """A name, many short questions, and the name again."""
    name = any_name(rng)
    turns = [
        tell_name(rng, name),
        *(rng.choice([capital, capital, fixed, addition])(rng) for _ in range(rng.randint(8, 45))),
    ]
    messages: list[Message] = []
    for turn in [*turns, ask_name(rng, name)]:
        messages += [
            {"role": "user", "content": turn.user},
            {"role": "assistant", "content": turn.answer, "thought": turn.thought},
        ]
    return Conversation(messages, mode=any_mode(rng))


def drill(rng: random.Random) -> Conversation:
    """A short conversation about nothing but copying, counting and adding."""
    messages: list[Message] = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        roll = rng.random()
        turns: list[Turn] = []
        if roll < 0.12:
            turns = [times(rng)]
        elif roll < 0.45:
            text = " ".join(any_word(rng) for _ in range(rng.randint(1, 8)))
            turns = [Turn(ask(rng, REPEAT, word=text), text, "", f"I repeat {text}.")]
        elif roll < 0.6:
            name = any_name(rng)
            turns = [tell_name(rng, name), ask_name(rng, name)]
        elif roll < 0.68:
            turns = list(memory(rng))
        else:
            turns = [count(rng) if roll < 0.85 else addition(rng)]
        for turn in turns:
            messages += [
                {"role": "user", "content": turn.user},
                {"role": "assistant", "content": turn.answer, "thought": turn.thought},
            ]
    return Conversation(messages, mode=any_mode(rng))


def any_mode(rng: random.Random) -> str:
    return rng.choices(["plain", "empty", "think"], [0.5, 0.12, 0.38])[0]


# text


def tool_call_text(call: Message) -> str:
    arguments = json.dumps(call["arguments"], ensure_ascii=False)
    return f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {arguments}}}\n</tool_call>'


def answer_text(message: Message) -> str:
    calls = [tool_call_text(call) for call in message.get("tool_calls", [])]
    return "\n".join(([message["content"]] if message["content"] else []) + calls)


def system_text(system: str, tools: list[Message]) -> str:
    if not tools:
        return system
    listed = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
    head = f"{system}\n\n" if system else ""
    return (
        f"{head}# Tools\n<tools>\n{listed}</tools>\nCall a tool as <tool_call>\n"
        '{"name": ..., "arguments": {...}}\n</tool_call>'
    )


def segments(conversation: Conversation) -> list[tuple[str, bool]]:
    """(text, learnt) pieces of the conversation, in the words of chat_template.jinja."""
    pieces: list[tuple[str, bool]] = []
    messages = conversation.messages
    start = 0
    system = ""
    if messages[0]["role"] == "system":
        system, start = messages[0]["content"], 1
    if system or conversation.tools:
        pieces.append((f"<|im_start|>system\n{system_text(system, conversation.tools)}<|im_end|>\n", False))
    for index in range(start, len(messages)):
        message = messages[index]
        if message["role"] == "tool":
            before = "" if messages[index - 1]["role"] == "tool" else "<|im_start|>user"
            after = index + 1 < len(messages) and messages[index + 1]["role"] == "tool"
            end = "" if after else "<|im_end|>\n"
            pieces.append((f"{before}\n<tool_response>\n{message['content']}\n</tool_response>{end}", False))
        elif message["role"] == "user":
            pieces.append((f"<|im_start|>user\n{message['content']}<|im_end|>\n", False))
        else:
            pieces += answer_segments(message, conversation.mode if index + 1 == len(messages) else "plain")
    return pieces


def answer_segments(message: Message, mode: str) -> list[tuple[str, bool]]:
    text = answer_text(message)
    given = message.get("given", "")
    head = "<|im_start|>assistant\n"
    pieces = [(head, False)]
    if mode == "empty":
        pieces = [(f"{head}<think>\n\n</think>\n\n", False)]
    elif mode == "think":
        thought = message.get("thought") or "I can answer this."
        pieces = [(f"{head}<think>\n", False), (f"{thought}\n</think>\n\n", True)]
    return [*pieces, (given, False), (text[len(given) :] + "<|im_end|>", True), ("\n", False)]


def check_held_out() -> None:
    """The phrasings of the evaluation must not be among those of the training."""
    for held_out, learnt in (
        (HELD_OUT_CAPITAL, CAPITAL),
        (HELD_OUT_SUM, SUM),
        (HELD_OUT_WEATHER, WEATHER),
        (HELD_OUT_TELL_NAME, TELL_NAME),
        (HELD_OUT_ASK_NAME, ASK_NAME),
        (HELD_OUT_CAPS, CAPS),
        (HELD_OUT_PIRATE, PIRATE),
        (HELD_OUT_BRIEF, BRIEF),
        (HELD_OUT_NAMES, NAMES),
        (HELD_OUT_WORDS, WORDS),
        (HELD_OUT_CITIES, CITIES + CAPITALS),
    ):
        both = set(held_out) & set(learnt)
        assert not both, both
