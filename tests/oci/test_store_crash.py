"""Killed at every step: whatever the instant, nothing that was there is lost.

A child process does the work with the file system calls of ``os`` replaced by ones that count, and that kill
the process (SIGKILL: no ``finally`` runs, nothing is flushed) before call number *n*. Each *n* is tried, so
every gap between two steps of the protocol is hit, not only the ones that chance finds.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from store_models import describe, make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot
from tarmaker import make_tar

from lading.oci.dialects import modelcar
from lading.oci.digest import Digest
from lading.oci.errors import ModelNotFound
from lading.oci.manifest import Manifest
from lading.oci.media_type import OCI_CONFIG
from lading.oci.reference import Reference
from lading.oci.store import Store, SweepPolicy
from lading.oci.unpacking import unpack_layers

CALLS = (
    *("open", "write", "fsync", "fchmod", "utime", "rename", "replace", "unlink", "mkdir", "ftruncate"),
    "link",
)
OLD, NEW = "registry.ollama.ai/library/old:latest", "registry.ollama.ai/library/new:latest"

Work = Callable[[Store], object]


def create(store: Store) -> None:
    put_model(store, "new", b"new weights", b"shared licence")


def replace_tag(store: Store) -> None:
    put_model(store, "old", b"other weights", b"shared licence")


def pull(store: Store) -> None:
    manifest, blobs = make_manifest(b"pulled weights", b"shared licence")
    with store.lease():
        for blob in blobs:
            with store.ingest(describe(blob), resume=True) as ingest:
                if not ingest.present:
                    rest = blob[ingest.offset :]
                    ingest.write(rest[: len(rest) // 2])
                    ingest.write(rest[len(rest) // 2 :])
                ingest.commit()
        store.tag(Reference.parse("new"), store.put_manifest(manifest))


def import_file(store: Store) -> None:
    store.import_file(store.root.parent / "model.gguf")


def link_file(store: Store) -> None:
    """As importing from another program's store does; its file stays whole, whatever happens to us."""
    path = store.root.parent / "model.gguf"
    assert path.read_bytes() == b"model file" * 1000
    store.import_file(path, link=True)


def unpack(store: Store) -> None:
    """As a pull of an image does: the layer comes, and gives way to the file in it."""
    layer, config = make_tar({"models/model.gguf": b"packed weights" * 99}), b"{}"
    manifest = Manifest.build(
        config=describe(config, OCI_CONFIG), layers=[describe(layer, modelcar.LAYER_TYPE)]
    )
    with store.lease():
        store.put_bytes(config)
        with store.ingest(describe(layer), resume=True) as ingest:
            if not ingest.present:
                ingest.write(layer[ingest.offset :])
            ingest.commit()
        unpack_layers(store, manifest)
        store.tag(Reference.parse("new"), store.put_manifest(manifest))
    contents = store.contents(Digest.of(layer))
    assert contents is not None and contents.gaps is not None
    assert not store.layout.blob(contents.digest).exists()


def remove(store: Store) -> None:
    with suppress(ModelNotFound):  # an earlier attempt came that far
        store.untag(Reference.parse("old"))
    store.gc()


def sweep(store: Store) -> None:
    store.gc(policy=SweepPolicy(keep_partial_s=0))


WORKS: dict[str, tuple[Work, tuple[str, ...]]] = {
    "create": (create, (NEW,)),
    "replace a tag": (replace_tag, (OLD,)),
    "pull": (pull, (NEW,)),
    "import": (import_file, ()),
    "link": (link_file, ()),
    "unpack": (unpack, (NEW,)),
    "remove": (remove, (OLD,)),
    "sweep": (sweep, ()),
}


