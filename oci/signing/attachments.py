"""What is attached to a manifest from outside: signatures and other statements about it.

There are two ways, and both are used. By tag: beside the manifest ``sha256:HEX`` of a repository, the tag
``sha256-HEX.sig`` names the manifest with its signatures. By reference: a manifest whose ``subject`` is that
one; registries list such referrers, and where one cannot, the tag ``sha256-HEX`` names an index of them.
Source: cosign, SIGNATURE_SPEC.md; OCI distribution-spec 1.1, listing referrers and referrers tag schema.

`Attachments` are those of one repository, wherever it is: `StoreAttachments` in the store, where they are
tags like any other, so that our own registry serves them; `RegistryAttachments` at a registry. What they
return has been verified against its digest and bounded, but means nothing yet.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from ..canonical import MAX_DOCUMENT_SIZE
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadManifest, DigestMismatch, ModelNotFound, SizeMismatch
from ..manifest import Index, Manifest
from ..reference import Reference
from ..referrers import StoreReferrers, referrer_entry, referrers_tag
from ..registry.errors import RegistryError, RemoteModelNotFound
from ..registry.origin import BadUrl, Origin, resolve
from ..registry.repository import Repository
from ..registry.transport import read_body
from ..registry.upload import BlobUpload
from ..store import Store
from .attachment_tag import is_attached

MAX_REFERRERS = 256
"""Referrers of one manifest that are looked at. Anybody who may push can add more."""

MAX_PAGES = 8


class Attachments(Protocol):
    """Those of one repository. `name` is for people."""

    @property
    def name(self) -> str: ...

    def find(self, tag: str) -> Manifest | Index | None:
        """What a tag names; None where there is no such tag."""

    def referrers(self, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        """Manifests of that type (None: of any) that refer to `digest`, at most `MAX_REFERRERS`."""

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        """A referrer. Raises: BadManifest where it is an index; an error where it is not there."""

    def read_blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """A blob of at most `limit` bytes. Raises: SizeMismatch, DigestMismatch; where it is not there."""

    def write(self, manifest: Manifest, blobs: Sequence[bytes], tag: str | None) -> None:
        """Adds a manifest and its blobs: under a tag, or without one as a referrer of its subject."""


@dataclass(frozen=True, slots=True)
class StoreAttachments:
    """In the store, for the repository of `reference`."""

    store: Store
    reference: Reference

    @property
    def name(self) -> str:
        return self.reference.display

    def any(self, digest: Digest) -> bool:
        """Whether anything is attached to a manifest."""
        return any(is_attached(tagged.reference, self.reference, digest) for tagged in self.store.tags())

    def find(self, tag: str) -> Manifest | Index | None:
        try:
            return self.store.read_manifest(self.store.find(_tagged(self.reference, tag)).descriptor)
        except ModelNotFound:
            return None

    def referrers(self, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        return _of_type(self.find(referrers_tag(digest)), artifact_type)

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        return _manifest(self.store.read_manifest(descriptor))

    def read_blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        return _whole(self.store.read_blob(descriptor.digest, limit=limit), descriptor)

    def write(self, manifest: Manifest, blobs: Sequence[bytes], tag: str | None) -> None:
        with self.store.lease():
            for blob in blobs:
                self.store.put_bytes(blob)
            descriptor = self.store.put_manifest(manifest)
            if tag is None:
                StoreReferrers(self.store, self.reference).add(manifest)
            else:
                self.store.tag(_tagged(self.reference, tag), descriptor)


@dataclass(frozen=True, slots=True)
class RegistryAttachments:
    """At a registry, in the repository of `reference`. Every method may raise what registries raise."""

    repository: Repository
    reference: Reference

    @property
    def name(self) -> str:
        return self.reference.display

    def find(self, tag: str) -> Manifest | Index | None:
        try:
            return self.repository.fetch_manifest(_tagged(self.reference, tag))
        except RemoteModelNotFound:
            return None

    def referrers(self, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...]:
        found = self._listed(digest, artifact_type)
        if found is None:
            return _of_type(self.find(referrers_tag(digest)), artifact_type)
        return found

    def read_manifest(self, descriptor: Descriptor) -> Manifest:
        return _manifest(
            self.repository.fetch_manifest(replace(self.reference, tag=None, digest=descriptor.digest))
        )

    def read_blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        if descriptor.size > limit:
            raise SizeMismatch(str(descriptor.digest), limit, descriptor.size)
        data = io.BytesIO()
        with self.repository.open_blob(descriptor) as body:
            for piece in body.pieces:
                data.write(piece)
        return _whole(data.getvalue(), descriptor)

    def write(self, manifest: Manifest, blobs: Sequence[bytes], tag: str | None) -> None:
        with tempfile.TemporaryDirectory(prefix="lading-") as folder:
            for number, blob in enumerate(blobs):
                path = Path(folder) / str(number)
                path.write_bytes(blob)
                described = _described(manifest, blob)
                BlobUpload(self.repository, described, path, lambda _: None).run()
        self.repository.put_manifest(manifest, tag)
        subject = manifest.subject
        if tag is None and subject is not None and self._listed(subject.digest, None) is None:
            index, tag = _index_with(self, manifest)
            self.repository.put_manifest(index, tag)

    def _listed(self, digest: Digest, artifact_type: str | None) -> tuple[Descriptor, ...] | None:
        """What the registry lists; None where it cannot list referrers."""
        doing = f"listing the referrers of {digest.short}"
        query = f"?{urlencode({'artifactType': artifact_type})}" if artifact_type else ""
        url: str | None = f"{self.repository.base}/referrers/{digest}{query}"
        found: list[Descriptor] = []
        for _ in range(MAX_PAGES):
            if url is None or len(found) >= MAX_REFERRERS:
                break
            response = self.repository.request("GET", url)
            if response.status_code in {400, 404, 405, 501}:
                response.close()
                return None
            if response.status_code != 200:
                raise self.repository.refusal(response, doing)
            link = response.links.get("next", {}).get("url")
            page = read_body(response, MAX_DOCUMENT_SIZE, doing)
            try:
                found += Index.parse(page).manifests
            except BadManifest:
                return None  # a page of something else, as servers have that answer everything with 200
            url = self._next(url, link, doing)
        return tuple(item for item in found if artifact_type in (None, item.artifact_type))[:MAX_REFERRERS]

    def _next(self, url: str, link: str | None, doing: str) -> str | None:
        if not link:
            return None
        origin = self.repository.origin
        with contextlib.suppress(BadUrl):
            target = resolve(url, link)
            if Origin.of(target) == origin and target != url:
                return target
        raise RegistryError(origin.netloc, doing, "the next page is elsewhere, or the same again")


def _tagged(reference: Reference, tag: str) -> Reference:
    return replace(reference, tag=tag, digest=None)


def _manifest(document: Manifest | Index) -> Manifest:
    if isinstance(document, Index):
        raise BadManifest(["an index where an attached manifest was expected"])
    return document


def _of_type(document: Manifest | Index | None, artifact_type: str | None) -> tuple[Descriptor, ...]:
    """The entries of an index of referrers; none where it is something else."""
    if not isinstance(document, Index):
        return ()
    found = (item for item in document.manifests if artifact_type in (None, item.artifact_type))
    return tuple(found)[:MAX_REFERRERS]


def _index_with(attachments: Attachments, manifest: Manifest) -> tuple[Index, str]:
    """The index of referrers with one more, and its tag.

    Raises: BadManifest where the tag names something that is no index: it is not ours to overwrite.
    """
    if manifest.subject is None:
        raise BadManifest(["a referrer without subject"])
    tag = referrers_tag(manifest.subject.digest)
    existing = attachments.find(tag)
    if isinstance(existing, Manifest):
        raise BadManifest([f"the tag {tag} is taken by something that is no index of referrers"])
    entry = referrer_entry(manifest)
    others = existing.manifests if existing is not None else ()
    return Index.build(manifests=[*(item for item in others if item.digest != entry.digest), entry]), tag


def _described(manifest: Manifest, blob: bytes) -> Descriptor:
    digest = Digest.of(blob)
    for descriptor in manifest.blobs:
        if descriptor.digest == digest:
            return descriptor
    raise BadManifest([f"no part of it is {digest}"])


def _whole(data: bytes, descriptor: Descriptor) -> bytes:
    """`data`, once it is what the descriptor says."""
    if len(data) != descriptor.size:
        raise SizeMismatch(str(descriptor.digest), descriptor.size, len(data))
    got = Digest.of(data, algorithm=descriptor.digest.algorithm)
    if got != descriptor.digest:
        raise DigestMismatch(str(descriptor.digest), str(got))
    return data
