"""What must hold after every fault: nothing that was there is lost, and what is left over can be removed."""

from __future__ import annotations

from pathlib import Path

from lading.oci.digest import Digest
from lading.oci.reference import Reference
from lading.oci.store import Store, SweepPolicy

Snapshot = dict[str, str]
"""The digest of each tag."""


def snapshot(store: Store) -> Snapshot:
    """The tags of ``store`` now."""
    return {str(tag.reference): str(tag.descriptor.digest) for tag in store.tags()}


def assert_nothing_lost(root: Path, before: Snapshot, *, may_change: tuple[str, ...] = ()) -> Snapshot:
    """Check a store after a fault, and again after ``gc``; tags in ``may_change`` are free to come or go.

    Returns the tags that were found.
    """
    store = Store.open(root)
    after = snapshot(store)
    for name, digest in before.items():
        if name not in may_change:
            assert after.get(name) == digest, f"the tag {name} was lost or changed"
    assert set(after) <= set(before) | set(may_change)
    report = store.fsck()
    assert report.clean, report.problems
    for path, digest in store.layout.iter_blob_files():
        assert digest is not None
        assert Digest.of(path.read_bytes(), algorithm=digest.algorithm) == digest
    for name in after:
        store.resolve(Reference.parse(name))
    store.gc(policy=SweepPolicy(keep_partial_s=0))
    assert not list(store.layout.ingest.iterdir())
    assert not list(store.layout.leases.iterdir())
    assert store.fsck().clean
    assert snapshot(store) == after
    return after
