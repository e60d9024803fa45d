"""The check finds every flipped bit, says whom it hurts and what to do, and repairs without losing a tag."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from store_contract import damage_blob
from store_models import describe, make_manifest, put_model

from lading.oci.digest import Digest
from lading.oci.errors import StoreCorrupt
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.store import Store
from lading.oci.store.fsck import ProblemKind
from lading.oci.store.mark import has_mark

WEIGHTS = Digest.of(b"weights")


def kinds(store: Store) -> list[str]:
    return [problem.kind for problem in store.fsck().problems]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << (position % 8)
    path.chmod(0o644)
    path.write_bytes(data)


def test_every_flipped_bit_is_found(memory_folder: Path | None, tmp_path: Path) -> None:
    store = Store.open((memory_folder or tmp_path) / "store")
    put_model(store, "hf.co/org/m:Q4", b"weights", config=b"{}")
    assert store.fsck().clean
    files = [store.layout.index, *(path for path, _ in store.layout.iter_blob_files())]
    flips = 0
    for path in files:
        sound = path.read_bytes()
        for position in range(len(sound)):
            flip(path, position)
            assert not store.fsck().clean, f"bit {position % 8} of byte {position} of {path.name}"
            path.write_bytes(sound)
            flips += 1
    assert flips > 800
    assert store.fsck().clean


def test_marks_are_not_trusted(store: Store) -> None:
    put_model(store, "m", b"weights")
    path = store.blob_path(WEIGHTS)
    facts = path.stat()
    flip(path, 3)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert store.intact(WEIGHTS)  # decay below the file system: the mark cannot see it
    assert kinds(store) == ["corrupt-blob"]


def test_a_copy_is_not_taken_for_verified(store: Store, tmp_path: Path) -> None:
    put_model(store, "m", b"weights")
    path = store.blob_path(WEIGHTS)
    shutil.copy2(path, tmp_path / "copy")
    facts = path.stat()
    flip(tmp_path / "copy", 3)
    os.utime(tmp_path / "copy", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "copy").replace(path)
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    assert not store.intact(WEIGHTS, len(b"weights"))


def test_a_sound_copy_is_verified_once_and_then_marked(store: Store, tmp_path: Path) -> None:
    put_model(store, "m", b"weights")
    shutil.copytree(store.root, tmp_path / "copy")
    copy = Store.open(tmp_path / "copy")
    path = copy.blob_path(WEIGHTS)
    assert not has_mark(path.stat(), WEIGHTS)
    assert copy.intact(WEIGHTS)
    assert has_mark(path.stat(), WEIGHTS)


def test_a_damaged_blob_is_told_once_with_all_its_models(store: Store) -> None:
    put_model(store, "a", b"weights", b"a")
    put_model(store, "b", b"weights", b"b")
    put_model(store, "c", b"others")
    flip(store.blob_path(WEIGHTS), 0)
    report = store.fsck()
    (problem,) = report.problems
    assert problem.kind is ProblemKind.CORRUPT_BLOB
    assert problem.subject == str(WEIGHTS)
    assert sorted(problem.models) == ["a:latest", "b:latest"]
    assert "lading pull a:latest" in problem.remedy
    assert report.tags == 3


def test_missing_content_is_found(store: Store) -> None:
    put_model(store, "m", b"weights")
    store.blob_path(WEIGHTS).unlink()
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.subject) == ("missing-blob", str(WEIGHTS))
    assert problem.models == ("m:latest",)


def test_a_tag_without_manifest_is_found(store: Store) -> None:
    tagged = put_model(store, "m", b"weights")
    store.blob_path(tagged.descriptor.digest).unlink()
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.subject) == ("missing-blob", str(tagged.descriptor.digest))


def test_a_manifest_of_another_program_may_lie_or_be_none(store: Store) -> None:
    put_model(store, "m", b"weights")
    store.put_bytes(b"no manifest")
    document = json.loads(store.layout.index.read_bytes())
    (entry,) = document["manifests"]
    no_manifest = describe(b"no manifest")
    document["manifests"] = [
        entry | {"size": entry["size"] + 1},
        entry | {"digest": str(no_manifest.digest), "size": no_manifest.size, "annotations": {}},
        entry | {"digest": "sha256:../../x"},
    ]
    store.layout.index.write_text(json.dumps(document))
    found = kinds(store)
    assert sorted(found) == ["bad-manifest", "changed-index", "damaged-index", "wrong-size"]
    assert [str(tag.reference) for tag in store.tags()] == ["registry.ollama.ai/library/m:latest"]
    with pytest.raises(StoreCorrupt):
        store.gc()
    assert store.has(WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"manifests":null}', b'{"manifests":[],"manifests":[]}', b"\xff"],
)
def test_an_unreadable_index_is_one_problem_and_stops_gc(store: Store, content: bytes) -> None:
    put_model(store, "m", b"weights")
    store.layout.index.write_bytes(content)
    assert kinds(store) == ["damaged-index"]
    for call in (store.tags, store.gc, lambda: store.resolve(Reference.parse("m"))):
        with pytest.raises(StoreCorrupt):
            call()
    with pytest.raises(StoreCorrupt):
        put_model(store, "n", b"x")
    assert store.layout.index.read_bytes() == content
    assert store.has(WEIGHTS)


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty", "folder", "link"])
def test_repair_takes_damage_away_and_a_pull_heals(store: Store, tmp_path: Path, damage: str) -> None:
    put_model(store, "m", b"weights")
    before = store.tags()
    damage_blob(store.blob_path(WEIGHTS), damage, tmp_path)
    report = store.fsck(repair=True)
    assert [problem.kind for problem in report.problems] == ["corrupt-blob"]
    (taken,) = report.quarantined
    assert taken.parent == store.layout.quarantine
    assert WEIGHTS.hex in taken.name
    assert kinds(store) == ["missing-blob"]
    assert store.tags() == before
    put_model(store, "m", b"weights")
    assert store.fsck().clean


def test_gc_refuses_to_guess_what_a_broken_model_needs(store: Store, tmp_path: Path) -> None:
    tagged = put_model(store, "m", b"weights")
    stray = store.put_bytes(b"stray")
    damage_blob(store.blob_path(tagged.descriptor.digest), "flip", tmp_path)
    with pytest.raises(StoreCorrupt, match="finding what m:latest needs") as caught:
        store.gc()
    assert "nothing was removed" in str(caught.value.hint)
    assert store.has(stray)
    assert store.has(WEIGHTS)
    store.untag(Reference.parse("m"))
    assert len(store.gc().blobs) == 4


def test_unknown_files_are_found_and_quarantined_but_never_removed_by_gc(store: Store) -> None:
    put_model(store, "m", b"weights")
    blobs = store.layout.blobs
    strange = [blobs / "sha256" / "README", blobs / "sha256" / ("A" * 64), blobs / "notes.txt", blobs / "md5"]
    for path in strange[:3]:
        path.write_text("mine")
    strange[3].mkdir()
    store.gc()
    assert all(path.exists() for path in strange)
    assert sorted(problem.subject for problem in store.fsck(repair=True).problems) == sorted(
        str(path.relative_to(store.root)) for path in strange
    )
    assert not any(path.exists() for path in strange)
    assert store.fsck().clean


def test_an_index_written_by_another_program_is_told_and_accepted(store: Store) -> None:
    put_model(store, "m", b"weights")
    document = json.loads(store.layout.index.read_bytes())
    document["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = "n"
    store.layout.index.write_text(json.dumps(document))
    report = store.fsck(repair=True)
    assert [problem.kind for problem in report.problems] == ["changed-index"]
    assert store.fsck().clean
    assert [tag.reference.display for tag in store.tags()] == ["n:latest"]


def test_the_next_tag_also_accepts_what_another_program_wrote(store: Store) -> None:
    put_model(store, "m", b"weights")
    document = json.loads(store.layout.index.read_bytes())
    del document["annotations"]
    document["vendor.member"] = {"kept": True}
    store.layout.index.write_text(json.dumps(document))
    assert kinds(store) == ["changed-index"]
    put_model(store, "n", b"weights")
    assert store.fsck().clean
    assert json.loads(store.layout.index.read_bytes())["vendor.member"] == {"kept": True}


def test_entries_without_name_keep_their_content(store: Store) -> None:
    put_model(store, "m", b"weights")
    document = json.loads(store.layout.index.read_bytes())
    document["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "no reference!"}
    store.layout.index.write_text(json.dumps(document))
    assert store.tags() == []
    assert store.gc().blobs == ()
    put_model(store, "n", b"others")
    assert len(json.loads(store.layout.index.read_bytes())["manifests"]) == 2
    assert store.has(WEIGHTS)


def test_progress_reaches_the_total(store: Store) -> None:
    put_model(store, "m", b"weights" * 1000)
    steps: list[Progress] = []
    report = store.fsck(progress=steps.append)
    assert len(steps) == 3
    assert steps[-1].completed == steps[-1].total == report.size


def test_a_blob_that_no_model_needs_is_checked_too(store: Store, tmp_path: Path) -> None:
    stray = store.put_bytes(b"stray")
    damage_blob(store.blob_path(stray), "flip", tmp_path)
    (problem,) = store.fsck().problems
    assert (problem.subject, problem.models) == (str(stray), ())
    assert "gc" in problem.remedy


def test_the_manifest_of_a_model_is_counted_among_what_is_missing_once(store: Store) -> None:
    manifest, blobs = make_manifest(b"weights", b"weights")
    for blob in blobs:
        store.put_bytes(blob)
    store.tag(Reference.parse("m"), store.put_manifest(manifest))
    store.blob_path(WEIGHTS).unlink()
    assert kinds(store) == ["missing-blob"]
