"""What the keeper knows of one runner: the models that it serves, and the variants that it has for them.

Plain records; who may write to them, and when, is told in `runner_pool`. All times are of the monotonic
clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from ..modelfile.errors import LadingError
from .estimate import MemoryEstimate
from .load_plan import LoadPlan
from .protocol import Ready, RunnerStatus, VariantUse
from .runner_process import RunnerProcess, StatusProbe

SETTLE_S = 0.25
"""How long a grant keeps a runner even if its request seems to have come: another's may have been counted."""


class SlotState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"


@dataclass(slots=True, kw_only=True, eq=False)
class Served:
    """One model, by its name, that a runner serves: a line of `ps`."""

    plan: LoadPlan
    keep_alive_s: float
    pinned: bool = False
    """It stays until the pool closes, whatever requests say and others need."""
    leaving: bool = False
    """It goes as soon as it is idle, unless it is asked for before."""

    @property
    def variant(self) -> str:
        """Which of `Slot.variants` it is answered by."""
        return self.plan.facts.digest


@dataclass(slots=True, kw_only=True, eq=False)
class VariantSlot:
    """A variant in a runner: what all names of one model are answered by."""

    plan: LoadPlan
    id: str
    """What the runner knows it by."""
    is_ready: bool = False
    """Else it is being added."""
    failure: LadingError | None = None
    use: VariantUse | None = None
    expected: int = 0
    """`VariantUse.requests` once every grant has been used."""
    granted_at: float = 0.0
    used_at: float = 0.0

    def is_idle(self, now: float, grace_s: float) -> bool:
        """No request is running or waiting, and none is to be expected of a fresh grant."""
        if self.use is None or self.use.running or self.use.queued:
            return False
        grace = grace_s if self.use.requests < self.expected else SETTLE_S
        return now - self.granted_at > grace

    def grant(self, now: float, grace_s: float, expects_request: bool) -> None:
        seen = self.use.requests if self.use else 0
        unused = now - self.granted_at <= grace_s
        self.expected = max(self.expected if unused else 0, seen) + expects_request
        self.granted_at = self.used_at = now


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """One runner and what is known of it. Only the pool writes here, under its lock."""

    plan: LoadPlan
    """Of the model that it was loaded for."""
    process: RunnerProcess
    need: MemoryEstimate
    n_parallel: int
    grace_s: float
    """How long a grant keeps the runner without its request being seen."""
    probe: StatusProbe
    state: SlotState = SlotState.LOADING
    failure: LadingError | None = None
    ready: Ready | None = None
    status: RunnerStatus | None = None
    asked_at: float = 0.0
    answered_at: float = 0.0
    expected: int = 0
    """`RunnerStatus.requests` once every grant has been used."""
    granted_at: float = 0.0
    used_at: float = 0.0
    waiting: int = 0
    """Callers who wait for the load, or for a variant."""
    models: dict[str, Served] = field(default_factory=dict)
    """By full name."""
    variants: dict[str, VariantSlot] = field(default_factory=dict)
    """By the digest of the model."""

    @property
    def pinned(self) -> bool:
        return any(model.pinned for model in self.models.values())

    @property
    def keep_alive_s(self) -> float:
        return max((model.keep_alive_s for model in self.models.values()), default=0.0)

    @property
    def committed(self) -> int:
        """Bytes of main memory that it takes or will take: measured where it is loaded."""
        if self.ready is None or not self.ready.memory:
            return self.need.total
        on_gpu = sum(self.ready.memory_gpu.values())
        return max(sum(self.ready.memory.values()) - on_gpu, 0) + self.adapters_size() + self.need.process

    @property
    def shareable(self) -> int:
        """Bytes of `committed` that it has in common with other runners of the same file."""
        if self.ready is not None:
            return self.ready.memory_mapped
        return self.plan.files.weights_size if self.plan.options.use_mmap else 0

    def adapters_size(self, *more: LoadPlan) -> int:
        """Bytes of the adapters of all variants, and of ``more``; those that several have count once."""
        plans = (*(variant.plan for variant in self.variants.values()), *more)
        return sum({plan.files.variant.adapters: plan.files.adapters_size for plan in plans}.values())

    def is_idle(self, now: float) -> bool:
        """No request is running or waiting, and none is to be expected of a fresh grant."""
        if self.state is SlotState.LOADING or self.status is None or self.waiting:
            return False
        if self.status.running or self.status.queued:
            return False
        grace = self.grace_s if self.status.requests < self.expected else SETTLE_S
        return now - self.granted_at > grace

    def is_model_idle(self, model: Served, now: float) -> bool:
        """As `is_idle`, of one model."""
        variant = self.variants.get(model.variant)
        if variant is None:
            return self.state is not SlotState.LOADING and not self.waiting
        return variant.is_idle(now, self.grace_s)

    def expires_at(self, model: Served, now: float) -> float:
        """When a model may go; in the future as long as it is busy."""
        if model.pinned:
            return math.inf
        variant = self.variants.get(model.variant)
        used_at = variant.used_at if variant else self.used_at
        return (used_at if self.is_model_idle(model, now) else now) + model.keep_alive_s

    def may_leave(self, model: Served, now: float) -> bool:
        if model.pinned or not self.is_model_idle(model, now):
            return False
        return model.leaving or self.expires_at(model, now) <= now

    def serve(self, plan: LoadPlan, keep_alive_s: float) -> Served:
        """The record of a model, made unless it is there; ``keep_alive_s`` is for one that is new."""
        known = self.models.get(plan.facts.full_name)
        stays = known is not None and not known.leaving
        model = Served(
            plan=plan,
            keep_alive_s=known.keep_alive_s if known and stays else keep_alive_s,
            pinned=plan.pinned or (known is not None and known.pinned),
        )
        self.models[plan.facts.full_name] = model
        return model
