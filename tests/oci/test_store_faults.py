"""The disk says no: full, read-only, broken. One clear error, nothing half-written, earlier models intact."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from small_disk import small_file_system
from store_models import describe, put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.modelfile.errors import LadingError
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import BadSource, DiskFull, NotAStore, SourceChanged, StoreFailure, StoreReadOnly
from lading.oci.reference import Reference
from lading.oci.store import Store, importer
from lading.oci.store.disk import free_bytes

MIB = 1 << 20
NOBODY = 65534


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    with small_file_system(tmp_path / "small", 4) as folder:
        yield folder


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writing past ``size`` bytes of any file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_from(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> list[int]:
    """Let ``os.name`` fail from call ``number`` on. Returns a list that is as long as there were calls."""
    calls: list[int] = []
    plain = getattr(os, name)

    def failing(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) >= number:
            raise OSError(code, os.strerror(code))
        return plain(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)
    return calls


# A full disk


def test_what_cannot_fit_is_refused_before_it_is_written(store: Store, tmp_path: Path) -> None:
    huge = Descriptor("a/b", Digest.of(b""), 1 << 60)
    with pytest.raises(DiskFull) as caught, store.ingest(huge):
        pass
    assert caught.value.needed == 1 << 60
    assert 0 < caught.value.available < 1 << 60
    assert "gc" in str(caught.value.hint)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(DiskFull):
        store.import_file(tmp_path / "sparse")
    assert list(store.layout.ingest.iterdir()) == []


def test_a_disk_that_fills_up_during_a_pull_keeps_what_can_be_resumed(small_disk: Path) -> None:
    store = Store.open(small_disk / "store")
    put_model(store, "m", b"weights")
    before = snapshot(store)
    data = os.urandom(3 * MIB)
    filler = small_disk / "filler"
    expected = describe(data)
    with pytest.raises(DiskFull) as caught, store.ingest(expected, resume=True) as ingest:
        ingest.write(data[:MIB])
        filler.write_bytes(b"x" * (2 * MIB + MIB // 2))
        ingest.write(data[MIB:])
    assert caught.value.needed == 2 * MIB
    assert caught.value.available < MIB
    store.resolve(Reference.parse("m"))
    filler.unlink()
    with store.ingest(expected, resume=True) as ingest:
        assert ingest.offset >= MIB
        ingest.write(data[ingest.offset :])
        ingest.commit()
    assert_nothing_lost(store.root, before)


def test_a_full_disk_leaves_nothing_of_an_import_and_lets_models_be_removed(
    small_disk: Path, tmp_path: Path
) -> None:
    store = Store.open(small_disk / "store")
    put_model(store, "a", os.urandom(MIB))
    put_model(store, "b", b"kept")
    before = snapshot(store)
    (tmp_path / "model").write_bytes(os.urandom(4 * MIB))
    with pytest.raises(DiskFull):
        store.import_file(tmp_path / "model")
    with pytest.raises(DiskFull):
        store.put_bytes(os.urandom(4 * MIB))
    assert list(store.layout.ingest.iterdir()) == []
    assert snapshot(store) == before
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "filler").write_bytes(b"x" * (free - 64 * 1024))
    store.untag(Reference.parse("a"))
    assert store.gc().freed > MIB
    assert store.resolve(Reference.parse("b"))


def test_a_limit_on_file_size_is_a_full_disk(store: Store, tmp_path: Path) -> None:
    put_model(store, "m", b"weights")
    before = snapshot(store)
    (tmp_path / "model").write_bytes(os.urandom(2 * MIB))
    with file_size_limit(MIB):
        with pytest.raises(DiskFull):
            store.import_file(tmp_path / "model")
        with pytest.raises(DiskFull), store.ingest() as ingest:
            ingest.write(os.urandom(2 * MIB))
    assert list(store.layout.ingest.iterdir()) == []
    assert_nothing_lost(store.root, before)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
@pytest.mark.parametrize("name", ["write", "fsync", "rename", "replace", "fchmod", "open", "mkdir", "preadv"])
def test_any_call_may_fail(memory_folder: Path | None, tmp_path: Path, name: str, code: int) -> None:
    refusal = StoreFailure if code == errno.EIO else DiskFull
    (tmp_path / "model").write_bytes(b"a local file")

    def work(store: Store) -> None:
        store.import_file(tmp_path / "model")
        put_model(store, "new", b"new weights", config=b"{}")

    for number in range(1, 100):
        root = (memory_folder or tmp_path) / f"store-{number}"
        store = Store.open(root)
        put_model(store, "old", b"old weights")
        before = snapshot(store)
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_from(patch, name, number, code)
            with suppress(BadSource, refusal):
                work(store)
            finished = len(calls) < number
        assert_nothing_lost(root, before, may_change=("registry.ollama.ai/library/new:latest",))
        work(store)
        assert store.fsck().clean
        if finished:
            assert number > 1, "the fault was not injected"
            return
    pytest.fail("the work never came to an end")


def test_what_could_not_be_synced_is_not_resumed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    # The page cache still holds it, so reading it again would find nothing wrong.
    expected = describe(b"12345")
    fail_from(monkeypatch, "fsync", 1, errno.EIO)
    with pytest.raises(StoreFailure), store.ingest(expected, resume=True) as ingest:
        ingest.write(b"12345")
        ingest.commit()
    assert not store.has(expected.digest)
    assert list(store.layout.ingest.iterdir()) == []


# A store that may not be written


def check_read_only(root: Path) -> None:
    """Every reading call works, and every writing one gives StoreReadOnly."""
    store = Store.open(root)
    reference = Reference.parse("m")
    (tagged,) = store.tags()
    manifest = store.resolve(reference)
    weights = manifest.layers[0].digest
    assert store.find(reference) == tagged
    assert store.has(weights, 7)
    assert store.intact(weights)
    assert store.read_blob(weights, limit=7) == b"weights"
    assert store.blob_path(weights).read_bytes() == b"weights"
    assert store.fsck().clean

    def lease() -> None:
        with store.lease():
            pass

    def ingest() -> None:
        with store.ingest(describe(b"x")):
            pass

    writes: list[Callable[[], object]] = [
        lambda: store.put_bytes(b"new"),
        lambda: store.import_file(Path(__file__)),
        lambda: store.tag(Reference.parse("n"), tagged.descriptor),
        lambda: store.untag(reference),
        store.gc,
        lease,
        ingest,
    ]
    for write in writes:
        try:
            write()
        except StoreReadOnly as error:
            assert "writable" in str(error.hint)
        else:
            raise AssertionError("a read-only store was written")
    try:
        Store.open(root / "blobs" / "below")
    except StoreReadOnly:
        pass
    else:
        raise AssertionError("a store was created where nothing may be written")


def test_a_read_only_file_system_is_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    put_model(Store.open(root), "m", b"weights")
    bind = ["mount", "--bind", str(root), str(root)]
    if os.geteuid() != 0 or subprocess.run(bind, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system read-only needs root and the right to mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        check_read_only(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def as_ordinary_user(work: Callable[[], object], *folders: Path) -> None:
    """Run ``work`` without the powers of root: in a child that is nobody, who may enter ``folders``."""
    if os.geteuid() != 0:
        work()
        return
    for folder in folders:
        if "pytest" in str(folder):  # not the system's own
            folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setresuid(NOBODY, NOBODY, NOBODY)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_store_of_another_user_is_read(tmp_path: Path) -> None:
    root = tmp_path / "store"
    put_model(Store.open(root), "m", b"weights")
    if os.geteuid() != 0:
        for folder, _, _ in os.walk(root):
            Path(folder).chmod(0o555)
    as_ordinary_user(lambda: check_read_only(root), tmp_path, *tmp_path.parents[:3])


def test_a_commit_that_was_killed_before_its_rename_is_resumed_by_an_ordinary_user(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, NOBODY, NOBODY)
    expected = describe(b"12345")

    def resume() -> None:
        store = Store.open(home / "store")
        partial = store.layout.partial(expected.digest)
        partial.write_bytes(b"12345")
        partial.chmod(0o444)
        with store.ingest(expected, resume=True) as ingest:
            assert ingest.offset == 5
            ingest.commit()
        assert store.intact(expected.digest)

    as_ordinary_user(resume, tmp_path, *tmp_path.parents[:3])


# Folders that are no store


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(NotAStore, match=r"photo\.jpg"):
        Store.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(LadingError):
            Store.open(root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
        ("oci-layout", b"{}"),
        ("oci-layout", b"x"),
        ("oci-layout", b'"' + b"x" * 100_000 + b'"'),
        ("store.json", b'{"version":2}'),
        ("store.json", b'{"version":true}'),
        ("store.json", b"[]"),
    ],
)
def test_a_store_that_we_may_not_understand_is_refused(store: Store, name: str, content: bytes) -> None:
    put_model(store, "m", b"weights")
    (store.root / name).write_bytes(content)
    with pytest.raises(NotAStore):
        Store.open(store.root)


def test_a_new_store_can_be_deep_and_two_may_create_it(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b" / "store"
    errors: list[BaseException] = []

    def create(number: int) -> None:
        try:
            put_model(Store.open(root), f"m{number}", b"w%d" % number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(Store.open(root).tags()) == 8


# A source that changes


@pytest.mark.parametrize("change", ["grow", "shrink", "overwrite"])
def test_a_file_that_changes_while_it_is_imported_is_noticed(
    store: Store, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(3 * MIB))

    def interfere(count: int) -> None:
        with path.open("r+b") as file:
            if change == "grow":
                file.seek(0, os.SEEK_END)
                file.write(b"x")
            elif change == "shrink":
                file.truncate(2 * MIB)
            else:
                file.write(b"xxxx")

    with pytest.raises(SourceChanged):
        store.import_file(path, on_bytes=interfere)
    assert list(store.layout.ingest.iterdir()) == []
    assert list(store.layout.iter_blob_files()) == []


def test_a_file_that_cannot_be_read_to_its_end_is_an_error_of_the_file(store: Store) -> None:
    source = Path("/proc/self/mem")
    if not source.exists():
        pytest.skip("there is no /proc")
    with pytest.raises(LadingError, match="importing"):
        store.import_file(source)
    assert list(store.layout.ingest.iterdir()) == []


def test_a_clone_is_hashed_from_what_was_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No file system here may be able to clone; a copy by the kernel stands in for it.
    def clone(source: int, target: int) -> bool:
        size = os.fstat(source).st_size
        return os.sendfile(target, source, 0, size) == size

    monkeypatch.setattr(importer, "_clone", clone)
    data = os.urandom(100_000)
    (tmp_path / "model").write_bytes(data)
    counted: list[int] = []
    imported = store.import_file(tmp_path / "model", on_bytes=counted.append)
    assert imported.digest == Digest.of(data)
    assert sum(counted) == len(data)
    assert store.intact(imported.digest, len(data))


@pytest.fixture
def cloning_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that can clone files."""
    image, folder = tmp_path / "image", tmp_path / "btrfs"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    steps = [["mkfs.btrfs", "-q", str(image)], ["mount", "-o", "loop", str(image), str(folder)]]
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("a file system that clones needs root and btrfs-progs")
    for step in steps:
        if subprocess.run(step, capture_output=True).returncode != 0:
            pytest.skip(f"{step[0]} does not work here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_clone_takes_no_room_and_does_not_follow_later_writes(cloning_disk: Path) -> None:
    data = os.urandom(20 * MIB)
    (cloning_disk / "model").write_bytes(data)
    os.sync()
    store = Store.open(cloning_disk / "store")
    before = free_bytes(cloning_disk)
    imported = store.import_file(cloning_disk / "model")
    os.sync()
    assert before - free_bytes(cloning_disk) < 4 * MIB
    assert (imported.digest, imported.size) == (Digest.of(data), len(data))
    with (cloning_disk / "model").open("r+b") as file:
        file.write(b"overwritten in place")
    os.sync()
    assert store.fsck().clean
    assert store.intact(imported.digest, imported.size)


def test_no_handles_are_leaked(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(os.urandom(9 * MIB))

    def everything() -> None:
        put_model(store, "m", b"weights")
        store.import_file(tmp_path / "model")
        with store.ingest(describe(b"abc"), resume=True) as ingest:
            ingest.write(b"abc"[ingest.offset :])
        for bad in (b"wrong", b"too long for that"):
            with pytest.raises(LadingError), store.ingest(describe(b"right")) as ingest:
                ingest.write(bad)
                ingest.commit()
        store.resolve(Reference.parse("m"))
        store.fsck()
        store.untag(Reference.parse("m"))
        store.gc()

    everything()
    handles = Path("/proc/self/fd")
    before = len(list(handles.iterdir()))
    threads = threading.active_count()
    for _ in range(3):
        everything()
    assert len(list(handles.iterdir())) == before
    assert threading.active_count() == threads
