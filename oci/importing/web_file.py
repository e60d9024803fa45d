"""A GGUF file at a URL. An interrupted download goes on where it ended; with a SHA-256, in parts at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..descriptor import Descriptor
from ..digest import Digest, Hasher, new_hasher
from ..errors import IngestBusy
from ..media_type import OCTET_STREAM
from ..progress import Progress, ProgressSink, ignore_progress
from ..reference import Reference
from ..registry.client import RegistryClient
from ..registry.download import download
from ..registry.origin import Origin, resolve
from ..registry.web_files import WebFacts, WebFiles
from ..store import Store
from ..store.disk import require_room, translating, write_all
from ..store.hashing import iter_chunks
from ..store.lock import acquire, release
from ..transfer import fetch_file
from .gguf_model import StoredFile, write_model
from .imported import TAKEN, Imported, ImportPolicy, Status, is_taken


@dataclass(frozen=True, slots=True)
class WebFile:
    """A file on the web. ``sha256`` is what it must be; None to take what comes."""

    url: str
    sha256: Digest | None = None

    @property
    def name(self) -> str:
        """The last part of the path; "model.gguf" where there is none."""
        return unquote(urlsplit(self.url).path).rpartition("/")[2] or "model.gguf"


def import_url(
    store: Store,
    client: RegistryClient,
    file: WebFile,
    reference: Reference,
    policy: ImportPolicy,
    progress: ProgressSink = ignore_progress,
) -> Imported:
    """Fetch the file, and make a model of it under a name.

    Raises: BadUrl; RegistryDenied, RegistryError, RegistryUnreachable, RegistryUnsafe; DigestMismatch where
        it is not what it must be; BadGguf, DiskFull, IngestBusy, and what else the store raises. Then no tag
        has changed; what came of the file is kept, and the next attempt goes on there.
    """
    url = resolve(file.url, file.url)
    origin, name = Origin.of(url), ""
    if origin == Origin.of(client.settings.hub):
        # The address of the page about a file is what people copy. To the Hub, its token may go.
        url = url.replace("/blob/", "/resolve/", 1)
        name = urlsplit(url).path.strip("/")
    files = client.web_files(origin, name, {})
    facts = files.look(url)
    result = Imported(reference=reference, status=Status.POSSIBLE, size=facts.size)
    if policy.dry_run:
        return result
    with store.lease():
        if file.sha256 is not None:
            blob = Descriptor(OCTET_STREAM, file.sha256, facts.size)
            fetch_file(store, client, replace(files, urls={blob.digest: url}), blob, progress=progress)
        else:
            blob = _fetch_unknown(store, files, url, facts, progress)
        manifest = write_model(store, [StoredFile(file.name, blob.digest, blob.size)], {})
        result = replace(result, status=Status.IMPORTED, digest=manifest.digest)
        if is_taken(store, reference, None) and not is_taken(store, reference, manifest):
            return replace(result, status=Status.PRESENT)
        if not policy.replace and is_taken(store, reference, manifest):
            return replace(result, status=Status.SKIPPED, reason=TAKEN)
        store.tag(reference, manifest.descriptor)
    return result


def _fetch_unknown(
    store: Store, files: WebFiles, url: str, facts: WebFacts, progress: ProgressSink
) -> Descriptor:
    """Bring a file whose digest nobody has told into the store. Where the server names its version (ETag),
    what an earlier attempt has left is continued."""
    version = Digest.of(f"{url}\n{facts.etag}\n{facts.size}".encode())
    path = store.layout.ingest / f"web-{version.hex[:32]}"
    asked = Descriptor(OCTET_STREAM, version, facts.size)  # the digest is a key, not the content's

    def count(done: int) -> None:
        progress(Progress(f"fetching {urlsplit(url).path.rpartition('/')[2]}", None, done, facts.size))

    with translating("writing", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not acquire(fd, wait_s=0):
                raise IngestBusy(path.name)
            sink = _Sink.at(fd, path, facts.size if facts.etag else 0, count)
            require_room(path, facts.size - sink.offset)
            download(replace(files, urls={version: url}, etag=facts.etag), asked, sink)
            os.fsync(fd)
        finally:
            release(fd)
    blob = Descriptor(OCTET_STREAM, Digest("sha256", sink.hasher.hexdigest()), facts.size)
    store.adopt(path, blob)
    return blob


@dataclass(slots=True)
class _Sink:
    """A file that grows, with a running digest."""

    fd: int
    path: Path
    count: Callable[[int], None]
    offset: int = 0
    hasher: Hasher = field(default_factory=new_hasher)

    @classmethod
    def at(cls, fd: int, path: Path, keep: int, count: Callable[[int], None]) -> _Sink:
        """``keep``: how many bytes may be there from before; with more, none are kept."""
        sink = cls(fd, path, count)
        if os.fstat(fd).st_size > keep:
            os.ftruncate(fd, 0)
        for chunk in iter_chunks(fd):
            sink.hasher.update(chunk)
            sink.offset += len(chunk)
        os.lseek(fd, sink.offset, os.SEEK_SET)
        return sink

    def write(self, data: bytes, /) -> None:
        self.hasher.update(data)
        with translating("writing", self.path):
            write_all(self.fd, data)
        self.offset += len(data)
        self.count(self.offset)
