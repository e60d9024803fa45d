"""What every store promises, as tests. A test class inherits them and gives a ``store`` fixture.

class TestStoreOnTmpfs(StoreContract):
    @pytest.fixture
    def store(self) -> Store: ...
"""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from store_models import CONFIG_TYPE, WEIGHT_TYPE, describe, make_manifest, put_model

from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import (
    BadManifest,
    BadSource,
    BlobNotFound,
    DigestMismatch,
    IngestBusy,
    ModelNotFound,
    SizeMismatch,
)
from lading.oci.manifest import Index, Manifest
from lading.oci.reference import Reference
from lading.oci.store import Store, SweepPolicy

ABSENT = Digest.of(b"absent")
BIG = bytes(range(256)) * (40 << 10)  # 10 MiB: enough for the hashing thread


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in store.layout.ingest.iterdir())


class StoreContract:
    """The behaviours."""

    # Blobs

    @pytest.mark.parametrize("data", [b"", b"x", b"\0" * 5000, BIG], ids=["empty", "byte", "zeros", "10 MiB"])
    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_bytes_come_back(self, store: Store, data: bytes, algorithm: str) -> None:
        digest = store.put_bytes(data, algorithm=algorithm)
        assert digest == Digest.of(data, algorithm=algorithm)
        assert store.has(digest)
        assert store.has(digest, len(data))
        assert not store.has(digest, len(data) + 1)
        assert store.intact(digest, len(data))
        assert store.blob_size(digest) == len(data)
        assert store.read_blob(digest, limit=len(data)) == data
        assert store.blob_path(digest).read_bytes() == data
        with store.open_blob(digest) as blob:
            assert blob.read() == data
        assert leftovers(store) == []

    def test_storing_twice_is_storing_once(self, store: Store) -> None:
        digest = store.put_bytes(b"x")
        inode = store.blob_path(digest).stat().st_ino
        assert store.put_bytes(b"x") == digest
        assert store.blob_path(digest).stat().st_ino == inode

    def test_blobs_are_read_only(self, store: Store) -> None:
        mode = store.blob_path(store.put_bytes(b"x")).stat().st_mode
        assert stat.S_IMODE(mode) == 0o444

    def test_an_absent_blob_is_said_to_be_absent(self, store: Store) -> None:
        assert not store.has(ABSENT)
        assert not store.intact(ABSENT)
        for read in (
            lambda: store.blob_path(ABSENT),
            lambda: store.open_blob(ABSENT),
            lambda: store.blob_size(ABSENT),
            lambda: store.read_blob(ABSENT, limit=9),
        ):
            with pytest.raises(BlobNotFound, match=str(ABSENT)):
                read()

    def test_reading_is_bounded(self, store: Store) -> None:
        digest = store.put_bytes(b"12345")
        with pytest.raises(SizeMismatch):
            store.read_blob(digest, limit=4)

    # Ingests

    def test_nothing_is_visible_before_commit(self, store: Store) -> None:
        expected = describe(b"abcdef")
        with store.ingest(expected) as ingest:
            ingest.write(b"abc")
            assert not store.has(expected.digest)
            ingest.write(b"def")
            assert not store.has(expected.digest)
            assert ingest.commit() == expected.digest
            assert store.has(expected.digest)
        assert leftovers(store) == []

    def test_without_expectation_the_digest_is_found(self, store: Store) -> None:
        with store.ingest() as ingest:
            ingest.write(bytearray(b"ab"))
            ingest.write(memoryview(b"c"))
            assert ingest.offset == 3
            assert ingest.commit() == Digest.of(b"abc")

    def test_a_buffer_may_be_reused_after_write(self, store: Store) -> None:
        expected = describe(BIG)
        buffer = bytearray(1 << 20)
        with store.ingest(expected) as ingest:
            for start in range(0, len(BIG), len(buffer)):
                buffer[:] = BIG[start : start + len(buffer)]
                ingest.write(buffer)
            buffer[:] = b"\0" * len(buffer)
            assert ingest.commit() == expected.digest

    @pytest.mark.parametrize("resume", [False, True])
    def test_wrong_bytes_are_refused_and_removed(self, store: Store, resume: bool) -> None:
        expected = describe(b"right")
        with pytest.raises(DigestMismatch) as caught, store.ingest(expected, resume=resume) as ingest:
            ingest.write(b"wrong")
            ingest.commit()
        assert caught.value.expected == str(expected.digest)
        assert caught.value.got == str(Digest.of(b"wrong"))
        assert not store.has(expected.digest)
        assert leftovers(store) == []

    @pytest.mark.parametrize("resume", [False, True])
    def test_a_byte_too_many_is_refused_when_it_comes(self, store: Store, resume: bool) -> None:
        expected = describe(b"12345")
        with pytest.raises(SizeMismatch), store.ingest(expected, resume=resume) as ingest:
            ingest.write(b"12345")
            ingest.write(b"6")
        assert not store.has(expected.digest)
        assert leftovers(store) == []

    def test_a_byte_too_few_is_refused_at_commit(self, store: Store) -> None:
        expected = describe(b"12345")
        with pytest.raises(SizeMismatch) as caught, store.ingest(expected) as ingest:
            ingest.write(b"1234")
            ingest.commit()
        assert (caught.value.expected, caught.value.got) == (5, 4)
        assert leftovers(store) == []

    def test_leaving_without_commit_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(RuntimeError), store.ingest(describe(b"12345")) as ingest:
            ingest.write(b"123")
            raise RuntimeError
        assert leftovers(store) == []

    def test_an_interrupted_ingest_is_resumed(self, store: Store) -> None:
        expected = describe(BIG)
        with pytest.raises(RuntimeError), store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 0
            ingest.write(BIG[:9_000_000])
            raise RuntimeError
        assert leftovers(store) == [f"sha256-{expected.digest.hex}"]
        with store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 9_000_000
            ingest.write(BIG[9_000_000:])
            ingest.commit()
        assert store.read_blob(expected.digest, limit=len(BIG)) == BIG
        assert leftovers(store) == []

    def test_a_complete_leftover_needs_no_more_bytes(self, store: Store) -> None:
        expected = describe(b"12345")
        with store.ingest(expected, resume=True) as ingest:
            ingest.write(b"12345")
        with store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 5
            assert ingest.commit() == expected.digest

    def test_a_leftover_that_is_wrong_is_given_up(self, store: Store) -> None:
        expected = describe(b"12345")
        store.layout.partial(expected.digest).write_bytes(b"1X3")
        with pytest.raises(DigestMismatch), store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 3
            ingest.write(b"45")
            ingest.commit()
        with store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 0

    def test_a_leftover_that_is_too_long_is_started_anew(self, store: Store) -> None:
        expected = describe(b"12345")
        store.layout.partial(expected.digest).write_bytes(b"123456789")
        with store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 0
            ingest.write(b"12345")
            ingest.commit()
        assert store.read_blob(expected.digest, limit=5) == b"12345"

    def test_without_resume_a_leftover_is_started_anew(self, store: Store) -> None:
        expected = describe(b"12345")
        store.layout.partial(expected.digest).write_bytes(b"123")
        with store.ingest(expected) as ingest:
            assert ingest.offset == 0
            ingest.write(b"12345")
            ingest.commit()

    def test_what_is_there_is_said_to_be_present(self, store: Store) -> None:
        store.put_bytes(b"12345")
        with store.ingest(describe(b"12345")) as ingest:
            assert ingest.present
            assert ingest.offset == 5
            with pytest.raises(SizeMismatch):
                ingest.write(b"x")
            assert ingest.commit() == Digest.of(b"12345")
        assert leftovers(store) == []

    def test_one_writer_at_a_time(self, store: Store) -> None:
        expected = describe(b"12345")
        with store.ingest(expected) as first:
            with pytest.raises(IngestBusy), store.ingest(expected, wait_s=0.05):
                pass
            first.write(b"12345")
            first.commit()
        with store.ingest(expected, wait_s=0) as second:
            assert second.present

    def test_who_waits_finds_the_blob_present(self, store: Store) -> None:
        expected = describe(b"12345")
        seen: list[bool] = []

        def wait_for_it() -> None:
            with store.ingest(expected) as ingest:
                seen.append(ingest.present)

        with store.ingest(expected) as first:
            waiter = threading.Thread(target=wait_for_it)
            waiter.start()
            first.write(b"12345")
            first.commit()
        waiter.join(timeout=10)
        assert seen == [True]
        assert store.read_blob(expected.digest, limit=5) == b"12345"

    def test_who_waits_is_told_how_far_it_is_and_may_give_up(self, store: Store) -> None:
        expected = describe(b"12345")
        told: list[int] = []

        def stop(size: int) -> None:
            told.append(size)
            if len(told) == 3:
                raise RuntimeError("enough")

        with store.ingest(expected) as first:
            first.write(b"123")
            with pytest.raises(RuntimeError, match="enough"), store.ingest(expected, on_wait=stop):
                pass
            first.write(b"45")
            first.commit()
        assert told == [3, 3, 3]
        assert store.has(expected.digest)

    def test_who_waits_in_vain_writes(self, store: Store) -> None:
        expected = describe(b"12345")
        seen: list[bool] = []

        def wait_and_write() -> None:
            with store.ingest(expected) as ingest:
                seen.append(ingest.present)
                ingest.write(b"12345")
                ingest.commit()

        with store.ingest(expected) as first:
            waiter = threading.Thread(target=wait_and_write)
            waiter.start()
            first.write(b"123")
        waiter.join(timeout=10)
        assert seen == [False]
        assert store.read_blob(expected.digest, limit=5) == b"12345"
        assert leftovers(store) == []

    def test_a_file_that_was_written_elsewhere_is_adopted(self, store: Store) -> None:
        path = store.layout.ingest / "upload-1"
        path.write_bytes(b"12345")
        store.adopt(path, describe(b"12345"))
        assert store.read_blob(Digest.of(b"12345"), limit=5) == b"12345"
        assert leftovers(store) == []

    @pytest.mark.parametrize("data", [b"1234", b"123456", b"54321", b""])
    def test_a_wrong_file_is_not_adopted(self, store: Store, data: bytes) -> None:
        path = store.layout.ingest / "upload-1"
        path.write_bytes(data)
        with pytest.raises((SizeMismatch, DigestMismatch)):
            store.adopt(path, describe(b"12345"))
        assert not store.has(Digest.of(b"12345"))
        assert leftovers(store) == []

    def test_what_was_discarded_is_not_resumed(self, store: Store) -> None:
        with store.ingest(describe(b"12345"), resume=True) as ingest:
            ingest.write(b"123")
            ingest.discard()
        assert leftovers(store) == []

    # Damage

    @pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty", "folder", "link"])
    def test_damage_is_noticed_and_put_right(self, store: Store, damage: str, tmp_path: Path) -> None:
        data = b"some weights"
        digest = store.put_bytes(data)
        damage_blob(store.blob_path(digest), damage, tmp_path)
        assert not store.intact(digest, len(data))
        assert not store.intact(digest)
        if damage in ("folder", "link"):
            assert not store.has(digest)
        else:
            assert store.has(digest, len(data)) == (damage == "flip")
            with pytest.raises(DigestMismatch, match="expected sha256"):
                store.read_blob(digest, limit=100)
        if damage == "folder":
            assert store.fsck(repair=True).quarantined
        assert store.put_bytes(data) == digest
        assert store.intact(digest, len(data))
        assert store.read_blob(digest, limit=100) == data

    def test_an_ingest_replaces_a_damaged_blob(self, store: Store, tmp_path: Path) -> None:
        expected = describe(b"some weights")
        store.put_bytes(b"some weights")
        damage_blob(store.blob_path(expected.digest), "flip", tmp_path)
        with store.ingest(expected) as ingest:
            assert not ingest.present
            ingest.write(b"some weights")
            ingest.commit()
        assert store.intact(expected.digest)

    # Imports

    @pytest.mark.parametrize("data", [b"", b"x", BIG], ids=["empty", "byte", "10 MiB"])
    def test_a_file_is_imported_and_stays(self, store: Store, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        counted: list[int] = []
        imported = store.import_file(path, on_bytes=counted.append)
        assert (imported.digest, imported.size) == (Digest.of(data), len(data))
        assert sum(counted) == len(data)
        assert path.read_bytes() == data
        path.write_bytes(b"changed later")
        assert store.read_blob(imported.digest, limit=len(data)) == data
        assert leftovers(store) == []

    def test_a_file_that_is_there_is_not_written_again(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "one").write_bytes(BIG)
        (tmp_path / "two").write_bytes(BIG)
        imported = store.import_file(tmp_path / "one")
        inode = store.blob_path(imported.digest).stat().st_ino
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", None)  # whoever writes, fails
            counted: list[int] = []
            assert store.import_file(tmp_path / "two", on_bytes=counted.append) == imported
        assert sum(counted) == len(BIG)
        assert store.blob_path(imported.digest).stat().st_ino == inode

    def test_another_file_of_the_same_size_is_imported(self, store: Store, tmp_path: Path) -> None:
        store.put_bytes(b"12345")
        (tmp_path / "model").write_bytes(b"54321")
        counted: list[int] = []
        imported = store.import_file(tmp_path / "model", on_bytes=counted.append)
        assert store.read_blob(imported.digest, limit=5) == b"54321"
        assert sum(counted) == 5

    def test_a_damaged_blob_is_replaced_by_import(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "model").write_bytes(b"12345")
        digest = store.import_file(tmp_path / "model").digest
        damage_blob(store.blob_path(digest), "flip", tmp_path)
        store.import_file(tmp_path / "model")
        assert store.intact(digest, 5)

    def test_a_link_is_followed_by_import(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "blob").write_bytes(b"x")
        (tmp_path / "model.gguf").symlink_to("blob")
        assert store.import_file(tmp_path / "model.gguf").digest == Digest.of(b"x")

    @pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "loop"])
    def test_what_is_no_file_is_refused_without_waiting(
        self, store: Store, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "model.gguf"
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "loop":
            path.symlink_to(path)
        with pytest.raises(BadSource):
            store.import_file(path)
        assert leftovers(store) == []

    # Manifests and tags

    def test_a_model_comes_back(self, store: Store) -> None:
        manifest, _ = make_manifest(b"weights", b"licence")
        tagged = put_model(store, "llama3.2", b"weights", b"licence")
        assert str(tagged.reference) == "registry.ollama.ai/library/llama3.2:latest"
        assert tagged.descriptor == manifest.descriptor
        assert store.resolve(Reference.parse("llama3.2")) == manifest
        assert store.find(Reference.parse("llama3.2")) == tagged
        assert store.tags() == [tagged]

    def test_bytes_of_a_manifest_are_kept_exactly(self, store: Store) -> None:
        plain, blobs = make_manifest(b"w")
        manifest = Manifest.parse(b" " + plain.raw + b"\n\n")
        for blob in blobs:
            store.put_bytes(blob)
        reference = Reference.parse("m")
        store.tag(reference, store.put_manifest(manifest))
        assert store.resolve(reference).raw == b" " + plain.raw + b"\n\n"

    @pytest.mark.parametrize(
        "name",
        [
            "llama3.2",
            "hf.co/org/Model-GGUF:Q4_K_M",
            "localhost:5000/a/b/c:v1",
            "[::1]:5000/m",
            f"m@{make_manifest(b'w')[0].digest}",
            f"m:t@{make_manifest(b'w')[0].digest}",
            "_m",
        ],
    )
    def test_every_kind_of_reference_round_trips(self, store: Store, name: str) -> None:
        reference = Reference.parse(name)
        assert put_model(store, name, b"w").reference == reference
        assert [tag.reference for tag in store.tags()] == [reference]
        assert store.resolve(reference).digest == make_manifest(b"w")[0].digest

    @pytest.mark.parametrize("missing", [0, 1, 2])
    def test_an_incomplete_model_is_not_tagged(self, store: Store, missing: int) -> None:
        put_model(store, "m", b"old")
        before = store.tags()
        manifest, blobs = make_manifest(b"one", b"two")
        for position, blob in enumerate(blobs):
            if position != missing:
                store.put_bytes(blob)
        descriptor = store.put_manifest(manifest)
        with pytest.raises(BlobNotFound, match=str(Digest.of(blobs[missing]))):
            store.tag(Reference.parse("m"), descriptor)
        assert store.tags() == before

    def test_a_manifest_that_lies_about_a_size_is_not_tagged(self, store: Store) -> None:
        config = store.put_bytes(b"{}")
        weights = store.put_bytes(b"weights")
        lying = Manifest.build(
            config=Descriptor(CONFIG_TYPE, config, 2), layers=[Descriptor(WEIGHT_TYPE, weights, 6)]
        )
        with pytest.raises(SizeMismatch):
            store.tag(Reference.parse("m"), store.put_manifest(lying))
        assert store.tags() == []

    def test_a_manifest_that_is_not_there_or_is_none_is_not_tagged(self, store: Store) -> None:
        manifest, _ = make_manifest(b"x")
        with pytest.raises(BlobNotFound):
            store.tag(Reference.parse("m"), manifest.descriptor)
        store.put_bytes(b"no manifest")
        no_manifest = describe(b"no manifest", manifest.media_type)
        with pytest.raises(BadManifest):
            store.tag(Reference.parse("m"), no_manifest)
        assert store.tags() == []

    def test_a_pinned_reference_takes_only_its_digest(self, store: Store) -> None:
        tagged = put_model(store, "m", b"w")
        with pytest.raises(DigestMismatch):
            store.tag(Reference.parse(f"m@{ABSENT}"), tagged.descriptor)

    def test_a_digest_finds_the_tag_of_the_same_repository(self, store: Store) -> None:
        tagged = put_model(store, "hf.co/o/m:t", b"w")
        digest = tagged.descriptor.digest
        assert store.resolve(Reference.parse(f"hf.co/o/m@{digest}")).digest == digest
        for other in (f"hf.co/o/other@{digest}", f"hf.co/o/m@{ABSENT}"):
            with pytest.raises(ModelNotFound):
                store.resolve(Reference.parse(other))

    def test_case_does_not_matter_and_the_stored_spelling_stays(self, store: Store) -> None:
        put_model(store, "hf.co/Org/Repo:Q4_K_M", b"one")
        other = Reference.parse("hf.co/org/repo:q4_k_m")
        assert store.resolve(other) == make_manifest(b"one")[0]
        tagged = put_model(store, "hf.co/org/repo:q4_k_m", b"two")
        assert str(tagged.reference) == "hf.co/Org/Repo:Q4_K_M"
        assert [str(tag.reference) for tag in store.tags()] == ["hf.co/Org/Repo:Q4_K_M"]
        assert store.resolve(other) == make_manifest(b"two")[0]
        assert str(store.untag(other).reference) == "hf.co/Org/Repo:Q4_K_M"
        assert store.tags() == []

    def test_what_is_not_there_is_not_found(self, store: Store) -> None:
        put_model(store, "m", b"w")
        absent = Reference.parse("m:other")
        for call in (store.resolve, store.find, store.untag):
            with pytest.raises(ModelNotFound, match="model 'm:other' not found"):
                call(absent)

    def test_untag_leaves_other_tags_and_their_blobs(self, store: Store) -> None:
        put_model(store, "a", b"shared")
        put_model(store, "b", b"shared")
        assert str(store.untag(Reference.parse("a")).reference).endswith("/a:latest")
        store.gc()
        assert store.resolve(Reference.parse("b"))
        assert store.fsck().clean

    def test_untag_by_digest_does_not_take_a_tag(self, store: Store) -> None:
        tagged = put_model(store, "m:t", b"w")
        with pytest.raises(ModelNotFound):
            store.untag(Reference.parse(f"m@{tagged.descriptor.digest}"))
        assert len(store.tags()) == 1

    def test_time_of_a_tag_is_kept_and_the_latest_comes_first(self, store: Store) -> None:
        start = datetime.now(UTC)
        first, second = put_model(store, "a", b"1"), put_model(store, "b", b"2")
        assert [tag.modified for tag in store.tags()] == [second.modified, first.modified]
        assert timedelta() <= second.modified - start < timedelta(minutes=1)
        again = put_model(store, "a", b"1")
        assert again.descriptor == first.descriptor
        assert store.tags()[0] == again

    def test_an_index_is_kept_but_is_no_model(self, store: Store) -> None:
        tagged = put_model(store, "m", b"w")
        absent, _ = make_manifest(b"another platform")
        index = Index.build(manifests=[tagged.descriptor, absent.descriptor])
        store.tag(Reference.parse("i"), store.put_manifest(index))
        store.untag(Reference.parse("m"))
        store.gc()
        assert store.has(tagged.descriptor.digest)
        assert store.has(Digest.of(b"w"))
        assert store.read_manifest(index.descriptor) == index
        with pytest.raises(BadManifest, match="index of 2 manifests"):
            store.resolve(Reference.parse("i"))
        assert store.fsck().clean

    # Sweep and leases

    def test_sweep_takes_what_nothing_needs(self, store: Store) -> None:
        put_model(store, "m", b"weights", config=b"{}")
        stray = store.put_bytes(b"stray")
        rehearsal = store.gc(dry_run=True)
        assert [(blob.digest, blob.size) for blob in rehearsal.blobs] == [(stray, 5)]
        assert (rehearsal.freed, rehearsal.dry_run) == (5, True)
        assert store.has(stray)
        report = store.gc()
        assert report.blobs == rehearsal.blobs
        assert not report.dry_run
        assert not store.has(stray)
        assert store.gc().blobs == ()
        store.untag(Reference.parse("m"))
        manifest, _ = make_manifest(b"weights", config=b"{}")
        assert store.gc().freed == len(manifest.raw) + len(b"weights") + len(b"{}")
        assert list(store.layout.iter_blob_files()) == []

    def test_what_is_touched_under_a_lease_stays(self, store: Store, tmp_path: Path) -> None:
        found, checked, idle = (store.put_bytes(data) for data in (b"found", b"checked", b"idle"))
        base = put_model(store, "base", b"base weights")
        (tmp_path / "f").write_bytes(b"imported")
        other = Store.open(store.root)
        with store.lease():
            put = store.put_bytes(b"put")
            assert store.has(found)
            assert store.intact(checked)
            imported = store.import_file(tmp_path / "f").digest
            with store.ingest(describe(b"ingested")) as ingest:
                ingest.write(b"ingested")
                ingested = ingest.commit()
            store.resolve(Reference.parse("base"))
            other.untag(Reference.parse("base"))
            report = other.gc()
            assert [blob.digest for blob in report.blobs] == [idle]
            assert report.kept_leased == 5 + 3
            for digest in (put, found, checked, imported, ingested, base.descriptor.digest):
                assert store.has(digest)
        assert len(other.gc().blobs) == 5 + 3
        assert list(store.layout.leases.iterdir()) == []

    def test_threads_share_a_lease_and_leases_overlap(self, store: Store) -> None:
        digests: list[Digest] = []
        with store.lease():
            with store.lease():
                thread = threading.Thread(target=lambda: digests.append(store.put_bytes(b"by a thread")))
                thread.start()
                thread.join()
            assert store.gc().blobs == ()
            assert store.has(digests[0])
        assert len(store.gc().blobs) == 1

    def test_a_running_ingest_is_not_swept(self, store: Store) -> None:
        other = Store.open(store.root)
        for expected in (describe(b"12345"), None):
            with store.ingest(expected) as ingest:
                ingest.write(b"123")
                report = other.gc(policy=SweepPolicy(keep_partial_s=0))
                assert (report.leftovers, report.kept_leftovers) == (0, 1)
                ingest.write(b"45")
                assert ingest.commit() == Digest.of(b"12345")
            store.gc()

    def test_leftovers_go_when_they_are_old(self, store: Store) -> None:
        partial = store.layout.partial(ABSENT)
        partial.write_bytes(b"123")
        (store.layout.ingest / "new-1234").write_bytes(b"4567")
        report = store.gc()
        assert (report.leftovers, report.leftover_size, report.kept_leftovers) == (1, 4, 1)
        assert partial.exists()
        os.utime(partial, (0, 0))
        report = store.gc(dry_run=True)
        assert (report.leftovers, report.freed) == (1, 3)
        assert partial.exists()
        assert store.gc().leftovers == 1
        assert leftovers(store) == []

    def test_grace_keeps_what_has_just_come(self, store: Store) -> None:
        digest = store.put_bytes(b"uploaded, not yet named")
        assert store.gc(policy=SweepPolicy(grace_s=3600)).blobs == ()
        assert [blob.digest for blob in store.gc().blobs] == [digest]


def damage_blob(path: Path, damage: str, scratch: Path) -> None:
    """Spoil a file under ``blobs/`` in one of the ways that disks and people do."""
    data = path.read_bytes()
    path.chmod(0o644)
    if damage == "flip":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "extend":
        path.write_bytes(data + b"x")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "link":
        (scratch / "elsewhere").write_bytes(data)
        path.unlink()
        path.symlink_to(scratch / "elsewhere")
