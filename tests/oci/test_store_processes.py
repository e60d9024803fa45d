"""Many processes on one store: pulls, creates, removals and sweeps at once lose nothing."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from store_models import describe, make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.modelfile.errors import NotFoundError
from lading.oci.digest import Digest
from lading.oci.errors import ModelNotFound
from lading.oci.reference import Reference
from lading.oci.store import Store, SweepPolicy
from lading.oci.store.lock import locked

DURATION_S = 2.0


def start(work: Callable[[], object]) -> int:
    """Run ``work`` in a child process. Returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(*children: int) -> None:
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert statuses == [0] * len(statuses)


@pytest.fixture
def root(memory_folder: Path | None, tmp_path: Path) -> Path:
    return (memory_folder or tmp_path) / "store"


def test_pulls_creates_removals_and_sweeps_at_once(root: Path) -> None:
    put_model(Store.open(root), "kept", b"layer 0", b"kept weights")
    before = snapshot(Store.open(root))
    deadline = time.monotonic() + DURATION_S

    def produce(seed: int) -> None:
        """Write models from a few shared layers, and read each back at once."""
        chance = random.Random(seed)
        store = Store.open(root)
        count = 0
        while time.monotonic() < deadline:
            layers = [b"layer %d" % chance.randrange(6) for _ in range(3)]
            manifest, blobs = make_manifest(*layers)
            with store.lease():
                for blob in blobs:
                    if not store.has(Digest.of(blob), len(blob)):
                        with store.ingest(describe(blob), resume=True) as ingest:
                            if not ingest.present:
                                ingest.write(blob[ingest.offset :])
                            ingest.commit()
                store.tag(Reference.parse(f"m{seed}"), store.put_manifest(manifest))
                found = store.resolve(Reference.parse(f"m{seed}"))
                assert found == manifest
                for blob in blobs:
                    assert store.read_blob(Digest.of(blob), limit=100) == blob
            if chance.random() < 0.5:
                store.untag(Reference.parse(f"m{seed}"))
            count += 1
        assert count > 3

    def sweep() -> None:
        store = Store.open(root)
        while time.monotonic() < deadline:
            store.gc(policy=SweepPolicy(keep_partial_s=0))

    def read() -> None:
        store = Store.open(root)
        while time.monotonic() < deadline:
            for tag in store.tags():
                try:
                    manifest = store.resolve(tag.reference)
                    for blob in manifest.blobs:
                        store.read_blob(blob.digest, limit=100)
                except NotFoundError:
                    pass  # removed since it was listed
            store.resolve(Reference.parse("kept"))

    finish(
        *(start(lambda seed=seed: produce(seed)) for seed in range(3)),
        start(sweep),
        start(sweep),
        start(read),
    )
    names = tuple(f"registry.ollama.ai/library/m{seed}:latest" for seed in range(3))
    assert_nothing_lost(root, before, may_change=names)


def test_two_pulls_of_one_blob_transfer_it_once(root: Path) -> None:
    data = os.urandom(3 << 20)
    expected = describe(data)
    log = root.parent / "written"
    Store.open(root)

    def pull() -> None:
        store = Store.open(root)
        with store.ingest(expected, resume=True) as ingest:
            while ingest.offset < expected.size:
                piece = data[ingest.offset : ingest.offset + (256 << 10)]
                with log.open("a") as file:
                    file.write(f"{len(piece)}\n")
                ingest.write(piece)
                time.sleep(0.005)
            ingest.commit()
        assert store.intact(expected.digest, expected.size)

    finish(*(start(pull) for _ in range(4)))
    assert sum(map(int, log.read_text().split())) == len(data)


def test_different_content_under_one_tag_ends_as_one_of_the_two(root: Path) -> None:
    Store.open(root)

    def create(layer: bytes) -> None:
        store = Store.open(root)
        for _ in range(20):
            put_model(store, "m", layer)

    finish(start(lambda: create(b"one")), start(lambda: create(b"two")))
    store = Store.open(root)
    wanted = {make_manifest(layer)[0].digest for layer in (b"one", b"two")}
    assert store.resolve(Reference.parse("m")).digest in wanted
    assert store.fsck().clean
    assert len(store.tags()) == 1


def test_tags_set_at_the_same_time_are_all_there(root: Path) -> None:
    Store.open(root)

    def create(seed: int) -> None:
        store = Store.open(root)
        for number in range(10):
            put_model(store, f"m{seed}:{number}", b"shared")

    finish(*(start(lambda seed=seed: create(seed)) for seed in range(4)))
    assert len(Store.open(root).tags()) == 40


def test_the_lease_and_ingest_of_a_killed_process_are_void(root: Path) -> None:
    store = Store.open(root)
    ready = root.parent / "ready"

    def hold() -> None:
        held = Store.open(root)
        with held.lease(), held.ingest(describe(b"never finished"), resume=True) as ingest:
            held.put_bytes(b"leased")
            ingest.write(b"never")
            ready.touch()
            signal.pause()

    child = start(hold)
    while not ready.exists():
        time.sleep(0.01)
    everything = SweepPolicy(keep_partial_s=0)
    report = store.gc(policy=everything)
    assert (len(report.blobs), report.leftovers, report.kept_leased) == (0, 0, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    report = store.gc(policy=everything)
    assert (len(report.blobs), report.leftovers, report.kept_leased) == (1, 1, 0)
    assert not list(store.layout.leases.iterdir())


def test_a_forked_child_does_not_keep_the_locks_of_its_parent(root: Path) -> None:
    store = Store.open(root)
    with locked(store.layout.lock, "exclusive"):
        child = start(lambda: time.sleep(60))
    with store.lease(), store.ingest(describe(b"12345"), resume=True) as ingest:
        other = start(lambda: time.sleep(60))
        ingest.write(b"123")
    try:
        with locked(store.layout.lock, "exclusive"), store.ingest(describe(b"12345"), wait_s=0):
            pass
    finally:
        for process in (child, other):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def test_a_model_removed_while_it_is_read_stays_readable(root: Path) -> None:
    store = Store.open(root)
    put_model(store, "m", b"weights")
    with store.open_blob(Digest.of(b"weights")) as blob:
        Store.open(root).untag(Reference.parse("m"))
        Store.open(root).gc()
        with pytest.raises(ModelNotFound):
            store.resolve(Reference.parse("m"))
        assert not store.has(Digest.of(b"weights"))
        assert blob.read() == b"weights"
