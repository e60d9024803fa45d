"""Uploads over bad connections and to particular registries, and the bounds on rates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_clients import Waits, impatient_client
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry
from store_models import describe, put_model

from lading.oci.digest import Digest
from lading.oci.reference import Reference
from lading.oci.registry import upload
from lading.oci.registry.errors import RegistryError
from lading.oci.registry.rate_limit import RateLimit
from lading.oci.registry.upload import BlobUpload
from lading.oci.store import Store
from lading.oci.transfer import pull, push

BLOB = os.urandom(1 << 20)
DIGEST = str(Digest.of(BLOB))
HALF = len(BLOB) // 2


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        yield running


def send(registry: ScriptedRegistry, folder: Path, **settings: object) -> list[Seen]:
    """Uploads the blob, and gives the requests that had a body."""
    path = folder / "blob"
    path.write_bytes(BLOB)
    with impatient_client(None, **settings) as client:
        repository = client.repository(Reference.parse(f"{registry.host}/team/m:v1"), writes=True)
        assert BlobUpload(repository, describe(BLOB), path, lambda _: None).run() == "uploaded"
    assert registry.blobs[DIGEST] == BLOB
    return [seen for seen in registry.requests("", "uploads") if seen.body]


def breaks_off(registry: ScriptedRegistry, kept: int) -> None:
    """The first body that is sent ends with the connection; so much of it is kept in the session."""

    def answer(seen: Seen) -> Reply:
        registry.uploads[seen.path.rpartition("/")[2]] += seen.body[:kept]
        return Reply(0)

    registry.on("PUT", "uploads", answer, times=1)


@pytest.mark.parametrize("chunk_size", [1 << 30, 200_000])
def test_what_has_arrived_is_not_sent_again(
    registry: ScriptedRegistry, tmp_path: Path, chunk_size: int
) -> None:
    breaks_off(registry, HALF)
    bodies = send(registry, tmp_path, chunk_size=chunk_size)
    assert b"".join(seen.body for seen in bodies[1:]) == BLOB[HALF:]
    assert bodies[1].method == "PATCH"
    assert bodies[1].headers["content-range"].startswith(f"{HALF}-")
    assert len(registry.uploads) == 1


def test_a_session_that_kept_nothing_is_left(registry: ScriptedRegistry, tmp_path: Path) -> None:
    breaks_off(registry, 0)
    bodies = send(registry, tmp_path)
    assert [len(seen.body) for seen in bodies] == [len(BLOB), len(BLOB)]
    assert len(registry.uploads) == 2


@pytest.mark.parametrize("status", [404, 400, 500])
def test_a_session_that_is_forgotten_is_begun_again(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    """docker-registry does so whenever a connection breaks."""
    breaks_off(registry, HALF)
    registry.on("GET", "uploads", Reply(status))
    bodies = send(registry, tmp_path)
    assert bodies[-1].body == BLOB


def test_a_session_that_is_forgotten_between_chunks(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("PUT", "uploads", lambda seen: Reply(413) if len(seen.body) == len(BLOB) else None)
    registry.on("PATCH", "uploads", Reply(0), times=1)
    registry.on("PATCH", "uploads", lambda seen: registry.honest(seen), times=1)
    registry.on("GET", "uploads", Reply(404), times=1)
    send(registry, tmp_path, chunk_size=400_000)


def test_a_registry_that_always_forgets_is_an_error(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None)
    registry.on("PATCH", "uploads", Reply(0))
    registry.on("GET", "uploads", Reply(404))
    with pytest.raises(RegistryError, match="loses what has been sent"):
        send(registry, tmp_path)


def test_more_than_was_sent_is_not_believed(registry: ScriptedRegistry, tmp_path: Path) -> None:
    breaks_off(registry, HALF)
    registry.on("GET", "uploads", Reply(204, {"Range": f"0-{len(BLOB) + 5}"}), times=1)
    assert send(registry, tmp_path)[-1].body == BLOB


def test_registries_that_refuse_chunks_get_none(
    registry: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "_ONLY_IN_ONE_PIECE", ("127.0.0.1",))
    breaks_off(registry, HALF)
    bodies = send(registry, tmp_path, chunk_size=1000)
    assert [seen.method for seen in bodies] == ["PUT", "PUT"]


def test_a_second_tag_sends_only_a_manifest(registry: ScriptedRegistry, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    put_model(store, "mine", BLOB, b"more")
    with impatient_client() as client:
        for tag in ("v1", "v2"):
            registry.seen.clear()
            target = Reference.parse(f"{registry.host}/team/m:{tag}")
            push(store, client, Reference.parse("mine"), target=target)
    (sent,) = [seen for seen in registry.seen if seen.body]
    assert sent.path == "/v2/team/m/manifests/v2"


# Rates


def test_a_rate_is_kept_on_average() -> None:
    now = 0.0
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    limit = RateLimit(1000, clock=lambda: now)
    for _ in range(100):
        limit.spend(100, sleep)
    assert now == pytest.approx(10.0 - 0.25, abs=0.3)
    now += 100
    slept.clear()
    limit.spend(100, sleep)  # a pause is no credit
    limit.spend(1000, sleep)
    assert sum(slept) == pytest.approx(0.85, abs=0.1)


@pytest.mark.parametrize(("rate", "piece"), [(0, 1 << 18), (1, 4096), (1 << 20, 1 << 17), (1 << 30, 1 << 18)])
def test_pieces_are_small_where_the_rate_is(rate: int, piece: int) -> None:
    assert RateLimit(rate).piece(1 << 18) == piece


def test_transfers_keep_to_their_rates(registry: ScriptedRegistry, tmp_path: Path) -> None:
    """Bytes over rate is how long it waits; nothing is really waited for here."""
    store, other = Store.open(tmp_path / "store"), Store.open(tmp_path / "other")
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    put_model(store, str(reference), BLOB)
    up, down = Waits(), Waits()
    rates = {"upload_rate": 1000, "download_rate": 500}
    with impatient_client(sleep=up, **rates) as client:
        push(store, client, reference)
    with impatient_client(sleep=down, part_size=200_000, **rates) as client:
        pull(other, client, reference)
    # Time stands still for `Waits`, so each wait is counted from the start: the last is the longest.
    assert max(up.seconds) == pytest.approx(len(BLOB) / 1000, rel=0.2)
    assert max(down.seconds) == pytest.approx(len(BLOB) / 500, rel=0.2)
