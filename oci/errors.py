"""What can go wrong with content, names and the store.

InputError
├── BadDigest            text is not a digest
├── BadReference         text is not a model reference
├── BadJson              bytes are not the strict, bounded JSON we read
├── BadManifest          a manifest or index breaks a rule; carries every problem found
├── BadSource            a local file cannot be imported: not a regular file, unreadable
└── NotAStore            a folder holds something else, or a store of a newer version
NotFoundError
├── ModelNotFound        no tag of that name in the store
└── BlobNotFound         no blob of that digest in the store
BusyError
└── IngestBusy           another process is writing the same blob
ResourceError
├── DiskFull             no room for what is to be written
└── StoreFailure         the operating system refused a read or write of the store
    └── StoreReadOnly    … because the store, or its file system, may not be written
IntegrityError
├── DigestMismatch       bytes are not what their digest says
├── SizeMismatch         there are more or fewer bytes than promised
├── SourceChanged        a local file was modified while it was being imported
└── StoreCorrupt         the store's own files cannot be trusted; fsck tells more
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..modelfile.errors import BusyError, InputError, IntegrityError, NotFoundError, ResourceError

__all__ = [
    "BadDigest",
    "BadJson",
    "BadManifest",
    "BadReference",
    "BadSource",
    "BlobNotFound",
    "DigestMismatch",
    "DiskFull",
    "IngestBusy",
    "ModelNotFound",
    "NotAStore",
    "SizeMismatch",
    "SourceChanged",
    "StoreCorrupt",
    "StoreFailure",
    "StoreReadOnly",
]


def quoted(text: str, *, limit: int = 80) -> str:
    """``text`` for a message: quoted, ASCII only, escaped, at most about ``limit`` characters."""
    return ascii(text if len(text) <= limit else text[: limit - 1] + "…").replace("\\u2026", "...")


class BadDigest(InputError):
    """Text is not a digest that we accept. ``text`` is what was given."""

    def __init__(self, text: str, reason: str) -> None:
        self.text = text
        super().__init__(f"invalid digest {quoted(text)}: {reason}")


class BadReference(InputError):
    """Text is not a reference. Carries no copy of the text: it may hold a password."""

    def __init__(self, shown: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"invalid model name {shown}: {reason}", hint=hint)


class BadJson(InputError):
    """Bytes are not JSON, or not JSON within our limits. ``what`` names the document."""

    def __init__(self, what: str, reason: str) -> None:
        self.what = what
        super().__init__(f"invalid {what}: {reason}")


class BadManifest(InputError):
    """A manifest, index or descriptor breaks rules. ``problems`` holds every one that was found."""

    def __init__(self, problems: Sequence[str], *, what: str = "manifest") -> None:
        self.problems = tuple(problems)
        shown = "; ".join(self.problems[:5])
        more = len(self.problems) - 5
        super().__init__(f"invalid {what}: {shown}" + (f"; and {more} more" if more > 0 else ""))


class BadSource(InputError):
    """A local file cannot be imported."""

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        self.path = path
        super().__init__(f"importing {quoted(str(path), limit=300)}: {reason}", hint=hint)


class NotAStore(InputError):
    """A folder is not a store that this version can use."""

    def __init__(self, root: Path, reason: str, *, hint: str | None = None) -> None:
        self.root = root
        super().__init__(f"opening the store {quoted(str(root), limit=300)}: {reason}", hint=hint)


class ModelNotFound(NotFoundError):
    """No model of that name is in the store. ``reference`` is the full name, ``display`` the short one."""

    def __init__(self, reference: str, display: str) -> None:
        self.reference = reference
        self.display = display
        super().__init__(f"model '{display}' not found", hint=f"lading pull {display}")


class BlobNotFound(NotFoundError):
    """A blob is not in the store. ``digest`` names it."""

    def __init__(self, digest: str, *, needed_by: str | None = None) -> None:
        self.digest = digest
        self.needed_by = needed_by
        super().__init__(
            f"blob {digest} is not in the store" + (f", but {needed_by} needs it" if needed_by else ""),
            hint="pull or create the model again; lading fsck lists all that is missing",
        )


class IngestBusy(BusyError):
    """Another process or thread is writing the blob and did not finish in the time given."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"blob {digest} is being written by another process", hint="wait for it to finish")


class DiskFull(ResourceError):
    """No room. ``needed`` and ``available`` are bytes; ``needed`` is None where the total is not known."""

    def __init__(self, path: Path, *, needed: int | None, available: int) -> None:
        self.path = path
        self.needed = needed
        self.available = available
        wanted = f"{needed} bytes are needed" if needed is not None else "more room is needed"
        super().__init__(
            f"writing to {quoted(str(path), limit=300)}: {wanted}, {available} bytes are free",
            hint="free some space (lading gc, lading rm), or move the store with LADING_HOME",
        )


class StoreFailure(ResourceError):
    """The operating system refused. ``path`` is the file or folder, ``reason`` the system's words."""

    def __init__(self, action: str, path: Path, reason: str, *, hint: str | None = None) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{action} {quoted(str(path), limit=300)}: {reason}", hint=hint)


class StoreReadOnly(StoreFailure):
    """The store may be read but not written."""

    def __init__(self, action: str, path: Path, reason: str) -> None:
        super().__init__(
            action, path, reason, hint="the store must be writable by this user; LADING_HOME chooses another"
        )


class DigestMismatch(IntegrityError):
    """Bytes are not what their digest says. ``expected`` and ``got`` are digests as text."""

    def __init__(self, expected: str, got: str, *, what: str = "blob", hint: str | None = None) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"verifying {what}: expected {expected}, got {got}", hint=hint)


class SizeMismatch(IntegrityError):
    """There are more or fewer bytes than promised. ``got`` may be a lower bound: we stop reading early."""

    def __init__(self, digest: str, expected: int, got: int, *, hint: str | None = None) -> None:
        self.digest = digest
        self.expected = expected
        self.got = got
        super().__init__(f"verifying blob {digest}: expected {expected} bytes, got {got}", hint=hint)


class SourceChanged(IntegrityError):
    """A local file was modified while it was being imported; nothing was stored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(
            f"importing {quoted(str(path), limit=300)}: the file changed while it was read",
            hint="wait until whatever writes it has finished, then try again",
        )


class StoreCorrupt(IntegrityError):
    """The store's own files cannot be trusted."""

    def __init__(self, what: str, reason: str, *, hint: str = "lading fsck says what is damaged") -> None:
        super().__init__(f"{what}: {reason}", hint=hint)
