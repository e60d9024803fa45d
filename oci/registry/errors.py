"""What can go wrong between us and a registry.

    LadingError
    ├── NotFoundError
    │   ├── ModelNotFound
    │   │   └── RemoteModelNotFound   the registry has no such model
    │   └── RemoteBlobNotFound        it has the model, but not one of its blobs
    ├── NotAuthorisedError
    │   └── RegistryDenied        credentials are missing, wrong, or not enough
    ├── BusyError
    │   └── RegistryBusy          still throttled after all attempts
    └── UnreachableError
        └── RegistryError         the registry answered, but not usefully
            ├── RegistryUnreachable   no answer: name, route, TLS, time
            └── RegistryUnsafe        it asked for something that our rules forbid

Text that a server sent appears only as `errors.quoted` shows it: bounded, escaped, in quotes.
"""

from __future__ import annotations

from ...modelfile.errors import BusyError, NotAuthorisedError, NotFoundError, UnreachableError
from ..digest import Digest
from ..errors import ModelNotFound
from ..reference import Reference


class RemoteModelNotFound(ModelNotFound):
    """The registry has no model of that name."""

    def __init__(self, reference: Reference, registry: str) -> None:
        NotFoundError.__init__(
            self,
            f"model '{reference.display}' not found at {registry}",
            hint="check the spelling; a private model may need a login first",
        )
        self.reference = str(reference)
        self.display = reference.display
        self.registry = registry


class RemoteBlobNotFound(NotFoundError):
    """The registry lacks a blob that one of its manifests names."""

    def __init__(self, digest: Digest, registry: str) -> None:
        super().__init__(
            f"blob {digest} not found at {registry}",
            hint="the model there is incomplete: it must be pushed again",
        )
        self.digest = str(digest)
        self.registry = registry


class RegistryError(UnreachableError):
    """The registry answered with an error, or with something that is not an answer.

    `status` is the HTTP status, if there was one; `codes` are the error codes of the OCI error body.
    """

    def __init__(
        self,
        registry: str,
        doing: str,
        reason: str,
        *,
        status: int | None = None,
        codes: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(f"{doing} at {registry}: {reason}", hint=hint)
        self.registry = registry
        self.doing = doing
        self.reason = reason
        self.status = status
        self.codes = codes


class RegistryUnreachable(RegistryError):
    """No usable connection. `transient` says whether another attempt may help (a refused TLS certificate
    will not change its mind)."""

    def __init__(
        self, registry: str, doing: str, reason: str, *, transient: bool, hint: str | None = None
    ) -> None:
        super().__init__(registry, doing, reason, hint=hint)
        self.transient = transient


class RegistryUnsafe(RegistryError):
    """The registry asked for a step that could leak credentials or data; nothing was sent."""


class RegistryBusy(BusyError):
    """The registry throttled every attempt."""

    def __init__(self, registry: str, doing: str, attempts: int) -> None:
        super().__init__(
            f"{doing} at {registry}: still throttled after {attempts} attempts",
            hint="wait a while, or log in: registries give known users more",
        )
        self.registry = registry
        self.doing = doing
        self.attempts = attempts


class RegistryDenied(NotAuthorisedError):
    """The registry wants credentials that we lack, or refused the ones we sent.

    `tried` names where the credentials came from (never what they are); None when none were found.
    """

    def __init__(
        self,
        registry: str,
        doing: str,
        reason: str,
        *,
        status: int | None = None,
        tried: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        used = f"credentials from {tried} were refused" if tried else "no credentials were sent"
        hint = (
            f"check the credentials in {tried}, and what they may do in this repository"
            if tried
            else f"log in first (`lading login {registry}`; `docker login {registry}` counts, too); "
            "a repository that does not exist looks the same to a stranger"
        )
        if notes:
            hint += "; " + "; ".join(notes)
        super().__init__(f"{doing} at {registry}: {reason}; {used}", hint=hint)
        self.registry = registry
        self.doing = doing
        self.reason = reason
        self.status = status
        self.tried = tried
        self.notes = notes
