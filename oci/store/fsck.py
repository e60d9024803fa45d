"""The check: every byte of every blob, and every name against what it needs.

It trusts nothing: no verification mark, no size, no manifest. It takes no lock while it reads, since what is
under its final name never changes; what disappears meanwhile was removed by someone who may.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import StoreCorrupt
from ..progress import Progress, ProgressSink
from .blob import NOT_A_BLOB
from .contents import find_contents, hash_assembled, iter_records
from .disk import open_regular, sync_folder, translating
from .graph import Unreadable, walk
from .hashing import hash_file
from .index import Entry, TagIndex, Tags
from .layout import StoreLayout
from .lock import locked


class ProblemKind(StrEnum):
    """What can be wrong with a store."""

    CORRUPT_BLOB = "corrupt-blob"
    MISSING_BLOB = "missing-blob"
    WRONG_SIZE = "wrong-size"
    BAD_MANIFEST = "bad-manifest"
    UNKNOWN_FILE = "unknown-file"
    DAMAGED_INDEX = "damaged-index"
    CHANGED_INDEX = "changed-index"


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


@dataclass(frozen=True, slots=True)
class _Tree:
    """All that a tag needs, as far as it can be known; ``unreadable`` is where that ended."""

    model: str
    nodes: tuple[Descriptor, ...]
    unreadable: Unreadable | None


def check(layout: StoreLayout, index: TagIndex, *, repair: bool, progress: ProgressSink) -> FsckReport:
    """Read everything and report all that is wrong. ``repair`` moves damaged and unknown files to quarantine
    and accepts ``index.json`` as it is.

    Tags are never removed: a model whose blob is gone is healed by pulling it again.

    Raises: StoreFailure where the store cannot be read or, to repair, written.
    """
    found = _read_blobs(layout, progress)
    tags, problems = _read_index(index)
    trees = [_plant(layout, entry) for entry in tags.entries]
    problems += _broken_models(layout, trees, found)
    problems += _stray_files(layout, trees, found)
    quarantined: tuple[Path, ...] = ()
    if repair and problems:
        with locked(layout.lock, "exclusive"):
            quarantined = _quarantine(layout, found)
            if any(problem.kind is ProblemKind.CHANGED_INDEX for problem in problems):
                index.accept()
    return FsckReport(
        tuple(problems), len(found.sizes) + len(found.bad), found.read, len(tags.entries), quarantined
    )


def _read_index(index: TagIndex) -> tuple[Tags, list[FsckProblem]]:
    try:
        tags = index.read()
        changed = index.verify()
    except StoreCorrupt as error:
        remedy = "restore index.json from a backup, or remove it and pull the models again"
        return Tags((), ()), [
            FsckProblem(ProblemKind.DAMAGED_INDEX, "index.json", error.message, remedy=remedy)
        ]
    remedy = "remove the entry from index.json by hand, then pull the model again"
    problems = [
        FsckProblem(ProblemKind.DAMAGED_INDEX, "index.json", text, remedy=remedy) for text in tags.damaged
    ]
    if changed is not None:
        detail = f"{changed}: the file is damaged, or another program wrote it"
        remedy = "compare lading ls with what should be there; lading fsck --repair accepts the file as it is"
        problems.append(FsckProblem(ProblemKind.CHANGED_INDEX, "index.json", detail, remedy=remedy))
    return tags, problems


def _plant(layout: StoreLayout, entry: Entry) -> _Tree:
    model = entry.reference.display if entry.reference is not None else str(entry.descriptor.digest)
    nodes: list[Descriptor] = []
    try:
        for node in walk(layout, entry.descriptor):
            nodes.append(node)  # one by one: what came before an error counts
    except Unreadable as error:
        return _Tree(model, tuple(nodes), error)
    return _Tree(model, tuple(nodes), None)


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
    for path, digest in list(iter_records(layout)):
        _read_record(layout, path, digest, found)
    return found


def _read_record(layout: StoreLayout, path: Path, digest: Digest | None, found: _Findings) -> None:
    """Check a layer that is assembled when it is read. Its files are checked already: a layer is damaged with
    them, but its record is to blame, and taken away, only where they are right."""
    facts = path.lstat()
    suspect = (path, (facts.st_dev, facts.st_ino))
    if digest is None:
        found.unknown.append(path)
        found.suspects.append(suspect)
        return
    try:
        contents = find_contents(layout, digest)
    except StoreCorrupt as error:
        found.bad.setdefault(digest, error.message)
        found.suspects.append(suspect)
        return
    if contents is None or contents.gaps is None or digest in found.sizes:
        return
    lost = [file for file in contents.files if found.sizes.get(file.digest) != file.size]
    if lost:
        found.bad.setdefault(digest, f"{lost[0].path} in it ({lost[0].digest}) is damaged or missing")
        return
    with translating("reading", path):
        actual = hash_assembled(layout, contents)
    if actual == digest:
        found.sizes[digest] = contents.size
    else:
        found.bad.setdefault(digest, f"what is assembled has the digest {actual}")
        found.suspects.append(suspect)


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


def _broken_models(layout: StoreLayout, trees: list[_Tree], found: _Findings) -> Iterator[FsckProblem]:
    """One problem for each piece of content that models need and do not have, with all those models."""
    wrong: dict[tuple[ProblemKind, str, str], list[str]] = {}
    for tree in trees:
        for kind, digest, detail in _broken(layout, tree, found):
            models = wrong.setdefault((kind, str(digest), detail), [])
            if tree.model not in models:
                models.append(tree.model)
    for (kind, subject, detail), models in wrong.items():
        again = ", ".join(f"lading pull {model}" for model in models[:3])
        yield FsckProblem(kind, subject, detail, tuple(models), remedy=f"{again}; or create it again")


def _broken(layout: StoreLayout, tree: _Tree, found: _Findings) -> Iterator[tuple[ProblemKind, Digest, str]]:
    for node in tree.nodes:
        size = found.sizes.get(node.digest)
        if node.digest in found.bad:
            yield ProblemKind.CORRUPT_BLOB, node.digest, found.bad[node.digest]
        elif size is not None and size != node.size:
            detail = f"the manifest says {node.size} bytes, the blob has {size}"
            yield ProblemKind.WRONG_SIZE, node.digest, detail
        elif size is None and not layout.blob(node.digest).exists():  # else it came after the reading
            yield ProblemKind.MISSING_BLOB, node.digest, f"it is not in the store ({node.media_type})"
        elif tree.unreadable is not None and node is tree.unreadable.descriptor:
            yield ProblemKind.BAD_MANIFEST, node.digest, tree.unreadable.cause.message


def _stray_files(layout: StoreLayout, trees: list[_Tree], found: _Findings) -> Iterator[FsckProblem]:
    """Damaged blobs that no model is known to need, and files that are no blobs."""
    needed = {node.digest for tree in trees for node in tree.nodes}
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


def _quarantine(layout: StoreLayout, found: _Findings) -> tuple[Path, ...]:
    """Move each suspect away, unless it was replaced since it was read. Under the exclusive lock."""
    moved: list[Path] = []
    with translating("moving to quarantine in", layout.root):
        layout.quarantine.mkdir(exist_ok=True)
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
