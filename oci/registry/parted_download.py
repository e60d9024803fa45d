"""Downloading one large blob over several connections, part by part.

The first answer decides: a registry, or the storage behind it, that ignores ranges or answers them wrongly is
asked for the blob as a whole, over one connection. What is there already is not asked for again, or let
pass. Every part asks the registry itself, so an address that it has signed for a while is never too old.

What is wrong with the bytes is found by the digest over all of them: nothing is visible before.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable

from ..descriptor import Descriptor
from ..errors import SizeMismatch
from ..store.parted_file import Part, PartedFile
from .crew import Crew, Slots
from .errors import RegistryUnreachable
from .repository import BlobBody, Repository
from .retry import delay_s

OnPresent = Callable[[int], None]
"""Told how many bytes of the blob are there, from one thread at a time."""


class PartedDownload:
    """The download of what ``parts`` lacks of a blob.

    ranges: whether to ask for parts at all. ``requests`` counts how often the registry was asked.
    """

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        parts: PartedFile,
        on_present: OnPresent,
        *,
        crew: Crew,
        slots: Slots,
        ranges: bool = True,
    ) -> None:
        self._crew = Crew(repository.requester.cut, within=crew)
        self._repository = repository.sleeping(self._crew.sleep)
        self._descriptor = descriptor
        self._parts = parts
        self._on_present = on_present
        self._slots = slots
        self._lock = threading.Lock()
        self._queue: deque[Part] = deque()
        self._ranges = ranges
        self._decided = threading.Event()
        self.requests = 0

    def run(self) -> None:
        """Brings all that is missing. On failure ``parts`` keeps what came.

        Raises: RegistryUnreachable when attempts in a row bring nothing, RemoteBlobNotFound, RegistryDenied,
        RegistryError, RegistryBusy, SizeMismatch, TransferStopped, and what ``parts`` raises.
        """
        self._queue.extend(self._parts.missing())
        if self._queue and self._ranges:
            threads = min(self._slots.count, len(self._queue))
            self._crew.each(range(threads), self._work, threads=threads)
        with self._slots.hold():
            self._bring(self._first_missing, self._descriptor.size, lambda: True)

    def _work(self, number: int) -> None:
        """Brings parts until there are no more, or the registry turns out not to know ranges."""
        if number > 0:
            self._crew.wait_for(self._decided)
        try:
            while self._ranges and (part := self._next_part()) is not None:
                position = functools.partial(self._parts.position, part)
                with self._slots.hold():
                    self._bring(position, part.end, lambda: self._ranges)
        finally:
            self._decided.set()

    def _next_part(self) -> Part | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def _first_missing(self) -> int:
        missing = self._parts.missing()
        return self._parts.position(missing[0]) if missing else self._descriptor.size

    def _bring(self, position: Callable[[], int], end: int, wanted: Callable[[], bool]) -> None:
        """Brings the bytes from `position` to `end` while they are `wanted`, over as many connections as it
        takes, as long as each brings something."""
        policy = self._repository.settings.retry
        fruitless = 0
        while wanted() and (start := position()) < end:
            try:
                self._receive(start, end)
            except RegistryUnreachable as error:
                fruitless = 1 if position() > start else fruitless + 1
                if not error.transient or fruitless >= policy.tries:
                    raise
                self._repository.sleep(delay_s(policy, fruitless, None, lambda: 0.5))

    def _receive(self, start: int, end: int) -> None:
        """One connection's worth. Raises: RegistryUnreachable when it ends too early."""
        self._crew.check()
        with self._lock:
            self.requests += 1
        with self._repository.open_blob(self._descriptor, offset=start, end=end) as body:
            if self._ranges and (body.start, body.end) != (start, end):
                self._ranges = False
                if self._decided.is_set():
                    return  # others are at work on their parts: the whole comes after them
            self._decided.set()
            self._take(body)

    def _take(self, body: BlobBody) -> None:
        offset, size = body.start, self._descriptor.size
        for piece in body.pieces:
            if offset + len(piece) > body.end:
                raise SizeMismatch(str(self._descriptor.digest), size, size + 1)
            self._parts.put(offset, piece)
            offset += len(piece)
            with self._lock:
                self._on_present(self._parts.present)
        if offset < body.end:
            raise RegistryUnreachable(
                self._repository.origin.netloc,
                f"fetching blob {self._descriptor.digest.short}",
                f"the answer ended after {offset} of {body.end} bytes",
                transient=True,
            )
