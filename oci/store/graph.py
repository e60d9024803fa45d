"""Which blobs a tag needs: reading manifests from the store, and walking from them."""

from __future__ import annotations

from collections.abc import Iterator

from ...modelfile.errors import IntegrityError
from ..canonical import MAX_DOCUMENT_SIZE
from ..descriptor import Descriptor
from ..digest import Digest
from ..errors import BadManifest, BlobNotFound, SizeMismatch
from ..manifest import Index, Manifest, parse_document
from ..media_type import INDEX_TYPES, MANIFEST_TYPES
from .blob import REPAIR_HINT, read_blob
from .layout import StoreLayout


def is_document(descriptor: Descriptor) -> bool:
    """Whether the content is a manifest or an index, which names further content."""
    return descriptor.media_type in MANIFEST_TYPES or descriptor.media_type in INDEX_TYPES


def read_document(layout: StoreLayout, descriptor: Descriptor) -> Manifest | Index:
    """The manifest or index that ``descriptor`` names, verified.

    Raises: BlobNotFound, DigestMismatch, SizeMismatch, BadManifest, StoreFailure.
    """
    data = read_blob(layout, descriptor.digest, limit=MAX_DOCUMENT_SIZE)
    if len(data) != descriptor.size:
        raise SizeMismatch(str(descriptor.digest), descriptor.size, len(data), hint=REPAIR_HINT)
    return parse_document(data, media_type=descriptor.media_type)


class Unreadable(Exception):
    """Internal to this package: the walk cannot go on, because of ``cause`` at ``descriptor``."""

    def __init__(self, descriptor: Descriptor, cause: BadManifest | BlobNotFound | IntegrityError) -> None:
        super().__init__(str(cause))
        self.descriptor = descriptor
        self.cause = cause


def walk(layout: StoreLayout, root: Descriptor) -> Iterator[Descriptor]:
    """``root`` and every descriptor reachable from it, each content once, in no particular order.

    The manifests of an index may be absent, since a copy of an index may hold one platform only; those
    are left out. Any other manifest that cannot be read ends the walk.

    Raises: Unreadable.
    """
    seen: set[tuple[Digest, str]] = set()
    waiting: list[tuple[Descriptor, bool]] = [(root, True)]
    while waiting:
        descriptor, required = waiting.pop()
        key = (descriptor.digest, descriptor.media_type)
        if key in seen or (not required and not layout.blob(descriptor.digest).exists()):
            continue
        seen.add(key)
        yield descriptor
        if is_document(descriptor):
            try:
                document = read_document(layout, descriptor)
            except (BadManifest, BlobNotFound, IntegrityError) as error:
                raise Unreadable(descriptor, error) from error
            waiting += [(child, isinstance(document, Manifest)) for child in document.blobs]