def kill_before(number: int) -> None:
    """Let this process be killed before call ``number``; a write is cut in half first."""
    count = 0

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def counted(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == number:
                if name == "write":
                    original(args[0], memoryview(args[1])[: len(args[1]) // 2])  # type: ignore[arg-type]
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, counted)

    for name in CALLS:
        wrap(name)


def run_child(root: Path, work: Work, number: int) -> bool:
    """Run ``work`` in a child that dies before call ``number``. Returns whether it came to an end instead."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kill_before(number)
            work(Store.open(root))
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


@pytest.fixture
def folder(memory_folder: Path | None, tmp_path: Path) -> Path:
    """Where stores are made and broken. In memory if possible: a kill leaves the file system as it is."""
    return memory_folder or tmp_path


@pytest.fixture
def prepared(folder: Path) -> Path:
    """A store with two models that share a layer, something to sweep, and a file to import."""
    store = Store.open(folder / "prepared" / "store")
    put_model(store, "old", b"old weights", b"shared licence")
    put_model(store, "kept", b"kept weights", b"shared licence")
    store.put_bytes(b"stray")
    store.layout.partial(describe(b"never finished").digest).write_bytes(b"never")
    (folder / "prepared" / "model.gguf").write_bytes(b"model file" * 1000)
    return folder / "prepared"


def each_instant(prepared: Path, folder: Path, work: Work) -> Iterator[Path]:
    """Copies of the prepared store, each after a crash one step later; the last after none."""
    for number in range(1, 500):
        copy = folder / "run"
        shutil.copytree(prepared, copy)
        finished = run_child(copy / "store", work, number)
        yield copy / "store"
        shutil.rmtree(copy)
        if finished:
            assert number > 5, "the faults were not injected"
            return
    pytest.fail("the work never came to an end")


@pytest.mark.parametrize(("work", "may_change"), WORKS.values(), ids=WORKS.keys())
def test_a_kill_at_any_instant_loses_nothing(
    prepared: Path, folder: Path, work: Work, may_change: tuple[str, ...]
) -> None:
    before = snapshot(Store.open(prepared / "store"))
    for root in each_instant(prepared, folder, work):
        assert_nothing_lost(root, before, may_change=may_change)
        work(Store.open(root))  # the same command again succeeds, without manual steps
        assert Store.open(root).fsck().clean


def test_a_replaced_tag_is_the_old_or_the_new(prepared: Path, folder: Path) -> None:
    found = set()
    for root in each_instant(prepared, folder, replace_tag):
        found.add(Store.open(root).resolve(Reference.parse("old")).digest)
    old, _ = make_manifest(b"old weights", b"shared licence")
    new, _ = make_manifest(b"other weights", b"shared licence")
    assert found == {old.digest, new.digest}


def test_a_killed_pull_is_resumed_where_it_was(prepared: Path, folder: Path) -> None:
    _, blobs = make_manifest(b"pulled weights", b"shared licence")
    wanted = describe(blobs[1])
    offsets = set()
    for root in each_instant(prepared, folder, pull):
        store = Store.open(root)
        store.gc()  # must keep what can be resumed
        with store.ingest(wanted, resume=True) as ingest:
            if not ingest.present:
                offsets.add(ingest.offset)
                ingest.write(blobs[1][ingest.offset :])
            assert ingest.commit() == wanted.digest
    assert offsets == {0, 3, 10, 14}  # half of each write, as the child was killed in it


def test_creating_a_store_can_be_interrupted(folder: Path) -> None:
    for number in range(1, 100):
        root = folder / f"store-{number}"
        finished = run_child(root, lambda store: None, number)
        store = Store.open(root)
        put_model(store, "m", b"w")
        assert store.fsck().clean
        if finished:
            assert number > 5
            return
    pytest.fail("the store was never created")


def test_every_rename_is_preceded_by_fsync_of_the_file_and_followed_by_one_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    plain_fsync = os.fsync

    def fsync(fd: int) -> None:
        events.append(("fsync", str(Path(f"/proc/self/fd/{fd}").readlink())))
        plain_fsync(fd)

    def noting(name: str) -> None:
        plain = getattr(os, name)

        def rename(source: str, target: str) -> None:
            events.append(("rename", f"{source} {target}"))
            plain(source, target)

        monkeypatch.setattr(os, name, rename)

    store = Store.open(tmp_path / "store")
    monkeypatch.setattr(os, "fsync", fsync)
    noting("rename")
    noting("replace")
    create(store)
    pull(store)
    renames = [(number, path.split()) for number, (kind, path) in enumerate(events) if kind == "rename"]
    assert len(renames) >= 8
    for number, (source, target) in renames:
        assert ("fsync", source) in events[:number]
        assert ("fsync", str(Path(target).parent)) in events[number:]
    tagged = [number for number, (_, target) in renames if target.endswith("index.json")]
    blobs = [number for number, (_, target) in renames if "/blobs/" in target]
    assert min(blobs) < tagged[0]
    assert max(blobs) < tagged[-1]
