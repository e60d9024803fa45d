"""Our own registry over real connections: endpoint by endpoint, then with clients that others wrote."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import oras.client
import pytest
from lading_registry import Server, running_lading_registry, wait_until
from live_server import build_model
from registry_clients import impatient_client
from store_models import make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.oci.conversion import convert
from lading.oci.dialects.dialect import Dialect
from lading.oci.digest import Digest
from lading.oci.manifest import Index, Manifest
from lading.oci.reference import Reference
from lading.oci.registry.errors import RegistryError
from lading.oci.store import Store
from lading.oci.transfer import pull, push

SKOPEO, PODMAN = shutil.which("skopeo"), shutil.which("podman")
BLOB = os.urandom(10_000)
DIGEST = Digest.of(BLOB)
NO_BLOB = "sha256:" + "0" * 64


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


def test_the_base_answers(server: Server) -> None:
    for path in ("/v2/", "/v2"):
        answer = server.call("GET", path)
        assert answer.status == 200
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.json() == {}
    assert server.call("HEAD", "/v2/").status == 200


# Blobs


def test_a_blob_is_sent_in_one_put(server: Server, name: str) -> None:
    data = secrets.token_bytes(3 << 20)
    answer = server.call("PUT", f"{server.begin(name)}?digest={Digest.of(data)}", data)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == str(Digest.of(data))
    got = server.call("GET", answer.headers["location"])
    assert (got.status, got.body) == (200, data)
    assert server.store.intact(Digest.of(data))


def test_a_blob_is_sent_in_one_post(server: Server, name: str) -> None:
    data = secrets.token_bytes(100)
    answer = server.call("POST", f"/v2/{name}/blobs/uploads/?digest={Digest.of(data)}", data)
    assert answer.status == 201
    assert server.call("GET", answer.headers["location"]).body == data


def test_a_blob_is_sent_in_chunks(server: Server, name: str) -> None:
    data = secrets.token_bytes(2500)
    location = server.begin(name)
    for first in (0, 1000, 2000):
        piece = data[first : first + 1000]
        answer = server.call("PATCH", location, piece, Content_Range=f"{first}-{first + len(piece) - 1}")
        assert answer.status == 202
        assert answer.headers["range"] == f"0-{first + len(piece) - 1}"
        location = answer.headers["location"]
        status = server.call("GET", location)
        assert (status.status, status.headers["range"]) == (204, f"0-{first + len(piece) - 1}")
    answer = server.call("PUT", f"{location}?digest={Digest.of(data)}")
    assert answer.status == 201
    assert server.call("GET", answer.headers["location"]).body == data
    assert server.call("GET", location).code == "BLOB_UPLOAD_UNKNOWN"


def test_the_last_chunk_may_come_with_the_put(server: Server, name: str) -> None:
    data = secrets.token_bytes(2500)
    location = server.begin(name)
    server.call("PATCH", location, data[:2000])
    answer = server.call(
        "PUT", f"{location}?digest={Digest.of(data)}", data[2000:], Content_Range="2000-2499"
    )
    assert answer.status == 201


def test_a_stream_without_length_is_taken(server: Server, name: str) -> None:
    data = secrets.token_bytes(3 << 20)
    location = server.begin(name)
    pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
    answer = server.call("PATCH", location, pieces, chunked=True, Transfer_Encoding="chunked")
    assert answer.headers["range"] == f"0-{len(data) - 1}"
    assert server.call("PUT", f"{location}?digest={Digest.of(data)}").status == 201


@pytest.mark.parametrize(
    ("content_range", "body", "status"),
    [
        ("5-14", b"x" * 10, 416),
        ("0-9", b"x" * 9, 400),
        ("junk", b"x", 400),
        ("-5", b"x", 400),
        ("bytes 0-9/*", b"x" * 10, 202),
    ],
)
def test_chunks_must_fit(server: Server, name: str, content_range: str, body: bytes, status: int) -> None:
    location = server.begin(name)
    answer = server.call("PATCH", location, body, Content_Range=content_range)
    assert answer.status == status
    if status == 416:
        assert answer.headers["range"] == "0-0"
        assert answer.headers["location"] == location


@pytest.mark.parametrize("how", ["post", "put", "chunked"])
def test_a_wrong_digest_is_refused_and_leaves_nothing(server: Server, name: str, how: str) -> None:
    wrong = Digest.of(secrets.token_bytes(8))
    if how == "post":
        answer = server.call("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", BLOB)
    else:
        location = server.begin(name)
        if how == "chunked":
            assert server.call("PATCH", location, BLOB).status == 202
        answer = server.call("PUT", f"{location}?digest={wrong}", BLOB if how == "put" else None)
        assert server.call("GET", location).status == 404
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert not server.store.has(wrong)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:xyz",
        "sha256:../../../etc/passwd",
        "md5:" + "0" * 32,
        "sha256%3A" + "A" * 64,
        "x",
    ],
)
def test_odd_digests_are_refused(server: Server, name: str, digest: str) -> None:
    assert server.call("PUT", f"{server.begin(name)}?digest={digest}", b"x").code == "DIGEST_INVALID"
    assert server.call("POST", f"/v2/{name}/blobs/uploads/?mount={digest or 'x'}").code == "DIGEST_INVALID"


def test_sha512_is_understood(server: Server, name: str) -> None:
    digest = Digest.of(BLOB, algorithm="sha512")
    answer = server.call("PUT", f"{server.begin(name)}?digest={digest}", BLOB)
    assert answer.status == 201
    assert server.call("GET", f"/v2/{name}/blobs/{digest}").body == BLOB


def test_an_upload_can_be_cancelled(server: Server, name: str) -> None:
    location = server.begin(name)
    assert server.call("DELETE", location).status == 204
    assert server.call("PATCH", location, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert server.call("DELETE", location).status == 404


@pytest.mark.parametrize("upload", ["x", "0" * 31, "..", "%2e%2e%2fx", "0" * 32])
def test_unknown_uploads_are_not_found(server: Server, name: str, upload: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = server.call(method, f"/v2/{name}/blobs/uploads/{upload}?digest={DIGEST}")
        assert answer.status == 404


def test_an_upload_that_breaks_off_can_be_continued(server: Server, name: str) -> None:
    data = secrets.token_bytes(4 << 20)
    location = server.begin(name)

    def arrived() -> int:
        return int(server.call("GET", location).headers["range"].partition("-")[2]) + 1

    with socket.create_connection((server.host.split(":")[0], int(server.host.split(":")[1]))) as raw:
        head = f"PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        raw.sendall(head.encode() + data[: 5 << 19])
        wait_until(lambda: arrived() > 1)

    def continued() -> bool:
        """As a client does it; until the server has noticed that the first one is gone, it answers 429."""
        first = arrived()
        answer = server.call(
            "PUT",
            f"{location}?digest={Digest.of(data)}",
            data[first:],
            Content_Range=f"{first}-{len(data) - 1}",
        )
        assert answer.status in (201, 416, 429), answer
        assert 1 << 20 <= first <= 5 << 19
        return answer.status == 201

    wait_until(continued)
    assert server.call("GET", f"/v2/{name}/blobs/{Digest.of(data)}").body == data


def test_two_requests_cannot_write_to_one_upload(server: Server, name: str) -> None:
    location = server.begin(name)
    host, port = server.host.split(":")
    head = f"PATCH {location} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nx".encode()
    with contextlib.ExitStack() as stack:
        # Neither sends its last bytes, so the first holds the upload and the other is turned away.
        both = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(2)]
        for connection in both:
            connection.sendall(head)
        readable, _, _ = select.select(both, [], [], 30)
        assert len(readable) == 1
        answer = http.client.HTTPResponse(readable[0])
        answer.begin()
        body = json.loads(answer.read())
    assert answer.status == 429
    assert body["errors"][0]["code"] == "TOOMANYREQUESTS"


def test_a_mount_needs_no_bytes(server: Server, name: str) -> None:
    digest = server.put_blob(BLOB)
    answer = server.call("POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from=team/m")
    assert answer.status == 201
    assert server.call("GET", answer.headers["location"]).body == BLOB


def test_a_mount_of_what_is_absent_opens_an_upload(server: Server, name: str) -> None:
    data = secrets.token_bytes(9)
    location = server.begin(name, f"?mount={Digest.of(data)}&from=team/m")
    assert server.call("PUT", f"{location}?digest={Digest.of(data)}", data).status == 201


def test_blob_heads(server: Server, name: str) -> None:
    server.put_blob(BLOB, name)
    answer = server.call("HEAD", f"/v2/{name}/blobs/{DIGEST}")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, str(len(BLOB)), b"")
    assert answer.headers["docker-content-digest"] == str(DIGEST)
    assert answer.headers["accept-ranges"] == "bytes"
    absent = server.call("HEAD", f"/v2/{name}/blobs/{Digest.of(b'absent')}")
    assert (absent.status, absent.body) == (404, b"")
    assert server.call("GET", f"/v2/{name}/blobs/{Digest.of(b'absent')}").code == "BLOB_UNKNOWN"


@pytest.mark.parametrize("data", [b"", b"{}"], ids=["empty", "braces"])
def test_tiny_blobs(server: Server, name: str, data: bytes) -> None:
    digest = server.put_blob(data, name)
    answer = server.call("GET", f"/v2/{name}/blobs/{digest}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, data, str(len(data)))


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 10_000),
        ("bytes=-500", 9_500, 10_000),
        ("bytes=2000-50000", 2000, 10_000),
        ("bytes=-50000", 0, 10_000),
        ("bytes=0-0", 0, 1),
        ("bytes=9999-", 9999, 10_000),
    ],
)
def test_ranges(server: Server, name: str, header: str, first: int, end: int) -> None:
    server.put_blob(BLOB, name)
    answer = server.call("GET", f"/v2/{name}/blobs/{DIGEST}", Range=header)
    assert answer.status == 206
    assert answer.body == BLOB[first:end]
    assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(BLOB)}"
    assert answer.headers["content-length"] == str(end - first)


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=20000-30000", "bytes=500-0", "bytes=-0"])
def test_ranges_outside(server: Server, name: str, header: str) -> None:
    server.put_blob(BLOB, name)
    answer = server.call("GET", f"/v2/{name}/blobs/{DIGEST}", Range=header)
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(BLOB)}"


@pytest.mark.parametrize(
    "header", ["bytes=0-1,5-6", "bytes=x-y", "lines=1-2", "bytes=-", "", "bytes=" + "9" * 30]
)
def test_ranges_that_are_none(server: Server, name: str, header: str) -> None:
    server.put_blob(BLOB, name)
    answer = server.call("GET", f"/v2/{name}/blobs/{DIGEST}", Range=header)
    assert (answer.status, answer.body) == (200, BLOB)


def test_a_damaged_blob_is_not_claimed_and_is_replaced(server: Server, name: str) -> None:
    data = secrets.token_bytes(5000)
    digest = server.put_blob(data, name)
    path = server.store.blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert server.call("HEAD", f"/v2/{name}/blobs/{digest}").status == 404
    server.put_blob(data, name)
    assert server.call("HEAD", f"/v2/{name}/blobs/{digest}").status == 200
    assert server.store.intact(digest)


# Manifests


def test_a_manifest_comes_back_byte_for_byte(server: Server, name: str) -> None:
    manifest, blobs = make_manifest(BLOB)
    for blob in blobs:
        server.put_blob(blob, name)
    spaced = Manifest.parse(manifest.raw.replace(b",", b",\n   "))
    answer = server.put_manifest("v1", spaced, name)
    assert answer.status == 201
    assert answer.headers["docker-content-digest"] == str(spaced.digest)
    for reference in ("v1", str(spaced.digest)):
        got = server.call("GET", f"/v2/{name}/manifests/{reference}")
        assert (got.status, got.body) == (200, spaced.raw)
        assert got.headers["content-type"] == spaced.media_type
        assert got.headers["docker-content-digest"] == str(spaced.digest)
        head = server.call("HEAD", f"/v2/{name}/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(spaced.raw))
    assert server.call("GET", answer.headers["location"]).body == spaced.raw


def test_a_manifest_by_digest_has_no_tag(server: Server, name: str) -> None:
    manifest, blobs = make_manifest(BLOB, b"untagged")
    for blob in blobs:
        server.put_blob(blob, name)
    assert server.put_manifest(str(manifest.digest), manifest, name).status == 201
    assert server.call("GET", f"/v2/{name}/manifests/{manifest.digest}").status == 200
    assert server.call("GET", f"/v2/{name}/tags/list").code == "NAME_UNKNOWN"


def test_an_index_needs_its_manifests(server: Server, name: str) -> None:
    manifest, blobs = make_manifest(secrets.token_bytes(10))
    index = Index.build(manifests=[manifest.descriptor])
    assert server.put_manifest("multi", index, name).code == "MANIFEST_BLOB_UNKNOWN"
    for blob in blobs:
        server.put_blob(blob, name)
    server.put_manifest(str(manifest.digest), manifest, name)
    assert server.put_manifest("multi", index, name).status == 201
    assert server.call("GET", f"/v2/{name}/manifests/multi").headers["content-type"] == index.media_type


def test_a_manifest_needs_its_blobs(server: Server, name: str) -> None:
    manifest, _ = make_manifest(secrets.token_bytes(10))
    answer = server.put_manifest("v1", manifest, name)
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert server.call("GET", f"/v2/{name}/manifests/v1").status == 404


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"{}", "application/vnd.oci.image.manifest.v1+json", 400, "MANIFEST_INVALID"),
        (b"null", "application/vnd.oci.image.manifest.v1+json", 400, "MANIFEST_INVALID"),
        (b"[" * 3000, "application/vnd.oci.image.manifest.v1+json", 400, "MANIFEST_INVALID"),
        (b"\xff", "application/vnd.oci.image.index.v1+json", 400, "MANIFEST_INVALID"),
        (b"{}", "text/html", 415, "MANIFEST_INVALID"),
        (b" " * ((4 << 20) + 1), "application/vnd.oci.image.manifest.v1+json", 413, "SIZE_INVALID"),
    ],
    ids=["empty", "null", "deep", "not utf-8", "html", "large"],
)
def test_bad_manifests(
    server: Server, name: str, body: bytes, media_type: str, status: int, code: str
) -> None:
    answer = server.call("PUT", f"/v2/{name}/manifests/v1", body, Content_Type=media_type)
    assert (answer.status, answer.code) == (status, code)


def test_a_manifest_must_match_its_digest_and_type(server: Server, name: str) -> None:
    manifest = server.put_model("v1", BLOB, name=name)
    other = Digest.of(b"other")
    assert server.put_manifest(str(other), manifest, name).code == "DIGEST_INVALID"
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    answer = server.call("PUT", f"/v2/{name}/manifests/v1", manifest.raw, Content_Type=docker)
    assert answer.code == "MANIFEST_INVALID"
    assert server.call("PUT", f"/v2/{name}/manifests/sha256:bad", manifest.raw).status == 400


def test_a_blob_is_no_manifest(server: Server, name: str) -> None:
    digest = server.put_blob(b'{"config": 5}', name)
    assert server.call("GET", f"/v2/{name}/manifests/{digest}").code == "MANIFEST_UNKNOWN"
    assert server.call("GET", f"/v2/{name}/manifests/{Digest.of(b'absent')}").code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("tag", ["-x", ".x", "x" * 129, "a%20b", "%C3%BC", "a%00"])
def test_bad_tags(server: Server, name: str, tag: str) -> None:
    for method in ("GET", "PUT"):
        answer = server.call(method, f"/v2/{name}/manifests/{tag}")
        assert answer.status in {400, 404, 415}
        assert answer.body.startswith(b'{"errors"')


# Names


BAD_NAMES = [
    *("..", "a/../b", "a//b", "./a", "a/", "-a", "a b", "a%2f..%2fb", "%2e%2e/x", "a\\b", "x" * 256),
    *("a%0Ab", "%FF", "a%00b", "%252e%252e/x", "C:x", "a:b", "a@b"),
]


@pytest.mark.parametrize("bad", BAD_NAMES)
def test_bad_names_are_refused(server: Server, bad: str) -> None:
    raw = bad.replace(" ", "%20")
    answer = server.call("GET", f"/v2/{raw}/manifests/latest")
    assert answer.status in {400, 404}
    assert server.call("POST", f"/v2/{raw}/blobs/uploads/").status in {400, 404}


def test_local_names_are_found_from_elsewhere(server: Server, tmp_path: Path) -> None:
    unique = secrets.token_hex(4)
    own, team = f"own{unique}", f"team/t{unique}:v2"
    foreign, asked = f"hf.co/org/repo{unique}:Q4_K_M", f"{server.host}/asked/{unique}:v3"
    for reference in (own, team, foreign, asked):
        put_model(server.store, reference, reference.encode())
    other = Store.open(tmp_path / "other")
    with impatient_client() as client:
        for wire, stored in (
            (f"{own}:latest", own),
            (f"library/{own}:latest", own),
            (team, team),
            (foreign, foreign),
            (f"asked/{unique}:v3", asked),
        ):
            pulled = pull(other, client, Reference.parse(f"{server.host}/{wire}"))
            assert pulled == server.store.resolve(Reference.parse(stored))


def test_a_pushed_name_is_a_local_name(server: Server, tmp_path: Path) -> None:
    unique = secrets.token_hex(4)
    mine = Store.open(tmp_path / "mine")
    put_model(mine, "m", unique.encode())
    with impatient_client() as client:
        for wire, stored in (
            (f"p{unique}", f"p{unique}:latest"),
            (f"team/p{unique}:v1", f"team/p{unique}:v1"),
        ):
            push(mine, client, Reference.parse("m"), target=Reference.parse(f"{server.host}/{wire}"))
            assert server.store.resolve(Reference.parse(stored)) == mine.resolve(Reference.parse("m"))


# Listings


def test_tags_are_listed_in_pages(server: Server, name: str) -> None:
    for tag in ("b", "a", "C", "d"):
        server.put_model(tag, BLOB, name=name)
    path = f"/v2/{name}/tags/list"
    assert server.call("GET", path).json() == {"name": name, "tags": ["C", "a", "b", "d"]}
    first = server.call("GET", f"{path}?n=3")
    assert first.json()["tags"] == ["C", "a", "b"]
    link = first.headers["link"].partition(">")[0].lstrip("<")
    last = server.call("GET", link)
    assert last.json()["tags"] == ["d"]
    assert "link" not in last.headers
    assert server.call("GET", f"{path}?n=0").json()["tags"] == []
    assert server.call("GET", f"{path}?n=999999999&last=a").json()["tags"] == ["b", "d"]
    for wrong in ("-1", "x", "9" * 30):
        assert server.call("GET", f"{path}?n={wrong}").status == 400
    assert server.call("GET", "/v2/no/such/tags/list").code == "NAME_UNKNOWN"


def test_the_catalogue(server: Server, name: str) -> None:
    server.put_model("v1", BLOB, name=name)
    names = server.call("GET", "/v2/_catalog?n=1000").json()["repositories"]
    assert name in names
    assert names == sorted(names)
    page = server.call("GET", "/v2/_catalog?n=1")
    assert page.json()["repositories"] == names[:1]


# What is not there


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v2/_catalog"),
        ("POST", "/v2/team/m/tags/list"),
        ("GET", "/v2/team/m/blobs/uploads/"),
        ("PUT", f"/v2/team/m/blobs/{NO_BLOB}"),
        ("DELETE", f"/v2/team/m/referrers/{NO_BLOB}"),
    ],
)
def test_methods_that_are_not_supported(server: Server, method: str, path: str) -> None:
    answer = server.call(method, path)
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")


def test_unknown_endpoints(server: Server) -> None:
    for path in ("/v2/x", "/v2/team/m/other/x", "/v2/manifests/v1"):
        answer = server.call("GET", path)
        assert answer.status == 404
        assert answer.json()["errors"]


def test_a_read_only_registry_takes_nothing(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    put_model(store, "m", BLOB)
    before = snapshot(store)
    with running_lading_registry(store.root, read_only=True) as host:
        server = Server(host, store)
        for method, path in (
            ("POST", "/v2/library/m/blobs/uploads/"),
            ("PUT", "/v2/library/m/manifests/latest"),
            ("PATCH", f"/v2/library/m/blobs/uploads/{'0' * 32}"),
            ("DELETE", "/v2/library/m/manifests/latest"),
        ):
            answer = server.call(method, path, b"x")
            assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        other = Store.open(tmp_path / "other")
        with impatient_client() as client:
            pull(other, client, Reference.parse(f"{host}/m:latest"))
            with pytest.raises(RegistryError, match="read-only"):
                put_model(other, f"{host}/new/m", b"new")
                push(other, client, Reference.parse(f"{host}/new/m"))
    assert_nothing_lost(store.root, before)


def test_uploads_survive_a_sweep_until_their_manifest_comes(server: Server, name: str) -> None:
    manifest, blobs = make_manifest(secrets.token_bytes(1000))
    for blob in blobs:
        server.put_blob(blob, name)
    server.store.gc()
    assert server.put_manifest("v1", manifest, name).status == 201
    server.store.gc()
    assert server.call("GET", f"/v2/{name}/manifests/v1").status == 200


def test_a_layer_that_is_assembled_has_ranges(server: Server, name: str, tmp_path: Path) -> None:
    """Of a modelcar: a tar archive around the model's file, which the store has once."""
    build_model(server.store.root, name)
    with server.store.lease():
        car = convert(server.store, server.store.resolve(Reference.parse(name)), Dialect.MODELCAR).manifest
        server.store.tag(Reference.parse(f"{name}:car"), car.descriptor)
    layer = max(car.layers, key=lambda layer: layer.size)
    assert not (server.store.root / "blobs" / "sha256" / layer.digest.hex).exists()
    path = f"/v2/{name}/blobs/{layer.digest}"
    whole = server.call("GET", path).body
    assert Digest.of(whole) == layer.digest
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        [member] = [member for member in archive if member.isfile() and member.size > 1 << 20]
        first, end = member.offset_data, member.offset_data + member.size
    parts = [
        (0, 10),
        (first - 5, first + 5),
        (first + 7, end - 7),
        (first - 600, end + 100),
        (end - 3, end + 3),
    ]
    for start, stop in parts:
        answer = server.call("GET", path, Range=f"bytes={start}-{stop - 1}")
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert answer.body == whole[start:stop]


