"""Uploading one blob.

The order of attempts
1. It is there already: nothing to do.
2. Another repository of the same registry has it: mount it from there.
3. In one piece: POST for a session, PUT with the whole body, streamed from the file.
4. In chunks (PATCH …, then PUT), where the registry or the connection does not take it in one piece.
Whenever the connection breaks, the registry is asked how much has arrived, and only the rest is sent; where
it has forgotten (docker-registry does), all is sent again.

An upload URL is named by the registry. It gets credentials only at the registry's own origin, and bytes
only there or at hosts that the settings list.

Source: OCI distribution-spec 1.1, pushing blobs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlencode

from ...modelfile.errors import LadingError
from ..descriptor import Descriptor
from ..errors import DigestMismatch, StoreFailure, quoted
from ..store.disk import translating
from .auth import Scope
from .errors import RegistryError, RegistryUnreachable, RegistryUnsafe
from .origin import BadUrl, Origin, resolve
from .rate_limit import RateLimit
from .repository import Repository
from .requester import RegistryRequest, Sleep
from .retry import delay_s
from .settings import listed
from .transport import BLOB_PIECE, Body, BytesBody, Readable, Response

Outcome = Literal["present", "mounted", "uploaded"]
Opener = Callable[[], BinaryIO]
OnSent = Callable[[int], None]
"""Called with how many bytes of the blob are on their way; it may fall when something is sent again."""

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_OCTETS = {"Content-Type": "application/octet-stream"}
_ONE_PIECE_REFUSED = frozenset({405, 411, 413, 415, 416, 501})
_SESSION_LOST = frozenset({404, 416})
_ONLY_IN_ONE_PIECE = ("ghcr.io", "gcr.io", "pkg.dev", "amazonaws.com", "public.ecr.aws")
"""Registries that refuse chunks, or such of more than a few MiB. Source: KitOps, modctl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBody:
    """A section of a blob as a request body; opened anew for each sending, by ``opener`` where it is no file
    of its own. ``path`` is its place, for messages."""

    path: Path
    opener: Opener | None = None
    offset: int
    size: int
    on_sent: OnSent
    rate: RateLimit = field(default_factory=RateLimit)
    sleep: Sleep = time.sleep

    def open(self) -> Readable:
        """Raises: StoreFailure."""
        with translating("reading", self.path):
            return _Section(self.opener() if self.opener is not None else self.path.open("rb"), self)


class _Section:
    """Reads one section of a file, reporting how far it is."""

    def __init__(self, file: BinaryIO, body: FileBody) -> None:
        self._file = file
        self._path = body.path
        self._on_sent = body.on_sent
        self._rate, self._sleep = body.rate, body.sleep
        self._piece = self._rate.piece(BLOB_PIECE)
        self._position = body.offset
        self._end = body.offset + body.size
        file.seek(body.offset)

    def read(self, size: int = -1, /) -> bytes:
        """Raises: StoreFailure, also where the file is shorter than promised: the length has been sent."""
        left = self._end - self._position
        with translating("reading", self._path):
            data = self._file.read(min(left, self._piece, left if size < 0 else size))
        if left and not data:
            raise StoreFailure(
                "reading",
                self._path,
                f"it ends {left} bytes too early",
                hint="lading fsck says what is damaged",
            )
        self._rate.spend(len(data), self._sleep)
        self._position += len(data)
        self._on_sent(self._position)
        return data

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class _Session:
    """An open upload. `min_chunk`: the smallest chunk that the registry takes, in bytes."""

    url: str
    authorised: bool
    min_chunk: int = 0


class _SessionLost(Exception):
    """The registry no longer knows an upload session, or what is in it is of no use."""


