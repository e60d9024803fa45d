"""What came of importing one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadSource
from ..manifest import Manifest
from ..progress import Progress, ProgressSink
from ..reference import Reference
from ..store import ImportedFile, Store


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside into BadSource: what is imported belongs to somebody else, and may be closed
    to us, or go away. Raises: BadSource."""
    try:
        yield
    except OSError as error:
        raise BadSource(Path(error.filename or path), error.strerror or str(error)) from error


class Status(StrEnum):
    """How it ended."""

    IMPORTED = "imported"
    PRESENT = "present"
    POSSIBLE = "would be imported"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """One model. ``size`` is the bytes of its files; ``shared`` how many of them are now shared with where
    they came from; ``reason`` why it was skipped."""

    reference: Reference
    status: Status
    size: int
    shared: int = 0
    digest: Digest | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPolicy:
    """link: whether files may be shared by hard links. dry_run: only look. replace: whether a name that means
    another model here may mean this one from now on."""

    link: bool
    dry_run: bool = False
    replace: bool = False


class FileImporter:
    """Imports files of one model, and adds up what is shared."""

    def __init__(self, store: Store, policy: ImportPolicy, progress: ProgressSink) -> None:
        self._store = store
        self._policy = policy
        self._progress = progress
        self.shared = 0

    def take(self, path: Path, name: str, expected: Descriptor | None = None) -> ImportedFile:
        """Raises: what `Store.import_file` raises."""
        with readable(path):
            count = self._counter(path, name)
        found = self._store.import_file(path, expected=expected, link=self._policy.link, on_bytes=count)
        self.shared += found.size if found.linked else 0
        return found

    def _counter(self, path: Path, name: str) -> Callable[[int], None]:
        done, total = 0, path.stat().st_size

        def count(size: int) -> None:
            nonlocal done
            done += size
            self._progress(Progress(f"importing {name}", completed=min(done, total), total=total))

        return count


def is_taken(store: Store, reference: Reference, manifest: Manifest | None) -> bool:
    """Whether the name means another model here already. Without a manifest, whether it means any."""
    known = [tag for tag in store.tags() if tag.reference.familiar_key == reference.familiar_key]
    return any(manifest is None or tag.descriptor.digest != manifest.digest for tag in known)


TAKEN = "the name means another model here; --force lets it mean this one"
