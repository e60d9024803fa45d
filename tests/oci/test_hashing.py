"""Hashing beside reading and writing: same digest, bounded memory, buffers never overtaken."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest

from lading.oci.digest import Digest, new_hasher
from lading.oci.store import hashing
from lading.oci.store.hashing import LAG_CHUNKS, BackgroundHasher, hash_file, iter_chunks


class SlowHasher:
    """A hasher that is slower than any reader."""

    def __init__(self) -> None:
        self.inner = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        time.sleep(0.003)
        self.inner.update(data)

    def hexdigest(self) -> str:
        return self.inner.hexdigest()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "CHUNK", 1000)


@pytest.mark.usefixtures("small_chunks")
def test_buffers_are_not_overwritten_before_they_are_hashed(tmp_path: Path) -> None:
    data = os.urandom(50_500)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as file, BackgroundHasher(SlowHasher()) as hasher:
        for chunk in iter_chunks(file.fileno()):
            hasher.update(chunk)
        assert hasher.hexdigest() == Digest.of(data).hex


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 9000, 9001, 20_000])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_files_of_any_size(tmp_path: Path, size: int, algorithm: str) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    counted: list[int] = []
    with (tmp_path / "f").open("rb") as file:
        found = hash_file(file.fileno(), algorithm=algorithm, on_bytes=counted.append)
    assert found == (Digest.of(data, algorithm=algorithm), size)
    assert sum(counted) == size


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("limit", [0, 1, 999, 1000, 1001, 5000])
def test_reading_stops_at_the_limit(tmp_path: Path, limit: int) -> None:
    data = os.urandom(4000)
    (tmp_path / "f").write_bytes(data)
    with (tmp_path / "f").open("rb") as file:
        assert b"".join(map(bytes, iter_chunks(file.fileno(), limit=limit))) == data[:limit]


def test_the_hasher_does_not_fall_behind_without_bound() -> None:
    done: list[int] = []

    class Counting(SlowHasher):
        def update(self, data: bytes | bytearray | memoryview, /) -> None:
            super().update(data)
            done.append(1)

    with BackgroundHasher(Counting()) as hasher:
        for given in range(1, 40):
            hasher.update(b"x")
            assert given - len(done) <= LAG_CHUNKS


def test_the_thread_ends_whatever_happens() -> None:
    before = threading.active_count()
    with pytest.raises(RuntimeError), BackgroundHasher(new_hasher()) as hasher:
        hasher.update(b"x")
        raise RuntimeError
    hasher.close()
    assert threading.active_count() == before
