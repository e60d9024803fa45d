"""The store: an OCI image layout on disk. Its life is told in `store`."""

from .contents import file_at
from .store import (
    FsckReport,
    GcReport,
    ImportedFile,
    Ingest,
    LayerContents,
    PackedFile,
    Store,
    SweepPolicy,
    TaggedManifest,
)

__all__ = [
    "FsckReport",
    "GcReport",
    "ImportedFile",
    "Ingest",
    "LayerContents",
    "PackedFile",
    "Store",
    "SweepPolicy",
    "TaggedManifest",
    "file_at",
]
