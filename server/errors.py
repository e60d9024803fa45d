"""What the HTTP boundary refuses by itself, and the one table from errors to HTTP.

    InputError
    ├── MissingBody        a POST or DELETE without a body
    ├── BadBody            not JSON, or a field of a wrong type
    ├── BadField           a field whose value makes no sense
    ├── UnknownCoding      a Content-Encoding that is not understood
    └── BodyTooLarge       more bytes than allowed
    NotFoundError
    ├── NoSuchModel        in the words of the route that was asked
    └── NoSuchResponse     nothing is kept under that id
    NotAuthorisedError
    ├── KeyRequired        a request without a key, or with one that is none
    └── RoleMissing        a key that does not allow this
    BusyError
    ├── TooManyRequests    a key has used up what it may
    ├── TookTooLong        an answer's time was over before it was complete
    └── KeeperAway         the keeper process does not answer

`problem_of` is the only place that turns an error into a status. Each dialect renders the `Problem` in its
own shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..modelfile.errors import (
    BusyError,
    InputError,
    IntegrityError,
    InternalError,
    LadingError,
    NotAuthorisedError,
    NotFoundError,
    ResourceError,
    UnreachableError,
)
from ..oci.errors import BadReference, ModelNotFound
from ..oci.signing.errors import NotSigned, SignatureInvalid
from ..runtime.errors import ModelRefused, PromptTooLong, QueueFull, Unsupported


class MissingBody(InputError):
    """The body is empty where one is needed."""

    def __init__(self) -> None:
        super().__init__("missing request body")


class BadBody(InputError):
    """The body is not the JSON that was expected; ``field`` names the part of a wrong type."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BadField(InputError):
    """A field has a value that makes no sense; ``field`` names it."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class BodyTooLarge(InputError):
    """The body has more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"reading the request body: expected at most {limit} bytes, got more")
        self.limit = limit


class UnknownCoding(InputError):
    """The body is compressed in a way that is not understood."""

    def __init__(self, coding: str, known: Sequence[str]) -> None:
        super().__init__(
            f"reading the body: expected Content-Encoding {', '.join(known)} or none, got {coding[:40]!r}"
        )
        self.coding = coding


class NoSuchModel(NotFoundError):
    """No model of the name that was asked for; the words are Ollama's for the route."""


class NoSuchResponse(NotFoundError):
    """No response of that id is kept; it was not stored, is forgotten, or another process has it."""

    def __init__(self, response_id: str) -> None:
        super().__init__(f"response with id '{response_id}' not found")


class KeyRequired(NotAuthorisedError):
    """The server asks for an API key, and the request has none that is known."""

    def __init__(self, *, given: bool, registry: bool = False) -> None:
        super().__init__(
            "unauthorized: the API key is not valid" if given else "unauthorized: an API key is needed",
            hint="log in with any user name, and the key as the password"
            if registry
            else "send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        )


class RoleMissing(NotAuthorisedError):
    """The key is good, and does not allow this; ``role`` would."""

    def __init__(self, role: str) -> None:
        super().__init__(f"forbidden: this API key has not the role {role}")
        self.role = role


class TooManyRequests(BusyError):
    """The key has made as many requests as it may; ``wait_s`` seconds later it may go on."""

    def __init__(self, message: str, wait_s: int) -> None:
        super().__init__(message, hint="repeat the request in a moment")
        self.wait_s = wait_s


class TookTooLong(BusyError):
    """An answer was not complete when its time was over; it was given up."""

    def __init__(self) -> None:
        super().__init__(
            "answering: it took longer than the server allows",
            hint="ask for less, or raise the server's setting request_timeout",
        )


class KeeperAway(BusyError):
    """The process that owns the models does not answer; it is being started again."""

    def __init__(self) -> None:
        super().__init__("reaching the model keeper: no answer", hint="repeat the request in a moment")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: type[LadingError]
    status: int
    code: str
    """A stable word for programs, as OpenAI's ``error.code``."""


TABLE: Sequence[Row] = (
    # The first row whose class fits wins: narrow classes stand before their bases.
    Row(BodyTooLarge, 413, "request_too_large"),
    Row(UnknownCoding, 415, "unsupported_encoding"),
    Row(PromptTooLong, 400, "context_length_exceeded"),
    Row(ModelRefused, 500, "model_refused"),
    Row(KeyRequired, 401, "invalid_api_key"),
    Row(RoleMissing, 403, "permission_denied"),
    Row(TooManyRequests, 429, "rate_limit_exceeded"),
    Row(QueueFull, 503, "queue_full"),
    Row(TookTooLong, 503, "timeout"),
    Row(KeeperAway, 503, "keeper_away"),
    Row(NoSuchModel, 404, "model_not_found"),
    Row(ModelNotFound, 404, "model_not_found"),
    Row(NotSigned, 403, "not_signed"),
    Row(SignatureInvalid, 403, "signature_invalid"),
    Row(InputError, 400, "invalid_request"),
    Row(NotFoundError, 404, "not_found"),
    Row(NotAuthorisedError, 401, "not_authorised"),
    Row(UnreachableError, 502, "unreachable"),
    Row(BusyError, 503, "busy"),
    Row(ResourceError, 507, "insufficient_resources"),
    Row(IntegrityError, 500, "corrupt"),
    Row(InternalError, 500, "internal"),
    Row(LadingError, 500, "internal"),
)

RETRY_AFTER_S = 1
"""What a 503 asks clients to wait."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure, ready to be rendered by any dialect."""

    status: int
    code: str
    text: str
    param: str | None = None
    """The field at fault, where there is one."""
    wait_s: int | None = None
    """What a client is asked to wait before it tries again."""


def problem_of(error: LadingError) -> Problem:
    """The problem that an error of ours stands for."""
    row = next(row for row in TABLE if isinstance(error, row.kind))
    wait_s = getattr(error, "wait_s", RETRY_AFTER_S if row.status == 503 else None)
    return Problem(row.status, row.code, _text(error), param=getattr(error, "field", None), wait_s=wait_s)


def _text(error: LadingError) -> str:
    """Ollama's words where clients look for them; else ours, with the hint."""
    if isinstance(error, QueueFull):
        return "server busy, please try again.  maximum pending requests exceeded"
    if isinstance(error, ModelNotFound | Unsupported) or error.hint is None:
        return error.message
    return f"{error.message}; {error.hint}"


@contextmanager
def asked_for(model: str, words: str = "model '{}' not found") -> Iterator[None]:
    """Speak of the model by the name that the client used, and in the words of its route.

    Raises: NoSuchModel for ModelNotFound, BadField for BadReference.
    """
    try:
        yield
    except ModelNotFound as error:
        raise NoSuchModel(words.format(model)) from error
    except BadReference as error:
        raise BadField("invalid model name", field="model") from error


INTERNAL = Problem(500, "internal", "internal server error")
"""What is said of an exception that is not ours; the log has the rest, under the request's id."""


def native_body(problem: Problem) -> dict[str, object]:
    """Ollama's shape."""
    return {"error": problem.text}


_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


def openai_body(problem: Problem) -> dict[str, object]:
    """OpenAI's shape: here alone a null is part of the contract."""
    kind = _OPENAI_TYPES.get(problem.status, "api_error")
    code = None if problem.code in ("invalid_request", "internal") else problem.code
    return {"error": {"message": problem.text, "type": kind, "param": problem.param, "code": code}}