def test_a_connection_is_used_again_after_a_large_blob(server: Server, name: str) -> None:
    data = secrets.token_bytes((3 << 20) + 5)
    digest = server.put_blob(data, name)
    connection = http.client.HTTPConnection(server.host, timeout=30)
    try:
        for _ in range(5):
            connection.request("GET", f"/v2/{name}/blobs/{digest}")
            response = connection.getresponse()
            assert response.read() == data
            assert not response.will_close
    finally:
        connection.close()


def test_a_client_that_reads_slowly_gets_all_and_holds_up_nobody(server: Server, name: str) -> None:
    data = secrets.token_bytes(24 << 20)  # more than the buffers of both ends take
    digest = server.put_blob(data, name)
    host, port = server.host.split(":")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(40)]
        for connection in slow:
            head = f"GET /v2/{name}/blobs/{digest} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode())
        assert server.call("GET", f"/v2/{name}/blobs/{digest}").body == data  # while they all wait
        with slow[0].makefile("rb") as stream:
            assert stream.read().partition(b"\r\n\r\n")[2] == data
        # The others leave in the middle; the server goes on.
    assert server.call("GET", f"/v2/{name}/blobs/{digest}", Range="bytes=-7").body == data[-7:]


def test_many_clients_at_once(server: Server, tmp_path: Path) -> None:
    stores = [Store.open(tmp_path / str(number)) for number in range(6)]
    shared = os.urandom(1 << 20)
    failures: list[BaseException] = []

    def push_and_pull(number: int) -> None:
        try:
            reference = Reference.parse(f"{server.host}/busy/m:v{number}")
            tagged = put_model(stores[number], str(reference), shared, b"%d" % number)
            with impatient_client() as client:
                push(stores[number], client, reference)
                fresh = Store.open(tmp_path / f"{number}-fresh")
                assert pull(fresh, client, reference).digest == tagged.descriptor.digest
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=push_and_pull, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert server.store.fsck().clean


