"""What can go wrong while running a model.

    InputError
    ├── BadKeepAlive       a ``keep_alive`` that is not a duration
    ├── BadRequest         fields contradict each other or are out of range
    ├── BadTemplate        the chat template does not compile, raises, or exceeds its limits
    ├── BadFormat          the output format cannot be turned into a constraint
    ├── PromptTooLong      the prompt does not fit the context
    ├── Unsupported        the model cannot do what was asked
    ├── Pinned             the model stays loaded, whatever is asked
    ├── ModelRefused       llama.cpp does not load the model file
    └── QuantisationRefused   … or does not quantise it
    BusyError
    ├── QueueFull          too many requests wait already
    ├── ShuttingDown       the runner, or the whole runtime, is being stopped
    ├── LoadTimedOut       a load took longer than it may
    ├── CallerLeft         whoever asked has gone; nobody sees this one
    └── Quarantined        the model killed its runner again and again
    ResourceError
    ├── OutOfMemory        the model does not fit into memory
    │   └── DoesNotFit     … as was known before anything was loaded
    ├── NoPlace            as many models as allowed are pinned
    ├── QuantiserLost      the process that quantises died, or could not be started
    └── BadRuntimeDir      there is no private folder for sockets
    InternalError
    ├── RunnerLost         the runner process died or went away
    └── RunnerFault        the runner reports a bug of its own

`failure_code` and `from_failure` are the two directions between these classes and the codes of
`protocol.Failed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..modelfile.errors import BusyError, InputError, InternalError, LadingError, ResourceError
from .protocol import Failed, FailureCode, LoadFailed, VariantRefused
from .size_text import size_text


class BadKeepAlive(InputError):
    """A ``keep_alive`` (`value`) is not a duration."""

    def __init__(self, value: object, why: str) -> None:
        self.value = value
        hint = 'give seconds (300) or a duration with units ("5m", "1h30m"); a negative one means for ever'
        super().__init__(why, hint=hint)


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


class Pinned(InputError):
    """``model`` is to stay loaded until the server stops."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"stopping {model}: it is pinned",
            hint="leave it out of the setting `pin`, and start the server again",
        )


class ModelRefused(InputError):
    """llama.cpp does not load the model file."""


class QuantisationRefused(InputError):
    """llama.cpp does not quantise the weights called ``name`` to ``type_``."""

    def __init__(self, name: str, type_: str, reason: str) -> None:
        self.name = name
        super().__init__(f"quantizing {name} to {type_}: llama.cpp refuses: {reason}")


class QueueFull(BusyError):
    """Too many requests wait for this model already."""


class ShuttingDown(BusyError):
    """The runner, or the whole runtime, is being stopped."""


class LoadTimedOut(BusyError):
    """The load of ``model`` was given up after ``seconds``; its runner is gone."""

    def __init__(self, model: str, seconds: float) -> None:
        self.model = model
        self.seconds = seconds
        super().__init__(
            f"loading {model}: not ready after {seconds:.0f} s",
            hint="raise LADING_LOAD_TIMEOUT if the disk is slow, or use a smaller quantisation",
        )


class CallerLeft(BusyError):
    """Whoever asked for the model has gone."""

    def __init__(self) -> None:
        super().__init__("loading a model: the client has gone")


class Quarantined(BusyError):
    """``model`` killed its runner ``crashes`` times; it is left alone for ``retry_after_s`` seconds."""

    def __init__(self, model: str, crashes: int, retry_after_s: float, last: str) -> None:
        self.model = model
        self.crashes = crashes
        self.retry_after_s = retry_after_s
        super().__init__(
            f"loading {model}: its runner stopped unexpectedly {crashes} times within a minute ({last}); "
            f"not tried again for {retry_after_s:.0f} s",
            hint="check the model's files with `lading fsck`; a smaller num_ctx needs less memory",
        )


class OutOfMemory(ResourceError):
    """There is not enough memory for the model or the request."""


class DoesNotFit(OutOfMemory):
    """``model`` needs ``needed`` bytes and can have ``available``. Nothing was loaded, nothing unloaded.

    `breakdown` says in words what needs them.
    """

    def __init__(self, model: str, *, needed: int, available: int, breakdown: str, hint: str) -> None:
        self.model = model
        self.needed = needed
        self.available = available
        super().__init__(
            f"loading {model}: it needs {size_text(needed)} of memory ({breakdown}), "
            f"{size_text(available)} is available",
            hint=hint,
        )


class NoPlace(ResourceError):
    """``model`` cannot be loaded: as many models as allowed are `pinned`."""

    def __init__(self, model: str, pinned: Sequence[str]) -> None:
        self.model = model
        super().__init__(
            f"loading {model}: every place is taken by a pinned model ({', '.join(pinned)})",
            hint="raise max_loaded_models, or pin fewer models",
        )


class QuantiserLost(ResourceError):
    """The process that quantises was killed, was killed by what it read, or could not be started. What it was
    doing is undone."""


class BadRuntimeDir(ResourceError):
    """The folder for sockets cannot be made, is not private, or has too long a name."""


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


def from_failure(failure: Failed | LoadFailed | VariantRefused) -> LadingError:
    """The error that a failure on the wire stands for."""
    return _BY_CODE[failure.code](failure.message, hint=failure.hint or None)


def failure_code(error: LadingError) -> FailureCode:
    """The wire's code for an error; "internal" for one that has none."""
    return next((code for code, kind in _BY_CODE.items() if isinstance(error, kind)), "internal")
