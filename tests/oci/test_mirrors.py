"""Pulls from mirrors: asked in order, passed by when they fail, never pushed to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from registry_clients import impatient_client, known_to
from scripted_registry import Reply, ScriptedRegistry, Seen, scripted_registry
from store_models import make_manifest, put_model

from lading.oci.digest import Digest
from lading.oci.errors import DigestMismatch
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.registry.errors import RemoteModelNotFound
from lading.oci.registry.mirror import mirrors_of
from lading.oci.store import Store
from lading.oci.transfer import pull, push

WEIGHTS = os.urandom(300_000)
BLOB = str(Digest.of(WEIGHTS))
MANIFEST, BLOBS = make_manifest(WEIGHTS)
PART = 100_000


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


@pytest.fixture
def mirror() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "copies/team/m:v1")
        yield running


def fetch(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry, **settings: object
) -> list[str]:
    """Pulls; what was said beside the usual."""
    said: list[Progress] = []
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    mirrors = {registry.host: (f"{mirror.host}/copies",)}
    with impatient_client(None, mirrors=mirrors, part_size=PART, **settings) as client:
        assert pull(store, client, reference, progress=said.append) == MANIFEST
    assert store.resolve(reference) == MANIFEST  # under the name that was asked for
    return [progress.status for progress in said if progress.status.startswith("mirror ")]


def test_a_mirror_is_asked_first(store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry) -> None:
    assert fetch(store, registry, mirror) == []
    assert registry.seen == []
    assert mirror.requests("GET", "^/v2/copies/team/m/blobs/")


def without_it(mirror: ScriptedRegistry) -> None:
    mirror.manifests.clear()


def denying(mirror: ScriptedRegistry) -> None:
    mirror.on("GET", "/v2/copies", Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}))


def broken(mirror: ScriptedRegistry) -> None:
    mirror.on("GET", "/v2/copies", Reply(500))


def hanging_up(mirror: ScriptedRegistry) -> None:
    mirror.on("*", "", Reply(0))


def without_blobs(mirror: ScriptedRegistry) -> None:
    mirror.blobs.clear()


def talking_nonsense(mirror: ScriptedRegistry) -> None:
    mirror.on("GET", "manifests", Reply(200, {"Content-Type": "application/json"}, b"[]"))


def with_another_blob(mirror: ScriptedRegistry) -> None:
    mirror.blobs[BLOB] = os.urandom(len(WEIGHTS))


@pytest.mark.parametrize(
    "fault",
    [without_it, denying, broken, hanging_up, without_blobs, talking_nonsense, with_another_blob],
)
def test_a_mirror_that_fails_is_passed_by_and_named(
    store: Store,
    registry: ScriptedRegistry,
    mirror: ScriptedRegistry,
    fault: Callable[[ScriptedRegistry], None],
) -> None:
    fault(mirror)
    said = fetch(store, registry, mirror)
    assert said
    assert all(line.startswith(f"mirror {mirror.host}: ") for line in said)
    assert store.fsck().clean


def test_what_a_mirror_has_sent_of_a_blob_is_kept(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    def first_part_only(seen: Seen) -> Reply | None:
        return None if seen.headers.get("range") == f"bytes=0-{PART - 1}" else Reply(404)

    mirror.on("GET", BLOB, first_part_only)
    assert fetch(store, registry, mirror, parallel=1)
    assert [seen.headers["range"] for seen in registry.requests("GET", BLOB)] == [
        f"bytes={PART}-{2 * PART - 1}", f"bytes={2 * PART}-",
    ]  # fmt: skip


def test_the_last_word_is_the_registrys_own(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    without_it(mirror)
    without_it(registry)
    with pytest.raises(RemoteModelNotFound, match=registry.host):
        fetch(store, registry, mirror)


def test_nothing_wrong_comes_from_a_mirror(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    with_another_blob(mirror)
    with_another_blob(registry)
    with pytest.raises(DigestMismatch):
        fetch(store, registry, mirror)
    assert not store.has(Digest.of(WEIGHTS))


def test_credentials_of_the_registry_are_not_for_its_mirror(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    def wants(seen: Seen) -> Reply | None:
        return None if seen.authorization else Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})

    for server in (registry, mirror):
        server.on("GET", "/v2/.+", wants)
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    mirrors = {registry.host: (f"{mirror.host}/copies",)}
    with impatient_client(known_to(registry.host), mirrors=mirrors) as client:
        pull(store, client, reference)
    assert {seen.authorization for seen in mirror.seen} == {None}
    assert any(seen.authorization for seen in registry.seen)


def test_a_push_goes_to_the_registry_itself(
    store: Store, registry: ScriptedRegistry, mirror: ScriptedRegistry
) -> None:
    put_model(store, "mine", b"new weights")
    target = Reference.parse(f"{registry.host}/team/new:v1")
    with impatient_client(mirrors={registry.host: (mirror.host,)}) as client:
        push(store, client, Reference.parse("mine"), target=target)
    assert mirror.seen == []


MIRRORS = {
    "docker.io": ("hub.example/all",),
    "docker.io/library": ("lib.example",),
    "reg.example": ("a.example", "b.example:5000/x"),
    "reg.example/team": ("team.example",),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker.io/ai/m:v1", ["hub.example/all/ai/m:v1"]),
        ("docker.io/m:v1", ["lib.example/m:v1"]),
        ("reg.example/a/m:v1", ["a.example/a/m:v1", "b.example:5000/x/a/m:v1"]),
        ("reg.example/team/m:v1", ["team.example/m:v1"]),
        ("reg.example/teams/m:v1", ["a.example/teams/m:v1", "b.example:5000/x/teams/m:v1"]),
        ("reg.example:5000/m:v1", []),
        ("other.example/m:v1", []),
    ],
)
def test_the_longest_prefix_counts(name: str, expected: list[str]) -> None:
    assert [str(place) for place in mirrors_of(Reference.parse(name), MIRRORS)] == expected


def test_a_digest_is_kept() -> None:
    pinned = Reference.parse(f"reg.example/team/m@{Digest.of(b'x')}")
    assert mirrors_of(pinned, MIRRORS)[0].digest == pinned.digest
