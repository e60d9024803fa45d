"""What a request handler, or ``lading run``, calls: a request in, a stream of events out.

`Inference` acquires a runner from the keeper, puts the model's own system prompt and messages before the
request's, and passes on what the runner says. It knows no HTTP dialect. Closing the iterator cancels the
generation.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from .grant import KeeperPort, LoadedModel
from .protocol import EndReason, Message, Text, Think, Thinking, ToolCall, Usage

NO_OPTIONS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What chat and generate have in common."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Unchecked, as the client sent them."""
    keep_alive: float | None = None
    """Seconds; see `keep_alive.parse_keep_alive`."""
    think: Think | None = None
    """None: think where the model can."""
    format: Literal["json"] | dict[str, Any] | None = None
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
    """One for each process that takes requests; keeps its connections to runners. Close it with `aclose`."""

    def __init__(self, keeper: KeeperPort) -> None:
        self._keeper = keeper

    def chat(self, request: ChatRequest) -> AsyncIterator[InferenceEvent]:
        """Events of the answer; errors before the first event mean that nothing was generated."""
        raise NotImplementedError

    def generate(self, request: GenerateRequest) -> AsyncIterator[InferenceEvent]:
        """As `chat`."""
        raise NotImplementedError

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
        """One vector for each of ``texts``."""
        raise NotImplementedError

    async def load(
        self, model: str, *, options: Mapping[str, Any] = NO_OPTIONS, keep_alive: float | None = None
    ) -> Loaded:
        """Load the model, generate nothing."""
        raise NotImplementedError

    async def unload(self, model: str) -> bool:
        """Stop the model as soon as it is idle; False where it was not loaded."""
        return await self._keeper.unload(model)

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """What is loaded, the last to expire first."""
        return await self._keeper.loaded()

    async def aclose(self) -> None:
        """Close the connections to runners; their generations are cancelled."""
        raise NotImplementedError