# skopeo


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
def test_skopeo_pushes_and_pulls(server: Server, name: str, tmp_path: Path) -> None:
    def skopeo(*arguments: str) -> str:
        done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    store = Store.open(tmp_path / "store")
    put_model(store, "m", os.urandom(3 << 20), b"template")
    source = f"oci:{store.root}:registry.ollama.ai/library/m:latest"
    skopeo("copy", "--dest-tls-verify=false", source, f"docker://{server.host}/{name}:v1")
    assert server.store.resolve(Reference.parse(f"{name}:v1")) == store.resolve(Reference.parse("m"))
    skopeo("copy", "--src-tls-verify=false", f"docker://{server.host}/{name}:v1", f"oci:{tmp_path}/out:x")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{server.host}/{name}:v1")
    assert raw.encode() == store.resolve(Reference.parse("m")).raw
    tags = json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{server.host}/{name}"))
    assert tags["Tags"] == ["v1"]


# oras-py and podman


@pytest.mark.parametrize("chunked", [False, True], ids=["one request", "chunks"])
def test_oras_py_pushes_and_pulls(server: Server, name: str, tmp_path: Path, chunked: bool) -> None:
    source = tmp_path / "weights.gguf"
    source.write_bytes(os.urandom(300_000))
    client = oras.client.OrasClient(insecure=True)
    target = f"{server.host}/{name}:v1"
    answer = client.push(
        target,
        files=[f"{source}:application/vnd.test"],
        disable_path_validation=True,
        do_chunked=chunked,
        chunk_size=100_000,
    )
    assert answer.status_code == 201
    assert client.get_tags(target) == ["v1"]
    out = tmp_path / "out"
    client.pull(target, outdir=str(out))
    [pulled] = [path for path in out.rglob("*") if path.is_file()]
    assert pulled.read_bytes() == source.read_bytes()


