"""What the models of a store cost: together, shared with others, and each alone."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from .digest import Digest
from .errors import StoreCorrupt, StoreReadOnly
from .reference import Reference
from .signing.attachment_tag import is_attachment_tag
from .store import Store, TaggedManifest
from .store.graph import Unreadable, walk


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """One name. All sizes are bytes; ``size`` is the sum of the other two.

    exclusive: what no other name needs, and `rm` and `gc` would free. damaged: what is wrong where the
    model's parts cannot be told; then the sizes are 0.
    """

    reference: Reference
    digest: Digest
    shared: int
    exclusive: int
    damaged: str | None = None

    @property
    def size(self) -> int:
        return self.shared + self.exclusive


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """A whole store. ``size`` is the bytes of all blobs, each once; ``reclaimable`` those that `gc` would
    free now, with what interrupted work has left; None where that cannot be known."""

    models: tuple[ModelUsage, ...]
    blobs: int
    size: int
    reclaimable: int | None


def measure(store: Store) -> StoreUsage:
    """Reads manifests and sizes, no content. The models come with the most exclusive bytes first.

    Raises: StoreCorrupt where the index cannot be read; StoreFailure.
    """
    tags = store.tags()
    parts: list[dict[Digest, int] | str] = [_parts(store, tag) for tag in tags]
    needed = Counter(digest for part in parts if isinstance(part, dict) for digest in part)
    models = []
    for tag, part in zip(tags, parts, strict=True):
        if is_attachment_tag(tag.reference.tag):
            continue  # counted, as `gc` keeps it, but no model
        if isinstance(part, str):
            models.append(ModelUsage(tag.reference, tag.descriptor.digest, 0, 0, part))
            continue
        shared = sum(size for digest, size in part.items() if needed[digest] > 1)
        exclusive = sum(part.values()) - shared
        models.append(ModelUsage(tag.reference, tag.descriptor.digest, shared, exclusive))
    models.sort(key=lambda model: (-model.exclusive, -model.size, str(model.reference)))
    count = size = 0
    for path, _ in store.layout.iter_blob_files():
        with suppress(FileNotFoundError):
            size += path.lstat().st_size
            count += 1
    return StoreUsage(tuple(models), count, size, _reclaimable(store))


def _parts(store: Store, tag: TaggedManifest) -> dict[Digest, int] | str:
    """The blobs of a model with their sizes, or what is wrong with it."""
    try:
        parts: dict[Digest, int] = {}
        for part in walk(store.layout, tag.descriptor):
            contents = store.contents(part.digest)
            if contents is None or contents.gaps is None:
                parts[part.digest] = part.size
            for file in contents.files if contents is not None else ():
                parts[file.digest] = file.size
        return parts
    except Unreadable as error:
        return error.cause.message


def _reclaimable(store: Store) -> int | None:
    try:
        return store.gc(dry_run=True).freed
    except (StoreCorrupt, StoreReadOnly):
        return None
