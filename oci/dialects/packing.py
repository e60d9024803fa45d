"""Whether a layer is a file as it is, or an archive; by its media type."""

from __future__ import annotations

from enum import StrEnum


class Packing(StrEnum):
    """The form of a layer's bytes."""

    RAW = "raw"
    TAR = "tar"
    GZIP = "tar+gzip"
    ZSTD = "tar+zstd"


_ENDINGS = {
    ".tar": Packing.TAR,
    ".tar+gzip": Packing.GZIP,
    ".tar.gzip": Packing.GZIP,  # Docker's images
    ".tar+zstd": Packing.ZSTD,
    ".tar.zstd": Packing.ZSTD,
}


def packing_of(media_type: str) -> Packing:
    """``application/vnd.oci.image.layer.v1.tar+gzip`` is packed as GZIP, and so on; all else is RAW."""
    return next((packing for ending, packing in _ENDINGS.items() if media_type.endswith(ending)), Packing.RAW)
