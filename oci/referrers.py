"""Who refers to a manifest: those whose ``subject`` it is, kept in the store by the referrers tag schema.

Beside the manifest ``sha256:HEX`` of a repository, the tag ``sha256-HEX`` names an index of its referrers. In
the store these are tags like any other, so that they are kept, copied and removed like any other. Source:
OCI distribution-spec 1.1, listing referrers and referrers tag schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .descriptor import Descriptor
from .digest import Digest
from .errors import BadManifest, ModelNotFound
from .manifest import Index, Manifest
from .reference import Reference
from .store import Store

_TRIES = 100
"""Changes by others, one after the other, that one change of ours outlives."""

_TAG = re.compile(r"sha(?:256|512)-[0-9a-f]{64}")

Entries = tuple[Descriptor, ...]


@dataclass(frozen=True, slots=True)
class StoreReferrers:
    """Those in the repository of ``reference``."""

    store: Store
    reference: Reference

    def of(self, digest: Digest) -> Entries:
        """Referrers of a manifest, which need not be there itself."""
        return _entries(self._find(digest))

    def add(self, document: Manifest | Index) -> None:
        """List a manifest that is in the store as a referrer of its subject. Repeating it is harmless.

        Raises: BadManifest where it has no subject, where its subject has too many referrers for one
            index, or where the tag names something that is no index: it is not ours to overwrite.
        """
        entry = referrer_entry(document)
        self._change(document, lambda entries: (*_without(entries, entry), entry))

    def remove(self, document: Manifest | Index) -> None:
        """Undo `add`. Raises: BadManifest."""
        entry = referrer_entry(document)
        self._change(document, lambda entries: _without(entries, entry))

    def _change(self, document: Manifest | Index, change: Callable[[Entries], Sequence[Descriptor]]) -> None:
        if document.subject is None:
            raise BadManifest(["a referrer without subject"])
        digest = document.subject.digest
        tagged = self._tagged(digest)
        for _ in range(_TRIES):
            existing = self._find(digest)
            entries = change(_entries(existing))
            with self.store.lease():
                descriptor = self.store.put_manifest(Index.build(manifests=entries)) if entries else None
                if self.store.move_tag(tagged, existing.digest if existing else None, descriptor):
                    return
        raise BadManifest([f"the referrers of {digest} change too often"])

    def _find(self, digest: Digest) -> Index | None:
        tagged = self._tagged(digest)
        try:
            document = self.store.read_manifest(self.store.find(tagged).descriptor)
        except ModelNotFound:
            return None
        if isinstance(document, Manifest):
            raise BadManifest([f"the tag {tagged.tag} is taken by something that is no index of referrers"])
        return document

    def _tagged(self, digest: Digest) -> Reference:
        return Reference(self.reference.registry, self.reference.repository, referrers_tag(digest))


def referrers_tag(digest: Digest) -> str:
    """The tag of the index of a manifest's referrers; a longer digest is cut, for a tag has its limits."""
    return f"{digest.algorithm}-{digest.hex[:64]}"


def is_referrers_tag(tag: str) -> bool:
    """Whether a tag is one that `referrers_tag` makes."""
    return _TAG.fullmatch(tag) is not None


def referrer_entry(document: Manifest | Index) -> Descriptor:
    """How a referrer is listed: an image manifest without a type of its own has its config's."""
    artifact_type = document.artifact_type
    if artifact_type is None and isinstance(document, Manifest):
        artifact_type = document.config.media_type
    return replace(document.descriptor, artifact_type=artifact_type, annotations=document.annotations)


def _entries(index: Index | None) -> Entries:
    return index.manifests if index is not None else ()


def _without(entries: Entries, entry: Descriptor) -> Entries:
    return tuple(item for item in entries if item.digest != entry.digest)
