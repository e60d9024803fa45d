"""Our own registry: the ``/v2/`` interface over a store, for pull and push.

Clients: another Lading, skopeo, oras, podman, docker, crane, Ollama. Names are mapped by
`names.py`. Manifests go in and out byte for byte; blobs stream to and from files, in pieces of one
mebibyte, and are checked before they are visible.

All repositories share one store. So a blob is deleted only where no model needs it, and a manifest that
another repository has, too, stays readable by its digest after one of them has let go of it.

What a client uploads belongs to no tag until its manifest comes. A lease keeps it from the sweep: taken with
the first upload, let go when no client has written for a while.

Source: OCI distribution-spec 1.1; the names of the endpoints (end-1 …) are its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from falcon.asgi import App, Request, Response

from ...modelfile.errors import LadingError
from ...oci.canonical import MAX_DOCUMENT_SIZE
from ...oci.descriptor import Descriptor
from ...oci.digest import Digest
from ...oci.errors import BlobNotFound, ModelNotFound, quoted
from ...oci.incoming import IncomingUploads, Upload
from ...oci.manifest import Index, Manifest, parse_document
from ...oci.media_type import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX, OCTET_STREAM
from ...oci.referrers import StoreReferrers, is_referrers_tag
from ...oci.store import Store
from ..file_section import EXTENSION
from .body_stream import PIECE, FileStream, finished, in_thread, read_bounded
from .byte_range import Unsatisfiable, parse_range
from .errors import INTERNAL, Refused, RegistryProblem, problem_of
from .lease import WritersLease
from .names import RegistryNames, parse_digest, require_name

MAX_PAGE = 1000

_ROUTE = re.compile(
    r"(?P<name>.+)/(?:manifests/(?P<reference>[^/]+)|blobs/uploads(?:/(?P<upload>[^/]*))?"
    r"|blobs/(?P<digest>[^/]+)|(?P<tags>tags/list)|referrers/(?P<subject>[^/]+))"
)
_CONTENT_RANGE = re.compile(r"(?:bytes )?([0-9]{1,19})-([0-9]{1,19})(?:/\S*)?")

log = logging.getLogger("lading.registry")


def create_registry_app(
    store: Store, *, read_only: bool = False, names: RegistryNames | None = None
) -> App[Any, Any]:
    """An application that is nothing but the registry."""
    app: App[Any, Any] = App()
    add_registry_routes(app, store, read_only=read_only, names=names)
    return app


def add_registry_routes(
    app: App[Any, Any], store: Store, *, read_only: bool = False, names: RegistryNames | None = None
) -> None:
    """Adds the registry to an application, at ``/v2/``. `read_only` refuses every push."""
    registry = Registry(store, names or RegistryNames(), read_only=read_only)
    app.add_sink(registry.serve, re.compile(r"/v2(?:/(?P<path>.*))?$"))


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the registry. `name`: the repository, checked."""

    req: Request
    resp: Response
    name: str

    @property
    def host(self) -> str:
        return self.req.netloc or ""

    def digest_answer(self, status: int, digest: Digest, location: str | None = None) -> None:
        self.resp.status = status
        self.resp.set_header("Docker-Content-Digest", str(digest))
        if location is not None:
            self.resp.set_header("Location", location)


