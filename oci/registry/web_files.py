"""Files at URLs, fetched like the blobs of a registry: in parts, resumed, verified by whoever takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...modelfile.errors import LadingError
from ..canonical import strict_json
from ..descriptor import Descriptor
from ..digest import Digest
from .errors import RegistryError, RemoteBlobNotFound
from .origin import BadUrl, Origin, resolve
from .repository import Repository
from .transport import Response, content_length, read_body

MAX_PAGE = 16 * 1024 * 1024
"""Bytes of one JSON answer."""
MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class WebFacts:
    """What a server says of a file: bytes, and what changes with its content (None where it says nothing)."""

    size: int
    etag: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebFiles(Repository):
    """Files of one web server, by their digests. ``etag``: what all answers must be of, where it is known.
    Without a `name`, no credentials are used."""

    urls: Mapping[Digest, str] = field(default_factory=dict)
    etag: str | None = None

    @property
    def authorised(self) -> bool:
        return bool(self.name)

    def look(self, url: str) -> WebFacts:
        """Raises: RemoteBlobNotFound, RegistryDenied, RegistryError, RegistryUnreachable."""
        doing = "looking at the file"
        # Not HEAD: addresses that are signed for a while are so for GET alone.
        response = self.request("GET", url, headers={"Range": "bytes=0-0"})
        if response.status_code not in {200, 206, 416}:
            raise self._failure(response, doing)
        response.close()
        _, _, total = response.headers.get("Content-Range", "").rpartition("/")
        told = int(total) if total.isascii() and total.isdigit() and len(total) < 20 else None
        size = told if response.status_code in {206, 416} else content_length(response)
        if size is None:
            raise RegistryError(self.origin.netloc, doing, "the server does not say how large it is")
        return WebFacts(size, response.headers.get("ETag"))

    def get_json(self, url: str, doing: str) -> tuple[object, str | None]:
        """A JSON answer, and the address of its next page. Raises: as `look`."""
        response = self.request("GET", url, headers={"Accept": "application/json"})
        if response.status_code != 200:
            raise self._failure(response, doing)
        following = response.links.get("next", {}).get("url")
        try:
            value = strict_json(read_body(response, MAX_PAGE, doing), what="answer", limit=MAX_PAGE)
        except LadingError as error:
            raise RegistryError(self.origin.netloc, doing, error.message) from None
        return value, self._next(url, following, doing) if following else None

    def get_bytes(self, url: str, limit: int, doing: str) -> bytes:
        """A small file. Raises: as `look`; RegistryError where it has more than ``limit`` bytes."""
        response = self.request("GET", url)
        if response.status_code != 200:
            raise self._failure(response, doing)
        return read_body(response, limit, doing)

    def _next(self, url: str, link: str, doing: str) -> str:
        try:
            target = resolve(url, link)
        except BadUrl as error:
            raise RegistryError(self.origin.netloc, doing, f"unusable next page ({error})") from None
        if Origin.of(target) != self.origin or target == url:
            raise RegistryError(self.origin.netloc, doing, "the next page is elsewhere, or the same again")
        return target

    def _failure(self, response: Response, doing: str) -> LadingError:
        if response.status_code == 404:
            response.close()
            return RegistryError(self.origin.netloc, doing, "there is no such file", status=404)
        return self.refusal(response, doing)

    def _get_blob(self, descriptor: Descriptor, offset: int, end: int) -> Response:
        url = self.urls.get(descriptor.digest)
        if url is None:
            raise RemoteBlobNotFound(descriptor.digest, self.origin.netloc)
        last = "" if end == descriptor.size else str(end - 1)
        headers = {"Range": f"bytes={offset}-{last}"} if offset or last else {}
        response = self.request("GET", url, headers=headers)
        found = response.headers.get("ETag")
        if self.etag is not None and response.status_code in {200, 206} and found != self.etag:
            response.close()
            doing = f"fetching {descriptor.digest.short}"
            raise RegistryError(self.origin.netloc, doing, "the file has changed meanwhile; try again")
        return response
