"""What the keeper and its callers say to each other, as plain structs: they may cross a process boundary.

A **grant** is the right to use a runner now: where its socket is, and what the caller must know of the model.
It needs no release. It keeps the runner for a short grace; from then on the runner's own activity keeps it: a
caller that is killed leaves nothing behind.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from .options import Options
from .protocol import Message

Verb = Literal["chat", "generate", "embed", "load"]


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """The ``details`` object of Ollama's replies."""

    parent_model: str = ""
    format: str = "gguf"
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a caller needs to know of a model to put a request together."""

    name: str
    """As it is displayed: short where the defaults allow."""
    full_name: str
    digest: str
    """Of the manifest, ``sha256:…``."""
    details: Details
    capabilities: tuple[str, ...] = ()
    """Of completion, tools, insert, vision, embedding, thinking."""
    system: str = ""
    messages: tuple[Message, ...] = ()
    context_length: int = 0
    """What the model was trained for, tokens; 0: unknown."""


class Acquire(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Asks for a runner of ``model``."""

    model: str
    options: dict[str, Any] = {}
    """The request's own options, unchecked; the keeper lays them over the model's parameters."""
    keep_alive: float | None = None
    """Seconds, ``math.inf`` for ever; None: as it was, or as the settings say."""
    needs: tuple[str, ...] = ()
    """Capabilities without which the request is refused before anything is loaded."""
    lost: str = ""
    """A socket path at which the caller found its runner gone; the keeper may have yet to notice."""
    verb: Verb = "generate"
    """What it is for. After ``load``, no request is to be expected."""


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A runner is ready. Connect to ``socket_path`` soon: within `RuntimeSettings.grant_grace_s`."""

    socket_path: str
    """Never used twice: it names this runner and no later one."""
    variant: str
    """Which of the runner's variants is the model; to be named in every request."""
    facts: ModelFacts
    options: Options
    """Defaults, the model's parameters and the request's options, in this order."""
    n_ctx: int
    """Context of one sequence as loaded, tokens."""
    load_duration_ns: int
    """What this call waited for the load; a few microseconds where the model was there."""


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of ``ps``."""

    name: str
    full_name: str
    digest: str
    details: Details
    size: int
    """Bytes of memory that weights, KV cache and compute buffers take, as llama.cpp reports them. Models
    that one runner serves (`pid`) have all of it in common."""
    size_vram: int
    """The part of `size` that is on GPUs."""
    processor: str
    """``100% CPU``, ``100% GPU`` or ``41%/59% CPU/GPU``."""
    context_length: int
    parallel: int
    """Requests that it answers at once."""
    expires_at: float | None
    """Unix time, seconds; None: never. In the past while it is being stopped."""
    state: Literal["loading", "ready", "stopping"] = "ready"
    running: int = 0
    queued: int = 0
    requests: int = 0
    pid: int = 0
    memory: dict[str, int] = {}
    """Bytes by use: weights, kv, compute, output, adapters."""
    pinned: bool = False
    """It stays until the server stops."""


class KeeperPort(Protocol):
    """How a request reaches the keeper, wherever that runs.

    Raises, in every method: the errors of `keeper.Keeper`; ``ShuttingDown`` where it cannot be reached.
    """

    async def acquire(self, request: Acquire) -> Grant:
        """Load the model unless it is loaded, and wait for it."""
        ...

    async def unload(self, model: str) -> bool:
        """Stop the model as soon as it is idle; False where it was not loaded. Does not wait."""
        ...

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """What is loaded, the last to expire first."""
        ...