@dataclass(frozen=True, slots=True)
class Registry:
    """The endpoints. One object for each web process."""

    store: Store
    names: RegistryNames
    read_only: bool = field(kw_only=True)
    uploads: IncomingUploads = field(init=False)
    writers: WritersLease = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "uploads", IncomingUploads(self.store))
        object.__setattr__(self, "writers", WritersLease(self.store))

    async def serve(self, req: Request, resp: Response | None, path: str | None = None, **_: object) -> None:
        """Answers any request below ``/v2/``; errors in the shape of the specification."""
        assert resp is not None  # only WebSocket sinks get none
        resp.set_header("Docker-Distribution-Api-Version", "registry/2.0")
        try:
            await self._dispatch(req, resp, path or "")
        except LadingError as error:
            problem = problem_of(error)
            if problem.status >= 500:
                log.error("%s %s: %s", req.method, req.path, error.message, exc_info=error)
            _render(resp, problem)
        except Exception:  # the HTTP boundary: a bug of ours must not reach the client as it is
            log.exception("%s %s", req.method, req.path)
            _render(resp, INTERNAL)

    async def _dispatch(self, req: Request, resp: Response, path: str) -> None:
        if path in {"", "_catalog"}:
            _allow(req, "GET", "HEAD")
            return await self._catalog(req, resp) if path else _json(resp, {})
        match = _ROUTE.fullmatch(path)
        if match is None:
            raise Refused(404, "NAME_UNKNOWN", "there is no such endpoint")
        require_name(match["name"])
        call = Call(req, resp, match["name"])
        if self.read_only and req.method not in {"GET", "HEAD"}:
            raise Refused(405, "UNSUPPORTED", "this registry is read-only")
        if match["reference"] is not None:
            return await self._manifest(call, match["reference"])
        if match["digest"] is not None:
            return await self._blob(call, Digest.parse(match["digest"]))
        if match["tags"] is not None:
            _allow(req, "GET", "HEAD")
            return await self._tags(call)
        if match["subject"] is not None:
            _allow(req, "GET", "HEAD")
            return await self._referrers(call, Digest.parse(match["subject"]))
        return await self._upload(call, match["upload"] or "")

    # Listings

    async def _catalog(self, req: Request, resp: Response) -> None:
        """GET /v2/_catalog: not in the specification, but what registries have always had."""
        tags = await in_thread(self.store.tags)
        found = {name for tag in tags if (name := self.names.on_the_wire(tag.reference)) is not None}
        _page(req, resp, "repositories", sorted(found), {})

    async def _tags(self, call: Call) -> None:
        """end-8."""
        wanted = self.names.same_repository(call.name, call.host)
        tags = await in_thread(self.store.tags)
        found = {tag.reference.tag or "" for tag in tags if tag.reference.name.lower() in wanted}
        if not found:
            raise Refused(404, "NAME_UNKNOWN", f"there is no repository {quoted(call.name)}")
        shown = sorted(tag for tag in found if tag and not is_referrers_tag(tag))
        _page(call.req, call.resp, "tags", shown, {"name": call.name})

    async def _referrers(self, call: Call, digest: Digest) -> None:
        """end-12a and end-12b. A manifest that is not here has none, which is no error."""
        found = await in_thread(self._find_referrers, call, digest)
        wanted = call.req.get_param("artifactType")
        if wanted is not None:
            found = [entry for entry in found if entry.artifact_type == wanted]
            call.resp.set_header("OCI-Filters-Applied", "artifactType")
        call.resp.content_type = OCI_INDEX
        call.resp.data = Index.build(manifests=found).raw

    def _find_referrers(self, call: Call, digest: Digest) -> list[Descriptor]:
        found: dict[Digest, Descriptor] = {}
        for candidate in self.names.candidates(call.name, "latest", call.host):
            found |= {entry.digest: entry for entry in StoreReferrers(self.store, candidate).of(digest)}
        return list(found.values())

    # Manifests

    async def _manifest(self, call: Call, reference: str) -> None:
        _allow(call.req, "GET", "HEAD", "PUT", "DELETE")
        digest = parse_digest(reference)
        if call.req.method == "DELETE":
            await in_thread(self._delete_manifest, call, reference, digest)
            call.resp.status = 202
            return None
        if call.req.method == "PUT":
            return await self._put_manifest(call, reference, digest)
        manifest = await in_thread(self._find_manifest, call, reference, digest)
        call.digest_answer(200, manifest.digest)
        call.resp.content_type = manifest.media_type
        if call.req.method == "HEAD":
            call.resp.content_length = len(manifest.raw)
        else:
            call.resp.data = manifest.raw
        return None

    def _find_manifest(self, call: Call, reference: str, digest: Digest | None) -> Manifest | Index:
        """end-3."""
        if digest is not None:
            return self._manifest_by_digest(digest)
        for candidate in self.names.candidates(call.name, reference, call.host):
            with contextlib.suppress(ModelNotFound):
                return self.store.read_manifest(self.store.find(candidate).descriptor)
        raise Refused(404, "MANIFEST_UNKNOWN", f"there is no {quoted(f'{call.name}:{reference}')}")

    def _manifest_by_digest(self, digest: Digest) -> Manifest | Index:
        unknown = Refused(404, "MANIFEST_UNKNOWN", f"there is no manifest {digest}")
        try:
            if self.store.blob_size(digest) > MAX_DOCUMENT_SIZE:
                raise unknown  # a blob that is no manifest
            return parse_document(self.store.read_blob(digest, limit=MAX_DOCUMENT_SIZE))
        except (BlobNotFound, ModelNotFound):
            raise unknown from None
        except LadingError as error:
            if problem_of(error).status < 500:
                raise unknown from None
            raise

    async def _put_manifest(self, call: Call, reference: str, digest: Digest | None) -> None:
        """end-7."""
        await self.writers.renew()
        media_type = (call.req.content_type or "").partition(";")[0].strip().lower()
        if media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise Refused(415, "MANIFEST_INVALID", f"{quoted(media_type)} is not the type of a manifest")
        data = await self._read_document(call.req)
        await in_thread(self._store_manifest, call, reference, digest, media_type, data)

    async def _read_document(self, req: Request) -> bytes:
        data = await read_bounded(req, MAX_DOCUMENT_SIZE)
        if data is None:
            raise Refused(413, "SIZE_INVALID", f"a manifest has at most {MAX_DOCUMENT_SIZE} bytes")
        return data

    def _store_manifest(
        self, call: Call, reference: str, digest: Digest | None, media_type: str, data: bytes
    ) -> None:
        manifest = parse_document(data, media_type=media_type)
        got = Digest.of(data, algorithm=digest.algorithm) if digest is not None else manifest.digest
        if digest is not None and got != digest:
            raise Refused(400, "DIGEST_INVALID", f"the manifest is {got}")
        target = self.names.stored(call.name, reference) if digest is None else None
        missing = [blob for blob in manifest.blobs if not self.store.has(blob.digest, blob.size)]
        if missing:
            raise Refused(404, "MANIFEST_BLOB_UNKNOWN", f"blob {missing[0].digest} has not been pushed")
        if got.algorithm != "sha256":
            self.store.put_bytes(data, algorithm=got.algorithm)
        descriptor = self.store.put_manifest(manifest)
        if manifest.subject is not None:
            StoreReferrers(self.store, self.names.stored(call.name, "latest")).add(manifest)
            call.resp.set_header("OCI-Subject", str(manifest.subject.digest))
        if target is not None:
            self.store.tag(target, descriptor)
        call.digest_answer(201, got, f"/v2/{call.name}/manifests/{got}")

    def _delete_manifest(self, call: Call, reference: str, digest: Digest | None) -> None:
        """end-9: by tag, the tag goes; by digest, all of the repository's tags of it, and the manifest, too,
        where no other repository needs it."""
        if digest is None:
            for candidate in self.names.candidates(call.name, reference, call.host):
                with contextlib.suppress(ModelNotFound):
                    self.store.untag(candidate)
                    return
            raise Refused(404, "MANIFEST_UNKNOWN", f"there is no {quoted(f'{call.name}:{reference}')}")
        manifest = self._manifest_by_digest(digest)
        repositories = self.names.same_repository(call.name, call.host)
        for tagged in self.store.tags():
            if tagged.descriptor.digest == digest and tagged.reference.name.lower() in repositories:
                self.store.untag(tagged.reference)
        if manifest.subject is not None:
            for candidate in self.names.candidates(call.name, "latest", call.host):
                StoreReferrers(self.store, candidate).remove(manifest)
        with contextlib.suppress(BlobNotFound):  # another request was quicker
            self.store.discard(digest)

    # Blobs

    async def _blob(self, call: Call, digest: Digest) -> None:
        """end-2 and end-10."""
        _allow(call.req, "GET", "HEAD", "DELETE")
        resp = call.resp
        if call.req.method == "DELETE":
            if not await in_thread(self.store.discard, digest):
                raise Refused(405, "UNSUPPORTED", "the blob is part of a model; delete the model instead")
            resp.status = 202
            return
        resp.content_type = OCTET_STREAM
        resp.set_header("Accept-Ranges", "bytes")
        if call.req.method == "HEAD":
            # Whoever pushes relies on this answer, so it is given for sound blobs only.
            size = await in_thread(self._sound_size, digest)
            call.digest_answer(200, digest)
            resp.content_length = size
            return
        file = await in_thread(self.store.open_blob, digest)
        try:
            size = file.seek(0, os.SEEK_END)
            try:
                part = parse_range(call.req.get_header("Range"), size)
            except Unsatisfiable:
                resp.set_header("Content-Range", f"bytes */{size}")
                raise Refused(416, "SIZE_INVALID", "the range lies outside of the blob") from None
            first, end = (part.first, part.end) if part is not None else (0, size)
            call.digest_answer(206 if part is not None else 200, digest)
            if part is not None:
                resp.set_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
            resp.content_length = end - first
            sections = EXTENSION in call.req.scope.get("extensions", {})
            resp.stream = FileStream(file, first, end, sections=sections)
        except BaseException:
            file.close()
            raise

    def _sound_size(self, digest: Digest) -> int:
        if not self.store.intact(digest):
            raise BlobNotFound(str(digest))
        return self.store.blob_size(digest)

    # Uploads

    async def _upload(self, call: Call, upload_id: str) -> None:
        method = call.req.method
        if not upload_id:
            _allow(call.req, "POST")
            await self.writers.renew()
            return await self._begin(call)
        _allow(call.req, "GET", "PATCH", "PUT", "DELETE")
        if method == "GET":
            return self._progress(call, 204, upload_id, await in_thread(self.uploads.size, upload_id))
        if method == "DELETE":
            await in_thread(self.uploads.cancel, upload_id)
            call.resp.status = 204
            return None
        await self.writers.renew()
        if method == "PATCH":
            size = await self._receive(call, upload_id)
            return self._progress(call, 202, upload_id, size)
        digest = Digest.parse(call.req.get_param("digest") or "")
        await self._receive(call, upload_id)
        return await self._finish(call, upload_id, digest)

    async def _begin(self, call: Call) -> None:
        """end-4 and end-11."""
        mount, whole = call.req.get_param("mount"), call.req.get_param("digest")
        if mount is not None:
            digest = Digest.parse(mount)
            # All repositories share one store, so what any of them has can be mounted.
            if await in_thread(self.store.intact, digest):
                return call.digest_answer(201, digest, f"/v2/{call.name}/blobs/{digest}")
        elif whole is not None:
            digest = Digest.parse(whole)
            upload_id = await in_thread(self.uploads.begin)
            await self._receive(call, upload_id)
            return await self._finish(call, upload_id, digest)
        upload_id = await in_thread(self.uploads.begin)
        return self._progress(call, 202, upload_id, 0)

    async def _receive(self, call: Call, upload_id: str) -> int:
        """Appends the request's body to the upload; what came stays there when the client breaks off."""
        length = call.req.content_length
        with self.uploads.open(upload_id) as upload:
            self._require_place(call, upload_id, upload, length)
            before = upload.size
            await self._append_body(call.req, upload)
            if length is not None and upload.size - before != length:
                raise Refused(400, "SIZE_INVALID", "the body broke off")
            return upload.size

    async def _append_body(self, req: Request, upload: Upload) -> None:
        """In pieces. When the client goes, the server cancels this task; what has come is kept."""
        pending = bytearray()
        try:
            async for chunk in req.stream:
                pending += chunk
                if len(pending) >= PIECE:
                    piece, pending = bytes(pending), bytearray()
                    await finished(in_thread(upload.append, piece))
        finally:
            if pending:
                upload.append(bytes(pending))

    def _require_place(self, call: Call, upload_id: str, upload: Upload, length: int | None) -> None:
        """A chunk must begin where the last one ended, and be as long as it says."""
        header = call.req.get_header("Content-Range")
        if header is None:
            return
        match = _CONTENT_RANGE.fullmatch(header.strip())
        if match is None:
            raise Refused(400, "BLOB_UPLOAD_INVALID", "the Content-Range makes no sense")
        first, last = int(match[1]), int(match[2])
        if first != upload.size:
            self._progress(call, 416, upload_id, upload.size)
            raise Refused(416, "BLOB_UPLOAD_INVALID", f"the next byte is number {upload.size}")
        if length is not None and length != last - first + 1:
            raise Refused(400, "SIZE_INVALID", "Content-Range and Content-Length disagree")

    async def _finish(self, call: Call, upload_id: str, digest: Digest) -> None:
        await in_thread(self.uploads.commit, upload_id, digest)
        call.digest_answer(201, digest, f"/v2/{call.name}/blobs/{digest}")

    def _progress(self, call: Call, status: int, upload_id: str, size: int) -> None:
        """Where an upload is, and how far: ``Range: 0-N``, where N is the last byte's number."""
        call.resp.status = status
        call.resp.set_header("Location", f"/v2/{call.name}/blobs/uploads/{upload_id}")
        call.resp.set_header("Docker-Upload-UUID", upload_id)
        call.resp.set_header("Range", f"0-{max(0, size - 1)}")


def _page(req: Request, resp: Response, key: str, values: list[str], rest: dict[str, str]) -> None:
    """A sorted list, cut by ``n`` and ``last``, with a link to what follows."""
    last, count = req.get_param("last"), req.get_param("n")
    if count is not None and not re.fullmatch(r"[0-9]{1,9}", count):
        raise Refused(400, "PAGINATION_NUMBER_INVALID", "n must be a number")
    limit = min(int(count), MAX_PAGE) if count is not None else MAX_PAGE
    left = [value for value in values if last is None or value > last]
    shown = left[:limit]
    if shown and len(left) > len(shown):
        resp.set_header("Link", f'<{quote(req.path)}?n={limit}&last={quote(shown[-1], safe="")}>; rel="next"')
    _json(resp, {**rest, key: shown})


def _allow(req: Request, *methods: str) -> None:
    if req.method not in methods:
        raise Refused(405, "UNSUPPORTED", f"{req.method} is not supported here")


def _json(resp: Response, value: object) -> None:
    resp.content_type = "application/json"
    resp.data = json.dumps(value, ensure_ascii=False).encode()


def _render(resp: Response, problem: RegistryProblem) -> None:
    resp.status = problem.status
    _json(resp, problem.to_json())
