"""Pull and push between stores and registries: Debian's, and scripted ones that fail on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registry_clients import impatient_client, known_to
from registry_server import (
    INSTALLED,
    PASSWORD,
    USER,
    WHY_NOT,
    RunningRegistry,
    running_registry,
)
from scripted_registry import Reply, ScriptedRegistry, Seen, error, scripted_registry
from store_models import make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot
from token_service import TokenService

from lading.modelfile.errors import LadingError
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import BadManifest, BlobNotFound, DigestMismatch, DiskFull, ModelNotFound
from lading.oci.manifest import Index, Manifest
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.registry.errors import RegistryDenied, RegistryError, RemoteBlobNotFound, RemoteModelNotFound
from lading.oci.registry.index_choice import Platform
from lading.oci.store import Store
from lading.oci.transfer import pull, push

needs_registry = pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)

WEIGHTS = os.urandom(3 << 20)
TEMPLATE = b"{{ .Prompt }}"
MANIFEST, BLOBS = make_manifest(WEIGHTS, TEMPLATE, b"")


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Another machine's store."""
    return Store.open(tmp_path / "other")


def at(host: str, name: str = "team/m:v1") -> Reference:
    return Reference.parse(f"{host}/{name}")


# Against a real registry


@needs_registry
def test_a_model_travels_byte_for_byte(docker: RunningRegistry, store: Store, other: Store) -> None:
    reference = at(docker.host, "travel/m:v1")
    put_model(store, str(reference), WEIGHTS, TEMPLATE, b"")
    with impatient_client() as client:
        pushed = push(store, client, reference)
        pulled = pull(other, client, reference)
    assert pulled == MANIFEST
    assert pushed.digest == MANIFEST.digest
    assert other.resolve(reference).raw == store.resolve(reference).raw
    assert other.fsck().clean
    assert other.blob_path(Digest.of(WEIGHTS)).read_bytes() == WEIGHTS
    assert list(other.layout.ingest.iterdir()) == []


@needs_registry
def test_a_model_is_pulled_by_digest(docker: RunningRegistry, store: Store, other: Store) -> None:
    reference = at(docker.host, "digest/m:v1")
    put_model(store, str(reference), WEIGHTS)
    with impatient_client() as client:
        digest = push(store, client, reference).digest
        pinned = reference.with_digest(digest)
        assert pull(other, client, pinned).digest == digest
    assert other.resolve(pinned).digest == digest


@needs_registry
def test_a_model_is_pushed_under_another_name(docker: RunningRegistry, store: Store, other: Store) -> None:
    put_model(store, "mine", WEIGHTS)
    target = at(docker.host, "renamed/m:v9")
    with impatient_client() as client:
        push(store, client, Reference.parse("mine"), target=target)
        assert pull(other, client, target) == store.resolve(Reference.parse("mine"))


@needs_registry
def test_what_is_there_is_not_sent_or_fetched_again(
    docker: RunningRegistry, store: Store, other: Store
) -> None:
    reference = at(docker.host, "again/m:v1")
    put_model(store, str(reference), WEIGHTS, TEMPLATE)
    with impatient_client() as client:
        push(store, client, reference)
        pull(other, client, reference)
    seen: list[Progress] = []
    with impatient_client() as client:
        push(store, client, reference, progress=seen.append)
        pull(other, client, reference, progress=seen.append)
    partial = [p for p in seen if 0 < p.completed < p.total]
    assert partial == []


@needs_registry
def test_two_models_share_layers(docker: RunningRegistry, store: Store) -> None:
    base, derived = at(docker.host, "share/base:v1"), at(docker.host, "share/derived:v1")
    put_model(store, str(base), WEIGHTS)
    put_model(store, str(derived), WEIGHTS, b"more")
    statuses: list[Progress] = []
    with impatient_client() as client:
        push(store, client, base)
        push(store, client, derived, progress=statuses.append)
    of_weights = [p for p in statuses if p.digest == Digest.of(WEIGHTS)]
    assert {p.completed for p in of_weights} <= {0, len(WEIGHTS)}  # mounted, not sent


