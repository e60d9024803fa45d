"""The command ``bench``: how fast a model answers on this machine, one client and many at once."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..modelfile.errors import LadingError, UsageError
from .human import format_size
from .output import print_rows
from .session import FormatOption, ModelArgument, Session, session_of

if TYPE_CHECKING:
    from ..runtime.inference import Inference
    from .benchmark import Figures, Question, Speaker, Trace

FIELDS = ("workload", "figure", "value", "unit")
UNITS = {
    "tokens_per_s": "tokens/s",
    "prompt_tokens_per_s": "tokens/s",
    "cached_tokens": "tokens",
    "memory": "bytes",
}
"""Of figures; all others are seconds."""
MOST_CLIENTS = 256


def bench(
    context: typer.Context,
    model: ModelArgument,
    clients: Annotated[int, typer.Option("--clients", "-c", help="Clients at once.")] = 8,
    tokens: Annotated[int, typer.Option("--tokens", help="Tokens of each answer.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", help="Times each is measured; medians count.")] = 3,
    form: FormatOption = "table",
) -> None:
    """Measure how fast a model answers here: prompts, one stream, many clients, a shared system prompt.

    A running server is asked as its clients would; without one, the model is loaded for as long as this
    lasts. Answers that end early are counted as long as they are.
    """
    for name, value, most in (
        ("clients", clients, MOST_CLIENTS),
        ("tokens", tokens, 4096),
        ("rounds", rounds, 100),
    ):
        if not 1 <= value <= most:
            raise UsageError(f"reading --{name}: expected 1 to {most}, got {value}")
    session = session_of(context)
    plan = _Plan(model=model, clients=clients, tokens=tokens, rounds=rounds)
    try:
        rows = asyncio.run(_measure(session, plan))
    except ExceptionGroup as group:  # of clients at once: what the first of them met
        raise _first(group) from None
    table: dict[str, Callable[[Any], str]] = {
        "WORKLOAD": lambda row: row["workload"],
        "FIGURE": lambda row: row["figure"],
        "VALUE": _shown,
    }
    print_rows(form, rows, table, FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    model: str
    clients: int
    tokens: int
    rounds: int


async def _measure(session: Session, plan: _Plan) -> list[dict[str, Any]]:
    from . import benchmark
    from .benchmark import Question, Words

    words = Words(time.time_ns())  # never the prompts of an earlier run, which a server may still know
    async with _speaker(session, plan.model) as (speaker, memory):
        first = await speaker.ask(Question(text="Hello!", max_tokens=1))
        rows = _rows("load", {"ttft_s": first.ttft_s})
        several = f"{plan.clients} clients"
        shared = f"{several}, one system prompt"
        samples: dict[str, list[Figures]] = {"prompt": [], "one client": [], several: [], shared: []}
        for turn in range(plan.rounds):
            _tell(f"round {turn + 1} of {plan.rounds}")
            samples["prompt"].append(await benchmark.long_prompt(speaker, words, prompt_words=256))
            samples["one client"].append(await benchmark.single_stream(speaker, words, tokens=plan.tokens))
            samples[several].append(
                await benchmark.many_streams(speaker, words, clients=plan.clients, tokens=plan.tokens)
            )
            samples[shared].append(
                await benchmark.shared_prefix(
                    speaker,
                    words,
                    clients=plan.clients,
                    requests=2 * plan.clients,
                    tokens=plan.tokens,
                    system_words=200,
                )
            )
        for name, figures in samples.items():
            rows += _rows(name, benchmark.medians(figures))
        rows += _rows("loaded", {"memory": float(await memory())})
    return rows


def _rows(workload: str, figures: Figures) -> list[dict[str, Any]]:
    return [
        {"workload": workload, "figure": name, "value": value, "unit": UNITS.get(name, "s")}
        for name, value in figures.items()
    ]


def _shown(row: dict[str, Any]) -> str:
    value, unit = row["value"], row["unit"]
    return format_size(int(value)) if unit == "bytes" else f"{value:.4g} {unit}"


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@asynccontextmanager
async def _speaker(session: Session, model: str) -> AsyncIterator[tuple[Speaker, Callable[[], Any]]]:
    """What answers, and a way to ask how much memory the model takes, in bytes."""
    client = session.server_client()
    if await asyncio.to_thread(client.answers):
        from .benchmark_http import HttpSpeaker

        headers = {"Authorization": f"Bearer {client.api_key}"} if client.api_key else {}
        speaker = HttpSpeaker(url=client.url, model=model, headers=headers, tls=_tls(client))

        async def memory() -> int:
            found = await asyncio.to_thread(client.call, "GET", "/api/ps")
            name = session.display(session.reference(model))
            sizes = [entry["size"] for entry in found.get("models") or [] if entry["name"] in (model, name)]
            return sizes[0] if sizes else 0

        yield speaker, memory
        return
    from ..runtime.embedded import EmbeddedRuntime

    session.resolve(model)
    async with EmbeddedRuntime(session.settings.home, session.runtime_settings()) as runtime:

        async def memory_here() -> int:
            models = await runtime.inference.loaded()
            return sum({model.pid: model.size for model in models}.values())

        yield EmbeddedSpeaker(runtime.inference, model), memory_here


def _tls(client: Any) -> Any:
    """An SSL context, or None for plain HTTP."""
    if not client.url.startswith("https://"):
        return None
    import ssl

    tls = ssl.create_default_context(cafile=client.ca_file)
    if client.client_cert:
        tls.load_cert_chain(client.client_cert, client.client_key)
    return tls


@dataclass(frozen=True, slots=True)
class EmbeddedSpeaker:
    """A `Speaker` by a runtime in this process."""

    inference: Inference
    model: str

    async def ask(self, question: Question, arrived: Callable[[Trace], None] | None = None) -> Trace:
        from ..runtime.inference import ChatRequest, Done, Settings
        from ..runtime.protocol import Message, Text, Thinking
        from .benchmark import Trace

        system = [Message(role="system", content=question.system)] if question.system else []
        options = {"num_predict": question.max_tokens, "seed": 7}
        request = ChatRequest(
            model=self.model,
            messages=(*system, Message(role="user", content=question.text)),
            settings=Settings(options=options, format=question.schema),
        )
        trace = Trace()
        async for event in self.inference.chat(request):
            if isinstance(event, Text | Thinking):
                trace.note(event.text)
                if arrived is not None:
                    arrived(trace)
            elif isinstance(event, Done):
                trace.tokens = event.usage.eval_tokens
                trace.prompt_tokens = event.usage.prompt_tokens
                trace.cached_tokens = event.usage.cached_tokens
        trace.ended_s = time.perf_counter()
        if not trace.tokens:
            raise LadingError(f"measuring {self.model}: it answers nothing")
        return trace


def register(app: typer.Typer) -> None:
    """Add this module's command to ``app``."""
    app.command("bench")(bench)
