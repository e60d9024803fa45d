"""``/api/blobs/{digest}``: files on their way to ``/api/create``."""

from __future__ import annotations

import asyncio
import contextlib

from falcon.asgi import Request, Response

from ...oci.digest import Digest
from ...oci.errors import DigestMismatch
from ...oci.incoming import IncomingUploads, UploadUnknown
from ..errors import BadField, BodyTooLarge
from ..registry.lease import WritersLease
from ..services import Services
from .create import parse_blob_digest

MAX_BLOB = 1 << 40
"""Bytes."""
_PIECE = 1 << 20


class Blobs:
    """HEAD and POST /api/blobs/{digest}"""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._uploads = IncomingUploads(services.store)
        # What was uploaded is kept until the create that names it.
        self._writers = WritersLease(services.store)

    async def on_head(self, req: Request, resp: Response, digest: str) -> None:
        there = await asyncio.to_thread(self._store.has, parse_blob_digest(digest))
        resp.status = 200 if there else 404

    async def on_post(self, req: Request, resp: Response, digest: str) -> None:
        """201 when it was stored, 200 when it was here already."""
        expected = parse_blob_digest(digest)
        await self._writers.renew()
        if await asyncio.to_thread(self._store.intact, expected):
            resp.status, resp.content_length = 200, 0
            return
        upload_id = await asyncio.to_thread(self._uploads.begin)
        try:
            await self._receive(req, upload_id)
            await asyncio.to_thread(self._commit, upload_id, expected)
        finally:
            with contextlib.suppress(UploadUnknown):  # it is a blob by now
                self._uploads.cancel(upload_id)
        resp.status, resp.content_length = 201, 0

    async def _receive(self, req: Request, upload_id: str) -> None:
        if (req.content_length or 0) > MAX_BLOB:
            raise BodyTooLarge(MAX_BLOB)
        pending = bytearray()
        with self._uploads.open(upload_id) as upload:
            async for piece in req.stream:
                pending += piece
                if len(pending) >= _PIECE:
                    await asyncio.to_thread(upload.append, bytes(pending))
                    pending.clear()
                if upload.size > MAX_BLOB:
                    raise BodyTooLarge(MAX_BLOB)
            if pending:
                await asyncio.to_thread(upload.append, bytes(pending))

    def _commit(self, upload_id: str, expected: Digest) -> None:
        try:
            self._uploads.commit(upload_id, expected)
        except DigestMismatch as error:
            words = f'digest mismatch, expected "{error.expected}", got "{error.got}"'
            raise BadField(words, field="digest") from error
