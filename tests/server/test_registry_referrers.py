"""Referrers and deletes of our own registry, by the categories of the specification's conformance suite."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import threading
from collections.abc import Iterator

import pytest
from lading_registry import Server, running_lading_registry
from store_models import make_manifest

from lading.oci.canonical import canonical_json
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.manifest import Index, Manifest
from lading.oci.media_type import OCI_INDEX
from lading.oci.reference import Reference
from lading.oci.store import Store

SKOPEO = shutil.which("skopeo")
EMPTY = b"{}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("served") / "store"
    store = Store.open(root)
    with running_lading_registry(root, workers=2) as host:
        yield Server(host, store)


@pytest.fixture
def name() -> str:
    """A repository that no other test uses."""
    return f"test/{secrets.token_hex(4)}"


def referrer(
    server: Server, name: str, subject: Descriptor, artifact_type: str | None, **annotations: str
) -> Manifest:
    """A manifest that refers to `subject`, its blobs pushed, itself not."""
    data = secrets.token_bytes(20)
    config = Descriptor("application/vnd.test.config", server.put_blob(EMPTY, name), len(EMPTY))
    layer = Descriptor("application/vnd.test", server.put_blob(data, name), len(data))
    return Manifest.build(
        config=config, layers=[layer], artifact_type=artifact_type, annotations=annotations, subject=subject
    )


def listed(server: Server, name: str, digest: Digest, query: str = "") -> Index:
    answer = server.call("GET", f"/v2/{name}/referrers/{digest}{query}")
    assert answer.status == 200
    assert answer.headers["content-type"] == OCI_INDEX
    return Index.parse(answer.body, media_type=OCI_INDEX)


# Referrers


def test_referrers_are_listed_with_type_and_annotations(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    assert listed(server, name, subject.digest).manifests == ()
    typed = referrer(server, name, subject.descriptor, "application/vnd.test.sbom", made="by hand")
    plain = referrer(server, name, subject.descriptor, None)
    for manifest in (typed, plain, typed):
        answer = server.put_manifest(str(manifest.digest), manifest, name)
        assert answer.status == 201
        assert answer.headers["oci-subject"] == str(subject.digest)
    found = {entry.digest: entry for entry in listed(server, name, subject.digest).manifests}
    assert set(found) == {typed.digest, plain.digest}
    assert found[typed.digest].artifact_type == "application/vnd.test.sbom"
    assert found[typed.digest].annotations == {"made": "by hand"}
    assert found[typed.digest].size == len(typed.raw)
    assert found[plain.digest].artifact_type == "application/vnd.test.config"


def test_referrers_can_be_filtered(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    wanted = referrer(server, name, subject.descriptor, "application/vnd.test.a+json")
    for manifest in (wanted, referrer(server, name, subject.descriptor, "application/vnd.test.b")):
        server.put_manifest(str(manifest.digest), manifest, name)
    query = "?artifactType=application%2Fvnd.test.a%2Bjson"
    answer = server.call("GET", f"/v2/{name}/referrers/{subject.digest}{query}")
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [str(wanted.digest)]
    assert listed(server, name, subject.digest, "?artifactType=application/none").manifests == ()


def test_a_subject_need_not_be_there(server: Server, name: str) -> None:
    missing = Descriptor("application/vnd.oci.image.manifest.v1+json", Digest.of(secrets.token_bytes(9)), 123)
    manifest = referrer(server, name, missing, "application/vnd.test")
    assert server.put_manifest("a-tag", manifest, name).status == 201
    assert [entry.digest for entry in listed(server, name, missing.digest).manifests] == [manifest.digest]


def test_an_index_can_refer(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    child = server.put_model("v2", b"other weights", name=name)
    index = Index.build(
        manifests=[child.descriptor], artifact_type="application/vnd.test.index", subject=subject.descriptor
    )
    answer = server.put_manifest(str(index.digest), index, name)
    assert answer.headers["oci-subject"] == str(subject.digest)
    [entry] = listed(server, name, subject.digest).manifests
    assert (entry.digest, entry.media_type) == (index.digest, OCI_INDEX)
    assert entry.artifact_type == "application/vnd.test.index"


def test_a_sha512_subject_has_referrers(server: Server, name: str) -> None:
    subject = Descriptor("application/vnd.test", Digest.of(secrets.token_bytes(9), algorithm="sha512"), 9)
    manifest = referrer(server, name, subject, "application/vnd.test")
    assert server.put_manifest(str(manifest.digest), manifest, name).status == 201
    assert [entry.digest for entry in listed(server, name, subject.digest).manifests] == [manifest.digest]


@pytest.mark.parametrize("digest", ["sha256:zz", "nonsense"])
def test_referrers_of_what_is_no_digest(server: Server, name: str, digest: str) -> None:
    answer = server.call("GET", f"/v2/{name}/referrers/{digest}")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_referrers_outlive_the_sweep_and_hide_among_the_tags(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    manifest = referrer(server, name, subject.descriptor, "application/vnd.test")
    server.put_manifest(str(manifest.digest), manifest, name)
    server.store.gc()
    assert server.call("GET", f"/v2/{name}/manifests/{manifest.digest}").body == manifest.raw
    assert server.call("GET", f"/v2/{name}/tags/list").json()["tags"] == ["v1"]


def test_clients_that_refer_at_the_same_time_lose_nothing(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    manifests = [referrer(server, name, subject.descriptor, "application/vnd.test") for _ in range(8)]
    threads = [
        threading.Thread(target=server.put_manifest, args=(str(manifest.digest), manifest, name))
        for manifest in manifests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {entry.digest for entry in listed(server, name, subject.digest).manifests}
    assert found == {manifest.digest for manifest in manifests}


def test_a_tag_that_is_no_index_of_referrers_is_left_alone(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    other = server.put_model(f"sha256-{subject.digest.hex}", b"other weights", name=name)
    manifest = referrer(server, name, subject.descriptor, "application/vnd.test")
    assert server.put_manifest(str(manifest.digest), manifest, name).code == "MANIFEST_INVALID"
    got = server.call("GET", f"/v2/{name}/manifests/sha256-{subject.digest.hex}")
    assert got.body == other.raw


# Deletes


def test_a_tag_is_deleted_and_the_manifest_stays(server: Server, name: str) -> None:
    manifest = server.put_model("v1", secrets.token_bytes(9), name=name)
    server.put_manifest("v2", manifest, name)
    assert server.call("DELETE", f"/v2/{name}/manifests/v1").status == 202
    gone = server.call("GET", f"/v2/{name}/manifests/v1")
    assert (gone.status, gone.code) == (404, "MANIFEST_UNKNOWN")
    assert server.call("DELETE", f"/v2/{name}/manifests/v1").status == 404
    assert server.call("GET", f"/v2/{name}/tags/list").json()["tags"] == ["v2"]
    assert server.call("GET", f"/v2/{name}/manifests/{manifest.digest}").status == 200


def test_a_manifest_is_deleted_with_all_its_tags(server: Server, name: str) -> None:
    manifest = server.put_model("v1", secrets.token_bytes(9), name=name)
    server.put_manifest("v2", manifest, name)
    other = server.put_model("v3", secrets.token_bytes(9), name=name)
    assert server.call("DELETE", f"/v2/{name}/manifests/{manifest.digest}").status == 202
    for reference in ("v1", "v2", str(manifest.digest)):
        assert server.call("GET", f"/v2/{name}/manifests/{reference}").status == 404
    assert server.call("DELETE", f"/v2/{name}/manifests/{manifest.digest}").status == 404
    assert server.call("GET", f"/v2/{name}/manifests/v3").body == other.raw


def test_what_another_repository_has_is_not_deleted(server: Server, name: str) -> None:
    weights = secrets.token_bytes(9)
    manifest = server.put_model("v1", weights, name=name)
    server.put_manifest("kept", manifest, f"{name}-other")
    assert server.call("DELETE", f"/v2/{name}/manifests/{manifest.digest}").status == 202
    assert server.call("GET", f"/v2/{name}/manifests/v1").status == 404
    assert server.call("GET", f"/v2/{name}-other/manifests/kept").body == manifest.raw
    blob = server.call("DELETE", f"/v2/{name}/blobs/{Digest.of(weights)}")
    assert (blob.status, blob.code) == (405, "UNSUPPORTED")
    assert server.call("GET", f"/v2/{name}/blobs/{Digest.of(weights)}").body == weights


def test_a_deleted_referrer_is_not_listed(server: Server, name: str) -> None:
    subject = server.put_model("v1", b"weights", name=name)
    first, second = (referrer(server, name, subject.descriptor, "application/vnd.test") for _ in range(2))
    for manifest in (first, second):
        server.put_manifest(str(manifest.digest), manifest, name)
    for manifest, left in ((first, [second.digest]), (second, [])):
        assert server.call("DELETE", f"/v2/{name}/manifests/{manifest.digest}").status == 202
        assert [entry.digest for entry in listed(server, name, subject.digest).manifests] == left
        assert server.call("GET", f"/v2/{name}/manifests/{manifest.digest}").status == 404
    with pytest.raises(Exception, match=subject.digest.hex):
        server.store.find(Reference.parse(f"{name}:sha256-{subject.digest.hex}"))


def test_a_blob_that_nothing_names_is_deleted(server: Server, name: str) -> None:
    digest = server.put_blob(secrets.token_bytes(9), name)
    assert server.call("DELETE", f"/v2/{name}/blobs/{digest}").status == 202
    for method in ("GET", "HEAD", "DELETE"):
        assert server.call(method, f"/v2/{name}/blobs/{digest}").status == 404


# Kinds of content


def _with(manifest: Manifest, **members: object) -> bytes:
    return canonical_json(json.loads(manifest.raw) | members)


@pytest.mark.parametrize("kind", ["custom members", "data field", "no layers", "empty layer", "nested index"])
def test_kinds_of_manifests_are_kept_byte_for_byte(server: Server, name: str, kind: str) -> None:
    base = server.put_model("base", secrets.token_bytes(9), name=name)
    document: Manifest | Index = base
    if kind == "custom members":
        document = Manifest.parse(_with(base, **{"org.example.custom": {"a": [1, 2]}}))
    elif kind == "data field":
        config = {**json.loads(base.raw)["config"], "digest": str(server.put_blob(EMPTY, name)), "size": 2}
        document = Manifest.parse(_with(base, config={**config, "data": "e30="}))
    elif kind == "no layers":
        document = Manifest.parse(_with(base, layers=[]))
    elif kind == "empty layer":
        document, blobs = make_manifest(b"")
        for blob in blobs:
            server.put_blob(blob, name)
    elif kind == "nested index":
        inner = Index.build(manifests=[base.descriptor])
        assert server.put_manifest(str(inner.digest), inner, name).status == 201
        document = Index.build(manifests=[inner.descriptor], artifact_type="application/vnd.test.index")
    assert server.put_manifest("kind", document, name).status == 201
    answer = server.call("GET", f"/v2/{name}/manifests/kind")
    assert answer.body == document.raw
    assert answer.headers["content-type"] == document.media_type
    head = server.call("HEAD", f"/v2/{name}/manifests/{document.digest}")
    assert head.headers["content-length"] == str(len(document.raw))
    assert head.headers["docker-content-digest"] == str(document.digest)


@pytest.mark.skipif(SKOPEO is None, reason="needs skopeo (Debian: apt install skopeo)")
def test_skopeo_deletes(server: Server, name: str) -> None:
    assert SKOPEO is not None
    manifest = server.put_model("v1", secrets.token_bytes(9), name=name)
    image = f"docker://{server.host}/{name}:v1"
    subprocess.run([SKOPEO, "delete", "--tls-verify=false", image], check=True, capture_output=True)
    assert server.call("GET", f"/v2/{name}/manifests/{manifest.digest}").status == 404
