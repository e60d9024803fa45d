"""What `bench` measures: workloads on anything that answers questions, and their figures.

Nothing here knows how an answer is got: a `Speaker` does, over HTTP or from a runtime in this process.
Prompts are words without sense, different in each call, so that nothing is known beforehand unless a
workload wants it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

_SYLLABLES = tuple(c + v for c, v in itertools.product("bcdfghjklmnpqrstvwyz", "aeiou"))

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "entries": {
            "type": "array",
            "minItems": 6,
            "maxItems": 6,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 8, "maxLength": 24},
                    "amount": {"type": "integer", "minimum": 0, "maximum": 99999},
                    "state": {"enum": ["open", "closed", "waiting for an answer"]},
                    "is_checked": {"type": "boolean"},
                },
                "required": ["name", "amount", "state", "is_checked"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["title", "entries"],
    "additionalProperties": False,
}
"""An output of about a hundred tokens, in part fixed by the schema, in part free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``max_tokens`` bounds the answer."""

    text: str
    max_tokens: int
    system: str = ""
    schema: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class Trace:
    """How one answer came, in seconds of `time.perf_counter`."""

    sent_s: float = field(default_factory=time.perf_counter)
    arrivals_s: list[float] = field(default_factory=list)
    """When each piece of text came."""
    ended_s: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    text: str = ""

    def note(self, text: str) -> None:
        """A piece of text has come."""
        self.arrivals_s.append(time.perf_counter())
        self.text += text

    @property
    def ttft_s(self) -> float:
        """From the request to the first piece of text, or to the end where there was none."""
        return (self.arrivals_s[0] if self.arrivals_s else self.ended_s) - self.sent_s

    @property
    def tokens_per_s(self) -> float:
        """Of the answer, from its first token to its last."""
        if len(self.arrivals_s) < 2:
            return 0.0
        return (self.tokens - 1) / (self.arrivals_s[-1] - self.arrivals_s[0])

    def worst_gap_s(self, start_s: float, end_s: float) -> float:
        """The longest wait for a piece of text that overlaps the time from ``start_s`` to ``end_s``."""
        gaps = [b - a for a, b in itertools.pairwise(self.arrivals_s) if b > start_s and a < end_s]
        return max(gaps, default=0.0)


class Speaker(Protocol):
    """Answers questions, many at once."""

    async def ask(self, question: Question, arrived: Callable[[Trace], None] | None = None) -> Trace:
        """``arrived`` is called at each piece of text.

        Raises: LadingError, OSError.
        """
        ...


class Words:
    """Prompts of a known length. The same seed gives the same prompts, one after the other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def text(self, count: int) -> str:
        return " ".join("".join(self._random.choices(_SYLLABLES, k=2)) for _ in range(count))


Figures = dict[str, float]


def medians(samples: Sequence[Figures]) -> Figures:
    """Of each figure; the samples have the same ones."""
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


async def single_stream(speaker: Speaker, words: Words, *, tokens: int = 128) -> Figures:
    """One client."""
    trace = await speaker.ask(Question(text=words.text(32), max_tokens=tokens))
    return {"tokens_per_s": trace.tokens_per_s, "ttft_s": trace.ttft_s}


async def many_streams(speaker: Speaker, words: Words, *, clients: int, tokens: int = 64) -> Figures:
    """Clients that have nothing in common, all at once."""
    questions = [Question(text=words.text(64), max_tokens=tokens) for _ in range(clients)]
    started = time.perf_counter()
    traces = await _all(speaker, questions)
    wall = time.perf_counter() - started
    return {
        "tokens_per_s": sum(trace.tokens for trace in traces) / wall,
        "ttft_s": sorted(trace.ttft_s for trace in traces)[len(traces) // 2],
    }


async def shared_prefix(
    speaker: Speaker,
    words: Words,
    *,
    clients: int = 8,
    requests: int = 16,
    tokens: int = 32,
    system_words: int = 600,
) -> Figures:
    """Clients with one system prompt, each asking one question after the other."""
    system = words.text(system_words)
    waiting = [Question(system=system, text=words.text(16), max_tokens=tokens) for _ in range(requests)]

    async def client() -> list[Trace]:
        return [await speaker.ask(waiting.pop()) for _ in range(requests // clients)]

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client()) for _ in range(clients)]
    wall = time.perf_counter() - started
    traces = [trace for task in tasks for trace in task.result()]
    return {
        "wall_s": wall,
        "tokens_per_s": sum(trace.tokens for trace in traces) / wall,
        "cached_tokens": sum(trace.cached_tokens for trace in traces) / requests,
    }


async def intrusion(speaker: Speaker, words: Words, *, streams: int = 4, prompt_words: int = 2000) -> Figures:
    """A long prompt arrives while streams run: how long they stand still, and how long it takes itself."""
    running: set[int] = set()
    everyone = asyncio.Event()

    def watch(number: int) -> Callable[[Trace], None]:
        def arrived(trace: Trace) -> None:
            if len(trace.arrivals_s) == 8:
                running.add(number)
                if len(running) == streams:
                    everyone.set()

        return arrived

    tasks: list[asyncio.Task[Trace]] = []
    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            question = Question(text=words.text(32), max_tokens=256)
            tasks.append(group.create_task(speaker.ask(question, watch(number))))
        await everyone.wait()
        long = await speaker.ask(Question(text=words.text(prompt_words), max_tokens=2))
    first = long.arrivals_s[0] if long.arrivals_s else long.ended_s
    traces = [task.result() for task in tasks]
    meanwhile = sum(sum(long.sent_s < arrival <= first for arrival in trace.arrivals_s) for trace in traces)
    return {
        "worst_gap_s": max(trace.worst_gap_s(long.sent_s, first) for trace in traces),
        "ttft_s": long.ttft_s,
        "tokens_meanwhile": float(meanwhile),
    }


async def schema_output(speaker: Speaker, words: Words) -> Figures:
    """An answer by a JSON Schema against a free one of the same length, from request to end."""
    text = words.text(32)
    bound = await speaker.ask(Question(text=text, max_tokens=512, schema=SCHEMA))
    free = await speaker.ask(Question(text=words.text(32), max_tokens=max(2, bound.tokens)))
    speed = bound.tokens / (bound.ended_s - bound.sent_s)
    return {
        "tokens_per_s": speed,
        "of_free": speed / (free.tokens / (free.ended_s - free.sent_s)),
        "tokens": float(bound.tokens),
        "ttft_s": bound.ttft_s,
    }


async def long_prompt(speaker: Speaker, words: Words, *, prompt_words: int = 512) -> Figures:
    """A prompt alone: tokens read in a second."""
    trace = await speaker.ask(Question(text=words.text(prompt_words), max_tokens=1))
    read = trace.prompt_tokens - trace.cached_tokens
    return {"prompt_tokens_per_s": read / trace.ttft_s, "ttft_s": trace.ttft_s}


async def _all(speaker: Speaker, questions: Sequence[Question]) -> list[Trace]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(speaker.ask(question)) for question in questions]
    return [task.result() for task in tasks]
