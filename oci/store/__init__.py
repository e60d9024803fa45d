"""The store: an OCI image layout on disk. Its life is told in `store`."""

from .store import FsckReport, GcReport, ImportedFile, Ingest, Store, SweepPolicy, TaggedManifest

__all__ = ["FsckReport", "GcReport", "ImportedFile", "Ingest", "Store", "SweepPolicy", "TaggedManifest"]
