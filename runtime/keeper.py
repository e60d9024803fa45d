"""The keeper: owns which model is loaded, and hands out grants to use it.

    keeper.acquire(Acquire(model="llama3.2", options={"num_ctx": 8192}))   ->  Grant(socket_path, facts,
    options, …)

Synchronous and thread-safe: a call waits for the load in its own thread. It imports nothing of llama.cpp;
each model is in a process of its own (`runner_process`). Which of them live is decided in `runner_pool`.
"""

from __future__ import annotations

import time
from pathlib import Path

from ..modelfile.errors import LadingError
from ..oci.reference import Reference
from ..oci.store import Store
from .device_probe import DeviceProbe
from .errors import Pinned, Unsupported
from .grant import Acquire, Grant, LoadedModel
from .load_plan import LoadPlan
from .mount import MountedModel, Mounter
from .options import context_of, resolve_options
from .protocol import VariantUse
from .runner_pool import Caller, RunnerPool
from .runner_slot import Served, Slot, SlotState
from .settings import RuntimeSettings
from .socket_dir import SocketDir


class Keeper:
    """One for each server, or for each embedded runtime. `close` it: its runners stop with it, or with its
    process."""

    def __init__(self, store_root: Path, settings: RuntimeSettings) -> None:
        """Starts a thread, loads nothing.

        Raises: NotAStore, StoreFailure; BadRuntimeDir; BadReference for a pinned name that is none.
        """
        self._settings = settings
        self._pinned = frozenset(str(self.parse_name(name)) for name in settings.pinned)
        store = Store.open(store_root)
        self._mounter = Mounter(
            store,
            template=None if settings.template == "auto" else settings.template,
            signatures=settings.signatures,
        )
        self._sockets = SocketDir.open(settings.runtime_dir)
        self._probe = DeviceProbe(dict(settings.environment))
        self._pool = RunnerPool(settings, self._sockets)

    def acquire(self, request: Acquire, caller: Caller | None = None) -> Grant:
        """A runner of the model, loaded unless it is, and kept for a moment; waits for it. ``caller`` is who
        waits: see `leave`.

        Raises: what `Mounter.mount` raises where there is no such sound model; BadParameter; Unsupported
        where it
            cannot do what is needed; what `RunnerPool.acquire` raises where it cannot be loaded.
        """
        started = time.monotonic_ns()
        model = self._mounter.mount(self.parse_name(request.model))
        _require_capabilities(request, model)
        options = resolve_options(model.params, request.options)
        plan = LoadPlan(
            facts=model.facts,
            files=model.files,
            options=options,
            settings=self._settings,
            pinned=model.facts.full_name in self._pinned,
            devices=self._probe.devices(),
        )
        if request.lost:
            self._pool.wait_gone(plan.key, request.lost)
        slot, variant = self._pool.acquire(
            plan, keep_alive_s=request.keep_alive, expects_request=request.verb != "load", caller=caller
        )
        return Grant(
            socket_path=slot.process.spec.socket_path,
            variant=variant,
            facts=model.facts,
            options=options,
            n_ctx=context_of(options, slot.ready.n_ctx) if slot.ready else plan.n_ctx,
            load_duration_ns=time.monotonic_ns() - started,
        )

    def leave(self, caller: Caller) -> None:
        """The caller of an `acquire` has gone. What only it waited for is not loaded any further; its
        `acquire` raises `CallerLeft`."""
        self._pool.leave(caller)

    def unload(self, model: str) -> bool:
        """Stop the model once its running requests have ended; False where it was not loaded. Does not wait.

        Others that its runner serves stay.

        Raises: BadReference; Pinned.
        """
        reference = self.parse_name(model)
        loaded = [model for slot in self._pool.slots() for model in list(slot.models.values())]
        names = [one.plan.facts.full_name for one in loaded]
        found = [name for name in names if name == str(reference)]
        if not found:
            try:
                digest = str(self._mounter.mount(reference).digest)
            except LadingError:  # it is gone from the store, and nothing of that name is loaded
                return False
            found = [one.plan.facts.full_name for one in loaded if one.variant == digest]
        try:
            stopped = [self._pool.unload(name) for name in found]
        except Pinned:
            raise Pinned(reference.display) from None  # the name that it was asked for by
        return True in stopped

    def loaded(self) -> list[LoadedModel]:
        """What is loaded or being loaded, the last to expire first."""
        now, wall = time.monotonic(), time.time()
        models = [
            self._describe(slot, model, now, wall)
            for slot in self._pool.slots()
            for model in list(slot.models.values())
        ]
        return sorted(models, key=lambda model: (-(model.expires_at or float("inf")), model.name))

    def runner_ends(self) -> dict[str, int]:
        """See `RunnerPool.ends`."""
        return self._pool.ends()

    def close(self) -> None:
        """Stop every runner; returns within seconds, and nothing is left behind. Repeating it is harmless."""
        self._pool.close()
        self._sockets.close()

    def parse_name(self, text: str) -> Reference:
        """The model meant by a name, by the configured defaults. Raises: BadReference."""
        return Reference.parse(
            text,
            default_registry=self._settings.default_registry,
            default_namespace=self._settings.default_namespace,
        )

    def _describe(self, slot: Slot, model: Served, now: float, wall: float) -> LoadedModel:
        facts, ready = model.plan.facts, slot.ready
        variant = slot.variants.get(model.variant)
        use = (variant.use if variant else None) or VariantUse()
        memory = dict(ready.memory) if ready else {}
        if adapters := slot.adapters_size():
            memory["adapters"] = adapters
        size = sum(memory.values()) if ready and ready.memory else slot.need.model
        size_vram = sum(ready.memory_gpu.values()) if ready else 0
        expires = slot.expires_at(model, now)
        leaving = model.leaving or slot.state in (SlotState.DRAINING, SlotState.STOPPING)
        loading = slot.state is SlotState.LOADING or (variant is not None and not variant.is_ready)
        return LoadedModel(
            name=facts.name,
            full_name=facts.full_name,
            digest=facts.digest,
            details=facts.details,
            size=size,
            size_vram=size_vram,
            processor=processor_text(size, size_vram),
            context_length=min(model.plan.n_ctx, ready.n_ctx) if ready else model.plan.n_ctx,
            parallel=slot.n_parallel,
            expires_at=wall if leaving else None if expires == float("inf") else wall + expires - now,
            state="loading" if loading else "stopping" if leaving else "ready",
            running=use.running,
            queued=use.queued,
            requests=use.requests,
            pid=slot.process.pid,
            memory=memory if ready else {},
            pinned=model.pinned,
        )


def processor_text(size: int, size_vram: int) -> str:
    """Where a model is, in `ps`'s words. Source: Ollama's cmd.go."""
    if size_vram <= 0 or size <= 0:
        return "100% CPU"
    if size_vram >= size:
        return "100% GPU"
    cpu = round((size - size_vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def _require_capabilities(request: Acquire, model: MountedModel) -> None:
    """Raises: Unsupported, in Ollama's words, which clients look for."""
    facts = model.facts
    missing = [need for need in request.needs if need not in facts.capabilities]
    if not missing:
        return
    hint = f"it can do: {', '.join(facts.capabilities)}"
    if "completion" in missing:
        raise Unsupported(f'"{request.model}" does not support {request.verb}', hint=hint)
    if "embedding" in missing:
        raise Unsupported(f'"{request.model}" does not support embeddings', hint=hint)
    if "thinking" in missing:
        raise Unsupported(f'"{request.model}" does not support thinking', hint=hint)
    raise Unsupported("\n".join(f"{facts.full_name} does not support {need}" for need in missing), hint=hint)
