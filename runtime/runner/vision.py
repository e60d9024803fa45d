"""From files to what a model sees of them, each picture once. Runner process only."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from .image_cells import ImageParts, ImagePiece
from .picture import read_picture
from .projector import Projector

_KEPT_BYTES = 128 * 1024 * 1024


class Vision:
    """Reads pictures one after another, in a thread of its own, beside the engine's.

    A conversation brings its pictures again with every turn, so what was made of them is kept: of the last
    ones, up to ``kept_bytes``.
    """

    def __init__(self, projector: Projector, *, kept_bytes: int = _KEPT_BYTES) -> None:
        self._projector = projector
        self._kept_bytes = kept_bytes
        self._seen: OrderedDict[bytes, ImageParts] = OrderedDict()
        self._size = 0
        self._thread = ThreadPoolExecutor(1, "vision")

    async def read(self, file: bytes, tenant: str = "") -> ImageParts:
        """What the picture in ``file`` is in a prompt. What was made of a tenant's is kept for that tenant
        alone, as prefixes are.

        Raises: BadRequest; RunnerFault where llama.cpp fails.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, file, tenant)

    def _read(self, file: bytes, tenant: str) -> ImageParts:
        key = hashlib.sha256(file).digest() + tenant.encode()
        parts = self._seen.get(key)
        if parts is None:
            parts = self._seen[key] = self._projector.read(read_picture(file))
            self._size += _size(parts)
        self._seen.move_to_end(key)
        while self._size > self._kept_bytes and len(self._seen) > 1:
            _, oldest = self._seen.popitem(last=False)
            self._size -= _size(oldest)
        return parts


def _size(parts: ImageParts) -> int:
    return sum(part.embeddings.nbytes for part in parts if isinstance(part, ImagePiece))