@pytest.mark.skipif(PODMAN is None, reason="podman is not installed (Debian package podman)")
def test_podman_pulls_what_it_pushes(server: Server, name: str, tmp_path: Path) -> None:
    assert PODMAN is not None
    run = tempfile.mkdtemp(prefix="podman-")  # podman refuses long names here
    storage = [PODMAN, f"--root={tmp_path}/root", f"--runroot={run}", "--storage-driver=vfs"]

    def podman(*arguments: str) -> str:
        done = subprocess.run([*storage, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "weights.gguf").write_bytes(os.urandom(100_000))
    (tmp_path / "Containerfile").write_text("FROM scratch\nCOPY weights.gguf /models/\n")
    image = f"{server.host}/{name}:v1"
    podman("build", "--isolation=chroot", "--tag", image, str(tmp_path))
    podman("push", "--tls-verify=false", image)
    pushed = podman("image", "inspect", "--format", "{{.Id}}", image)
    podman("rmi", "--all", "--force")
    podman("pull", "--tls-verify=false", image)
    assert podman("image", "inspect", "--format", "{{.Id}}", image) == pushed
    shutil.rmtree(run)


def test_nothing_is_left_over(server: Server) -> None:
    """Last: after everything above, the store is sound."""
    report = server.store.fsck()
    assert report.clean, report.problems
    for path, digest in server.store.layout.iter_blob_files():
        assert digest is not None, path
