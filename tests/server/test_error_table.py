"""The one table from errors to HTTP: every error class of the project has a row, and what it says."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import lading.modelfile
import lading.oci
import lading.runtime
import lading.server
from lading.modelfile import errors as tree
from lading.modelfile.errors import LadingError
from lading.oci.errors import BadReference, ModelNotFound
from lading.runtime.errors import PromptTooLong, QueueFull, Unsupported
from lading.server.errors import (
    TABLE,
    BadField,
    BodyTooLarge,
    KeeperAway,
    MissingBody,
    NoSuchModel,
    asked_for,
    native_body,
    openai_body,
    problem_of,
)


def every_error() -> Iterator[type[LadingError]]:
    for package in (lading.modelfile, lading.oci, lading.runtime, lading.server):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith(("errors", "problem")):
                importlib.import_module(f"{package.__name__}.{module.name}")
    waiting = [LadingError]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def made(kind: type[LadingError]) -> LadingError:
    """An instance, whatever its constructor takes."""
    error = kind.__new__(kind)
    error.args = ("doing it: expected this, got that",)
    error.hint = "do that"
    return error


@pytest.mark.parametrize(
    "kind", sorted(every_error(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__
)
def test_every_error_has_a_status_that_fits_who_must_act(kind: type[LadingError]) -> None:
    status = problem_of(made(kind)).status
    if issubclass(kind, tree.NotFoundError):
        assert status == 404
    elif issubclass(kind, tree.NotAuthorisedError):
        assert status in (401, 403)
    elif issubclass(kind, tree.BusyError):
        assert status in (429, 503)
    elif kind.__name__ in ("NotSigned", "SignatureInvalid"):
        assert status == 403  # what the policy does not allow
    elif issubclass(kind, tree.InputError) and kind.__name__ != "ModelRefused":
        assert 400 <= status < 500
    else:
        assert status >= 500


def test_no_row_is_shadowed_by_one_above_it() -> None:
    for index, row in enumerate(TABLE):
        assert not any(issubclass(row.kind, above.kind) for above in TABLE[:index]), row.kind


@pytest.mark.parametrize(
    ("error", "native", "openai"),
    [
        (MissingBody(), "missing request body", ("invalid_request_error", None, None)),
        (
            BadField("top_p: too big", field="top_p"),
            "top_p: too big",
            ("invalid_request_error", "top_p", None),
        ),
        (
            NoSuchModel("model 'x' not found"),
            "model 'x' not found",
            ("not_found_error", None, "model_not_found"),
        ),
        (
            ModelNotFound("registry.ollama.ai/library/x:latest", "x:latest"),
            "model 'x:latest' not found",
            ("not_found_error", None, "model_not_found"),
        ),
        (
            PromptTooLong("too long", hint="shorten it"),
            "too long; shorten it",
            ("invalid_request_error", None, "context_length_exceeded"),
        ),
        (
            QueueFull("full"),
            "server busy, please try again.  maximum pending requests exceeded",
            ("api_error", None, "queue_full"),
        ),
        (
            Unsupported('"x" does not support thinking', hint="it can do: completion"),
            '"x" does not support thinking',
            ("invalid_request_error", None, None),
        ),
        (
            BodyTooLarge(5),
            "reading the request body: expected at most 5 bytes, got more",
            ("invalid_request_error", None, "request_too_large"),
        ),
        (
            KeeperAway(),
            "reaching the model keeper: no answer; repeat the request in a moment",
            ("api_error", None, "keeper_away"),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LadingError) else "",
)
def test_the_words_of_each_dialect(
    error: LadingError, native: str, openai: tuple[str, str | None, str | None]
) -> None:
    problem = problem_of(error)
    assert native_body(problem) == {"error": native}
    kind, param, code = openai
    assert openai_body(problem) == {"error": {"message": native, "type": kind, "param": param, "code": code}}


def test_names_are_those_that_the_client_used() -> None:
    with pytest.raises(NoSuchModel, match=r"^model 'MyName' not found$"), asked_for("MyName"):
        raise ModelNotFound("r/library/myname:latest", "myname:latest")
    with pytest.raises(BadField, match=r"^invalid model name$"), asked_for("a b"):
        raise BadReference("'a b'", "a blank")
