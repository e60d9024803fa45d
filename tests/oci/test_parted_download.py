"""Large blobs over several connections: from registries that know ranges, ignore them, or get them wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from registry_clients import Waits, impatient_client, known_to
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry
from store_models import make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.modelfile.errors import LadingError
from lading.oci.digest import Digest
from lading.oci.errors import DigestMismatch, SizeMismatch
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.registry.errors import RegistryUnreachable, RemoteBlobNotFound
from lading.oci.store import Store
from lading.oci.transfer import pull

PART = 1 << 16
SIZE = 10 * PART + 333
WEIGHTS = os.urandom(SIZE)
PATH = str(Digest.of(WEIGHTS))
MANIFEST, BLOBS = make_manifest(WEIGHTS)


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


def fetch(store: Store, registry: ScriptedRegistry, **settings: object) -> None:
    with impatient_client(part_size=PART, **settings) as client:
        assert pull(store, client, Reference.parse(f"{registry.host}/team/m:v1")) == MANIFEST
    assert store.blob_path(Digest.of(WEIGHTS)).read_bytes() == WEIGHTS
    assert list(store.layout.ingest.iterdir()) == []


def ranges(registry: ScriptedRegistry) -> list[str | None]:
    return [seen.headers.get("range") for seen in registry.requests("GET", PATH)]


def length_of(wanted: str | None) -> int:
    """How many bytes a range asks for."""
    if wanted is None:
        return SIZE
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    return int(last or SIZE - 1) - int(first) + 1


@pytest.mark.parametrize("parallel", [1, 4, 30])
def test_every_part_is_fetched_once(registry: ScriptedRegistry, store: Store, parallel: int) -> None:
    seen: list[Progress] = []
    with impatient_client(part_size=PART, parallel=parallel) as client:
        pull(store, client, Reference.parse(f"{registry.host}/team/m:v1"), progress=seen.append)
    asked = ranges(registry)
    assert len(asked) == len(set(asked)) == 11
    assert sum(map(length_of, asked)) == SIZE
    weights = [p for p in seen if p.digest == Digest.of(WEIGHTS)]
    assert {p.total for p in weights} == {SIZE}
    assert [p.completed for p in weights] == sorted(p.completed for p in weights)
    assert weights[-1].completed == SIZE
    assert store.fsck().clean


def test_several_connections_are_at_work_at_once(registry: ScriptedRegistry, store: Store) -> None:
    together = threading.Barrier(3)
    met: list[int] = []

    def waits(seen: Seen) -> None:
        if seen.headers["range"] != f"bytes=0-{PART - 1}":  # the first is alone, until it has its answer
            met.append(together.wait(60))

    registry.on("GET", PATH, waits, times=4)  # then answered honestly
    fetch(store, registry, parallel=3)
    assert sorted(met) == [0, 1, 2]


def test_a_small_blob_is_one_request(registry: ScriptedRegistry, store: Store) -> None:
    fetch(store, registry)
    small = [seen for seen in registry.requests("GET", "/blobs/") if PATH not in seen.path]
    assert [seen.headers.get("range") for seen in small] == [None]


def ignored(seen: Seen) -> Reply:
    return Reply(200, {}, WEIGHTS)


def wrong_start(seen: Seen) -> Reply | None:
    if "range" not in seen.headers:
        return None
    return Reply(206, {"Content-Range": f"bytes 1-{PART}/{SIZE}"}, WEIGHTS[1 : PART + 1])


def wrong_total(seen: Seen) -> Reply | None:
    if "range" not in seen.headers:
        return None
    return Reply(206, {"Content-Range": f"bytes 0-{PART - 1}/{SIZE + 1}"}, WEIGHTS[:PART])


def multipart(seen: Seen) -> Reply | None:
    if "range" not in seen.headers:
        return None
    return Reply(206, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x\r\n")


def refused(seen: Seen) -> Reply | None:
    return Reply(416) if "range" in seen.headers else None


def short_ranges(seen: Seen) -> Reply | None:
    if "range" not in seen.headers:
        return None
    return Reply(206, {"Content-Range": f"bytes 0-9/{SIZE}"}, WEIGHTS[:10])


@pytest.mark.parametrize("answer", [ignored, wrong_start, wrong_total, multipart, refused, short_ranges])
def test_without_usable_ranges_the_blob_comes_as_a_whole(
    registry: ScriptedRegistry, store: Store, answer: Callable[[Seen], Reply | None]
) -> None:
    registry.on("GET", PATH, answer)
    fetch(store, registry)
    assert (
        len(ranges(registry)) <= 2
    )  # and the answer to the first request is not thrown away, if it is whole


def test_ranges_that_stop_working_midway(registry: ScriptedRegistry, store: Store) -> None:
    """Another server behind the same name ignores them: parts that are here are kept."""
    registry.on("GET", PATH, ignored)
    registry.on("GET", PATH, lambda seen: registry.honest(seen), times=3)
    fetch(store, registry, parallel=2)


def test_a_whole_answer_that_breaks_off_is_continued(registry: ScriptedRegistry, store: Store) -> None:
    cut = 3 * PART + 17
    registry.on("GET", PATH, Reply(body=WEIGHTS[:cut], length=SIZE, cut=True), times=1)
    fetch(store, registry)
    assert ranges(registry)[1] == f"bytes={cut}-"


def test_connections_that_break_off_lose_nothing(registry: ScriptedRegistry, store: Store) -> None:
    sent = 0
    guard = threading.Lock()

    def breaks(seen: Seen) -> Reply:
        nonlocal sent
        reply = registry.honest(seen)
        assert isinstance(reply.body, bytes)
        part = reply.body[: 1 + len(reply.body) // 3]
        with guard:
            sent += len(part)
        return Reply(206, reply.headers, part, length=len(reply.body), cut=True)

    registry.on("GET", PATH, breaks, times=40)
    fetch(store, registry)
    honest = sum(length_of(wanted) for wanted in ranges(registry)[40:])
    assert sent + honest <= 1.1 * SIZE


def test_a_signed_address_that_expires_is_asked_for_again(registry: ScriptedRegistry, store: Store) -> None:
    valid = count()
    with scripted_registry() as storage:
        storage.blobs = registry.blobs

        def signed(seen: Seen) -> Reply:
            return Reply(307, {"Location": f"{storage.url}/v2/s/blobs/{PATH}?signature={next(valid)}"})

        used: dict[str, int] = {}

        def stored(seen: Seen) -> Reply | None:
            used[seen.query] = used.get(seen.query, 0) + 1
            return Reply(403, body=b"<Error>expired</Error>") if len(used) % 3 == 0 else None

        registry.on("GET", PATH, signed)
        storage.on("GET", PATH, stored)
        fetch(store, registry, parallel=2)
        assert set(used.values()) == {1}  # no address twice
        assert all(seen.authorization is None for seen in storage.seen)


def test_storage_that_refuses_for_ever_is_an_error(registry: ScriptedRegistry, store: Store) -> None:
    with scripted_registry() as storage:
        registry.on("GET", PATH, Reply(307, {"Location": f"{storage.url}/x?signature=s3cret"}))
        storage.on("GET", "/x", Reply(403))
        with pytest.raises(RegistryUnreachable, match="the address was refused, status 403") as caught:
            fetch(store, registry)
    assert "s3cret" not in str(caught.value)


def test_a_token_that_expires_in_mid_transfer(registry: ScriptedRegistry, store: Store) -> None:
    issued = count(1)

    def needs_token(seen: Seen) -> Reply | None:
        served = len(registry.requests("GET", PATH))
        if seen.authorization == f"Bearer t{1 + served // 4}":
            return None
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="s"'})

    registry.on("GET", "/v2/", needs_token)
    registry.on(
        "GET",
        "/token",
        lambda _: Reply(
            body=json.dumps(
                {"token": f"t{1 + len(registry.requests('GET', PATH)) // 4}", "n": next(issued)}
            ).encode()
        ),
    )
    with impatient_client(known_to(registry.host), part_size=PART, parallel=1) as client:
        pull(store, client, Reference.parse(f"{registry.host}/team/m:v1"))
    assert store.intact(Digest.of(WEIGHTS))


def test_a_busy_registry_gets_fewer_connections(registry: ScriptedRegistry, store: Store) -> None:
    guard = threading.Lock()
    inside, most, refusals = 0, 0, 2

    def busy(seen: Seen) -> Reply:
        nonlocal inside, most, refusals
        with guard:
            if refusals:
                refusals -= 1
                return Reply(429, {"Retry-After": "7"})
            inside += 1
            most = max(most, inside)
        reply = registry.honest(seen)

        def body() -> Iterator[bytes]:
            nonlocal inside
            assert isinstance(reply.body, bytes)
            yield reply.body[:-1]
            with guard:
                inside -= 1
            yield reply.body[-1:]

        assert isinstance(reply.body, bytes)
        return Reply(206, reply.headers, body(), length=len(reply.body))

    registry.on("GET", PATH, busy)
    waits = Waits()
    fetch(store, registry, parallel=4, sleep=waits)
    assert waits.seconds[:2] == [7.0, 7.0]
    assert most == 1  # 4, then 2, then 1


@pytest.mark.parametrize("where", [0, 5 * PART + 1, SIZE - 1])
def test_parts_with_other_bytes_are_never_visible(
    registry: ScriptedRegistry, store: Store, where: int
) -> None:
    """Once more as a whole, then it is an error: and nothing is left that would be wrong the next time."""
    registry.blobs[PATH] = WEIGHTS[:where] + bytes([WEIGHTS[where] ^ 1]) + WEIGHTS[where + 1 :]
    with pytest.raises(DigestMismatch):
        fetch(store, registry)
    assert not store.has(Digest.of(WEIGHTS))
    assert ranges(registry)[-1] is None
    registry.blobs[PATH] = WEIGHTS
    fetch(store, registry)


def test_a_mirror_that_changes_between_parts(registry: ScriptedRegistry, store: Store) -> None:
    other = os.urandom(SIZE)

    def mixed(seen: Seen) -> Reply | None:
        if "range" not in seen.headers:
            return None
        reply = registry.honest(seen)
        assert isinstance(reply.body, bytes)
        first = int(seen.headers["range"].removeprefix("bytes=").partition("-")[0])
        changed = other if first >= 4 * PART else WEIGHTS
        return Reply(206, {**reply.headers, "ETag": f'"{first}"'}, changed[first : first + len(reply.body)])

    registry.on("GET", PATH, mixed)
    fetch(store, registry)


def test_a_part_that_is_too_long_is_refused(registry: ScriptedRegistry, store: Store) -> None:
    def longer(seen: Seen) -> Reply:
        reply = registry.honest(seen)
        assert isinstance(reply.body, bytes)
        return Reply(206, reply.headers, reply.body + b"more", length=None)

    registry.on("GET", PATH, longer)
    with pytest.raises(SizeMismatch):
        fetch(store, registry)


def test_the_first_failure_ends_the_other_connections(registry: ScriptedRegistry, store: Store) -> None:
    gone = threading.Event()

    def answer(seen: Seen) -> Reply:
        reply = registry.honest(seen)
        assert isinstance(reply.body, bytes)
        if seen.headers["range"].startswith(f"bytes={2 * PART}-"):
            return Reply(404)

        def stalls() -> Iterator[bytes]:
            yield b"x"
            gone.wait(30)

        return (
            reply
            if seen.headers["range"].startswith("bytes=0-")
            else Reply(206, reply.headers, stalls(), PART)
        )

    registry.on("GET", PATH, answer)
    try:
        with pytest.raises(RemoteBlobNotFound):
            fetch(store, registry, parallel=3, read_timeout_s=60.0)
    finally:
        gone.set()
    assert [t.name for t in threading.enumerate() if t.name.startswith("lading-")] == []


# Ended from outside

PULL = """
import pathlib, sys
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.settings import RegistrySettings
from lading.oci.store import Store
from lading.oci.transfer import pull
settings = RegistrySettings(part_size=int(sys.argv[3]), parallel=int(sys.argv[4]))
try:
    with RegistryClient(settings) as client:
        pull(Store.open(pathlib.Path(sys.argv[1])), client, Reference.parse(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start_pull(store: Store, registry: ScriptedRegistry, *, parallel: int = 4) -> subprocess.Popen[bytes]:
    arguments = [str(store.root), f"{registry.host}/team/m:v1", str(PART), str(parallel)]
    return subprocess.Popen([sys.executable, "-c", PULL, *arguments])


class Valve:
    """Lets ``amount`` bytes of the blob through, over all connections, and counts them."""

    def __init__(self, registry: ScriptedRegistry, amount: int) -> None:
        self.registry = registry
        self.left = amount
        self.sent = 0
        self.shut = threading.Event()
        self.closed = threading.Event()
        self.lock = threading.Lock()

    def answer(self, seen: Seen) -> Reply:
        reply = self.registry.honest(seen)
        assert isinstance(reply.body, bytes)
        return Reply(206, reply.headers, self._pieces(reply.body), length=len(reply.body))

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), 4096):
            piece = body[start : start + 4096]
            with self.lock:
                self.left -= len(piece)
                stuck = self.left < 0
                self.sent += 0 if stuck else len(piece)
            if stuck:
                self.shut.set()
                self.closed.wait(60)
                return
            yield piece


