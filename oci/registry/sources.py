"""Where a model is pulled from: its mirrors, one after the other, and last its own registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import BadManifest, DigestMismatch, SizeMismatch
from ..reference import Reference
from .client import RegistryClient
from .crew import Slots
from .errors import RegistryBusy, RegistryDenied, RegistryError, RemoteBlobNotFound, RemoteModelNotFound
from .mirror import mirrors_of
from .repository import Repository
from .requester import Sleep

_ASK_ELSEWHERE = (
    BadManifest,
    DigestMismatch,
    RegistryBusy,
    RegistryDenied,
    RegistryError,
    RemoteBlobNotFound,
    RemoteModelNotFound,
    SizeMismatch,
)

T = TypeVar("T")


class Sources:
    """The sources of one pull. What one lacks, or fails at, is asked of the next.

    on_skip: told in a sentence why one was passed by.
    """

    def __init__(
        self,
        client: RegistryClient,
        reference: Reference,
        *,
        sleep: Sleep,
        slots: Slots,
        on_skip: Callable[[str], None],
    ) -> None:
        self._client = client
        self._places = (*mirrors_of(reference, client.settings.mirrors), reference)
        self._sleep = sleep
        self._slots = slots
        self._on_skip = on_skip

    def ask(self, question: Callable[[Repository], T]) -> T:
        """The answer of the first source that has one.

        Raises: what the last one raised; and at once what no other source would change.
        """
        for place in self._places[:-1]:
            try:
                return question(self._repository(place))
            except _ASK_ELSEWHERE as error:
                self._on_skip(f"mirror {place.registry}: {error}")
        return question(self._repository(self._places[-1]))

    def _repository(self, place: Reference) -> Repository:
        return self._client.repository(place, sleep=self._sleep, on_busy=self._slots.fewer)
