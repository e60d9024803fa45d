"""Continuous batching: one thread, one context, many generations at once. Runner process only.

Each step evaluates one batch: the last token of every generation that is under way, with those that its
format forces to follow, then as much of the waiting prompts as fits, first come, first served. A prompt
beside running streams is read in chunks, so that it delays each of their tokens by one chunk at most. New
generations and cancellations are looked at before every step.

Rules for editing this file:

* Only the engine's thread touches the context, slots, and generations that were submitted.
* A slot notes tokens as evaluated only after the decode that evaluated them has succeeded.
* Every generation ends in exactly one `End` or `Failed`.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ...modelfile.errors import LadingError
from ..errors import failure_code
from ..protocol import EndReason, Event, Failed, FailureCode, TokenLogprob
from .adapters import AppliedAdapters, passes
from .drafting import Draft, Drafter
from .generation import Generation
from .llama import LlamaVocab
from .llama_context import EmbeddingBatch, LlamaBatch, LlamaContext
from .sampler import Sampler
from .saved_prefixes import SavedPrefixes
from .slots import Slot, SlotTable, common_prefix

Delivery = tuple[object, Event]
"""Whom an event is for, and the event."""
Share = tuple[Generation, Slot, int]
"""Who evaluates how much, and where."""

logger = logging.getLogger(__name__)

_COPY_BYTES_PER_S = 3e9
_EMA = 0.2
_TILE = 64
"""From so many tokens on, and in multiples, llama.cpp's attention on processors is twice as fast for each."""
_MAX_STRETCH = 4
"""A chunk of one tile may take so many times `EngineSettings.stall_s`."""
_MIN_CHUNK = 32
"""Below this, evaluating a prompt takes longer for each token."""
_SAVE_AFTER_S = 0.5
"""Idle for so long, the engine saves prefixes."""
_LOOK_AHEAD = 16
"""How many of the queue may be overtaken by those behind them, to wait for a prompt that is being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    n_ctx: int
    """Context of one sequence, tokens; at most what the context was made for."""
    n_batch: int
    """Most tokens in one step; at least the number of slots."""
    stall_s: float = 0.2
    """How long reading a prompt may hold up a token of a running stream: what sets the size of a chunk."""
    max_queue: int = 512
    slot_bytes: int = 0
    """Memory of one slot: what a copy between slots has to move."""


@dataclass(slots=True)
class EngineCounters:
    """Written by the engine's thread, read by any."""

    running: int = 0
    queued: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    eval_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    steps: int = 0
    """Batches evaluated."""
    idle_since_ns: int = 0


class _Cancelled:
    """A command: cancel what ``owner`` asked for, all of it where ``request_id`` is None."""

    __slots__ = ("owner", "request_id")

    def __init__(self, owner: object, request_id: int | None) -> None:
        self.owner = owner
        self.request_id = request_id

    def matches(self, generation: Generation) -> bool:
        return generation.owner is self.owner and self.request_id in (None, generation.request_id)


class _Stop:
    """A command: leave `Engine.run`."""


_T = TypeVar("_T")
_Errand = Callable[[], None]
"""A command: do this before the next step."""


