"""What a request handler, or ``lading run``, calls: a request in, a stream of events out.

`Inference` acquires a runner from the keeper, puts the model's own system prompt and messages before the
request's, and passes on what the runner says. It knows no HTTP dialect. Closing the iterator cancels the
generation.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

import msgspec

from .client import RunnerClient
from .errors import BadRequest, RunnerLost, ShuttingDown
from .grant import Acquire, Grant, KeeperPort, LoadedModel, ModelFacts, Verb
from .protocol import (
    End,
    EndReason,
    Generate,
    Grammar,
    Message,
    Rendered,
    Scores,
    Started,
    Text,
    Think,
    Thinking,
    ToolCall,
    ToolChoice,
    Usage,
)

Form = Literal["json"] | dict[str, Any] | Grammar
"""What an answer must be: a JSON object, what a JSON Schema describes, or what a grammar derives."""

NO_OPTIONS: Mapping[str, Any] = {}

_AnswerT = TypeVar("_AnswerT")

_GONE = (RunnerLost, ShuttingDown)
"""What is heard of a runner that died, or was stopped in the moment in which a request came."""

_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What chat and generate have in common."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Unchecked, as the client sent them."""
    keep_alive: float | None = None
    """Seconds; see `keep_alive.parse_keep_alive`."""
    think: Think | None = None
    """None: think where the model can."""
    effort: Think | None = None
    """How much to think where `think` leaves it to the model."""
    max_thinking_tokens: int | None = None
    """After that many tokens of thoughts the answer begins; None: when the model likes."""
    format: Form | None = None
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation to be continued."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    settings: Settings = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt to be continued or, with a ``suffix``, a gap to be filled."""

    model: str
    prompt: str
    suffix: str = ""
    system: str = ""
    """Replaces the model's."""
    template: str = ""
    """Go text/template; replaces the model's."""
    context: tuple[int, ...] = ()
    raw: bool = False
    images: tuple[bytes, ...] = ()
    settings: Settings = Settings()


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """The last event of every stream that did not fail."""

    reason: EndReason
    usage: Usage
    total_duration_ns: int
    load_duration_ns: int
    context: tuple[int, ...] = ()
    """All tokens of prompt and answer; only for `GenerateRequest` without ``raw``."""
    stop_sequence: str = ""


InferenceEvent = Text | Thinking | ToolCall | Done


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors of unit length, one for each text, in order."""

    vectors: tuple[tuple[float, ...], ...]
    prompt_tokens: int
    total_duration_ns: int
    load_duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that was only to be loaded is."""

    total_duration_ns: int
    load_duration_ns: int


