"""One request inside the engine: what was asked for, how far it has come, and the events it gives rise to."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ..options import Options, context_of
from ..protocol import End, EndReason, Event, Started, Text, Thinking, TokenLogprob, ToolCall, Usage
from .adapters import NO_ADAPTERS, AdapterSet
from .answer import Call, Content, Piece
from .draft_ledger import Credit
from .image_cells import PlacedPiece
from .output import AnswerReader
from .slots import Slot, TokenArray
from .use import Use

if TYPE_CHECKING:
    from .sampler import Sampler  # imports llama.cpp

_CALL_ID_ALPHABET = string.ascii_lowercase + string.digits


class Constraint(Protocol):
    """What an output format allows next. Stateful: one for each generation."""

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of tokens that are not allowed to minus infinity."""
        ...

    def accept(self, token: int) -> None:
        """Note the token that was chosen. Raises: BadFormat: it is not allowed, or there is no going on."""
        ...

    def forced(self) -> Sequence[int]:
        """The tokens that must come next, where there is no choice. They are not noted as chosen by that."""
        ...

    @property
    def is_complete(self) -> bool:
        """Nothing but the end may follow."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """Made outside of the engine; from `Engine.submit` on, only the engine's thread touches it."""

    request_id: int
    owner: object
    """Whom events are delivered to; never looked into."""
    prompt: TokenArray
    """Not empty, and at most the context of a slot."""
    options: Options
    reader: AnswerReader
    constraint: Constraint | None = None
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    return_context: bool = False
    single_call: bool = False
    """The answer is over after its first tool call."""
    preserved: frozenset[int] = frozenset()
    """Control tokens whose text is needed, where that of others is not."""
    adapters: AdapterSet = NO_ADAPTERS
    tenant: str = ""
    use: Use = field(default_factory=Use)
    """Told when it has ended."""
    submitted_ns: int = field(default_factory=time.monotonic_ns)

    images: tuple[PlacedPiece, ...] = ()
    """Of the prompt, in order."""

    slot: Slot | None = None
    sampler: Sampler | None = None
    pending: TokenArray = field(default_factory=lambda: np.zeros(0, np.int32))
    """Tokens that are not evaluated yet: the rest of the prompt, then the last token chosen and those that
    had to follow it."""
    generated: list[int] = field(default_factory=list)
    cached: int = 0
    drafted: int = 0
    """Tokens guessed ahead and checked; ``accepted``: those of them that were chosen."""
    accepted: int = 0
    draft_credit: Credit = field(default_factory=Credit)
    calls: int = 0
    started_ns: int = 0
    first_token_ns: int = 0

    @property
    def scope(self) -> str:
        """What is evaluated for one generation serves others of the same scope, and no others: with other
        adapters it would be something else, and other tenants could tell by the time it takes what was asked
        before."""
        return scope_of(self.adapters, self.tenant)

    @property
    def is_decoding(self) -> bool:
        return bool(self.generated)

    def context(self, n_ctx: int) -> int:
        """What this one may use of a slot's ``n_ctx`` tokens."""
        return context_of(self.options, n_ctx)

    def limit(self, n_ctx: int) -> int:
        """Most tokens to generate. Without a wish, ten contexts: an endless answer is a broken one (Ollama's
        rule)."""
        wanted, cap = self.options.num_predict, 10 * n_ctx
        return cap if wanted < 0 else min(wanted, cap)

    def kept_on_shift(self, n_ctx: int, add_bos: bool) -> int:
        """Tokens at the start that a context shift leaves in place.

        Source: llama.cpp, tools/server: ``n_keep``.
        """
        keep = self.options.num_keep
        keep = len(self.prompt) if keep < 0 else min(keep + add_bos, len(self.prompt))
        return min(keep, n_ctx - 4)

    def start(self, slot: Slot) -> Event:
        self.slot = slot
        self.cached = slot.size
        self.pending = self.prompt[slot.size :]
        self.started_ns = time.monotonic_ns()
        self.use.admit()
        return Started(id=self.request_id, prompt_tokens=len(self.prompt), cached_tokens=self.cached)

    @property
    def next_image(self) -> PlacedPiece | None:
        """The piece of an image that is to be evaluated next, or the rest of it; None: a token is."""
        if self.pending[0] >= 0:
            return None
        at = len(self.prompt) - len(self.pending)
        return next(piece for piece in self.images if piece.start <= at < piece.end)

    @property
    def tokens_ahead(self) -> int:
        """How many tokens are to be evaluated before the next image."""
        images = np.flatnonzero(self.pending < 0)
        return int(images[0]) if len(images) else len(self.pending)

    def take_pending(self, count: int) -> TokenArray:
        taken, self.pending = self.pending[:count], self.pending[count:]
        return taken

    def advance(self, token: int) -> None:
        """Note a token chosen, which is to be evaluated next."""
        if not self.generated:
            self.first_token_ns = time.monotonic_ns()
        self.generated.append(token)
        one = np.array((token,), np.int32)
        self.pending = np.concatenate((self.pending, one)) if len(self.pending) else one

    def events(self, pieces: Sequence[Piece], *, last: bool = False) -> list[Event]:
        """What clients are told of pieces of the answer, with the log-probabilities that are due."""
        due = self.reader.take_logprobs() if self.logprobs else ()
        if self.single_call:
            pieces = self._up_to_a_call(pieces)
        events = [self._event(piece, ()) for piece in pieces]
        if due:
            at = next((i for i, piece in enumerate(pieces) if not isinstance(piece, Call)), None)
            if at is None:
                events.append(Text(id=self.request_id, text="", logprobs=due))
            else:
                events[at] = self._event(pieces[at], due)
        return events

    @property
    def has_called_enough(self) -> bool:
        return self.single_call and self.calls > 0

    def _up_to_a_call(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Without calls after the first."""
        if self.calls:
            return [piece for piece in pieces if not isinstance(piece, Call)]
        first = next((i for i, piece in enumerate(pieces) if isinstance(piece, Call)), len(pieces))
        rest = pieces[first + 1 :]
        return [*pieces[: first + 1], *(piece for piece in rest if not isinstance(piece, Call))]

    def end(self, reason: EndReason) -> End:
        now = time.monotonic_ns()
        started, first = self.started_ns or now, self.first_token_ns or now
        usage = Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            eval_tokens=len(self.generated),
            thinking_tokens=self.reader.thinking_tokens,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            queue_duration_ns=started - self.submitted_ns,
            prompt_duration_ns=first - started,
            eval_duration_ns=now - first,
        )
        # Images cannot be said in tokens: a conversation that goes on with this context has them no more.
        tokens = self.prompt[self.prompt >= 0].tolist()
        context = (*tokens, *self.generated) if self.return_context else ()
        stopped_by = self.reader.stopped_by if reason == "stop" else ""
        return End(id=self.request_id, reason=reason, usage=usage, stop_sequence=stopped_by, context=context)

    def _event(self, piece: Piece, logprobs: tuple[TokenLogprob, ...]) -> Event:
        if isinstance(piece, Call):
            call = ToolCall(
                id=self.request_id,
                index=self.calls,
                call_id=_new_call_id(),
                name=piece.name,
                arguments=piece.arguments,
            )
            self.calls += 1
            return call
        if isinstance(piece, Content):
            return Text(id=self.request_id, text=piece.text, logprobs=logprobs)
        return Thinking(id=self.request_id, text=piece.text, logprobs=logprobs)


def scope_of(adapters: AdapterSet, tenant: str) -> str:
    """See `Generation.scope`; "" without either."""
    return f"{adapters.key}\0{tenant}" if adapters.key or tenant else ""


def _new_call_id() -> str:
    return "call_" + "".join(secrets.choice(_CALL_ID_ALPHABET) for _ in range(8))
