"""The check: every byte of every blob, and every name against what it needs.

It trusts nothing: no verification mark, no size, no manifest. It takes no lock while it reads, since what is
under its final name never changes; what disappears meanwhile was removed by someone who may.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from .blob import NOT_A_BLOB
from .descriptor import Descriptor
from .digest import Digest
from .disk import open_regular, sync_folder, translating
from .errors import StoreCorrupt
from .graph import Unreadable, walk
from .hashing import hash_file
from .index import Entry, Tags
from .layout import StoreLayout
from .lock import locked
from .progress import Progress, ProgressSink


class ProblemKind(StrEnum):
    """What can be wrong with a store."""

    CORRUPT_BLOB = "corrupt-blob"
    MISSING_BLOB = "missing-blob"
    WRONG_SIZE = "wrong-size"
    BAD_MANIFEST = "bad-manifest"
    UNKNOWN_FILE = "unknown-file"
    DAMAGED_INDEX = "damaged-index"


@dataclass(frozen=True, slots=True)
class FsckProblem:
    """One thing that is wrong. ``subject`` is a digest, or a path below the store's root."""

    kind: ProblemKind
    subject: str
    detail: str
    models: tuple[str, ...] = ()
    """The names of the models that it breaks, for people."""
    remedy: str = ""
    """What to do, in one sentence."""


