"""The root of every error that Lading raises on purpose.

The class says who must act; the attributes carry the facts; the message is made from them.

    LadingError
    ├── InputError           the caller's input is wrong                exit 1   HTTP 400
    │   └── UsageError       the command line or a request is misused   exit 2   HTTP 400
    ├── NotFoundError        what was named does not exist              exit 3   HTTP 404
    ├── NotAuthorisedError   credentials are missing or refused         exit 4   HTTP 401, 403
    ├── UnreachableError     a server or registry cannot be reached     exit 5   HTTP 502
    ├── BusyError            try again later                            exit 1   HTTP 503
    ├── ResourceError        this machine lacks disk, memory, a port    exit 1   HTTP 507, 500
    ├── IntegrityError       bytes are not what their digest says       exit 1   HTTP 502, 500
    └── InternalError        a bug of ours                              exit 1   HTTP 500

Each folder's ``errors.py`` draws its own branch. A message reads ``doing X: expected Y, got Z``: lower
case, no full stop. ``hint`` says what to do next, where that is known. Secrets never reach either.

Every error survives pickling, whatever its constructor takes: errors cross process boundaries here.
"""

from __future__ import annotations

from typing import Any


class LadingError(Exception):
    """Root of the tree. Subclasses set their facts as attributes, then pass the message up."""

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The one sentence, without the hint."""
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        # The default calls cls(*args), which breaks for constructors that take facts, not a message.
        return _rebuild, (type(self), self.args, dict(self.__dict__))


def _rebuild(cls: type[LadingError], args: tuple[object, ...], facts: dict[str, Any]) -> LadingError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error


class InputError(LadingError):
    """What the caller gave is wrong: a file, a name, a value."""


class UsageError(InputError):
    """The command line or a request is put together wrongly."""


class NotFoundError(LadingError):
    """What was named does not exist."""


class NotAuthorisedError(LadingError):
    """Credentials are missing, or were refused."""


class UnreachableError(LadingError):
    """A server or registry did not answer, or not in time."""


class BusyError(LadingError):
    """The work cannot be taken now; the same request may succeed later."""


class ResourceError(LadingError):
    """This machine lacks what the work needs: disk, memory, a port."""


class IntegrityError(LadingError):
    """Bytes are not what their digest or size says."""


class InternalError(LadingError):
    """A bug of ours. Please report it."""