class Inference:
    """One for each process, and event loop, that takes requests; it keeps its connections to runners.

    Every method raises what `KeeperPort.acquire` raises and, once a runner has the request, what it
    answers; a runner that dies meanwhile is `RunnerLost`. A request whose runner went away before it had said
    anything is sent once more, to the next one: it may have come in the moment in which another's input, or
    a lack of memory, ended it. Never twice, so that an input that kills runners kills two of them at most.
    Close it with `aclose`.
    """

    def __init__(self, keeper: KeeperPort, *, tenant: Callable[[], str] = lambda: "") -> None:
        """``tenant`` tells, in the task of a request, whose it is: what is evaluated for one is never reused
        for another. Without it all are one."""
        self._keeper = keeper
        self._tenant = tenant
        self._connections = Connections()

    async def chat(
        self, request: ChatRequest, *, started: Callable[[Started], None] | None = None
    ) -> AsyncGenerator[InferenceEvent, None]:
        """Events of the answer, `Done` last; an error before the first event means that nothing was
        generated. ``started`` is told the size of the prompt before the first event.

        Raises: BadRequest for an empty conversation.
        """
        if not request.messages:
            raise BadRequest("chat: expected at least one message, got none")
        images = any(message.images for message in request.messages)
        needs = _needs("completion", request.settings, tools=bool(request.tools), images=images)
        acquire = _acquire(request.model, request.settings, needs, "chat")
        async for event in self._stream(acquire, partial(_chat_call, request), started):
            yield event

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[InferenceEvent, None]:
        """As `chat`. Raises: BadRequest for ``raw`` beside a template or a system prompt."""
        acquire = _generate_acquire(request)
        async for event in self._stream(acquire, partial(_generate_call, request)):
            yield event

    async def render(self, request: ChatRequest | GenerateRequest, *, whole: bool = False) -> Rendered:
        """The prompt that the request would be evaluated as; nothing is generated. ``whole``: before it is
        cut to the context."""
        make: Callable[[Grant], Generate]
        if isinstance(request, ChatRequest):
            needs = _needs("completion", request.settings, tools=bool(request.tools), images=False)
            acquire = _acquire(request.model, request.settings, needs, "chat")
            make = partial(_chat_call, request)
        else:
            acquire = _generate_acquire(request)
            make = partial(_generate_call, request)
        _, rendered = await self._ask(acquire, lambda grant, client: client.render(make(grant), whole=whole))
        return rendered

    async def embed(
        self,
        model: str,
        texts: tuple[str, ...],
        *,
        options: Mapping[str, Any] = NO_OPTIONS,
        keep_alive: float | None = None,
        truncate: bool = True,
        dimensions: int = 0,
    ) -> Embedded:
        """One vector for each of ``texts``, of which there must be one."""
        started = time.monotonic_ns()
        acquire = Acquire(
            model=model, options=dict(options), keep_alive=keep_alive, needs=("embedding",), verb="embed"
        )
        grant, found = await self._ask(
            acquire,
            lambda grant, client: client.embed(
                texts, variant=grant.variant, truncate=truncate, dimensions=dimensions
            ),
        )
        return Embedded(
            vectors=found.vectors,
            prompt_tokens=found.prompt_tokens,
            total_duration_ns=time.monotonic_ns() - started,
            load_duration_ns=grant.load_duration_ns,
        )

    async def rank(
        self,
        model: str,
        query: str,
        documents: tuple[str, ...],
        *,
        options: Mapping[str, Any] = NO_OPTIONS,
        keep_alive: float | None = None,
    ) -> Scores:
        """How well each of ``documents`` answers ``query``."""
        acquire = Acquire(
            model=model, options=dict(options), keep_alive=keep_alive, needs=("rerank",), verb="embed"
        )
        _, scores = await self._ask(
            acquire, lambda grant, client: client.rank(query, documents, variant=grant.variant)
        )
        return scores

    async def tokenize(
        self,
        model: str,
        text: str,
        *,
        add_special: bool = True,
        parse_special: bool = True,
        options: Mapping[str, Any] = NO_OPTIONS,
        keep_alive: float | None = None,
    ) -> tuple[int, ...]:
        """The tokens of a text; see `RunnerClient.tokenize`."""
        acquire = Acquire(model=model, options=dict(options), keep_alive=keep_alive)
        _, found = await self._ask(
            acquire,
            lambda _, client: client.tokenize(text, add_special=add_special, parse_special=parse_special),
        )
        return found.tokens

    async def detokenize(
        self,
        model: str,
        tokens: tuple[int, ...],
        *,
        options: Mapping[str, Any] = NO_OPTIONS,
        keep_alive: float | None = None,
    ) -> str:
        """The text of tokens. Raises: Unsupported for one that the model does not have."""
        acquire = Acquire(model=model, options=dict(options), keep_alive=keep_alive)
        _, found = await self._ask(acquire, lambda _, client: client.detokenize(tokens))
        return found.text

    async def load(
        self, model: str, *, options: Mapping[str, Any] = NO_OPTIONS, keep_alive: float | None = None
    ) -> Loaded:
        """Load the model, generate nothing."""
        started = time.monotonic_ns()
        grant = await self._keeper.acquire(
            Acquire(model=model, options=dict(options), keep_alive=keep_alive, verb="load")
        )
        return Loaded(
            total_duration_ns=time.monotonic_ns() - started, load_duration_ns=grant.load_duration_ns
        )

    async def unload(self, model: str) -> bool:
        """Stop the model as soon as it is idle; False where it was not loaded."""
        return await self._keeper.unload(model)

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """What is loaded, the last to expire first."""
        return await self._keeper.loaded()

    async def aclose(self) -> None:
        """Close the connections to runners; their generations are cancelled."""
        await self._connections.aclose()

    async def _stream(
        self,
        acquire: Acquire,
        make: Callable[[Grant], Generate],
        begun: Callable[[Started], None] | None = None,
    ) -> AsyncGenerator[InferenceEvent, None]:
        started = time.monotonic_ns()
        again, silent = False, True
        while True:
            grant, client = await self._reach(acquire)
            request = msgspec.structs.replace(make(grant), tenant=self._tenant())
            try:
                async with aclosing(client.generate(request)) as events:
                    async for event in events:
                        if isinstance(event, Started):
                            if begun is not None:
                                begun(event)
                            continue
                        silent = False
                        if isinstance(event, End):
                            yield _done(event, grant, time.monotonic_ns() - started)
                        else:
                            yield event
                return
            except _GONE as error:
                if again or not silent:
                    raise _told(error, grant) from error
            acquire, again = msgspec.structs.replace(acquire, lost=grant.socket_path), True

    async def _ask(
        self, acquire: Acquire, ask: Callable[[Grant, RunnerClient], Awaitable[_AnswerT]]
    ) -> tuple[Grant, _AnswerT]:
        """What a runner answers to a request with one answer, and the grant that led to it."""
        grant, client = await self._reach(acquire)
        try:
            return grant, await ask(grant, client)
        except _GONE:
            acquire = msgspec.structs.replace(acquire, lost=grant.socket_path)
        grant, client = await self._reach(acquire)
        try:
            return grant, await ask(grant, client)
        except _GONE as error:
            raise _told(error, grant) from error

    async def _reach(self, acquire: Acquire) -> tuple[Grant, RunnerClient]:
        """A grant and a connection; a runner that is found gone is asked for once more."""
        grant = await self._keeper.acquire(acquire)
        try:
            return grant, await self._connections.get(grant.socket_path)
        except RunnerLost:
            again = msgspec.structs.replace(acquire, lost=grant.socket_path)
            grant = await self._keeper.acquire(again)
            return grant, await self._connections.get(grant.socket_path)


