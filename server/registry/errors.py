"""Errors of the ``/v2/`` interface: one table from ours to the codes of the distribution specification.

Source: OCI distribution-spec 1.1, error codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...modelfile.errors import (
    BusyError,
    InputError,
    IntegrityError,
    LadingError,
    NotFoundError,
    ResourceError,
)
from ...oci.errors import BadDigest, BadManifest, BlobNotFound, DigestMismatch, ModelNotFound, SizeMismatch
from ...oci.incoming import UploadUnknown
from .names import BadName, BadTag


@dataclass(frozen=True, slots=True)
class RegistryProblem:
    """A status, a code, and a sentence for people."""

    status: int
    code: str
    message: str

    def to_json(self) -> dict[str, object]:
        return {"errors": [{"code": self.code, "message": self.message}]}


class Refused(InputError):
    """A request that is refused with a status and code of its own."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


# The first class that fits wins, so special ones come before their bases.
_TABLE: tuple[tuple[type[LadingError], int, str], ...] = (
    (BadName, 400, "NAME_INVALID"),
    (BadTag, 400, "TAG_INVALID"),
    (BadDigest, 400, "DIGEST_INVALID"),
    (BadManifest, 400, "MANIFEST_INVALID"),
    (DigestMismatch, 400, "DIGEST_INVALID"),
    (SizeMismatch, 400, "SIZE_INVALID"),
    (UploadUnknown, 404, "BLOB_UPLOAD_UNKNOWN"),
    (BlobNotFound, 404, "BLOB_UNKNOWN"),
    (ModelNotFound, 404, "MANIFEST_UNKNOWN"),
    (NotFoundError, 404, "NAME_UNKNOWN"),
    (InputError, 400, "UNSUPPORTED"),
    (BusyError, 429, "TOOMANYREQUESTS"),
    (ResourceError, 507, "UNKNOWN"),
    (IntegrityError, 500, "UNKNOWN"),
    (LadingError, 500, "UNKNOWN"),
)

INTERNAL = RegistryProblem(500, "UNKNOWN", "internal error")


def problem_of(error: LadingError) -> RegistryProblem:
    """How the error is told to a client; without what may hold a path of this machine."""
    if isinstance(error, Refused):
        return RegistryProblem(error.status, error.code, error.message)
    status, code = next((status, code) for kind, status, code in _TABLE if isinstance(error, kind))
    if status < 500:
        return RegistryProblem(status, code, error.message)
    message = "there is no room for this" if isinstance(error, ResourceError) else INTERNAL.message
    return RegistryProblem(status, code, message)