@dataclass(frozen=True, slots=True)
class FsckReport:
    """``blobs`` and ``size`` (bytes) were read; ``quarantined`` are the files that were taken away."""

    problems: tuple[FsckProblem, ...]
    blobs: int
    size: int
    tags: int
    quarantined: tuple[Path, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    """What reading the blobs gave."""

    sizes: dict[Digest, int] = field(default_factory=dict)
    bad: dict[Digest, str] = field(default_factory=dict)
    unknown: list[Path] = field(default_factory=list)
    suspects: list[tuple[Path, tuple[int, int]]] = field(default_factory=list)
    """Files to quarantine, with the device and inode that were read."""
    read: int = 0


def check(
    layout: StoreLayout, read_tags: Callable[[], Tags], *, repair: bool, progress: ProgressSink
) -> FsckReport:
    """Read everything and report all that is wrong. ``repair`` moves damaged and unknown files to quarantine.

    Tags are never removed: a model whose blob is gone is healed by pulling it again.

    Raises: StoreFailure where the store cannot be read or, to repair, written.
    """
    found = _read_blobs(layout, progress)
    problems: list[FsckProblem] = []
    try:
        tags = read_tags()
    except StoreCorrupt as error:
        tags = Tags((), ())
        remedy = "restore index.json from a backup, or remove it and pull the models again"
        problems.append(FsckProblem(ProblemKind.DAMAGED_INDEX, "index.json", error.message, remedy=remedy))
    problems += [
        FsckProblem(
            ProblemKind.DAMAGED_INDEX, "index.json", text, remedy="remove the entry from index.json by hand"
        )
        for text in tags.damaged
    ]
    problems += _broken_tags(layout, tags, found)
    problems += _stray_files(layout, tags, found)
    quarantined = _quarantine(layout, found) if repair else ()
    return FsckReport(
        tuple(problems), len(found.sizes) + len(found.bad), found.read, len(tags.entries), quarantined
    )


def _read_blobs(layout: StoreLayout, progress: ProgressSink) -> _Findings:
    found = _Findings()
    files = list(layout.iter_blob_files())
    total = sum(path.lstat().st_size for path, digest in files if digest is not None and path.exists())
    for path, digest in files:
        if digest is None:
            facts = path.lstat()
            found.unknown.append(path)
            found.suspects.append((path, (facts.st_dev, facts.st_ino)))
        else:
            _read_blob(path, digest, found)
            progress(Progress("verifying sha256 digest", digest, found.read, total))
    return found


def _read_blob(path: Path, digest: Digest, found: _Findings) -> None:
    try:
        fd = open_regular(path, follow_links=False)
    except FileNotFoundError:  # swept meanwhile
        return
    except OSError as error:
        is_file = error.errno not in NOT_A_BLOB
        found.bad[digest] = os.strerror(error.errno or 0) if is_file else "it is not a regular file"
        if not is_file:
            facts = path.lstat()
            found.suspects.append((path, (facts.st_dev, facts.st_ino)))
        return
    try:
        facts = os.fstat(fd)
        try:
            actual, size = hash_file(fd, algorithm=digest.algorithm)
        except OSError as error:
            found.bad[digest] = f"cannot be read: {os.strerror(error.errno or 0)}"
        else:
            found.read += size
            if actual == digest:
                found.sizes[digest] = size
                return
            found.bad[digest] = f"its {size} bytes have the digest {actual}"
        found.suspects.append((path, (facts.st_dev, facts.st_ino)))
    finally:
        os.close(fd)


def _broken_tags(layout: StoreLayout, tags: Tags, found: _Findings) -> Iterator[FsckProblem]:
    """One problem for each piece of content that a tag needs and does not have, with all its models."""
    wrong: dict[tuple[ProblemKind, str, str], list[str]] = {}
    for entry in tags.entries:
        for kind, descriptor, detail in _broken(layout, entry, found):
            models = wrong.setdefault((kind, str(descriptor.digest), detail), [])
            models.append(_name(entry))
    for (kind, subject, detail), models in wrong.items():
        again = " and ".join(f"lading pull {model}" for model in models[:3])
        yield FsckProblem(kind, subject, detail, tuple(models), remedy=f"{again}, or create it again")


def _broken(
    layout: StoreLayout, entry: Entry, found: _Findings
) -> Iterator[tuple[ProblemKind, Descriptor, str]]:
    try:
        for descriptor in walk(layout, entry.descriptor):
            if descriptor.digest in found.bad:
                yield ProblemKind.CORRUPT_BLOB, descriptor, found.bad[descriptor.digest]
            elif descriptor.digest not in found.sizes and not layout.blob(descriptor.digest).exists():
                yield (
                    ProblemKind.MISSING_BLOB,
                    descriptor,
                    f"it is not in the store ({descriptor.media_type})",
                )
            else:
                size = found.sizes.get(descriptor.digest, descriptor.size)
                if size != descriptor.size:
                    detail = f"the manifest says {descriptor.size} bytes, the blob has {size}"
                    yield ProblemKind.WRONG_SIZE, descriptor, detail
    except Unreadable as error:
        digest = error.descriptor.digest
        if digest not in found.bad and digest in found.sizes and found.sizes[digest] == error.descriptor.size:
            yield ProblemKind.BAD_MANIFEST, error.descriptor, error.cause.message


def _stray_files(layout: StoreLayout, tags: Tags, found: _Findings) -> Iterator[FsckProblem]:
    """Damaged blobs that no tag could be found to need, and files that are no blobs."""
    needed: set[Digest] = set()
    for entry in tags.entries:
        needed.update(_reachable(layout, entry.descriptor))
    for digest, detail in found.bad.items():
        if digest not in needed:
            yield FsckProblem(
                ProblemKind.CORRUPT_BLOB,
                str(digest),
                detail,
                remedy="no model needs it; lading gc removes it",
            )
    for path in found.unknown:
        yield FsckProblem(
            ProblemKind.UNKNOWN_FILE,
            str(path.relative_to(layout.root)),
            "its name is not a digest",
            remedy="lading fsck --repair moves it to quarantine",
        )


def _reachable(layout: StoreLayout, root: Descriptor) -> Iterator[Digest]:
    try:
        for descriptor in walk(layout, root):
            yield descriptor.digest
    except Unreadable:
        return


def _quarantine(layout: StoreLayout, found: _Findings) -> tuple[Path, ...]:
    """Move each suspect away, unless it was replaced since it was read."""
    moved: list[Path] = []
    with translating("moving to quarantine in", layout.root):
        layout.quarantine.mkdir(exist_ok=True)
        with locked(layout.lock, "exclusive"):
            for path, identity in found.suspects:
                try:
                    facts = path.lstat()
                except FileNotFoundError:
                    continue
                if (facts.st_dev, facts.st_ino) == identity:
                    target = layout.quarantine / f"{path.parent.name}-{path.name}-{secrets.token_hex(4)}"
                    path.rename(target)
                    moved.append(target)
                    sync_folder(path.parent)
    return tuple(moved)


def _name(entry: Entry) -> str:
    return entry.reference.display if entry.reference is not None else str(entry.descriptor.digest)