@pytest.mark.parametrize(
    ("moment", "how"),
    [(1, signal.SIGKILL), (3 * PART + 5000, signal.SIGKILL), (8 * PART, signal.SIGINT)],
    ids=["killed at once", "killed", "interrupted"],
)
def test_a_pull_that_is_ended_loses_nothing_that_was_written(
    registry: ScriptedRegistry, store: Store, moment: int, how: signal.Signals
) -> None:
    put_model(store, "kept", b"kept")
    before = snapshot(store)
    valve = Valve(registry, moment + 4096)
    registry.on("GET", PATH, valve.answer)
    process = start_pull(store, registry)
    try:
        assert valve.shut.wait(60)
        wait_until_arrived(store, valve)
        process.send_signal(how)
        assert process.wait(60) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        valve.closed.set()
    assert snapshot(store) == before
    registry.rules.clear()
    registry.seen.clear()
    fetch(store, registry)
    assert sum(map(length_of, ranges(registry))) == SIZE - valve.sent
    assert_nothing_lost(store.root, before, may_change=(f"{registry.host}/team/m:v1",))


def wait_until_arrived(store: Store, valve: Valve) -> None:
    """Until what was sent has been written."""
    wait_for(lambda: store.arrived(MANIFEST.layers[0]) >= valve.sent)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_second_process_takes_over_when_the_first_dies(registry: ScriptedRegistry, store: Store) -> None:
    valve = Valve(registry, 4 * PART)
    registry.on("GET", PATH, valve.answer)
    first, second = start_pull(store, registry, parallel=1), None
    try:
        assert valve.shut.wait(60)  # its one connection is stuck now
        wait_until_arrived(store, valve)
        registry.rules.clear()
        asked = len(ranges(registry))
        second = start_pull(store, registry)
        wait_for(lambda: len(registry.requests("GET", "/manifests/")) == 2)
        assert len(ranges(registry)) == asked  # it waits
        first.kill()
        assert second.wait(60) == 0
    finally:
        valve.closed.set()
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()
    assert valve.sent + sum(map(length_of, ranges(registry)[asked:])) == SIZE
    assert store.fsck().clean


def test_a_failure_of_ours_is_no_crash(registry: ScriptedRegistry, store: Store) -> None:
    """A sink that raises in the thread of a part ends the pull, and the next one goes on."""

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.completed > PART:
            raise Stop

    reference = Reference.parse(f"{registry.host}/team/m:v1")
    with impatient_client(part_size=PART) as client, pytest.raises((Stop, LadingError)):
        pull(store, client, reference, progress=stop)
    arrived = store.arrived(MANIFEST.layers[0])
    assert arrived > 0
    registry.seen.clear()
    fetch(store, registry)
    assert sum(map(length_of, ranges(registry))) <= SIZE - arrived
