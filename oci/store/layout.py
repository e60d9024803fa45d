"""Where a store keeps what. The one place where a digest becomes a path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..digest import HEX_LENGTHS, Digest
from ..errors import BadDigest


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """The paths below a store's root. Knows no content and does no I/O but listing.

    ``oci-layout``, ``index.json`` and ``blobs/`` are those of an OCI image layout (OCI image-spec 1.1,
    image-layout.md); the rest is ours and other readers of the layout ignore it.
    """

    root: Path

    @property
    def oci_layout(self) -> Path:
        """The file that says: this is an image layout."""
        return self.root / "oci-layout"

    @property
    def index(self) -> Path:
        """The tags: an image index, one entry a tag."""
        return self.root / "index.json"

    @property
    def version(self) -> Path:
        """The version of what is ours in the store."""
        return self.root / "store.json"

    @property
    def lock(self) -> Path:
        """The empty file that writers lock: shared to add a blob, exclusive to tag and to sweep."""
        return self.root / "lock"

    @property
    def blobs(self) -> Path:
        """Verified content: ``blobs/<algorithm>/<hex>``. What is here is complete."""
        return self.root / "blobs"

    @property
    def ingest(self) -> Path:
        """Content on its way in. On the same file system as ``blobs``, so that a rename can publish it."""
        return self.root / "ingest"

    @property
    def leases(self) -> Path:
        """One file for each running operation, naming the blobs it relies on."""
        return self.root / "leases"

    @property
    def quarantine(self) -> Path:
        """Damaged files that ``fsck`` took out of ``blobs``."""
        return self.root / "quarantine"

    @property
    def contents(self) -> Path:
        """What is packed in layers: ``contents/<algorithm>/<hex>``, named by the layer's digest."""
        return self.root / "contents"

    def contents_of(self, digest: Digest) -> Path:
        """Where the record of what is packed in a layer is, or would be."""
        return self.contents / digest.algorithm / digest.hex

    def blob(self, digest: Digest) -> Path:
        """Where the blob of ``digest`` is, or would be."""
        return self.blobs / digest.algorithm / digest.hex

    def partial(self, digest: Digest) -> Path:
        """Where the blob of ``digest`` is written while it comes in."""
        return self.ingest / f"{digest.algorithm}-{digest.hex}"

    def iter_blob_files(self) -> Iterator[tuple[Path, Digest | None]]:
        """Every file below ``blobs`` with the digest that its place says; None where it says none."""
        for folder in listing(self.blobs):
            if folder.name in HEX_LENGTHS and folder.is_dir() and not folder.is_symlink():
                for path in listing(folder):
                    try:
                        yield path, Digest(folder.name, path.name)
                    except BadDigest:
                        yield path, None
            else:
                yield folder, None


def listing(folder: Path) -> list[Path]:
    """The paths in a folder, sorted; none where there is no such folder. Raises: OSError."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