class Connections:
    """One connection to each runner in use, made when it is first needed."""

    def __init__(self) -> None:
        self._clients: dict[str, RunnerClient] = {}
        self._connecting = asyncio.Lock()

    async def get(self, socket_path: str) -> RunnerClient:
        """Raises: RunnerLost where nobody listens there, or the connection that there was has been lost."""
        client = self._clients.get(socket_path)
        if client is not None and not client.is_lost:
            return client
        async with self._connecting:
            client = self._clients.get(socket_path)
            await self._forget_lost()
            if client is None:
                self._clients[socket_path] = client = await RunnerClient.connect(socket_path)
            elif client.is_lost:  # the runner has died; its socket may seem to be there for a moment yet
                raise RunnerLost("reaching the model's runner: it has gone away")
            return client

    async def aclose(self) -> None:
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _forget_lost(self) -> None:
        for path, client in list(self._clients.items()):
            if client.is_lost:
                del self._clients[path]
                await client.aclose()


# Requests, put together


def _needs(first: str, settings: Settings, *, tools: bool, images: bool) -> tuple[str, ...]:
    more = ((tools, "tools"), (images, "vision"), (bool(settings.think), "thinking"))
    return (first, *(name for wanted, name in more if wanted))


def _acquire(model: str, settings: Settings, needs: tuple[str, ...], verb: Verb) -> Acquire:
    return Acquire(
        model=model, options=dict(settings.options), keep_alive=settings.keep_alive, needs=needs, verb=verb
    )


def _generate_acquire(request: GenerateRequest) -> Acquire:
    if request.raw and (request.template or request.system):
        raise BadRequest("raw mode does not support template or system")
    needs = _needs("completion", request.settings, tools=False, images=bool(request.images))
    if request.suffix:
        needs = (*needs, "insert")
    return _acquire(request.model, request.settings, needs, "generate")


def _chat_call(request: ChatRequest, grant: Grant) -> Generate:
    facts = grant.facts
    messages = (*facts.messages, *request.messages)
    if facts.system and request.messages[0].role != "system":
        messages = (Message(role="system", content=facts.system), *messages)
    if _forgets_thoughts(facts):
        messages = without_old_thoughts(messages)
    return _common(
        request.settings, grant, messages=messages, tools=request.tools, tool_choice=request.tool_choice
    )


def _generate_call(request: GenerateRequest, grant: Grant) -> Generate:
    if request.raw:
        return _common(
            request.settings,
            grant,
            prompt=request.prompt,
            raw=True,
            context=request.context,
            suffix=request.suffix,
            images=request.images,
        )
    return _common(
        request.settings,
        grant,
        prompt=request.prompt,
        suffix=request.suffix,
        system=request.system or grant.facts.system,
        messages=() if request.context else grant.facts.messages,
        template=request.template,
        context=request.context,
        return_context=True,
        images=request.images,
    )


def _common(settings: Settings, grant: Grant, **fields: Any) -> Generate:
    """With what chat and generate have in common; ``fields`` are those of `Generate`."""
    think = settings.think
    if think is None and "thinking" in grant.facts.capabilities:
        think = settings.effort or True
    return Generate(
        id=0,
        variant=grant.variant,
        think=think,
        max_thinking_tokens=settings.max_thinking_tokens,
        format=None if isinstance(settings.format, Grammar) else settings.format,
        grammar=settings.format if isinstance(settings.format, Grammar) else None,
        options=grant.options,
        truncate=settings.truncate,
        shift=settings.shift,
        logprobs=settings.logprobs or settings.top_logprobs > 0,
        top_logprobs=settings.top_logprobs,
        **fields,
    )


def _forgets_thoughts(facts: ModelFacts) -> bool:
    """Models whose templates would show them their old thoughts. Source: Ollama's ``filterThinkTags``."""
    name = facts.full_name.rpartition("/")[2].partition(":")[0]
    return facts.details.family == "qwen3" or name == "deepseek-r1"


def without_old_thoughts(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages without ``<think>…</think>`` in answers that precede the last question."""
    last = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
    return tuple(
        msgspec.structs.replace(message, content=_THOUGHTS.sub("", message.content, count=1))
        if index < last and message.role == "assistant"
        else message
        for index, message in enumerate(messages)
    )


def _told(error: RunnerLost | ShuttingDown, grant: Grant) -> RunnerLost | ShuttingDown:
    """In Ollama's words, which clients look for. The keeper's log has the signal and the last words."""
    if isinstance(error, ShuttingDown):
        return error
    return RunnerLost(
        f"running {grant.facts.name}: model runner has unexpectedly stopped, this may be due to resource "
        "limitations or an internal error, check the server's log for details",
        hint="the next request loads the model again",
    )


def _done(end: End, grant: Grant, total_ns: int) -> Done:
    return Done(
        reason=end.reason,
        usage=end.usage,
        total_duration_ns=total_ns,
        load_duration_ns=grant.load_duration_ns,
        context=end.context,
        stop_sequence=end.stop_sequence,
    )