@needs_registry
def test_progress_is_told_in_ollamas_words(docker: RunningRegistry, store: Store, other: Store) -> None:
    reference = at(docker.host, "words/m:v1")
    put_model(store, str(reference), WEIGHTS, TEMPLATE)
    seen: list[Progress] = []
    with impatient_client() as client:
        push(store, client, reference, progress=seen.append)
        pull(other, client, reference, progress=seen.append)
    statuses = list(dict.fromkeys(progress.status for progress in seen))
    weights, template = Digest.of(WEIGHTS).short, Digest.of(TEMPLATE).short
    assert statuses[0] == "retrieving manifest"
    assert {f"pushing {weights}", f"pushing {template}", f"pulling {weights}"} <= set(statuses)
    assert statuses[statuses.index("success") - 1] == "pushing manifest"
    assert statuses.index("pulling manifest") > statuses.index("success")
    assert [p.status for p in seen][-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    last = [p for p in seen if p.status == f"pulling {weights}"][-1]
    assert (last.completed, last.total) == (len(WEIGHTS), len(WEIGHTS))


@needs_registry
def test_a_registry_with_passwords(tmp_path: Path, store: Store, other: Store) -> None:
    with running_registry(tmp_path / "registry", auth="htpasswd") as registry:
        reference = at(registry.host)
        put_model(store, str(reference), WEIGHTS)
        with impatient_client() as client, pytest.raises(RegistryDenied) as caught:
            push(store, client, reference)
        assert "no credentials were sent" in str(caught.value)
        wrong = known_to(registry.host, username=USER, secret="wrong")
        with impatient_client(wrong) as client, pytest.raises(RegistryDenied) as caught:
            push(store, client, reference)
        assert "the test's file were refused" in str(caught.value)
        assert registry.stored_blobs() == set()
        right = known_to(registry.host, username=USER, secret=PASSWORD)
        with impatient_client(right) as client:
            push(store, client, reference)
            pull(other, client, reference)
        assert other.resolve(reference) == store.resolve(reference)


@needs_registry
def test_a_registry_with_a_token_service(tmp_path: Path, store: Store, other: Store) -> None:
    service = TokenService(USER, PASSWORD)
    with scripted_registry() as realm:
        realm.on("GET", "/token", service.answer)
        section = service.configuration(f"{realm.url}/token", tmp_path / "issuer")
        with running_registry(tmp_path / "registry", auth=section) as registry:
            reference = at(registry.host)
            put_model(store, str(reference), WEIGHTS, TEMPLATE)
            bound = {registry.host: (realm.host,)}
            # The service is another host than the registry: without the binding it gets no password, and
            # what it grants to strangers does not allow a push.
            right = known_to(registry.host, username=USER, secret=PASSWORD)
            with impatient_client(right) as client, pytest.raises(RegistryDenied):
                push(store, client, reference)
            assert all(seen.authorization is None for seen in realm.seen)
            with impatient_client(right, realm_hosts=bound) as client:
                push(store, client, reference)
            service.granted.clear()
            with impatient_client() as client:
                assert pull(other, client, reference) == store.resolve(reference)
            assert service.granted == [["repository:team/m:pull"]]
            wrong = known_to(registry.host, username=USER, secret="wrong")
            with impatient_client(wrong, realm_hosts=bound) as client, pytest.raises(RegistryDenied):
                pull(other, client, reference)


@needs_registry
def test_tokens_that_expire_during_a_push(tmp_path: Path, store: Store) -> None:
    service = TokenService(USER, PASSWORD, life_s=2)
    with scripted_registry() as realm:
        realm.on("GET", "/token", service.answer)
        section = service.configuration(f"{realm.url}/token", tmp_path / "issuer")
        with running_registry(tmp_path / "registry", auth=section) as registry:
            reference = at(registry.host)
            put_model(store, str(reference), *(os.urandom(1000) for _ in range(3)))
            seen: set[Digest | None] = set()

            def slow(progress: Progress) -> None:
                if progress.digest not in seen:
                    seen.add(progress.digest)
                    time.sleep(0.8)

            right = known_to(registry.host, username=USER, secret=PASSWORD)
            with impatient_client(right, realm_hosts={registry.host: (realm.host,)}) as client:
                push(store, client, reference, progress=slow)
            assert len(service.granted) >= 2
            assert {tuple(scopes) for scopes in service.granted} == {("repository:team/m:pull,push",)}


@needs_registry
def test_many_layers_at_once(docker: RunningRegistry, store: Store, other: Store) -> None:
    reference = at(docker.host, "many/m:v1")
    put_model(store, str(reference), *(os.urandom(1000 + n) for n in range(60)))
    with impatient_client(parallel=8) as client:
        push(store, client, reference)
        assert pull(other, client, reference) == store.resolve(reference)
    assert other.fsck().clean


@needs_registry
def test_two_processes_pull_the_same_model(docker: RunningRegistry, store: Store, other: Store) -> None:
    reference = at(docker.host, "twice/m:v1")
    put_model(store, str(reference), os.urandom(8 << 20), TEMPLATE)
    with impatient_client() as client:
        push(store, client, reference)
    program = (
        "import sys, pathlib\n"
        "from lading.oci.store import Store\n"
        "from lading.oci.reference import Reference\n"
        "from lading.oci.registry.client import RegistryClient\n"
        "from lading.oci.transfer import pull\n"
        "with RegistryClient() as client:\n"
        "    pull(Store.open(pathlib.Path(sys.argv[1])), client, Reference.parse(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(other.root), str(reference)]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert_nothing_lost(other.root, snapshot(other))


# Pulls that fail


def test_a_missing_model_changes_nothing(scripted: ScriptedRegistry, store: Store) -> None:
    put_model(store, "kept", b"kept")
    before = snapshot(store)
    with impatient_client() as client, pytest.raises(RemoteModelNotFound):
        pull(store, client, at(scripted.host, "team/absent:v1"))
    assert_nothing_lost(store.root, before)


def wrong_blob(scripted: ScriptedRegistry) -> None:
    scripted.blobs[str(Digest.of(WEIGHTS))] = WEIGHTS[:-1] + b"!"


def missing_blob(scripted: ScriptedRegistry) -> None:
    del scripted.blobs[str(Digest.of(WEIGHTS))]


def long_blob(scripted: ScriptedRegistry) -> None:
    data = WEIGHTS + b"more"
    scripted.on("GET", str(Digest.of(WEIGHTS)), Reply(body=data, length=None))


def broken_for_good(scripted: ScriptedRegistry) -> None:
    scripted.on("GET", str(Digest.of(WEIGHTS)), Reply(body=b"", length=len(WEIGHTS), cut=True))


def always_busy(scripted: ScriptedRegistry) -> None:
    scripted.on("GET", str(Digest.of(WEIGHTS)), Reply(503))


FAULTS = [wrong_blob, missing_blob, long_blob, broken_for_good, always_busy]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_pull_leaves_every_tag(
    scripted: ScriptedRegistry, store: Store, fault: Callable[[ScriptedRegistry], None]
) -> None:
    put_model(store, "kept", TEMPLATE)  # shares a layer with what fails
    put_model(store, str(at(scripted.host)), b"the earlier version")
    before = snapshot(store)
    fault(scripted)
    with impatient_client() as client, pytest.raises(LadingError):
        pull(store, client, at(scripted.host))
    assert snapshot(store) == before
    assert not store.has(Digest.of(WEIGHTS))
    scripted.rules.clear()
    scripted.add(MANIFEST, BLOBS)
    with impatient_client() as client:  # nothing to clean up by hand
        pull(store, client, at(scripted.host))
    assert_nothing_lost(store.root, before, may_change=(str(at(scripted.host)),))


def test_an_interrupted_pull_is_continued(scripted: ScriptedRegistry, store: Store) -> None:
    path = str(Digest.of(WEIGHTS))
    scripted.on("GET", path, Reply(404))
    scripted.on("GET", path, Reply(body=WEIGHTS[: 2 << 20], length=len(WEIGHTS), cut=True), times=1)
    with impatient_client() as client, pytest.raises(RemoteBlobNotFound):
        pull(store, client, at(scripted.host))
    scripted.rules.clear()
    scripted.seen.clear()
    with impatient_client() as client:
        pull(store, client, at(scripted.host))
    (again,) = scripted.requests("GET", path)
    assert again.headers["range"] == f"bytes={2 << 20}-"
    assert store.resolve(at(scripted.host)) == MANIFEST


def test_a_wrong_beginning_is_fetched_anew(scripted: ScriptedRegistry, store: Store) -> None:
    path = str(Digest.of(WEIGHTS))
    scripted.on("GET", path, Reply(404))
    scripted.on("GET", path, Reply(body=b"x" * 1000, length=len(WEIGHTS), cut=True), times=1)
    with impatient_client() as client, pytest.raises(RemoteBlobNotFound):
        pull(store, client, at(scripted.host))
    scripted.rules.clear()
    with impatient_client() as client:
        pull(store, client, at(scripted.host))
    assert [seen.headers.get("range") for seen in scripted.requests("GET", path)][-2:] == [
        "bytes=1000-",
        None,
    ]
    assert store.fsck().clean


def test_a_damaged_local_blob_is_repaired(scripted: ScriptedRegistry, store: Store) -> None:
    reference = at(scripted.host)
    with impatient_client() as client:
        pull(store, client, reference)
        path = store.blob_path(Digest.of(WEIGHTS))
        path.chmod(0o644)
        path.write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
        assert not store.fsck().clean
        pull(store, client, reference)
    assert store.fsck().clean


def test_the_tag_is_resolved_once(scripted: ScriptedRegistry, store: Store) -> None:
    changed, blobs = make_manifest(b"the next version")

    def changes(seen: Seen) -> None:
        scripted.add(changed, blobs, "team/m:v1")

    scripted.on("GET", "blobs", changes)  # type: ignore[arg-type]  # returns None: answered honestly
    with impatient_client() as client:
        assert pull(store, client, at(scripted.host)) == MANIFEST
    assert store.resolve(at(scripted.host)) == MANIFEST


def test_no_room_is_noticed_before_anything_is_fetched(scripted: ScriptedRegistry, store: Store) -> None:
    layer = Descriptor("application/octet-stream", Digest.of(b"huge"), 1 << 60)
    manifest = Manifest.build(config=MANIFEST.config, layers=[layer])
    scripted.add(manifest, BLOBS, "team/huge:v1")
    with impatient_client() as client, pytest.raises(DiskFull):
        pull(store, client, at(scripted.host, "team/huge:v1"))
    assert scripted.requests("GET", "blobs") == []


def test_a_huge_config_is_refused(scripted: ScriptedRegistry, store: Store) -> None:
    config = Descriptor("application/json", Digest.of(b"config"), (1 << 20) + 1)
    scripted.add(Manifest.build(config=config, layers=[]), (), "team/big:v1")
    with impatient_client() as client, pytest.raises(BadManifest, match="config"):
        pull(store, client, at(scripted.host, "team/big:v1"))


def test_one_digest_with_two_sizes_is_refused(scripted: ScriptedRegistry, store: Store) -> None:
    layers = [Descriptor("a/b", Digest.of(TEMPLATE), size) for size in (len(TEMPLATE), 5)]
    scripted.add(Manifest.build(config=MANIFEST.config, layers=layers), BLOBS, "team/two:v1")
    with impatient_client() as client, pytest.raises(BadManifest, match="two sizes"):
        pull(store, client, at(scripted.host, "team/two:v1"))


def test_foreign_layer_urls_are_never_followed(scripted: ScriptedRegistry, store: Store) -> None:
    with scripted_registry() as trap:
        layer = Descriptor("a/b", Digest.of(b"foreign"), 7, extra={"urls": [f"{trap.url}/x"]})
        scripted.add(Manifest.build(config=MANIFEST.config, layers=[layer]), BLOBS, "team/f:v1")
        with impatient_client() as client, pytest.raises(RemoteBlobNotFound):
            pull(store, client, at(scripted.host, "team/f:v1"))
        assert trap.seen == []


def test_the_first_failure_stops_the_others(scripted: ScriptedRegistry, store: Store) -> None:
    layers = [bytes([n]) * 100 for n in range(40)]
    manifest, blobs = make_manifest(*layers)
    scripted.add(manifest, blobs, "team/many:v1")
    scripted.on("GET", str(Digest.of(layers[0])), Reply(404))
    with impatient_client(parallel=2) as client, pytest.raises(RemoteBlobNotFound):
        pull(store, client, at(scripted.host, "team/many:v1"))
    assert len(scripted.requests("GET", "blobs")) < 40
    assert [t.name for t in threading.enumerate() if t.name.startswith("lading-transfer")] == []


def test_a_sink_that_raises_ends_the_transfer(scripted: ScriptedRegistry, store: Store) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.completed > 0:
            raise Stop

    with impatient_client() as client, pytest.raises(Stop):
        pull(store, client, at(scripted.host), progress=stop)
    assert store.tags() == []


def test_progress_comes_from_one_thread_at_a_time(scripted: ScriptedRegistry, store: Store) -> None:
    manifest, blobs = make_manifest(*(os.urandom(200_000) for _ in range(12)))
    scripted.add(manifest, blobs, "team/many:v1")
    inside = threading.Lock()

    def exclusive(progress: Progress) -> None:
        assert inside.acquire(blocking=False)
        inside.release()

    with impatient_client(parallel=6) as client:
        pull(store, client, at(scripted.host, "team/many:v1"), progress=exclusive)


# Indexes


def index_of(scripted: ScriptedRegistry, *entries: Descriptor) -> Index:
    index = Index.build(manifests=list(entries))
    for key in ("multi", str(index.digest)):
        scripted.manifests[f"team/m/{key}"] = (index.media_type, index.raw)
    return index


def entry(manifest: Manifest, platform: str = "", **more: object) -> Descriptor:
    os_name, _, architecture = platform.partition("/")
    extra = {"platform": {"os": os_name, "architecture": architecture}} if platform else {}
    return Descriptor(manifest.media_type, manifest.digest, len(manifest.raw), extra=extra, **more)  # type: ignore[arg-type]


LINUX = Platform("linux", "amd64")


@pytest.mark.parametrize(
    ("platforms", "chosen"),
    [
        ([""], 0),
        (["linux/arm64"], 0),
        (["linux/arm64", "linux/amd64"], 1),
        (["windows/amd64", ""], 1),
        (["", "linux/amd64"], 1),
        (["unknown/unknown", "linux/amd64"], 1),
    ],
)
def test_the_manifest_for_this_machine_is_chosen(
    scripted: ScriptedRegistry, store: Store, platforms: list[str], chosen: int
) -> None:
    models = [make_manifest(b"model %d" % number) for number in range(len(platforms))]
    for manifest, blobs in models:
        scripted.add(manifest, blobs, "team/m:x")
    index_of(scripted, *(entry(m, p) for (m, _), p in zip(models, platforms, strict=True)))
    reference = at(scripted.host, "team/m:multi")
    with impatient_client() as client:
        assert pull(store, client, reference, platform=LINUX) == models[chosen][0]
    assert store.resolve(reference) == models[chosen][0]


def test_attestations_are_passed_by_and_models_preferred(scripted: ScriptedRegistry, store: Store) -> None:
    attestation, image = make_manifest(b"attestation")[0], make_manifest(b"image")[0]
    marked = {"vnd.docker.reference.type": "attestation-manifest"}
    index_of(
        scripted,
        entry(attestation, "unknown/unknown", annotations=marked),
        entry(image, "linux/amd64"),
        entry(MANIFEST, artifact_type="application/vnd.cncf.model.manifest.v1+json"),
    )
    with impatient_client() as client:
        assert pull(store, client, at(scripted.host, "team/m:multi"), platform=LINUX) == MANIFEST


def test_an_ambiguous_index_lists_what_there_is(scripted: ScriptedRegistry, store: Store) -> None:
    others = [make_manifest(b"one")[0], make_manifest(b"two")[0]]
    index_of(scripted, *map(entry, others))
    with impatient_client() as client, pytest.raises(BadManifest) as caught:
        pull(store, client, at(scripted.host, "team/m:multi"), platform=LINUX)
    assert all(str(manifest.digest) in str(caught.value) for manifest in others)


def test_an_index_pinned_by_digest_becomes_its_manifest(scripted: ScriptedRegistry, store: Store) -> None:
    index = index_of(scripted, entry(MANIFEST))
    with impatient_client() as client:
        assert pull(store, client, at(scripted.host, f"team/m@{index.digest}")) == MANIFEST
    assert store.resolve(at(scripted.host, f"team/m@{MANIFEST.digest}")) == MANIFEST


@pytest.mark.parametrize("nested", [True, False], ids=["an index", "nothing"])
def test_an_index_without_a_model_is_an_error(scripted: ScriptedRegistry, store: Store, nested: bool) -> None:
    inner = index_of(scripted)
    index_of(scripted, *([Descriptor(inner.media_type, inner.digest, len(inner.raw))] if nested else []))
    with impatient_client() as client, pytest.raises(BadManifest, match="without any model"):
        pull(store, client, at(scripted.host, "team/m:multi"))


# Pushes that fail


def test_an_unknown_model_asks_no_registry(scripted: ScriptedRegistry, store: Store) -> None:
    with impatient_client() as client, pytest.raises(ModelNotFound):
        push(store, client, at(scripted.host))
    assert scripted.seen == []


def test_a_missing_local_blob_is_noticed_before_anything_is_sent(
    scripted: ScriptedRegistry, store: Store
) -> None:
    put_model(store, str(at(scripted.host, "new/m:v1")), WEIGHTS, TEMPLATE)
    store.blob_path(Digest.of(TEMPLATE)).unlink()
    with impatient_client() as client, pytest.raises(BlobNotFound):
        push(store, client, at(scripted.host, "new/m:v1"))
    assert scripted.seen == []


def test_a_push_sends_the_manifest_last(scripted: ScriptedRegistry, store: Store) -> None:
    reference = at(scripted.host, "new/m:v1")
    put_model(store, str(reference), WEIGHTS, TEMPLATE, config=b"{}")
    scripted.blobs.clear()
    with impatient_client() as client:
        push(store, client, reference)
    puts = [seen for seen in scripted.seen if seen.method == "PUT"]
    assert puts[-1].path == "/v2/new/m/manifests/v1"
    assert puts[-1].body == store.resolve(reference).raw
    assert puts[-2].parameters["digest"] == [str(Digest.of(b"{}"))]  # the config
    assert len(puts) == 4


def test_a_failed_push_leaves_the_tag(scripted: ScriptedRegistry, store: Store) -> None:
    put_model(store, str(at(scripted.host)), os.urandom(1000))
    scripted.on("PUT", "uploads", Reply(400))
    with impatient_client() as client, pytest.raises(RegistryError):
        push(store, client, at(scripted.host))
    assert scripted.requests("PUT", "manifests") == []
    assert scripted.manifests["team/m/v1"][1] == MANIFEST.raw


def test_a_blob_that_the_registry_only_claims_to_have_is_sent(
    scripted: ScriptedRegistry, store: Store
) -> None:
    reference = at(scripted.host, "new/m:v1")
    put_model(store, str(reference), WEIGHTS)
    scripted.blobs.clear()
    scripted.on("HEAD", "blobs", Reply(200))
    scripted.on("PUT", "manifests", error(400, "MANIFEST_BLOB_UNKNOWN"), times=1)
    with impatient_client() as client:
        push(store, client, reference)
    assert scripted.blobs[str(Digest.of(WEIGHTS))] == WEIGHTS
    assert len(scripted.requests("PUT", "manifests")) == 2


def test_a_manifest_stored_as_something_else_is_an_error(scripted: ScriptedRegistry, store: Store) -> None:
    reference = at(scripted.host, "new/m:v1")
    put_model(store, str(reference), WEIGHTS)
    scripted.on("PUT", "manifests", Reply(201, {"Docker-Content-Digest": str(Digest.of(b"x"))}))
    with impatient_client() as client, pytest.raises(DigestMismatch):
        push(store, client, reference)


def test_a_target_with_another_digest_is_refused(scripted: ScriptedRegistry, store: Store) -> None:
    put_model(store, "mine", WEIGHTS)
    target = at(scripted.host, f"team/m@{Digest.of(b'other')}")
    with impatient_client() as client, pytest.raises(DigestMismatch):
        push(store, client, Reference.parse("mine"), target=target)


def test_a_push_asks_for_one_token_that_allows_all(scripted: ScriptedRegistry, store: Store) -> None:
    reference = at(scripted.host, "new/m:v1")
    put_model(store, str(reference), WEIGHTS, TEMPLATE)

    def wants(seen: Seen) -> Reply | None:
        if seen.authorization == "Bearer t":
            return None
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{scripted.url}/token",service="s"'})

    scripted.on("*", "/v2/new", wants)
    scripted.on("GET", "/token", Reply(body=b'{"token":"t","expires_in":300}'))
    with impatient_client() as client:
        push(store, client, reference)
    assert [seen.parameters["scope"] for seen in scripted.requests("GET", "/token")] == [
        ["repository:new/m:pull,push"]
    ]


# Stopping


def stalled(seconds: float) -> Callable[[Seen], Reply]:
    """Sends a little, then nothing for so long."""

    def body() -> Iterator[bytes]:
        yield b"x" * 10
        time.sleep(seconds)

    return lambda _: Reply(body=body(), length=len(WEIGHTS))


def test_a_failure_ends_what_stalls_beside_it(scripted: ScriptedRegistry, store: Store) -> None:
    scripted.on("GET", str(Digest.of(WEIGHTS)), stalled(30))
    scripted.on("GET", str(Digest.of(TEMPLATE)), Reply(404))
    started = time.monotonic()
    with impatient_client(read_timeout_s=30.0) as client, pytest.raises(RemoteBlobNotFound):
        pull(store, client, at(scripted.host))
    assert time.monotonic() - started < 5


PULL_PROGRAM = """
import pathlib, sys
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.store import Store
from lading.oci.transfer import pull
try:
    with RegistryClient() as client:
        pull(Store.open(pathlib.Path(sys.argv[1])), client, Reference.parse(sys.argv[2]))
except KeyboardInterrupt:
    sys.exit(130)
"""


def start_pull(store: Store, reference: Reference) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PULL_PROGRAM, str(store.root), str(reference)])


