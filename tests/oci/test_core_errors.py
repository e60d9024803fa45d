"""Our errors: exact texts, the right branch of the tree, and they survive a process boundary."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lading.modelfile.errors import (
    BusyError,
    InputError,
    IntegrityError,
    LadingError,
    NotFoundError,
    ResourceError,
)
from lading.oci import errors

D = f"sha256:{'a' * 64}"
E = f"sha256:{'b' * 64}"

TABLE: list[tuple[LadingError, type[LadingError], str]] = [
    (errors.BadDigest("x\n", "why"), InputError, "invalid digest 'x\\n': why"),
    (errors.BadReference("'x'", "why"), InputError, "invalid model name 'x': why"),
    (errors.BadJson("config", "why"), InputError, "invalid config: why"),
    (errors.BadManifest(list("abcdefg")), InputError, "invalid manifest: a; b; c; d; e; and 2 more"),
    (errors.BadSource(Path("/x"), "why"), InputError, "importing '/x': why"),
    (errors.NotAStore(Path("/x"), "why"), InputError, "opening the store '/x': why"),
    (errors.ModelNotFound("full", "llama3:latest"), NotFoundError, "model 'llama3:latest' not found"),
    (errors.BlobNotFound(D), NotFoundError, f"blob {D} is not in the store"),
    (
        errors.BlobNotFound(D, needed_by="manifest 1"),
        NotFoundError,
        f"blob {D} is not in the store, but manifest 1 needs it",
    ),
    (errors.IngestBusy(D), BusyError, f"blob {D} is being written by another process"),
    (
        errors.DiskFull(Path("/x"), needed=5, available=2),
        ResourceError,
        "writing to '/x': 5 bytes are needed, 2 bytes are free",
    ),
    (
        errors.DiskFull(Path("/x"), needed=None, available=2),
        ResourceError,
        "writing to '/x': more room is needed, 2 bytes are free",
    ),
    (errors.StoreFailure("reading", Path("/x"), "why"), ResourceError, "reading '/x': why"),
    (errors.StoreReadOnly("writing", Path("/x"), "why"), errors.StoreFailure, "writing '/x': why"),
    (errors.DigestMismatch(D, E), IntegrityError, f"verifying blob: expected {D}, got {E}"),
    (errors.SizeMismatch(D, 3, 4), IntegrityError, f"verifying blob {D}: expected 3 bytes, got 4"),
    (errors.SourceChanged(Path("/x")), IntegrityError, "importing '/x': the file changed while it was read"),
    (errors.StoreCorrupt("reading x", "why"), IntegrityError, "reading x: why"),
]


@pytest.mark.parametrize(("error", "branch", "text"), TABLE, ids=[type(row[0]).__name__ for row in TABLE])
def test_text_branch_and_pickle(error: LadingError, branch: type[LadingError], text: str) -> None:
    assert isinstance(error, branch)
    assert error.message == str(error) == text
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.args, vars(again)) == (error.args, vars(error))
