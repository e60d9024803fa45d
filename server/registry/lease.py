"""The lease that keeps what clients have uploaded, until the manifest that names it comes."""

from __future__ import annotations

import asyncio
import contextlib

from ...oci.store import Store

IDLE_S = 3600.0
"""Seconds without a write after which nobody is taken to be in the middle of a push."""


class WritersLease:
    """A lease of the store that lasts as long as clients write, and a while longer.

    Belongs to one event loop. A process that dies loses it; then a client that pushes on finds missing
    blobs and sends them again.
    """

    def __init__(self, store: Store, *, idle_s: float = IDLE_S) -> None:
        self._store = store
        self._idle_s = idle_s
        self._held: contextlib.ExitStack | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def renew(self) -> None:
        """Takes the lease, or keeps it for longer. Raises: StoreReadOnly, DiskFull, StoreFailure."""
        if self._held is None:
            held = contextlib.ExitStack()
            held.enter_context(self._store.lease())
            self._held = held
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._release)

    def _release(self) -> None:
        held, self._held, self._timer = self._held, None, None
        if held is not None:
            held.close()