class Engine:
    """Run `run` in a thread of its own; the other public methods may be called from any thread.

    ``deliver`` is called in the engine's thread, once a step at most, with the events of that step in order.
    """

    def __init__(
        self,
        context: LlamaContext,
        vocab: LlamaVocab,
        settings: EngineSettings,
        deliver: Callable[[list[Delivery]], None],
        *,
        sliding_window: int = 0,
        saved: SavedPrefixes | None = None,
        drafter: Drafter | None = None,
    ) -> None:
        self.counters = EngineCounters(idle_since_ns=time.monotonic_ns())
        self._context = context
        self._vocab = vocab
        self._settings = settings
        self._deliver = deliver
        self._saved = saved
        self._drafter = drafter
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._commands: queue.SimpleQueue[Generation | _Cancelled | _Errand | _Stop] = queue.SimpleQueue()
        self._queue: deque[Generation] = deque()
        self._running: list[Generation] = []  # in order of admission
        self._slots = SlotTable(context, context.n_seq, settings.n_ctx, sliding_window)
        self.adapters = AppliedAdapters(context)
        """Only for errands (see `between_steps`)."""
        self._batch = LlamaBatch(settings.n_batch)
        self._outbox: list[Delivery] = []
        self._token_s = 0.0  # seconds to evaluate one prompt token, smoothed
        self._can_shift = context.can_shift
        self._stopping = False

    # From any thread

    @property
    def is_full(self) -> bool:
        """Whether one more generation would exceed the queue. Approximate: the queue moves while one
        looks."""
        return self.counters.queued >= self._settings.max_queue

    def submit(self, generation: Generation) -> None:
        self.counters.queued += 1
        self._commands.put(generation)

    def cancel(self, owner: object, request_id: int | None = None) -> None:
        """Takes effect before the next step; without ``request_id``, for all that ``owner`` asked for."""
        self._commands.put(_Cancelled(owner, request_id))

    def between_steps(self, errand: Callable[[], _T]) -> Future[_T]:
        """Do ``errand`` in the engine's thread, before the next step, which waits for it."""
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(errand())
            except Exception as error:
                future.set_exception(error)

        self._commands.put(run)
        return future

    def stop(self) -> None:
        """Fail what is unfinished and leave `run`, after the step under way."""
        self._commands.put(_Stop())

    # The engine's thread

    def run(self) -> None:
        """Serve until `stop`. An exception out of here means that the runner cannot go on."""
        while not self._stopping:
            self._obey()
            self._admit()
            if self._running:
                self._step()
            self._flush()
        for generation in (*self._running, *self._queue):
            self._fail(generation, "shutting_down", "the model is being unloaded")
        self._flush()
        while self._save_a_prefix():
            pass

    def _obey(self) -> None:
        """Take all commands; wait for one when there is nothing else to do."""
        idle = not self._running and not self._queue
        unsaved = idle and self._saved is not None
        while True:
            try:
                command = self._commands.get(block=idle, timeout=_SAVE_AFTER_S if unsaved else None)
            except queue.Empty:
                if not idle:
                    return
                unsaved = self._save_a_prefix()
                continue
            idle = False
            if isinstance(command, Generation):
                self._queue.append(command)
                self.counters.requests += 1
                self.counters.idle_since_ns = 0
            elif isinstance(command, _Cancelled):
                for generation in [g for g in (*self._running, *self._queue) if command.matches(g)]:
                    self._finish(generation, "cancelled")
            elif callable(command):
                command()
            else:
                self._stopping = True
                return

    def _admit(self) -> None:
        """Give free slots to the queue, first come, first served."""
        while self._queue and self._slots.has_free:
            generation = self._next_in_queue()
            if generation is None:
                break
            self._queue.remove(generation)
            self._restore(generation)
            slot = self._slots.take(generation.prompt, generation.scope)
            self._running.append(generation)
            self._post(generation, generation.start(slot))
            self.counters.prompt_tokens += len(generation.prompt)
            self.counters.cached_tokens += generation.cached
            n_ctx = generation.context(self._settings.n_ctx)
            sampler = Sampler(generation.options, self._vocab, n_ctx)
            sampler.accept(generation.prompt[generation.prompt >= 0].tolist())
            generation.sampler = sampler
        self._count()

    def _next_in_queue(self) -> Generation | None:
        """The first that has nothing to gain by waiting until a running prompt that begins like its own is
        read."""
        reading = [other for other in self._running if not other.is_decoding]
        for generation in islice(self._queue, _LOOK_AHEAD):
            if not reading:
                return generation
            known = self._slots.best_match(generation.prompt, generation.scope)
            alike = [other for other in reading if other.scope == generation.scope]
            coming = max((common_prefix(other.prompt, generation.prompt) for other in alike), default=0)
            if coming - known <= self._slots.copy_cost_tokens:
                return generation
        return None

    # Prefixes on disk

    def _save_a_prefix(self) -> bool:
        """Whether there was one to save."""
        if self._saved is None:
            return False
        slot = next((slot for slot in self._slots.slots if self._saved.wants(slot)), None)
        return slot is not None and self._saved.save(slot)

    def _restore(self, generation: Generation) -> None:
        """Bring a saved prefix of the prompt into a free slot, where that is cheaper than evaluating it."""
        if self._saved is None:
            return
        saved, shared = self._saved.best(generation.prompt, generation.scope)
        if saved is None:
            return
        gain = shared - self._slots.best_match(generation.prompt, generation.scope)
        price = saved.restore_s / self._token_s if self._token_s else 0.0
        if gain > max(price, self._slots.copy_cost_tokens):
            slot = self._slots.least_recently_used()
            if not self._saved.restore(saved, slot, generation.scope):
                self._slots.forget(slot)

    # One step

    def _step(self) -> None:
        plan, image = self._plan()
        if image is not None:  # first, so that nothing stands between an output and the choice of a token
            self._read_image(*image)
        answering = [share for share in plan if share[0].is_decoding]
        reading = [share for share in plan if not share[0].is_decoding]
        # One after the other: together llama.cpp evaluates the first token of each prompt among the answers,
        # and the rest of it in a second pass; apart, both have sizes that suit its kernels.
        for adapters, shares in passes((answering, reading), self.adapters.current):
            self.adapters.use(adapters)
            if shares[0][0].is_decoding:
                self._answer(shares)
            else:
                self._evaluate(shares, {})
            self._flush()

    def _answer(self, plan: list[Share]) -> None:
        """One batch of answers' tokens, with those that are drafted behind them."""
        if self._drafter is None:
            self._evaluate(plan, {})
            return
        seconds = self._evaluate(plan, self._drafter.drafts(plan))
        if seconds:
            self._drafter.learn(seconds)

    def _evaluate(self, plan: list[Share], drafts: Mapping[Generation, Draft]) -> float:
        """One batch of tokens. Returns the seconds that llama.cpp took; 0: it failed."""
        self._batch.clear()
        ends: list[tuple[Generation, int]] = []
        # llama.cpp puts neighbouring sequences into one pass, so the batch is in order of sequences.
        for generation, slot, count in sorted(plan, key=lambda entry: entry[1].seq):
            tokens = generation.pending[:count]
            complete = count == len(generation.pending)
            index = self._batch.add(slot.seq, tokens, slot.end, want_last=complete)
            if complete:
                ends.append((generation, index))
            if draft := drafts.get(generation):
                self._batch.add(slot.seq, draft.tokens, slot.end + count, want_last=True, want_all=True)
        started = time.perf_counter()
        code = self._context.decode(self._batch)
        if code != 0:
            self._decode_failed(code, self._batch.size, [generation for generation, _, _ in plan])
            return 0.0
        self._context.wait()
        seconds = time.perf_counter() - started
        self.counters.steps += 1
        self._learn(len(plan) + sum(len(draft.tokens) for draft in drafts.values()), seconds)
        for generation, slot, count in plan:
            slot.append(generation.take_pending(count))
        for generation, index in ends:
            if draft := drafts.get(generation):
                self._check(generation, index, draft)
            else:
                self._go_on(generation, index)
        return seconds

    def _check(self, generation: Generation, index: int, draft: Draft) -> None:
        """Choose tokens as long as what is chosen is what was drafted: then its output is at the next index.
        The rest of the draft leaves no trace."""
        slot = generation.slot
        assert slot is not None
        right = 0
        self.counters.drafted_tokens += draft.guessed
        self._go_on(generation, index)
        while right < len(draft.tokens) and generation.slot and generation.pending[0] == draft.tokens[right]:
            slot.append(generation.take_pending(1))
            right += 1
            if right <= draft.guessed:
                generation.accepted += 1
                self.counters.accepted_tokens += 1
            if not len(generation.pending):
                self._go_on(generation, index + right)
        if right < len(draft.tokens):
            evaluated = slot.tokens[: slot.size].copy()
            if not self._slots.trim(slot) and generation.slot:  # all is evaluated again
                generation.pending = np.concatenate((evaluated, generation.pending))

    def _read_image(self, generation: Generation, slot: Slot, count: int) -> None:
        """One batch with the next ``count`` cells of a piece of an image."""
        placed = generation.next_image
        assert placed is not None
        piece = placed.piece
        cells = slice(slot.size - placed.start, slot.size - placed.start + count)
        start = slot.end if cells.start == 0 else int(slot.positions[placed.start])
        positions = piece.positions_from(start, cells)
        complete = count == len(generation.pending)
        self.adapters.use(generation.adapters)
        batch = EmbeddingBatch(slot.seq, piece.embeddings[cells], positions, want_last=complete)
        code = self._context.decode_image(batch, causal=piece.causal)
        if code != 0:
            self._decode_failed(code, count, [generation])
            return
        self.counters.steps += 1
        end = start + piece.span if cells.stop == len(piece) else int(positions[0, -1]) + 1
        slot.append_image(generation.take_pending(count), positions[0], end)
        if complete:
            self._go_on(generation, count - 1)

    def _go_on(self, generation: Generation, index: int) -> None:
        """All of the prompt, or the last token, is evaluated: its output is at ``index``."""
        try:
            self._choose(generation, index)
        except LadingError as error:  # its format cannot be followed any further
            self._fail(generation, failure_code(error), error.message)

    def _plan(self) -> tuple[list[Share], Share | None]:
        """Who evaluates how many tokens in this step, and whose image is read, and how much of it."""
        plan: list[Share] = []
        image: Share | None = None
        prompts: list[Generation] = []
        for generation in list(self._running):
            assert generation.slot is not None
            if not generation.is_decoding:
                prompts.append(generation)
            elif room := self._room(generation):
                plan.append((generation, generation.slot, min(room, len(generation.pending))))
        self._share_batch(plan)
        room, spare = self._settings.n_batch, 0
        if plan:
            room = min(room, self._chunk(len(plan), len(prompts)))
            spare = min(_TILE // 2, self._settings.n_batch - room)
        for generation in prompts:
            if room <= 0:
                break
            assert generation.slot is not None
            placed = generation.next_image
            if placed is None:
                ahead = generation.tokens_ahead
                count = ahead if ahead <= room + spare else room  # a small rest costs a pass of its own
                plan.append((generation, generation.slot, count))
            elif image is None:  # one at a time: llama.cpp takes no batch of several kinds
                count = (
                    min(room, placed.end - generation.slot.size) if placed.piece.causal else len(placed.piece)
                )
                image = generation, generation.slot, count
            else:
                continue
            room -= count
        return plan, image

    def _chunk(self, answering: int, reading: int) -> int:
        """Prompt tokens in a step that also serves running streams: as many as `stall_s` allows. The more
        prompts wait for each stream, the longer it may be held up: they wait, too."""
        if not self._token_s:
            return _TILE
        count = int(self._settings.stall_s * max(1.0, reading / answering) ** 2 / self._token_s)
        if count >= _TILE:
            return count // _TILE * _TILE
        return _TILE if count * _MAX_STRETCH >= _TILE else _MIN_CHUNK

    def _share_batch(self, plan: list[Share]) -> None:
        """Cut runs of forced tokens so that all fit; there is room for one token of each slot at least."""
        spare = self._settings.n_batch - len(plan)
        for i, (generation, slot, count) in enumerate(plan):
            more = min(count - 1, spare)
            spare -= more
            plan[i] = generation, slot, 1 + more

    def _room(self, generation: Generation) -> int:
        """How many of the next tokens have a place in their slot; makes one by a context shift, or ends the
        generation."""
        slot, n_ctx = generation.slot, generation.context(self._settings.n_ctx)
        assert slot is not None
        if slot.size < n_ctx:
            return n_ctx - slot.size
        wanted = generation.shift and generation.options.num_predict != -2
        keep = generation.kept_on_shift(n_ctx, self._vocab.add_bos)
        if wanted and self._can_shift and self._slots.shift(slot, keep):
            return n_ctx - slot.size
        self._finish(generation, "length")
        return 0

    def _choose(self, generation: Generation, index: int) -> None:
        """Choose the token that follows, and tell what it says; with it, those that its format forces."""
        if generation.limit(generation.context(self._settings.n_ctx)) == 0:
            self._finish(generation, "length")
            return
        if not self._force(generation):
            self._sample(generation, index)
            self._force(generation)

    def _force(self, generation: Generation) -> bool:
        """Take the tokens that the format forces, without evaluating each before the next; False: none.

        Where log-probabilities are wanted each is evaluated, and chosen as the only one allowed.
        """
        if generation.constraint is None or generation.logprobs or generation.slot is None:
            return False
        forced = generation.constraint.forced()
        for token in forced:
            assert generation.sampler is not None
            generation.sampler.accept((token,))
            self._take(generation, token)
            if generation.slot is None:  # ended
                break
        return bool(forced)

    def _sample(self, generation: Generation, index: int) -> None:
        logits = self._context.logits(index) if generation.constraint or generation.logprobs else None
        before = logits.copy() if logits is not None and generation.logprobs else None
        if generation.constraint and logits is not None:
            generation.constraint.mask(logits)
        assert generation.sampler is not None
        token = generation.sampler.sample(self._context, index)
        logprob = self._logprob(before, token, generation.top_logprobs) if before is not None else None
        self._take(generation, token, logprob)

    def _take(self, generation: Generation, token: int, logprob: TokenLogprob | None = None) -> None:
        """Note a token as chosen; ends the generation where it is the last."""
        if self._vocab.is_end(token):
            self._finish(generation, "stop")
            return
        generation.advance(token)
        self.counters.eval_tokens += 1
        self._post(
            generation, *generation.events(generation.reader.push(self._piece(generation, token), logprob))
        )
        if generation.constraint:
            generation.constraint.accept(token)
        is_complete = generation.constraint is not None and generation.constraint.is_complete
        if generation.reader.stopped_by or generation.has_called_enough or is_complete:
            self._finish(generation, "stop")
        elif len(generation.generated) >= generation.limit(generation.context(self._settings.n_ctx)):
            self._finish(generation, "length")

    def _decode_failed(self, code: int, size: int, generations: list[Generation]) -> None:
        """Nothing is known of what the decode left in memory, so all slots that took part are emptied."""
        logger.error("llama_decode: code %d for %d tokens", code, size)
        for generation in generations:
            if generation.slot:
                self._slots.forget(generation.slot)
            self._fail(generation, "internal", f"evaluating tokens: llama.cpp answered {code}")

    def _learn(self, sequences: int, seconds: float) -> None:
        """Keep the price of a copy between slots, in prompt tokens, up to date."""
        prompt_tokens = self._batch.size - sequences
        if prompt_tokens < 16:
            return
        token_s = seconds / self._batch.size
        self._token_s = token_s if not self._token_s else (1 - _EMA) * self._token_s + _EMA * token_s
        copy_s = self._settings.slot_bytes / _COPY_BYTES_PER_S
        self._slots.copy_cost_tokens = max(16.0, copy_s / self._token_s)

    # Text of tokens

    def _piece(self, generation: Generation, token: int) -> bytes:
        special = token in generation.preserved
        piece = self._pieces.get((token, special))
        if piece is None:
            piece = self._vocab.piece(token, special=special)
            self._pieces[token, special] = piece
        return piece

    def _logprob(self, logits: npt.NDArray[np.float32], token: int, top: int) -> TokenLogprob:
        peak = logits.max()
        logits -= peak + np.log(np.exp(logits - peak).sum())
        best: list[int] = []
        if top:
            some = np.argpartition(-logits, min(top, len(logits) - 1))[:top]
            best = some[np.argsort(-logits[some])].tolist()
        return self._token_logprob(token, logits, tuple(self._token_logprob(other, logits) for other in best))

    def _token_logprob(
        self, token: int, logprobs: npt.NDArray[np.float32], top: tuple[TokenLogprob, ...] = ()
    ) -> TokenLogprob:
        data = self._vocab.piece(token, special=True)
        # JSON has no infinity; nothing that can be chosen is less likely than this.
        logprob = max(float(logprobs[token]), -9999.0)
        return TokenLogprob(
            token=data.decode("utf-8", "replace"), logprob=logprob, bytes=tuple(data), top=top
        )

    # Ends

    def _finish(self, generation: Generation, reason: EndReason) -> None:
        if reason != "cancelled":
            self._post(generation, *generation.events(generation.reader.finish()))
        if generation.reader.stopped_by and reason == "length":
            reason = "stop"  # the last held-back characters were a stop string after all
        self._post(generation, generation.end(reason))
        self._drop(generation)

    def _fail(self, generation: Generation, code: FailureCode, message: str) -> None:
        self._post(generation, Failed(id=generation.request_id, code=code, message=message))
        self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        if generation in self._running:
            self._running.remove(generation)
        else:
            self._queue.remove(generation)
        if generation.slot:
            self._slots.release(generation.slot)
            generation.slot = None
        if generation.sampler:
            generation.sampler.close()
            generation.sampler = None
        generation.use.end(was_admitted=generation.started_ns > 0)
        self._count()

    def _count(self) -> None:
        self.counters.running = len(self._running)
        self.counters.queued = len(self._queue) + self._commands.qsize()
        if not self._running and not self._queue and not self.counters.idle_since_ns:
            self.counters.idle_since_ns = time.monotonic_ns()

    def _post(self, generation: Generation, *events: Event) -> None:
        self._outbox.extend((generation.owner, event) for event in events)

    def _flush(self) -> None:
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            self._deliver(outbox)
