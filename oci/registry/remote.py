"""Looking at a model in a registry without fetching it: its manifest and its config, some kilobytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..canonical import strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadJson, BadManifest, DigestMismatch, SizeMismatch
from ..manifest import Index, Manifest
from ..model import MAX_CONFIG_SIZE
from ..reference import Reference
from .index_choice import choose_manifest
from .repository import Repository


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What a registry has under a name. ``index`` is what the name means where that is an index; ``config``
    is its JSON value, None where it is not JSON."""

    manifest: Manifest
    config: Any
    index: Index | None = None


def look_up(repository: Repository, reference: Reference) -> RemoteModel:
    """Raises: RemoteModelNotFound, RemoteBlobNotFound, BadManifest, DigestMismatch, SizeMismatch,
    RegistryDenied, RegistryError."""
    document = repository.fetch_manifest(reference)
    index = document if isinstance(document, Index) else None
    if isinstance(document, Index):
        document = repository.fetch_manifest(
            reference.with_digest(choose_manifest(document, reference).digest)
        )
    if isinstance(document, Index):
        raise BadManifest([f"{reference.display} is an index of indexes"])
    data = fetch_small(repository, document.config, limit=MAX_CONFIG_SIZE)
    try:
        return RemoteModel(document, strict_json(data), index)
    except BadJson:  # somebody else's artifact, and worth a look all the same
        return RemoteModel(document, None, index)


def fetch_small(repository: Repository, descriptor: Descriptor, *, limit: int) -> bytes:
    """A blob in memory, verified; ``limit`` is the most bytes that are accepted.

    Raises: SizeMismatch, DigestMismatch, RemoteBlobNotFound, RegistryDenied, RegistryError.
    """
    if descriptor.size > limit:
        raise SizeMismatch(str(descriptor.digest), limit, descriptor.size)
    with repository.open_blob(descriptor) as body:
        data = b"".join(body.pieces)
    if len(data) != descriptor.size:
        raise SizeMismatch(str(descriptor.digest), descriptor.size, len(data))
    found = Digest.of(data, algorithm=descriptor.digest.algorithm)
    if found != descriptor.digest:
        raise DigestMismatch(str(descriptor.digest), str(found))
    return data
