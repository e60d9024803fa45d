"""What can go wrong while running a model.

    InputError
    ├── BadKeepAlive       a ``keep_alive`` that is not a duration
    ├── BadRequest         fields contradict each other or are out of range
    ├── BadTemplate        the chat template does not compile, raises, or exceeds its limits
    ├── BadFormat          the output format cannot be turned into a constraint
    ├── PromptTooLong      the prompt does not fit the context
    ├── Unsupported        the model cannot do what was asked
    └── ModelRefused       llama.cpp does not load the model file
    BusyError
    ├── QueueFull          too many requests wait already
    └── ShuttingDown       the runner is being stopped
    ResourceError
    └── OutOfMemory        the model does not fit into memory
    InternalError
    ├── RunnerLost         the runner process died or went away
    └── RunnerFault        the runner reports a bug of its own

`failure_code` and `from_failure` are the two directions between these classes and the codes of
`protocol.Failed`.
"""

from __future__ import annotations

from ..modelfile.errors import BusyError, InputError, InternalError, LadingError, ResourceError
from .protocol import Failed, FailureCode, LoadFailed


class BadKeepAlive(InputError):
    """A ``keep_alive`` is not a duration."""


class BadRequest(InputError):
    """Fields of a request contradict each other or are out of range."""


class BadTemplate(InputError):
    """A chat template does not compile, raises, or exceeds its limits."""


class BadFormat(InputError):
    """An output format cannot be turned into a constraint."""


class PromptTooLong(InputError):
    """The prompt does not fit the context."""


class Unsupported(InputError):
    """The model, or this build, cannot do what was asked."""


class ModelRefused(InputError):
    """llama.cpp does not load the model file."""


class QueueFull(BusyError):
    """Too many requests wait for this model already."""


class ShuttingDown(BusyError):
    """The runner is being stopped."""


class OutOfMemory(ResourceError):
    """There is not enough memory for the model or the request."""


class RunnerLost(InternalError):
    """The runner process died or closed the connection before it had answered."""


class RunnerFault(InternalError):
    """The runner reports a bug of its own."""


_BY_CODE: dict[FailureCode, type[LadingError]] = {
    "bad_request": BadRequest,
    "bad_template": BadTemplate,
    "bad_format": BadFormat,
    "prompt_too_long": PromptTooLong,
    "unsupported": Unsupported,
    "queue_full": QueueFull,
    "bad_model": ModelRefused,
    "out_of_memory": OutOfMemory,
    "shutting_down": ShuttingDown,
    "runner_lost": RunnerLost,
    "internal": RunnerFault,
}


def from_failure(failure: Failed | LoadFailed) -> LadingError:
    """The error that a failure on the wire stands for."""
    return _BY_CODE[failure.code](failure.message, hint=failure.hint or None)


def failure_code(error: LadingError) -> FailureCode:
    """The wire's code for an error; "internal" for one that has none."""
    return next((code for code, kind in _BY_CODE.items() if isinstance(error, kind)), "internal")
