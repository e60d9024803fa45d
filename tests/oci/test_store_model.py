"""The store against a simple model of it: any sequence of operations leaves both saying the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from store_contract import damage_blob
from store_models import describe, make_manifest, put_model

from lading.oci.digest import Digest
from lading.oci.errors import ModelNotFound
from lading.oci.manifest import Manifest
from lading.oci.reference import Reference
from lading.oci.store import Store, SweepPolicy

NAMES = st.sampled_from(["a", "A", "b", "b:v2", "hf.co/o/m:Q4", "HF.co/O/M:q4"])
LAYERS = st.lists(st.sampled_from([b"one", b"two", b"three", b""]), max_size=3)
BLOBS = st.sampled_from([b"one", b"two", b"three", b"loose"])


class StoreMachine(RuleBasedStateMachine):
    """``tags`` and ``blobs`` are what the store should hold."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="lading-test-", dir=shm if shm.is_dir() else None))
        self.store = Store.open(self.folder / "store")
        self.tags: dict[str, tuple[str, Manifest]] = {}
        self.blobs: dict[Digest, bytes] = {}
        self.partial: dict[Digest, int] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(name=NAMES, layers=LAYERS)
    def tag(self, name: str, layers: list[bytes]) -> None:
        manifest, blobs = make_manifest(*layers)
        tagged = put_model(self.store, name, *layers)
        key = Reference.parse(name).familiar_key
        spelled, _ = self.tags.get(key, (str(Reference.parse(name)), manifest))
        assert str(tagged.reference) == spelled
        self.tags[key] = (spelled, manifest)
        self.blobs |= {Digest.of(data): data for data in (*blobs, manifest.raw)}

    @rule(name=NAMES)
    def untag(self, name: str) -> None:
        reference = Reference.parse(name)
        if self.tags.pop(reference.familiar_key, None) is None:
            with pytest.raises(ModelNotFound):
                self.store.untag(reference)
        else:
            self.store.untag(reference)

    @rule(data=BLOBS)
    def put(self, data: bytes) -> None:
        self.blobs[self.store.put_bytes(data)] = data

    @rule(data=BLOBS, cut=st.integers(0, 5))
    def pull(self, data: bytes, cut: int) -> None:
        """Write up to ``cut`` bytes more of a blob, and commit if that is all."""
        expected = describe(data)
        with self.store.ingest(expected, resume=True) as ingest:
            assert ingest.present == (expected.digest in self.blobs)
            if not ingest.present:
                assert ingest.offset == self.partial.get(expected.digest, 0)
                ingest.write(data[ingest.offset : ingest.offset + cut])
                self.partial[expected.digest] = ingest.offset
            if ingest.offset == len(data):
                ingest.commit()
                self.blobs[expected.digest] = data
        if expected.digest in self.blobs:
            self.partial.pop(expected.digest, None)

    @rule(keep_partial=st.booleans(), rehearse=st.booleans())
    def sweep(self, keep_partial: bool, rehearse: bool) -> None:
        policy = SweepPolicy() if keep_partial else SweepPolicy(keep_partial_s=0)
        needed = {
            digest
            for _, manifest in self.tags.values()
            for digest in (manifest.digest, *(blob.digest for blob in manifest.blobs))
        }
        report = self.store.gc(dry_run=rehearse, policy=policy)
        assert {blob.digest for blob in report.blobs} == self.blobs.keys() - needed
        if not rehearse:
            self.blobs = {digest: data for digest, data in self.blobs.items() if digest in needed}
            if not keep_partial:
                self.partial.clear()

    @precondition(lambda self: self.blobs)
    @rule(choice=st.integers(0, 100), damage=st.sampled_from(["flip", "truncate", "extend", "empty", "link"]))
    def damage_and_put_right(self, choice: int, damage: str) -> None:
        digest = sorted(self.blobs)[choice % len(self.blobs)]
        data = self.blobs[digest]
        if not data and damage in ("flip", "truncate", "empty"):
            return
        damage_blob(self.store.blob_path(digest), damage, self.folder)
        assert not self.store.intact(digest, len(data))
        assert not self.store.fsck().clean
        assert self.store.put_bytes(data) == digest

    @rule()
    def reopen(self) -> None:
        self.store = Store.open(self.folder / "store")

    @invariant()
    def same_as_the_model(self) -> None:
        assert {str(tag.reference): tag.descriptor.digest for tag in self.store.tags()} == {
            spelled: manifest.digest for spelled, manifest in self.tags.values()
        }
        for spelled, manifest in self.tags.values():
            assert self.store.resolve(Reference.parse(spelled)) == manifest
        stored = {digest: path.read_bytes() for path, digest in self.store.layout.iter_blob_files()}
        assert stored == self.blobs
        assert {path.name: path.stat().st_size for path in self.store.layout.ingest.iterdir()} == {
            f"sha256-{digest.hex}": size for digest, size in self.partial.items() if size
        }
        assert self.store.fsck().clean


StoreMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestStoreAgainstModel = StoreMachine.TestCase
