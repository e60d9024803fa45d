"""Which runners live: loading, sharing, expiring and evicting them.

A runner serves every model of its weights, each by a variant that it is given while it runs. A model expires
by itself; the runner goes with the last one.

    (none) --acquire--> LOADING --ready--> READY --unload, expiry, eviction, other options--> DRAINING
                           |                 |                                                  | idle
                   refused, forsaken       crash                                             STOPPING
                           v                 v                                                  v
                         (none) <----------(none) <-------------------------------------------(none)

Rules for editing this file:

* `_lock` guards everything; nothing that blocks happens under it: no socket, no process, no join.
* A slot is in `_slots` exactly as long as its process may exist, so its memory is counted until it is free.
* A variant that was dropped is never named again: what comes back has another id.
* A load that nobody waits for any more is given up: `Slot.waiting` counts who does.
* Whether a runner is busy is known from the runner alone (`RunnerStatus`), asked about once a second. Grants
  are counted only to bridge the moment between a grant and the request that follows it.
* All times are of the monotonic clock.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import structs

from ..modelfile.errors import LadingError
from .errors import (
    CallerLeft,
    DoesNotFit,
    ModelRefused,
    NoPlace,
    OutOfMemory,
    Pinned,
    Quarantined,
    QueueFull,
    RunnerLost,
    ShuttingDown,
)
from .estimate import require_fit
from .load_plan import LoadPlan
from .memory import process_memory, read_machine_memory
from .prefix_folders import PrefixFolders
from .runner_process import RunnerProcess, StatusProbe
from .runner_slot import Slot, SlotState, VariantSlot
from .settings import RuntimeSettings
from .size_text import size_text
from .socket_dir import SocketDir

POLL_S = 1.0
_FAST_POLL_S = 0.1
_FRESH_S = 0.5
"""How old what is known of a runner may be when one is chosen to make room."""
_PASSING_S = 1.0
"""How long the end of a runner may stay unnoticed here after its callers have noticed."""
_PROBE_TIMEOUT_S = 2.0
_CRASHES = 3
_CRASH_WINDOW_S = 60.0
_QUARANTINE_S = 60.0

log = logging.getLogger("lading.keeper")


class Caller:
    """Who waits for a runner. One who has `left` (see `RunnerPool.leave`) is waited for no longer."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False


@dataclass(frozen=True, slots=True)
class _Crash:
    at: float
    how: str


