"""A repository of a registry: its manifests, blobs and tags.

What comes from a registry is believed only after it has been checked: a manifest against the digest
that was asked for and the one in the header, a range against what was asked for. Blob bytes are handed on
unchecked in pieces; `download.py` and the store's ingest check them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from ...modelfile.errors import LadingError
from ..canonical import MAX_DOCUMENT_SIZE, strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import DigestMismatch, SizeMismatch, quoted
from ..manifest import Index, Manifest, parse_document
from ..media_type import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
)
from ..reference import Reference
from .auth import Scope, Scopes
from .credentials import Found
from .errors import RegistryError, RegistryUnreachable, RemoteBlobNotFound, RemoteModelNotFound
from .origin import BadUrl, Origin, resolve
from .rate_limit import RateLimit
from .reply import refusal
from .requester import RegistryRequest, Requester, Sleep
from .settings import RegistrySettings
from .transport import BLOB_PIECE, Body, BytesBody, Response, content_length, iter_body, read_body

ACCEPTED = ", ".join([OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_MANIFEST_LIST])
MAX_TAG_PAGES = 1000
MAX_TAGS = 100_000

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")
_STALE_ADDRESS = frozenset({400, 401, 403, 410})
"""What storage services say to a signed address that has expired."""
_MANIFEST_TYPES = MANIFEST_TYPES | INDEX_TYPES


@dataclass(frozen=True, slots=True)
class BlobBody:
    """Bytes `start` to `end` (exclusive) of a blob, on their way; `pieces` hold at most one byte more."""

    start: int
    end: int
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One repository at one registry, to read or, with `writes`, also to push to. Safe to use from several
    threads. Made by `RegistryClient.repository`."""

    origin: Origin
    name: str
    writes: bool
    requester: Requester
    settings: RegistrySettings
    sleep: Sleep
    incoming: RateLimit = field(default_factory=RateLimit)
    outgoing: RateLimit = field(default_factory=RateLimit)

    @property
    def scopes(self) -> Scopes:
        """What tokens must allow. A push asks for everything at once, so that one token lasts."""
        return (Scope(self.name, ("pull", "push") if self.writes else ("pull",)),)

    @property
    def authorised(self) -> bool:
        """Whether requests go with credentials, where there are any."""
        return True

    @property
    def base(self) -> str:
        return f"{self.origin}/v2/{self.name}"

    def sleeping(self, sleep: Sleep) -> Repository:
        """This repository, waiting in another way."""
        return replace(self, sleep=sleep, requester=self.requester.sleeping(sleep))

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        repeatable: bool | None = None,
        timeout_s: float | None = None,
        scopes: Scopes = (),
    ) -> Response:
        """Sends a request to the registry, with credentials if `authorised`. Raises what `send` raises."""
        return self.requester.send(
            RegistryRequest(
                method=method,
                url=url,
                headers=headers or {},
                body=body,
                scopes=self.scopes + scopes,
                authorised=self.authorised,
                repeatable=repeatable,
                timeout_s=timeout_s,
            )
        )

    def refusal(self, response: Response, doing: str) -> LadingError:
        """The error for an unwanted answer; consumes it."""
        return refusal(response, doing, self.found(), registry=self.origin)

    def found(self) -> Found:
        return self.requester.found(self.origin, self.scopes)

    # Manifests

    def fetch_manifest(self, reference: Reference) -> Manifest | Index:
        """The manifest or index behind the reference's digest, or else its tag.

        Raises: RemoteModelNotFound, DigestMismatch, BadManifest, RegistryDenied, RegistryError.
        """
        doing = f"fetching the manifest of {reference.display}"
        response = self.request(
            "GET", f"{self.base}/manifests/{reference.identifier}", headers={"Accept": ACCEPTED}
        )
        if response.status_code == 404:
            response.close()
            raise RemoteModelNotFound(reference, self.origin.netloc)
        if response.status_code != 200:
            raise self.refusal(response, doing)
        named = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        told = response.headers.get("Docker-Content-Digest")
        data = read_body(response, MAX_DOCUMENT_SIZE, doing)
        _verify_manifest(data, reference, told, self.origin)
        # Some registries serve manifests as text/plain or application/json: then the body speaks for itself.
        return parse_document(data, media_type=named if named in _MANIFEST_TYPES else None)

    def has_manifest(self, digest: Digest) -> bool:
        """Whether the registry has this manifest or index."""
        response = self.request("HEAD", f"{self.base}/manifests/{digest}", headers={"Accept": ACCEPTED})
        return self._present(response, f"looking for {digest}", None)

    def put_manifest(self, manifest: Manifest | Index, tag: str | None) -> None:
        """Stores the manifest, byte for byte, under the tag or, without one, under its digest only.
        Everything that it names must be there already.

        Raises: DigestMismatch when the registry says that it stored something else; RegistryError.
        """
        where = tag if tag is not None else str(manifest.digest)
        doing = f"pushing the manifest {where}"
        response = self.request(
            "PUT",
            f"{self.base}/manifests/{where}",
            headers={"Content-Type": manifest.media_type},
            body=BytesBody(manifest.raw),
            repeatable=True,
        )
        if response.status_code not in {200, 201}:
            raise self.refusal(response, doing)
        response.close()
        told = response.headers.get("Docker-Content-Digest")
        if told is not None and told.startswith("sha256:") and told != str(manifest.digest):
            raise DigestMismatch(str(manifest.digest), quoted(told), what="the manifest that was pushed")

    # Blobs

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the registry has the blob, of the right size where it says one."""
        response = self.request("HEAD", f"{self.base}/blobs/{descriptor.digest}")
        return self._present(response, f"looking for blob {descriptor.digest.short}", descriptor.size)

    @contextlib.contextmanager
    def open_blob(
        self, descriptor: Descriptor, *, offset: int = 0, end: int | None = None
    ) -> Iterator[BlobBody]:
        """The blob's bytes from `offset` to `end` where the registry can do that, else all of them.

        Raises: RemoteBlobNotFound, RegistryDenied, RegistryError, SizeMismatch; RegistryUnreachable, also
        while the pieces are read.
        """
        doing = f"fetching blob {descriptor.digest.short}"
        wanted = (offset, descriptor.size if end is None else end)
        response = self._get_blob(descriptor, *wanted)
        if response.status_code in {206, 416} and not _is_range(response, descriptor, *wanted):
            response.close()
            wanted = (0, descriptor.size)
            response = self._get_blob(descriptor, *wanted)
        with contextlib.closing(response):
            self._require_blob(response, descriptor, doing)
            start, stop = wanted if response.status_code == 206 else (0, descriptor.size)
            told = content_length(response)
            if told is not None and told != stop - start:
                raise SizeMismatch(
                    str(descriptor.digest), descriptor.size, descriptor.size - stop + start + told
                )
            yield BlobBody(
                start,
                stop,
                self._paced(
                    iter_body(response, doing, limit=stop - start, piece=self.incoming.piece(BLOB_PIECE))
                ),
            )

    def _get_blob(self, descriptor: Descriptor, offset: int, end: int) -> Response:
        last = "" if end == descriptor.size else str(end - 1)
        headers = {"Range": f"bytes={offset}-{last}"} if offset or last else {}
        return self.request("GET", f"{self.base}/blobs/{descriptor.digest}", headers=headers)

    def _require_blob(self, response: Response, descriptor: Descriptor, doing: str) -> None:
        status = response.status_code
        if status == 404:
            raise RemoteBlobNotFound(descriptor.digest, self.origin.netloc)
        if status in _STALE_ADDRESS and (there := Origin.of(response.url)) != self.origin:
            # An address that the registry signed for a while. It is asked for a new one.
            raise RegistryUnreachable(
                there.netloc, doing, f"the address was refused, status {status}", transient=True
            )
        if status not in {200, 206}:
            raise self.refusal(response, doing)

    def _paced(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.incoming.spend(len(piece), self.sleep)
            yield piece

    def _present(self, response: Response, doing: str, size: int | None) -> bool:
        with contextlib.closing(response):
            if response.status_code == 404:
                return False
            if response.status_code != 200:
                raise self.refusal(response, doing)
            told = content_length(response)
            return size is None or told is None or told == size

    # Tags

    def tags(self) -> list[str]:
        """All tags, in the registry's order; none for a repository that does not exist.

        Raises: RegistryError, also for a listing without end.
        """
        doing = f"listing the tags of {self.name}"
        url: str | None = f"{self.base}/tags/list?{urlencode({'n': 1000})}"
        found: list[str] = []
        for _ in range(MAX_TAG_PAGES):
            if url is None or len(found) > MAX_TAGS:
                break
            response = self.request("GET", url)
            if response.status_code == 404:
                response.close()
                return found
            if response.status_code != 200:
                raise self.refusal(response, doing)
            found += _read_tags(read_body(response, MAX_DOCUMENT_SIZE, doing), self.origin, doing)
            url = self._next_page(response, url, doing)
        if url is not None:
            raise RegistryError(self.origin.netloc, doing, "the list does not end")
        return found

    def _next_page(self, response: Response, url: str, doing: str) -> str | None:
        link = response.links.get("next", {}).get("url")
        if not link:
            return None
        try:
            target = resolve(url, link)
        except BadUrl as error:
            raise RegistryError(self.origin.netloc, doing, f"unusable next page ({error})") from None
        if Origin.of(target) != self.origin or target == url:
            raise RegistryError(self.origin.netloc, doing, "the next page is elsewhere, or the same again")
        return target


def _verify_manifest(data: bytes, reference: Reference, told: str | None, origin: Origin) -> None:
    """What was asked for by digest must be it, whatever the header says; what was asked for by tag must be
    what the header says."""
    what = f"the manifest of {reference.display} from {origin.netloc}"
    expected = reference.digest
    if expected is None:
        if told is None:
            return
        try:
            expected = Digest.parse(told)
        except LadingError:
            raise DigestMismatch(quoted(told), str(Digest.of(data)), what=what) from None
    got = Digest.of(data, algorithm=expected.algorithm)
    if got != expected:
        raise DigestMismatch(str(expected), str(got), what=what)


def _is_range(response: Response, descriptor: Descriptor, offset: int, end: int) -> bool:
    """Whether a 206 holds exactly the bytes from `offset` to `end`. Source: RFC 9110, 14.4."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or (offset, end) == (0, descriptor.size) or match is None:
        return False
    first, last, total = match.groups()
    return int(first) == offset and int(last) == end - 1 and total in {"*", str(descriptor.size)}


def _read_tags(data: bytes, origin: Origin, doing: str) -> list[str]:
    try:
        value = strict_json(data, what="list of tags")
    except LadingError as error:
        raise RegistryError(origin.netloc, doing, error.message) from None
    tags = value.get("tags") if isinstance(value, dict) else None
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise RegistryError(origin.netloc, doing, "expected a list of tags")
    return tags
