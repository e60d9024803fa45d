"""Blobs that arrive in parts: in any order, from any thread, over crashes, with journals that are wrong."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_models import describe

from lading.modelfile.errors import LadingError
from lading.oci.errors import DigestMismatch, SizeMismatch
from lading.oci.store import Ingest, Store
from lading.oci.store.parted_file import MAX_PARTS, PartedFile, bytes_present

PART = 4096
DATA = os.urandom(10 * PART + 1234)
WANTED = describe(DATA)


@contextmanager
def parted(store: Store, *, resume: bool = True) -> Iterator[tuple[Ingest, PartedFile]]:
    with store.ingest(WANTED, resume=resume, part_size=PART) as ingest:
        assert ingest.parts is not None
        yield ingest, ingest.parts


def interrupted(store: Store, *pieces: tuple[int, int]) -> Path:
    """An ingest that was given these bytes (start, end), and ended."""
    with parted(store) as (_, parts):
        for start, end in pieces:
            parts.put(start, DATA[start:end])
    return store.layout.partial(WANTED.digest)


def finish(store: Store) -> list[tuple[int, int]]:
    """What was still missing; and then the blob is there, and right."""
    with parted(store) as (ingest, parts):
        missing = [(parts.position(part), part.end) for part in parts.missing()]
        for start, end in missing:
            parts.put(start, DATA[start:end])
        ingest.commit()
    assert store.blob_path(WANTED.digest).read_bytes() == DATA
    assert list(store.layout.ingest.iterdir()) == []
    return missing


@pytest.mark.parametrize("seed", range(3))
def test_parts_come_in_any_order_from_any_thread(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    with parted(store) as (ingest, parts):
        todo = parts.missing()
        assert len(todo) == 11
        chance.shuffle(todo)
        step = chance.choice([100, 1000, PART])

        def work() -> None:
            while todo:
                part = todo.pop()
                for start in range(part.start, part.end, step):
                    parts.put(start, DATA[start : min(start + step, part.end)])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert parts.present == len(DATA)
        assert ingest.commit() == WANTED.digest
    assert store.blob_path(WANTED.digest).read_bytes() == DATA


def test_what_is_there_is_not_missing(store: Store) -> None:
    path = interrupted(store, (PART, 2 * PART), (0, 100), (7 * PART, 7 * PART + 5))
    assert store.arrived(WANTED) == PART + 105
    assert path.stat().st_blocks * 512 < len(DATA)  # holes take no room
    missing = finish(store)
    assert missing[0] == (100, PART)
    assert (PART, 2 * PART) not in missing
    assert (7 * PART + 5, 8 * PART) in missing


def test_a_beginning_without_journal_is_gone_on_with(store: Store) -> None:
    store.layout.partial(WANTED.digest).write_bytes(DATA[: 2 * PART + 7])
    assert finish(store)[0] == (2 * PART + 7, 3 * PART)


def test_a_complete_file_without_journal_is_only_verified(store: Store) -> None:
    store.layout.partial(WANTED.digest).write_bytes(DATA)
    assert finish(store) == []


def test_without_parts_the_beginning_is_gone_on_with(store: Store) -> None:
    interrupted(store, (0, PART), (PART, PART + 50), (5 * PART, 6 * PART))
    with store.ingest(WANTED, resume=True) as ingest:
        assert ingest.offset == PART + 50
        ingest.write(DATA[PART + 50 :])
        ingest.commit()
    assert store.intact(WANTED.digest)


def test_parts_of_another_size_are_kept(store: Store) -> None:
    interrupted(store, (3 * PART, 4 * PART))
    with store.ingest(WANTED, resume=True, part_size=2 * PART) as ingest:
        assert ingest.parts is not None
        assert ingest.parts.part_size == PART
        assert ingest.parts.present == PART


def test_a_stream_passes_over_what_is_there(store: Store) -> None:
    interrupted(store, (2 * PART, 3 * PART), (4 * PART, 4 * PART + 9))
    with parted(store) as (ingest, parts):
        for start in range(0, len(DATA), 1000):
            parts.put(start, DATA[start : start + 1000])
        assert parts.missing() == []
        ingest.commit()


def test_after_another_boot_only_what_was_put_on_disk_counts(store: Store) -> None:
    path = interrupted(store, (0, PART), (PART, PART + 50))
    journal = -(-(len(DATA) + 1) // PART) * PART
    with path.open("r+b") as file:
        file.seek(journal + 16)
        file.write(b"another boot id!")
    assert store.arrived(WANTED) == PART
    assert finish(store)[0] == (PART, 2 * PART)


def test_more_than_the_blob_is_refused(store: Store) -> None:
    with parted(store) as (_, parts), pytest.raises(SizeMismatch):
        parts.put(10 * PART, DATA[10 * PART :] + b"!")
    assert not store.has(WANTED.digest)


def test_holes_are_never_committed(store: Store) -> None:
    with parted(store) as (ingest, parts):
        parts.put(PART, DATA[PART:])
        with pytest.raises(SizeMismatch):
            ingest.commit()
    assert finish(store) == [(0, PART)]


def test_wrong_bytes_are_thrown_away(store: Store) -> None:
    with parted(store) as (ingest, parts):
        parts.put(0, DATA[:-1] + bytes([DATA[-1] ^ 1]))
        with pytest.raises(DigestMismatch):
            ingest.commit()
    assert not store.has(WANTED.digest)
    assert list(store.layout.ingest.iterdir()) == []


def test_there_is_a_most_number_of_parts(store: Store) -> None:
    huge = describe(b"").to_json() | {"size": MAX_PARTS * 10_000}
    path = store.layout.ingest / "x"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        parts = PartedFile.open(fd, path, size=int(huge["size"]), part_size=1, hasher=_NoHasher())
        assert len(parts.missing()) == MAX_PARTS
        parts.close()
    finally:
        os.close(fd)


class _NoHasher:
    def update(self, data: object, /) -> None: ...

    def hexdigest(self) -> str:
        return ""


def overwritten(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    """Damage inside the journal."""
    return lambda journal: journal[:offset] + data + journal[offset + len(data) :]


BAD_JOURNALS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda journal: b"",
    "short": lambda journal: journal[:-1],
    "long": lambda journal: journal + b"\0",
    "zeros": lambda journal: bytes(len(journal)),
    "huge": lambda journal: journal + bytes(1 << 20),
    "another magic": overwritten(0, b"LDGPART2"),
    "no part size": overwritten(8, struct.pack("<Q", 0)),
    "small parts": overwritten(8, struct.pack("<Q", 1)),
    "large parts": overwritten(8, struct.pack("<Q", 1 << 63)),
    "more than a part": overwritten(32, struct.pack("<QQ", PART + 1, 0)),
    "more than the last part": overwritten(32 + 160, struct.pack("<QQ", 1235, 0)),
    "more on disk than written": overwritten(32, struct.pack("<QQ", 1, 2)),
}


@pytest.mark.parametrize("damage", BAD_JOURNALS.values(), ids=BAD_JOURNALS.keys())
def test_a_bad_journal_means_from_the_start(store: Store, damage: Callable[[bytes], bytes]) -> None:
    path = interrupted(store, (0, PART))
    journal = -(-(len(DATA) + 1) // PART) * PART
    whole = path.read_bytes()
    path.write_bytes(whole[:journal] + damage(whole[journal:]))
    assert store.arrived(WANTED) == 0
    assert finish(store)[0] == (0, PART)


def test_a_journal_that_lies_is_found_out(store: Store) -> None:
    path = interrupted(store, (0, PART))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"decayed")
    with parted(store) as (ingest, parts):
        for part in parts.missing():
            parts.put(part.start, DATA[part.start : part.end])
        with pytest.raises(DigestMismatch):
            ingest.commit()
    assert finish(store)[0] == (0, PART)


@pytest.mark.parametrize("seed", range(8))
def test_no_journal_breaks_the_reader(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    path = interrupted(store, (0, PART))
    data = bytearray(path.read_bytes())
    journal = -(-(len(DATA) + 1) // PART) * PART
    for _ in range(chance.randrange(1, 6)):
        data[chance.randrange(journal, len(data))] = chance.randrange(256)
    path.write_bytes(data[: chance.choice([len(data), chance.randrange(journal, len(data))])])
    with path.open("rb") as file:
        assert 0 <= bytes_present(file.fileno(), len(DATA)) <= len(DATA)
    try:
        finish(store)
    except LadingError:  # it said that more was there than is: found by the digest, and thrown away
        finish(store)


def test_waiters_are_told_what_has_arrived(store: Store) -> None:
    told: list[int] = []

    class Enough(Exception):
        pass

    def stop(present: int) -> None:
        told.append(present)
        raise Enough

    with parted(store) as (_, parts):
        parts.put(5 * PART, DATA[5 * PART : 6 * PART])
        with pytest.raises(Enough), store.ingest(WANTED, on_wait=stop):
            pass
    assert told == [PART]
