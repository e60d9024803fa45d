"""The sweep: removing what no tag and no running operation needs.

Rules for editing this file:

- All of it happens under the store's exclusive lock: nobody tags or takes a lease meanwhile.
- A blob is removed only after every tag was read completely. One manifest that cannot be read means that
  we do not know what it needs, and then nothing is removed.
- Age decides about leftovers of interrupted work only, never about blobs that a tag or lease names.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..digest import Digest
from ..errors import StoreCorrupt
from .contents import find_contents, iter_records
from .disk import translating
from .graph import Unreadable, walk
from .index import Tags
from .layout import StoreLayout
from .lease import read_leases
from .lock import acquire, release

KEEP_PARTIAL_S = 7 * 24 * 3600.0
"""Seconds that a resumable leftover, or a damaged file in quarantine, is kept by default."""


@dataclass(frozen=True, slots=True)
class SweepPolicy:
    """``keep_partial_s``: seconds to keep leftovers that can be resumed, since their last byte; 0 keeps none.

    ``grace_s``: seconds to keep a blob that nothing names, since it came; 0 keeps none. It is for servers,
    where a client uploads a blob in one request and names it in a later one.
    """

    keep_partial_s: float = KEEP_PARTIAL_S
    grace_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SweptBlob:
    """A blob that was removed, or would be. ``size`` is bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class GcReport:
    """What a sweep removed, or would remove (``dry_run``). ``leftover_size`` is bytes of interrupted work."""

    blobs: tuple[SweptBlob, ...]
    leftovers: int
    leftover_size: int
    kept_leased: int
    """Blobs that no tag needs but a running operation does."""
    kept_leftovers: int
    """Interrupted downloads that can still be resumed, and those that are running."""
    dry_run: bool

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(blob.size for blob in self.blobs) + self.leftover_size


def sweep(layout: StoreLayout, tags: Tags, policy: SweepPolicy, *, dry_run: bool) -> GcReport:
    """Remove what is not needed. The caller holds the exclusive lock and has read ``tags`` under it.

    Raises: StoreCorrupt where a tag or record cannot be read, before anything is removed; StoreFailure. What
        was removed before a failure was not needed; a second sweep finishes.
    """
    live = live_digests(layout, tags)
    with translating("reading", layout.leases):
        leased, stale_leases = read_leases(layout)
    leased |= _packed_in(layout, leased)
    doomed, kept_leased = _unneeded(layout, live, leased, policy)
    leftovers, kept_leftovers = _leftovers(layout, policy)
    leftovers += [
        (path, path.lstat().st_size)
        for path, digest in iter_records(layout)
        if digest not in live and digest not in leased
    ]
    if not dry_run:
        with translating("removing from", layout.root):
            for path in stale_leases:
                path.unlink(missing_ok=True)
            for blob in doomed:
                layout.blob(blob.digest).unlink(missing_ok=True)
        leftovers = [(path, size) for path, size in leftovers if _remove_unless_locked(path)]
    return GcReport(
        blobs=tuple(doomed),
        leftovers=len(leftovers),
        leftover_size=sum(size for _, size in leftovers),
        kept_leased=kept_leased,
        kept_leftovers=kept_leftovers,
        dry_run=dry_run,
    )


def _packed_in(layout: StoreLayout, layers: set[Digest]) -> set[Digest]:
    """The files that are packed in these layers. Raises: StoreCorrupt where a record cannot be read."""
    found: set[Digest] = set()
    for _, digest in iter_records(layout):
        contents = find_contents(layout, digest) if digest in layers and digest is not None else None
        if contents is not None:
            found.update(file.digest for file in contents.files)
    return found


def live_digests(layout: StoreLayout, tags: Tags) -> set[Digest]:
    """Everything that some tag needs, with the files that are packed in its layers.

    Raises: StoreCorrupt where that cannot be known.
    """
    if tags.damaged:
        raise StoreCorrupt(f"reading {layout.index}", tags.damaged[0])
    live: set[Digest] = set()
    for entry in tags.entries:
        try:
            live.update(descriptor.digest for descriptor in walk(layout, entry.descriptor))
        except Unreadable as error:
            name = entry.reference.display if entry.reference else str(entry.descriptor.digest)
            raise StoreCorrupt(
                f"finding what {name} needs",
                error.cause.message,
                hint=f"nothing was removed; lading pull {name} or lading rm {name}, then try again",
            ) from error
    return live | _packed_in(layout, live)


def _unneeded(
    layout: StoreLayout, live: set[Digest], leased: set[Digest], policy: SweepPolicy
) -> tuple[list[SweptBlob], int]:
    doomed: list[SweptBlob] = []
    kept_leased = 0
    now = time.time()
    for path, digest in layout.iter_blob_files():
        if digest is None or digest in live:
            continue
        if digest in leased:
            kept_leased += 1
            continue
        with suppress(FileNotFoundError):
            facts = path.lstat()
            # The change time: publishing sets it, and nobody can set it back.
            if abs(now - facts.st_ctime) >= policy.grace_s:
                doomed.append(SweptBlob(digest, facts.st_size))
    # Manifests before the layers they name: an interrupted sweep leaves no manifest without its layers.
    return sorted(doomed, key=lambda blob: blob.size), kept_leased


def _leftovers(layout: StoreLayout, policy: SweepPolicy) -> tuple[list[tuple[Path, int]], int]:
    found: list[tuple[Path, int]] = []
    kept = 0
    now = time.time()
    for folder in (layout.ingest, layout.quarantine):
        for path in sorted(folder.glob("*")):
            with suppress(FileNotFoundError):
                facts = path.lstat()
                resumable = not path.name.startswith("new-")
                young = abs(now - facts.st_mtime) < policy.keep_partial_s  # clocks jump both ways
                if (resumable and young) or _is_locked(path):
                    kept += 1
                else:
                    found.append((path, facts.st_size))
    return found, kept


def _is_locked(path: Path) -> bool:
    fd = _open_existing(path)
    if fd is None:
        return False
    free = acquire(fd, wait_s=0)
    release(fd)
    return not free


def _remove_unless_locked(path: Path) -> bool:
    """Remove a leftover while holding its lock, so that nobody resumes it at the same moment."""
    fd = _open_existing(path)
    if fd is None:
        with suppress(OSError):
            path.unlink()
        return not path.exists()
    try:
        if not acquire(fd, wait_s=0):
            return False
        with translating("removing", path):
            path.unlink(missing_ok=True)
        return True
    finally:
        release(fd)


def _open_existing(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