class BlobUpload:
    """The upload of one file, or of what ``opener`` opens, as one blob."""

    def __init__(
        self,
        repository: Repository,
        descriptor: Descriptor,
        path: Path,
        on_sent: OnSent,
        *,
        opener: Opener | None = None,
    ) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._path = path
        self._opener = opener
        self._on_sent = on_sent
        self._doing = f"uploading blob {descriptor.digest.short}"

    def run(self, mount_from: tuple[str, ...] = (), *, look_first: bool = True) -> Outcome:
        """Makes sure that the registry has the blob. Nothing becomes visible there before it is whole.

        mount_from: repositories of the same registry that may have it. look_first: whether to believe the
        registry when it says that it has the blob.
        Raises: RegistryDenied, RegistryUnsafe, RegistryError, RegistryUnreachable, DigestMismatch.
        """
        if look_first and self._repository.has_blob(self._descriptor):
            return "present"
        session: _Session | None = None
        for source in mount_from:
            session = self._mount(source)
            if session is None:
                return "mounted"
        self._send(session)
        return "uploaded"

    def _send(self, session: _Session | None) -> None:
        """Sends the blob, with new sessions and other means as long as that helps."""
        self._on_sent(0)
        policy = self._repository.settings.retry
        chunked, arrived = False, 0
        for attempt in range(1, policy.tries + 1):
            try:
                session = session or self._start()
                response = self._send_chunked(session, arrived) if chunked else self._send_whole(session)
            except _SessionLost:
                if attempt == policy.tries:
                    raise self._gave_up() from None
                session, arrived = None, 0
            except RegistryUnreachable as error:
                if not error.transient or attempt == policy.tries:
                    raise
                # It may have arrived all the same.
                if self._repository.has_blob(self._descriptor):
                    return
                session, arrived = self._left_behind(session)
                chunked = arrived > 0 or (
                    self._takes_chunks and self._descriptor.size > self._repository.settings.chunk_size
                )
            else:
                if response.status_code in {201, 204}:
                    self._check_stored(response)
                    return
                if not self._may_help(response, chunked) or attempt == policy.tries:
                    raise self._failure(response)
                chunked = not chunked and response.status_code in _ONE_PIECE_REFUSED
                response.close()
                session, arrived = None, 0
            self._repository.sleep(delay_s(policy, attempt, None, lambda: 0.5))

    @property
    def _takes_chunks(self) -> bool:
        host = self._repository.origin.host
        return not any(f".{host}".endswith(f".{name}") for name in _ONLY_IN_ONE_PIECE)

    def _left_behind(self, session: _Session | None) -> tuple[_Session | None, int]:
        """The session to go on with and what has arrived of the blob; nothing where there is no use in it."""
        if session is None or not self._takes_chunks:
            return None, 0
        try:
            session, arrived = self._where(session)
        except (_SessionLost, LadingError):
            return None, 0
        return (session, arrived) if arrived else (None, 0)

    def _gave_up(self) -> LadingError:
        return RegistryError(
            self._repository.origin.netloc, self._doing, "the registry loses what has been sent"
        )

    def _may_help(self, response: Response, chunked: bool) -> bool:
        """Whether a new session, or sending in chunks, is worth trying after this answer."""
        status = response.status_code
        if status in _ONE_PIECE_REFUSED and not chunked:
            return self._descriptor.size > 0
        return status in _SESSION_LOST or status == 429 or status >= 500

    def _failure(self, response: Response) -> LadingError:
        error = self._repository.refusal(response, self._doing)
        if isinstance(error, RegistryError) and "DIGEST_INVALID" in error.codes:
            error.hint = "the bytes in the local store may be damaged; lading fsck says"
        return error

    def _check_stored(self, response: Response) -> None:
        response.close()
        told = response.headers.get("Docker-Content-Digest")
        mine = self._descriptor.digest
        if told is not None and told.startswith(f"{mine.algorithm}:") and told != str(mine):
            raise DigestMismatch(str(mine), quoted(told), what="the blob that was uploaded")

    def _mount(self, source: str) -> _Session | None:
        """Asks for the blob from another repository; None when that worked, else the session that the
        registry has opened instead."""
        query = urlencode({"mount": str(self._descriptor.digest), "from": source})
        response = self._repository.request(
            "POST",
            f"{self._repository.base}/blobs/uploads/?{query}",
            repeatable=True,
            scopes=(Scope(source),),
        )
        if response.status_code == 201:
            response.close()
            return None
        if response.status_code == 202:
            return self._session(response)
        # Not allowed to look there, or not able to mount: upload it.
        response.close()
        return self._start()

    def _start(self) -> _Session:
        # Harmless to repeat: a session that nobody uses is forgotten by the registry.
        response = self._repository.request(
            "POST", f"{self._repository.base}/blobs/uploads/", repeatable=True
        )
        if response.status_code != 202:
            raise self._failure(response)
        return self._session(response)

    def _session(self, response: Response, url: str | None = None) -> _Session:
        """The session that an answer's Location names. Raises: RegistryUnsafe."""
        response.close()
        registry = self._repository.origin
        location = response.headers.get("Location") or url
        if not location:
            raise RegistryError(registry.netloc, self._doing, "the registry opened no upload session")
        try:
            target = resolve(response.url, location)
        except BadUrl as error:
            raise RegistryUnsafe(
                registry.netloc, self._doing, f"an upload session without usable URL ({error})"
            ) from None
        there = Origin.of(target)
        if there != registry:
            self._require_upload_host(there)
        told = response.headers.get("OCI-Chunk-Min-Length", "")
        return _Session(target, there == registry, int(told) if re.fullmatch(r"[0-9]{1,12}", told) else 0)

    def _require_upload_host(self, there: Origin) -> None:
        registry = self._repository.origin
        if listed(there, self._repository.settings.upload_hosts) and (
            there.scheme == "https" or registry.scheme == "http"
        ):
            return
        hint = (
            "the registry seems to sit behind a proxy without knowing its own external URL"
            if there.host == registry.host
            else f"if {there.netloc} is its upload host, allow it by name"
        )
        raise RegistryUnsafe(
            registry.netloc, self._doing, f"it wants the bytes to go to another place, {there}", hint=hint
        )

    def _call(
        self, method: str, url: str, session: _Session, body: Body, headers: dict[str, str]
    ) -> Response:
        return self._repository.requester.send(
            RegistryRequest(
                method=method,
                url=url,
                headers=headers,
                body=body,
                scopes=self._repository.scopes,
                authorised=session.authorised,
                timeout_s=self._repository.settings.commit_timeout_s,
            )
        )

    def _put(self, session: _Session, body: Body) -> Response:
        joint = "&" if "?" in session.url else "?"
        url = f"{session.url}{joint}{urlencode({'digest': str(self._descriptor.digest)})}"
        return self._call("PUT", url, session, body, dict(_OCTETS))

    def _section(self, offset: int, size: int) -> FileBody:
        return FileBody(
            path=self._path,
            opener=self._opener,
            offset=offset,
            size=size,
            on_sent=self._on_sent,
            rate=self._repository.outgoing,
            sleep=self._repository.sleep,
        )

    def _send_whole(self, session: _Session) -> Response:
        return self._put(session, self._section(0, self._descriptor.size))

    def _send_chunked(self, session: _Session, offset: int) -> Response:
        """Sends chunk by chunk; the answer is that to the final PUT, or the first one that is an error.

        Raises: _SessionLost.
        """
        size, faults = self._descriptor.size, 0
        tries = self._repository.settings.retry.tries
        while offset < size:
            length = min(max(self._repository.settings.chunk_size, session.min_chunk), size - offset)
            headers = {**_OCTETS, "Content-Range": f"{offset}-{offset + length - 1}"}
            try:
                response = self._call("PATCH", session.url, session, self._section(offset, length), headers)
            except RegistryUnreachable:
                if faults + 1 >= tries:
                    raise
            else:
                if response.status_code in {202, 201, 204}:
                    session = self._session(response, session.url)
                    offset += length
                    faults = 0
                    continue
                if response.status_code != 416 or faults >= tries:
                    return response
                response.close()
            before = offset
            session, offset = self._where(session)
            faults = faults + 1 if offset <= before else 1
        return self._put(session, BytesBody(b""))

    def _where(self, session: _Session) -> tuple[_Session, int]:
        """The session and how many bytes of it have arrived. Raises: _SessionLost; RegistryUnreachable."""
        response = self._repository.requester.send(
            RegistryRequest(
                method="GET", url=session.url, scopes=self._repository.scopes, authorised=session.authorised
            )
        )
        if response.status_code not in {200, 202, 204}:
            response.close()
            raise _SessionLost
        told = response.headers.get("Range", "").strip()
        match = _RANGE.fullmatch(told)
        # "0-0" may mean one byte or none; a session never holds just one byte of ours, so it means none.
        arrived = int(match[1]) + 1 if match and match[1] != "0" else 0
        if arrived > self._descriptor.size:
            response.close()
            raise _SessionLost
        return self._session(response, session.url), arrived
