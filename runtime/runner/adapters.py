"""LoRA adapters in a runner: sets of them, which one is applied, and who is evaluated together for that.

llama.cpp applies adapters to a context and not to a sequence, so what is evaluated in one go has one set. A
change of sets costs a preparation of llama.cpp's graphs (see docs/engine.md), so there are as few as
possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..errors import RunnerFault


@dataclass(frozen=True, slots=True)
class AdapterSet:
    """Adapters that are applied together. Two sets are the same if their keys are."""

    key: str = ""
    """Digests and scales; "": no adapters."""
    parts: tuple[tuple[Any, float], ...] = field(default=(), compare=False, repr=False)
    """llama.cpp's pointer to each (`llama.Adapter`), and its scale."""


NO_ADAPTERS = AdapterSet()


class AdapterContext(Protocol):
    """The part of `llama_context.LlamaContext` that is needed here; its docstrings hold."""

    def use_adapters(self, adapters: Sequence[tuple[Any, float]]) -> bool: ...


class HasAdapters(Protocol):
    adapters: AdapterSet


class AppliedAdapters:
    """Which set a context has. Belongs to the thread of the context."""

    def __init__(self, context: AdapterContext) -> None:
        self._context = context
        self.current = NO_ADAPTERS

    def use(self, adapters: AdapterSet) -> None:
        """Apply the set, unless it is. Raises: RunnerFault: llama.cpp does not."""
        if adapters == self.current:
            return
        if not self._context.use_adapters(adapters.parts):
            raise RunnerFault(f"applying adapters: llama.cpp refuses {len(adapters.parts)} of them")
        self.current = adapters


ShareT = TypeVar("ShareT", bound=tuple[HasAdapters, Any, int])


def passes(stages: Iterable[Sequence[ShareT]], applied: AdapterSet) -> list[tuple[AdapterSet, list[ShareT]]]:
    """What is evaluated in one go, in order: for each set the shares of each stage.

    Each set has its turn once, the one that is ``applied`` first: then it changes as seldom as can be, and
    each is now among the first and now among the last.
    """
    by_set: dict[AdapterSet, list[list[ShareT]]] = {applied: []}
    for stage in stages:
        here: dict[AdapterSet, list[ShareT]] = {}
        for share in stage:
            here.setdefault(share[0].adapters, []).append(share)
        for adapters, shares in here.items():
            by_set.setdefault(adapters, []).append(shares)
    return [(adapters, shares) for adapters, groups in by_set.items() for shares in groups]