def wait_for_bytes(store: Store, digest: Digest) -> None:
    """Until a part of the blob has been written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if store.layout.partial(digest).stat().st_size > 0:
                return
        time.sleep(0.01)
    raise AssertionError("nothing came")


def slowly(data: bytes) -> Callable[[Seen], Reply | None]:
    """Sends a blob in small pieces, unless it is asked for its rest."""

    def body() -> Iterator[bytes]:
        for start in range(0, len(data), 1 << 18):
            yield data[start : start + (1 << 18)]
            time.sleep(0.2)

    return lambda seen: None if "range" in seen.headers else Reply(body=body(), length=len(data))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_pull_that_is_ended_from_outside(
    scripted: ScriptedRegistry, store: Store, how: signal.Signals
) -> None:
    put_model(store, "kept", TEMPLATE)
    before = snapshot(store)
    weights = Digest.of(WEIGHTS)
    scripted.on("GET", str(weights), slowly(WEIGHTS))
    process = start_pull(store, at(scripted.host))
    try:
        wait_for_bytes(store, weights)
        process.send_signal(how)
        assert process.wait(10) == (130 if how == signal.SIGINT else -signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert snapshot(store) == before
    had = store.layout.partial(weights).stat().st_size
    assert had > 0
    with impatient_client() as client:
        pull(store, client, at(scripted.host))
    assert scripted.requests("GET", str(weights))[-1].headers["range"] == f"bytes={had}-"
    assert_nothing_lost(store.root, before, may_change=(str(at(scripted.host)),))


def test_an_interrupt_ends_a_pull_that_stalls(scripted: ScriptedRegistry, store: Store) -> None:
    scripted.on("GET", str(Digest.of(WEIGHTS)), stalled(30))
    process = start_pull(store, at(scripted.host))
    try:
        deadline = time.monotonic() + 30
        while not scripted.requests("GET", str(Digest.of(WEIGHTS))) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait()