class RunnerPool:
    """All runners of one keeper. Thread-safe. `close` it."""

    def __init__(self, settings: RuntimeSettings, sockets: SocketDir) -> None:
        self._settings = settings
        self._sockets = sockets
        self._prefixes = PrefixFolders(settings)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # callers wait here for a slot to change
        self._hurry = threading.Condition(self._lock)  # the monitor waits here for its next look
        self._slots: dict[str, Slot] = {}
        self._crashes: dict[str, deque[_Crash]] = {}
        self._hung: set[RunnerProcess] = set()
        self._ends: Counter[str] = Counter()
        self._line: list[Caller] = []  # who wants to load something: first come, first served
        self._pinned: dict[str, dict[str, LoadPlan]] = {}  # by key and full name: they come with every runner
        self._serial = itertools.count(1)
        self._waiting = 0
        self._look_now = False
        self._closed = False
        self._monitor = threading.Thread(target=self._watch, name="keeper-monitor", daemon=True)
        self._monitor.start()

    # For callers

    def acquire(
        self,
        plan: LoadPlan,
        *,
        keep_alive_s: float | None,
        expects_request: bool = True,
        caller: Caller | None = None,
    ) -> tuple[Slot, str]:
        """A slot that is READY, and kept for a grace where a request is to follow, and the id of the variant
        to ask for; loads, waits and makes room as needed.

        Raises: DoesNotFit, NoPlace, before anything was loaded or unloaded; Quarantined; QueueFull;
            LoadTimedOut; ShuttingDown; RunnerLost where the runner died while loading; else what the runner
            refused it for; CallerLeft: a load that only this caller had waited for is given up.
        """
        caller = caller or Caller()
        with self._queued(), self._lock:
            while True:
                slot = self._slot_for(plan, keep_alive_s, caller)
                self._wait_for_load(slot, caller)
                if slot.failure is not None:
                    raise copy.copy(slot.failure)
                if slot.state not in (SlotState.READY, SlotState.DRAINING):
                    continue
                variant = self._variant_for(slot, plan, caller)
                if variant is not None:  # whoever waited for it gets it
                    self._grant(slot, variant, plan, keep_alive_s, expects_request)
                    return slot, variant.id

    def leave(self, caller: Caller) -> None:
        """Nobody waits for the outcome of this caller's `acquire` any more."""
        with self._lock:
            caller.left = True
            self._changed.notify_all()

    def unload(self, full_name: str) -> bool:
        """Let the model go as soon as it is idle, and its runner if it serves no other; False where it is not
        loaded. Does not wait.

        Raises: Pinned.
        """
        with self._lock:
            slots = [slot for slot in self._slots.values() if slot.state is not SlotState.STOPPING]
            slot = next((slot for slot in slots if full_name in slot.models), None)
            if slot is None:
                return False
            model = slot.models[full_name]
            if model.pinned:
                raise Pinned(model.plan.name)
            if slot.state is SlotState.LOADING:
                model.keep_alive_s = 0.0  # whoever waits for it still gets it
            else:
                model.leaving = True
                if all(other.leaving for other in slot.models.values()):
                    slot.state = SlotState.DRAINING
            self._hurry.notify_all()
            return True

    def wait_gone(self, key: str, socket_path: str) -> None:
        """Wait until the runner at ``socket_path``, of which a caller says that it died, is gone; a second at
        most, for it may be alive."""
        deadline = time.monotonic() + _PASSING_S
        with self._lock:
            while (slot := self._slots.get(key)) and slot.process.spec.socket_path == socket_path:
                left = deadline - time.monotonic()
                if left <= 0:
                    return
                self._changed.wait(left)

    def slots(self) -> list[Slot]:
        """All there are, in no order. The slots change as time goes by."""
        with self._lock:
            return list(self._slots.values())

    def close(self, timeout_s: float = 5.0) -> None:
        """Stop every runner, wait until they are gone, refuse everything from now on."""
        with self._lock:
            self._closed = True
            slots = list(self._slots.values())
            self._changed.notify_all()
            self._hurry.notify_all()
        for slot in slots:
            slot.process.stop()
        deadline = time.monotonic() + timeout_s
        for slot in slots:
            if not slot.process.join(max(deadline - time.monotonic(), 0.01)):
                slot.process.kill()
                slot.process.join(1.0)
        self._monitor.join(_PROBE_TIMEOUT_S + 1.0)

    # Acquiring

    @contextlib.contextmanager
    def _queued(self) -> Iterator[None]:
        with self._lock:
            if self._waiting >= self._settings.max_queue:
                raise QueueFull("server busy, please try again.  maximum pending requests exceeded")
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _slot_for(self, plan: LoadPlan, keep_alive_s: float | None, caller: Caller) -> Slot:
        """A slot that serves the plan, perhaps still loading; waits in line where there is no room."""
        try:
            while True:
                if self._closed:
                    raise ShuttingDown("the server is shutting down")
                if caller.left:
                    raise CallerLeft()
                slot = self._slots.get(plan.key)
                if slot is None:
                    self._refuse_quarantined(plan)
                    self._refuse_unfit(plan)
                    if caller not in self._line:
                        self._line.append(caller)
                    if self._line[0] is caller and (n_parallel := self._make_room(plan)):
                        return self._add(plan, n_parallel, keep_alive_s)
                elif slot.state in (SlotState.LOADING, SlotState.READY):
                    if slot.plan.serves(plan):
                        return slot
                    if slot.state is SlotState.READY:
                        slot.state = SlotState.DRAINING
                        self._hurry.notify_all()
                self._changed.wait(POLL_S)
        finally:
            if caller in self._line:
                self._line.remove(caller)
                self._changed.notify_all()

    def _wait_for_load(self, slot: Slot, caller: Caller) -> None:
        """Raises: CallerLeft, and gives the load up where nobody else waits for it."""
        slot.waiting += 1
        try:
            while slot.state is SlotState.LOADING and not caller.left:
                self._changed.wait()
        finally:
            slot.waiting -= 1
        if not caller.left:
            return
        if slot.state is SlotState.LOADING and not slot.waiting:
            slot.state = SlotState.STOPPING
            slot.process.stop()
            log.info("nobody waits for %s any more; its load is given up", slot.plan.name)
        raise CallerLeft()

    def _add(self, plan: LoadPlan, n_parallel: int, keep_alive_s: float | None) -> Slot:
        socket_path = str(self._sockets.new_socket())
        self._prefixes.trim()
        spec = plan.spec(
            n_parallel,
            socket_path=socket_path,
            parent_pid=os.getpid(),
            prefix_folder=self._prefixes.folder(plan),
            prefix_budget=self._prefixes.budget,
        )
        process = RunnerProcess(
            plan.name, spec, on_exit=self._exited, environment=dict(self._settings.environment)
        )
        slot = Slot(
            plan=plan,
            process=process,
            need=plan.estimate(n_parallel, gpu_used=self._gpu_used()),
            n_parallel=n_parallel,
            grace_s=self._settings.grant_grace_s,
            probe=StatusProbe(socket_path, timeout_s=_PROBE_TIMEOUT_S),
        )
        usual = self._settings.keep_alive_s
        slot.serve(plan, usual if keep_alive_s is None else keep_alive_s)
        if plan.pinned:
            self._pinned.setdefault(plan.key, {})[plan.facts.full_name] = plan
        for pinned in self._pinned.get(plan.key, {}).values():
            slot.serve(pinned, usual)
        process.start()
        self._slots[plan.key] = slot
        try:
            threading.Thread(target=self._load, args=(slot,), name=f"load-{plan.name}", daemon=True).start()
        except RuntimeError as error:
            slot.failure = OutOfMemory(f"loading {plan.name}: {error}")
            slot.state = SlotState.STOPPING
            process.stop()
        return slot

    def _load(self, slot: Slot) -> None:
        """Wait for the runner; the outcome is left in the slot. In a thread of its own: callers come and
        go."""
        started = time.monotonic()
        try:
            ready = slot.process.wait_ready(self._settings.load_timeout_s)
        except LadingError as error:
            slot.process.stop()
            with self._lock:
                slot.failure = error
                slot.state = SlotState.STOPPING
                self._changed.notify_all()
            log.warning("%s", error)
            return
        with self._lock:
            now = time.monotonic()
            slot.ready = ready
            slot.answered_at = slot.used_at = now
            if slot.state is SlotState.LOADING:
                slot.state = SlotState.READY
            self._changed.notify_all()
        log.info("loaded %s in %.2f s, %d at once", slot.plan.name, now - started, slot.n_parallel)
        if ready.no_drafts:
            log.warning("%s: nothing is drafted: %s", slot.plan.name, ready.no_drafts)

    # Variants

    def _variant_for(self, slot: Slot, plan: LoadPlan, caller: Caller) -> VariantSlot | None:
        """The variant that answers for the plan's model, added and waited for as needed; None where the
        runner has gone meanwhile.

        Raises: Quarantined, DoesNotFit, CallerLeft; what the runner refuses it for.
        """
        slot.waiting += 1
        try:
            while slot.state in (SlotState.READY, SlotState.DRAINING):
                if caller.left:
                    raise CallerLeft()
                variant = slot.variants.get(plan.facts.digest)
                if variant is None:
                    self._refuse_quarantined(plan)
                    if plan is slot.plan or self._make_room_for_adapters(slot, plan):
                        variant = self._add_variant(slot, plan)
                if variant is not None and variant.is_ready:
                    return variant
                self._changed.wait(POLL_S)
                if variant is not None and variant.failure is not None:
                    raise copy.copy(variant.failure)
            return None
        finally:
            slot.waiting -= 1

    def _add_variant(self, slot: Slot, plan: LoadPlan) -> VariantSlot:
        """Begin to add one. Raises: OutOfMemory."""
        short = plan.facts.digest.rpartition(":")[2][:12]
        variant = VariantSlot(plan=plan, id=f"{short}-{next(self._serial)}")
        thread = threading.Thread(
            target=self._tell_variant, args=(slot, variant), name=f"add-{plan.name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise OutOfMemory(f"loading {plan.name}: {error}") from error
        slot.variants[plan.facts.digest] = variant
        return variant

    def _tell_variant(self, slot: Slot, variant: VariantSlot) -> None:
        """Wait for the runner to have it; the outcome is left in the variant. In a thread of its own."""
        plan, failure = variant.plan, None
        try:
            wanted = structs.replace(plan.files.variant, id=variant.id)
            slot.process.add_variant(wanted, self._settings.load_timeout_s)
        except LadingError as error:
            if isinstance(error, ModelRefused):
                error.args = (f"loading {plan.name}: {error.message.removeprefix('loading an adapter: ')}",)
            log.warning("%s", error)
            failure = error
        with self._lock:
            variant.is_ready, variant.failure = failure is None, failure
            variant.granted_at = variant.used_at = time.monotonic()
            if failure is not None and not isinstance(failure, RunnerLost):  # what killed it stays to be seen
                self._forget_variant(slot, variant)
            self._changed.notify_all()
            self._hurry.notify_all()

    def _forget_variant(self, slot: Slot, variant: VariantSlot) -> None:
        """It is not in the runner; neither are its models, even those that were to stay."""
        digest = variant.plan.facts.digest
        if slot.variants.get(digest) is variant:
            del slot.variants[digest]
            for name, model in list(slot.models.items()):
                if model.variant == digest:
                    del slot.models[name]
                    self._pinned.get(slot.plan.key, {}).pop(name, None)

    def _make_room_for_adapters(self, slot: Slot, plan: LoadPlan) -> bool:
        """Whether there is room for them now; else somebody has been asked to go.

        Raises: DoesNotFit where nobody could go.
        """
        more = slot.adapters_size(plan) - slot.adapters_size()
        _, free = self._memory()
        if not more or more <= free:
            return True
        others = [other for other in self._slots.values() if other is not slot and not other.pinned]
        if not others:
            raise DoesNotFit(
                plan.name,
                needed=more,
                available=max(free, 0),
                breakdown=f"adapters {size_text(more)}, beside the loaded weights",
                hint="stop models that are not needed, or use an adapter of a lower rank",
            )
        if not any(other.state in (SlotState.DRAINING, SlotState.STOPPING) for other in others):
            self._evict(others)
        return False

    def _grant(
        self,
        slot: Slot,
        variant: VariantSlot,
        plan: LoadPlan,
        keep_alive_s: float | None,
        expects_request: bool,
    ) -> None:
        now = time.monotonic()
        seen = slot.status.requests if slot.status else 0
        unused = now - slot.granted_at <= slot.grace_s  # else those that were granted will not come any more
        slot.expected = max(slot.expected if unused else 0, seen) + expects_request
        slot.granted_at = slot.used_at = now
        variant.grant(now, slot.grace_s, expects_request)
        model = slot.serve(plan, self._settings.keep_alive_s)
        if plan.pinned:
            self._pinned.setdefault(plan.key, {})[plan.facts.full_name] = plan
        if keep_alive_s is not None:
            model.keep_alive_s = keep_alive_s

    # Room

    def _refuse_unfit(self, plan: LoadPlan) -> None:
        """Raises: DoesNotFit where there is no room beside what is pinned, whoever else goes; NoPlace."""
        pinned = [slot for slot in self._slots.values() if slot.pinned]
        most = self._settings.max_loaded_models
        if most and len(pinned) >= most:
            models = [model for slot in pinned for model in slot.models.values() if model.pinned]
            raise NoPlace(plan.name, [model.plan.name for model in models])
        total = self._memory()[0] - sum(slot.committed for slot in pinned)
        alone = plan.parallel(total)
        require_fit(plan.name, plan.estimate(alone), plan.shape(alone), available=max(total, 0))

    def _make_room(self, plan: LoadPlan) -> int:
        """Sequences to load with where there is room now; 0 where the caller must wait for someone to go."""
        total, free = self._memory()
        alone = plan.parallel(total - sum(slot.committed for slot in self._slots.values() if slot.pinned))
        if plan.options.use_mmap:  # what is mapped already is counted there
            same = [s.shareable for s in self._slots.values() if s.plan.files.weights == plan.files.weights]
            free += max(same, default=0)
        others = list(self._slots.values())
        if not others:
            return alone  # what is free now is all there is
        most = self._settings.max_loaded_models
        if not most or len(others) < most:
            count, now = plan.parallel(free), time.monotonic()
            need = plan.estimate(count, gpu_used=self._gpu_used())
            # Fewer sequences, or layers on GPUs, than there could be: better than to stop a model at work.
            best = count * 2 >= alone and need.gpu >= plan.estimate(count).gpu
            if need.wanted <= free and (best or not any(slot.is_idle(now) for slot in others)):
                return count
        if not any(slot.state in (SlotState.DRAINING, SlotState.STOPPING) for slot in others):
            self._evict(others)
        return 0

    def _evict(self, slots: list[Slot]) -> None:
        """Let one go: the idle one with the shortest keep-alive, else the busy one, once it is idle."""
        now = time.monotonic()
        candidates = [slot for slot in slots if slot.state is SlotState.READY and not slot.pinned]
        if any(now - slot.asked_at > _FRESH_S for slot in candidates):
            self._look_now = True  # who is idle must be known as of now; the caller comes back
            self._hurry.notify_all()
            return
        candidates.sort(key=lambda slot: (not slot.is_idle(now), slot.keep_alive_s, slot.used_at))
        if candidates:
            candidates[0].state = SlotState.DRAINING
            log.info("making room: stopping %s", candidates[0].plan.name)
            self._hurry.notify_all()

    def _memory(self) -> tuple[int, int]:
        """Bytes that our runners could have in all, and what of it is not committed to any yet."""
        slots = list(self._slots.values())
        committed = sum(slot.committed - slot.shareable for slot in slots)
        shared: dict[tuple[str, ...], int] = {}  # the same file is mapped once
        for slot in slots:
            files = slot.plan.files.weights
            shared[files] = max(shared.get(files, 0), slot.shareable)
        committed += sum(shared.values())
        own = sum(process_memory(slot.process.pid) for slot in slots if slot.process.pid)
        total = read_machine_memory().available + own
        if self._settings.memory_budget:
            total = min(total, self._settings.memory_budget)
        return total, total - committed

    def _gpu_used(self) -> int:
        """Bytes of GPUs that our runners have or will have."""
        slots = self._slots.values()
        return sum(sum(s.ready.memory_gpu.values()) if s.ready else s.need.gpu for s in slots)

    # Crashes

    def _refuse_quarantined(self, plan: LoadPlan) -> None:
        for key in (plan.key, _variant_key(plan)):
            self._refuse_after_crashes(plan, key)

    def _refuse_after_crashes(self, plan: LoadPlan, key: str) -> None:
        crashes = self._crashes.get(key)
        if not crashes:
            return
        now = time.monotonic()
        left = crashes[-1].at + _QUARANTINE_S - now
        if left <= 0:
            crashes.clear()
        elif len(crashes) == _CRASHES and crashes[-1].at - crashes[0].at <= _CRASH_WINDOW_S:
            raise Quarantined(plan.name, _CRASHES, left, crashes[-1].how)

    def _exited(self, process: RunnerProcess) -> None:
        """Called by the process's own thread, once it is gone."""
        with self._lock:
            slot = next((slot for slot in self._slots.values() if slot.process is process), None)
            if slot is None:
                return
            del self._slots[slot.plan.key]
            self._ends[self._reason(process)] += 1
            if not (process.asked_to_stop or process.failure):
                log.error("%s", process.lost())
                # An adapter that kills a runner is not held against the others of the same weights.
                adding = [variant for variant in slot.variants.values() if not variant.is_ready]
                for variant in adding:
                    variant.failure = process.lost()
                for key in [_variant_key(variant.plan) for variant in adding] or [slot.plan.key]:
                    crashes = self._crashes.setdefault(key, deque(maxlen=_CRASHES))
                    crashes.append(_Crash(time.monotonic(), process.how_it_ended))
            if slot.state is SlotState.LOADING:
                slot.failure = process.failure or process.lost()
            slot.state = SlotState.STOPPING
            self._changed.notify_all()
        slot.probe.close()
        self._prefixes.trim()

    def _reason(self, process: RunnerProcess) -> str:
        if process in self._hung:
            self._hung.discard(process)
            return "unresponsive"
        if process.failure is not None:
            return "failed"
        return "stopped" if process.asked_to_stop else "crashed"

    def ends(self) -> dict[str, int]:
        """How many runners have ended, by reason: stopped (as was wanted), failed (to load), crashed,
        unresponsive."""
        with self._lock:
            return dict(self._ends)

    # The monitor

    def _watch(self) -> None:
        while True:
            with self._lock:
                self._hurry.wait(self._pause())
                if self._closed:
                    return
                self._look_now = False
                watched = [
                    s for s in self._slots.values() if s.state in (SlotState.READY, SlotState.DRAINING)
                ]
            for slot in watched:
                self._ask(slot)
            with self._lock:
                now = time.monotonic()
                gone = [slot for slot in watched if self._may_go(slot, now)]
                for slot in gone:
                    slot.state = SlotState.STOPPING
                dropped = [(slot, id_) for slot in watched for id_ in self._let_models_go(slot, now)]
                self._changed.notify_all()
            for slot, variant_id in dropped:
                slot.process.drop_variant(variant_id)
            for slot in gone:
                log.info("stopping %s", slot.plan.name)
                slot.process.stop()
            self._prefixes.tidy()

    def _pause(self) -> float:
        """Seconds until the next look: soon where somebody waits for a runner to go."""
        if self._look_now:
            return 0.0
        now = time.monotonic()
        soon = any(
            slot.state is SlotState.DRAINING
            or (
                slot.state is SlotState.READY
                and any(
                    model.leaving or slot.expires_at(model, now) - now < POLL_S
                    for model in slot.models.values()
                )
            )
            for slot in self._slots.values()
        )
        return _FAST_POLL_S if soon else POLL_S

    def _ask(self, slot: Slot) -> None:
        slot.asked_at = time.monotonic()
        try:
            status = slot.probe.ask()
        except RunnerLost:
            silent = time.monotonic() - slot.answered_at
            if silent > self._settings.hung_after_s:
                log.error("the runner of %s has not answered for %.0f s; killing it", slot.plan.name, silent)
                self._hung.add(slot.process)
                slot.process.kill()
            return
        with self._lock:
            slot.status = status
            slot.answered_at = time.monotonic()
            slot.used_at = max(slot.granted_at, slot.answered_at - status.idle_ns / 1e9)
            for variant in slot.variants.values():
                if use := status.variants.get(variant.id):
                    variant.use = use
                    variant.used_at = max(variant.granted_at, slot.answered_at - use.idle_ns / 1e9)

    def _may_go(self, slot: Slot, now: float) -> bool:
        if not slot.is_idle(now):
            return False
        return slot.state is SlotState.DRAINING or (
            slot.state is SlotState.READY
            and all(slot.may_leave(model, now) for model in slot.models.values())
        )

    def _let_models_go(self, slot: Slot, now: float) -> list[str]:
        """Forget the models that have expired, of a runner that others keep; the ids of variants that nobody
        has any more."""
        if slot.state is not SlotState.READY:
            return []
        going = [name for name, model in slot.models.items() if slot.may_leave(model, now)]
        if len(going) == len(slot.models):
            return []  # they go with their runner, once it is idle
        for name in going:
            log.info("letting %s go", slot.models.pop(name).plan.name)
        needed = {model.variant for model in slot.models.values()}
        dropped = {
            digest: variant
            for digest, variant in slot.variants.items()
            if digest not in needed and variant.is_ready and variant.is_idle(now, slot.grace_s)
        }
        for digest in dropped:
            del slot.variants[digest]
        return [variant.id for variant in dropped.values()]


def _variant_key(plan: LoadPlan) -> str:
    return f"{plan.key} {plan.facts.digest}"
