"""The variants that a runner serves: templates and adapters beside one model's weights. Runner process only.

A variant comes and goes while others answer. Its adapters are read in the engine's thread, between two steps:
llama.cpp keeps a list of them with the model, which evaluating looks at. What the disk makes one wait for is
waited for before that, elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import BadTemplate, ModelRefused, ShuttingDown
from ..protocol import MAX_ADAPTERS, Variant, VariantUse
from .adapters import NO_ADAPTERS, AdapterSet, AppliedAdapters
from .llama import Adapter, LlamaModel, LoadError
from .llama_log import LlamaLog
from .loading import Loaded, template_facts
from .prepare import Preparer, TemplateFacts
from .renderer import Renderer
from .use import Use

_PIECE = 8 * 1024 * 1024

Alone = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
"""Does something while nothing is evaluated, in the thread that evaluates."""


@dataclass(frozen=True, slots=True)
class LiveVariant:
    """A variant that is ready."""

    preparer: Preparer
    adapters: AdapterSet
    use: Use
    names: tuple[str, ...] = ()
    """Of the adapters, as `AdapterShelf` has them."""


class AdapterShelf:
    """Adapters that are loaded, each once, however many variants have it. Belongs to the thread that
    evaluates."""

    def __init__(self, model: LlamaModel, applied: AppliedAdapters, log: LlamaLog) -> None:
        self._model = model
        self._applied = applied
        self._log = log
        self._loaded: dict[str, Adapter] = {}
        self._users: dict[str, int] = {}

    def take(self, names: Sequence[str], files: Sequence[int]) -> list[Adapter]:
        """The adapters of these names, loaded from the files, which are closed, unless they are. All or none.

        Raises: LoadError.
        """
        waiting = dict(zip(names, files, strict=True))
        try:
            for name in names:
                if name not in self._loaded:
                    self._loaded[name] = self._model.load_adapter(waiting.pop(name), self._log)
        except LoadError:
            self._free()
            raise
        finally:
            _close(waiting.values())
        for name in names:
            self._users[name] = self._users.get(name, 0) + 1
        return [self._loaded[name] for name in names]

    def release(self, names: Sequence[str]) -> None:
        """A variant with these is gone."""
        for name in names:
            self._users[name] -= 1
        self._free()

    def _free(self) -> None:
        unused = [name for name in self._loaded if not self._users.get(name)]
        if unused:
            self._applied.use(NO_ADAPTERS)  # they might be the ones that are applied
        for name in unused:
            self._model.free_adapter(self._loaded.pop(name))
            self._users.pop(name, None)


class Variants:
    """All of a runner. Used in its event loop alone."""

    def __init__(self, loaded: Loaded, applied: AppliedAdapters, alone: Alone) -> None:
        """``applied``: those of the context; ``alone``: as `Alone`."""
        self._model = loaded.model
        self._renderer: Renderer = loaded.renderer
        self._shelf = AdapterShelf(loaded.model, applied, loaded.log)
        self._alone = alone
        self._plain = LiveVariant(loaded.preparer, NO_ADAPTERS, Use())
        self._live: dict[str, LiveVariant] = {}
        self._leaving: list[LiveVariant] = []
        self._one_by_one = asyncio.Lock()
        self._tidying: set[asyncio.Task[None]] = set()

    def find(self, name: str) -> LiveVariant:
        """Raises: ShuttingDown where it was dropped: the keeper knows what to do for those that ask again."""
        variant = self._live.get(name) if name else self._plain
        if variant is None:
            raise ShuttingDown("the model is being unloaded")
        return variant

    async def add(self, variant: Variant, files: Sequence[int]) -> None:
        """Make a variant ready. ``files`` are descriptors of its adapters; they are closed.

        Raises: ModelRefused where llama.cpp does not take an adapter; nothing has changed then.
        """
        names = tuple(adapter.digest or adapter.path for adapter in variant.adapters)
        if len(set(names)) != len(names) or len(files) != len(names) or len(files) > MAX_ADAPTERS:
            _close(files)
            raise ModelRefused(
                f"loading adapters: expected at most {MAX_ADAPTERS}, none of them twice, got {len(names)}"
            )
        async with self._one_by_one:
            template = await self._template(variant)
            adapters = await self._adapters(variant, names, files)
            preparer = self._plain.preparer.with_template(template)
            self._live[variant.id] = LiveVariant(preparer, adapters, Use(), names)

    def drop(self, name: str) -> None:
        """Take no more requests for a variant; its adapters go once those under way have ended."""
        if variant := self._live.pop(name, None):
            self._leaving.append(variant)
        self.tidy()

    def tidy(self) -> None:
        """Begin to free what was dropped and is not in use any more; to be called now and then."""
        for variant in [variant for variant in self._leaving if not variant.use.unfinished]:
            self._leaving.remove(variant)
            if variant.names:
                errand = partial(self._shelf.release, variant.names)
                task = asyncio.ensure_future(self._alone(errand))
                self._tidying.add(task)
                task.add_done_callback(self._tidying.discard)

    def uses(self) -> dict[str, VariantUse]:
        return {name: variant.use.told() for name, variant in self._live.items()}

    async def _template(self, variant: Variant) -> TemplateFacts:
        facts = template_facts(self._model, go=variant.template_go, jinja=variant.template_jinja)
        for other in (self._plain, *self._live.values()):
            known = other.preparer.template
            if (known.kind, known.for_chats) == (facts.kind, facts.for_chats):
                return known
        try:
            return replace(facts, traits=await self._renderer.traits(facts.language, facts.for_chats))
        except BadTemplate:
            return facts  # raw prompts work all the same; a chat is answered with the reason

    async def _adapters(self, variant: Variant, names: tuple[str, ...], files: Sequence[int]) -> AdapterSet:
        if not names:
            return NO_ADAPTERS
        await asyncio.to_thread(_warm, files)
        found: list[Adapter] = []
        try:
            await self._alone(lambda: found.extend(self._shelf.take(names, files)))
        except LoadError as error:
            raise ModelRefused(error.message) from error
        scales = [adapter.scale for adapter in variant.adapters]
        key = " ".join(f"{name}*{scale:g}" for name, scale in zip(names, scales, strict=True))
        return AdapterSet(key, tuple(zip(found, scales, strict=True)))


def _warm(files: Sequence[int]) -> None:
    """Have the system read the files into memory, where they stay for a moment."""
    for fd in files:
        at = 0
        with contextlib.suppress(OSError):
            while count := len(os.pread(fd, _PIECE, at)):
                at += count


def _close(files: Iterable[int]) -> None:
    for fd in files:
        with contextlib.suppress(OSError):
            os.close(fd)
