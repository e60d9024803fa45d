"""Registries that lie, leak, stall and break: what we do, and what we never send."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_clients import SECRET, Waits, impatient_client, known_to
from scripted_registry import Reply, ScriptedRegistry, Seen, error, scripted_registry
from store_models import make_manifest

from lading.modelfile.errors import LadingError
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import BadManifest, DigestMismatch, SizeMismatch, StoreFailure
from lading.oci.manifest import Manifest
from lading.oci.reference import Reference
from lading.oci.registry import transport
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.download import download_file
from lading.oci.registry.errors import (
    RegistryBusy,
    RegistryError,
    RegistryUnreachable,
    RegistryUnsafe,
    RemoteBlobNotFound,
    RemoteModelNotFound,
)
from lading.oci.registry.upload import BlobUpload

BLOB = bytes(range(256)) * 4096  # one mebibyte
MANIFEST, BLOBS = make_manifest(BLOB)
DIGEST = Digest.of(BLOB)
WANTS_BASIC = Reply(401, {"WWW-Authenticate": 'Basic realm="r"'})


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


@pytest.fixture
def elsewhere() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.blobs[str(DIGEST)] = BLOB
        yield running


def reference_at(registry: ScriptedRegistry, name: str = "team/m:v1") -> Reference:
    return Reference.parse(f"{registry.host}/{name}")


def fetch(registry: ScriptedRegistry, client: RegistryClient, name: str = "team/m:v1") -> Manifest:
    reference = reference_at(registry, name)
    manifest = client.repository(reference).fetch_manifest(reference)
    assert isinstance(manifest, Manifest)
    return manifest


def download(registry: ScriptedRegistry, client: RegistryClient, path: Path) -> bytes:
    download_file(client.repository(reference_at(registry)), DIGEST, path)
    return path.read_bytes()


def upload(registry: ScriptedRegistry, client: RegistryClient, path: Path) -> str:
    path.write_bytes(BLOB)
    registry.blobs.clear()
    repository = client.repository(reference_at(registry), writes=True)
    descriptor = Descriptor("application/octet-stream", DIGEST, len(BLOB))
    return BlobUpload(repository, descriptor, path, lambda _: None).run()


def logged_in(registry: ScriptedRegistry) -> RegistryClient:
    """A client with credentials for a registry that wants them."""

    def wants(seen: Seen) -> Reply | None:
        return None if seen.authorization else WANTS_BASIC

    registry.on("*", "/v2/team", wants)
    return impatient_client(known_to(registry.host))


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_redirect_is_followed_without_credentials(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    target = f"{elsewhere.url}/v2/x/blobs/{DIGEST}?X-Signature=abc"
    with logged_in(registry) as client:
        registry.on(
            "GET", "blobs", lambda s: Reply(status, {"Location": target}) if s.authorization else None
        )
        assert download(registry, client, tmp_path / "out") == BLOB
    (seen,) = elsewhere.seen
    assert seen.query == "X-Signature=abc"
    assert seen.authorization is None
    assert "cookie" not in seen.headers
    assert SECRET not in f"{elsewhere.seen}"


def test_a_redirect_within_the_registry_keeps_credentials(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with logged_in(registry) as client:
        moved = Reply(307, {"Location": f"/v2/team/else/blobs/{DIGEST}"})
        registry.on("GET", "/v2/team/m/blobs", lambda s: moved if s.authorization else None)
        assert download(registry, client, tmp_path / "out") == BLOB
    assert registry.requests("GET", "/v2/team/else")[0].authorization is not None


def test_credentials_do_not_come_back_after_a_detour(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path
) -> None:
    with logged_in(registry) as client:
        away = Reply(307, {"Location": f"{elsewhere.url}/away"})
        registry.on("GET", "/v2/team/m/blobs", lambda s: away if s.authorization else None)
        elsewhere.on("GET", "/away", Reply(307, {"Location": f"{registry.url}/admin/delete-everything"}))
        with pytest.raises(LadingError):
            download(registry, client, tmp_path / "out")
    assert registry.requests("GET", "/admin")[0].authorization is None


def test_the_range_survives_a_redirect(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.on("GET", "blobs", Reply(307, {"Location": f"{elsewhere.url}/v2/x/blobs/{DIGEST}"}))
    elsewhere.on("GET", "blobs", Reply(body=BLOB[:1000], length=len(BLOB), cut=True), times=1)
    with impatient_client() as client:
        assert download(registry, client, tmp_path / "out") == BLOB
    assert elsewhere.seen[1].headers["range"] == "bytes=1000-"
    assert len(registry.requests("GET", "blobs")) == 2  # a new signed URL each time


@pytest.mark.parametrize(
    "location",
    ["", "http://plain.example/x", "file:///etc/passwd", "http://a:b@127.0.0.1/", "//[bad/", "/x y"],
    ids=["none", "plain http", "file", "userinfo", "broken", "space"],
)
def test_unusable_redirects_are_refused(registry: ScriptedRegistry, tmp_path: Path, location: str) -> None:
    registry.on("GET", "blobs", Reply(307, {"Location": location} if location else {}))
    with impatient_client() as client, pytest.raises((RegistryUnsafe, RegistryError)):
        download(registry, client, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_circle_of_redirects_ends(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("GET", "blobs", lambda seen: Reply(307, {"Location": seen.path}))
    with impatient_client() as client, pytest.raises(RegistryUnsafe, match="redirects"):
        download(registry, client, tmp_path / "out")
    assert len(registry.requests("GET", "blobs")) == 6


# Manifests


def test_a_missing_model_names_the_registry(registry: ScriptedRegistry) -> None:
    with impatient_client() as client, pytest.raises(RemoteModelNotFound) as caught:
        fetch(registry, client, "team/absent:v1")
    assert registry.host in str(caught.value)
    assert "team/absent:v1" in str(caught.value)


def test_an_error_body_of_any_kind_is_no_crash(registry: ScriptedRegistry) -> None:
    for reply in (
        error(400, "NAME_INVALID", "bad \\u001b[31m name"),
        Reply(418, body=b"<html>teapot</html>"),
        Reply(400, body=b'{"errors": 5}'),
        Reply(400, body=b'{"errors": [5, null, {"code": 7, "message": []}]}'),
        Reply(400, body=b"[" * 100_000),
        Reply(400, body=b"\xff" * 200_000),
        Reply(400, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b\x08"),
    ):
        registry.on("GET", "manifests", reply)
        with impatient_client() as client, pytest.raises(RegistryError) as caught:
            fetch(registry, client)
        assert len(str(caught.value)) < 1000
        assert "\x1b" not in str(caught.value)


def test_an_endless_manifest_is_cut_off(registry: ScriptedRegistry) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield b" " * (1 << 16)

    registry.on("GET", "manifests", lambda _: Reply(body=endless(), length=None))
    with impatient_client() as client, pytest.raises(RegistryError, match="at most"):
        fetch(registry, client)
    assert sent < 64 << 20


def test_a_manifest_must_be_what_its_header_says(registry: ScriptedRegistry) -> None:
    other = Digest.of(b"other")
    headers = {"Content-Type": MANIFEST.media_type, "Docker-Content-Digest": str(other)}
    registry.on("GET", "manifests", Reply(200, headers, MANIFEST.raw))
    with impatient_client() as client, pytest.raises(DigestMismatch):
        fetch(registry, client)


@pytest.mark.parametrize("told", ["the right one", "the one asked for", "none", "junk"])
def test_a_manifest_by_digest_must_be_that_manifest(registry: ScriptedRegistry, told: str) -> None:
    asked, other = Digest.of(b"asked for"), make_manifest(b"another")[0]
    headers = {"Content-Type": other.media_type}
    if told != "none":
        said = {"the right one": str(other.digest), "the one asked for": str(asked), "junk": "sha256:../x"}
        headers["Docker-Content-Digest"] = said[told]
    registry.on("GET", "manifests", Reply(200, headers, other.raw))
    with impatient_client() as client, pytest.raises(DigestMismatch):
        fetch(registry, client, f"team/m@{asked}")


def test_a_lying_header_does_not_spoil_the_right_manifest(registry: ScriptedRegistry) -> None:
    headers = {"Content-Type": MANIFEST.media_type, "Docker-Content-Digest": str(Digest.of(b"lie"))}
    registry.on("GET", "manifests", Reply(200, headers, MANIFEST.raw))
    with impatient_client() as client:
        assert fetch(registry, client, f"team/m@{MANIFEST.digest}") == MANIFEST


def test_bytes_are_kept_as_they_came(registry: ScriptedRegistry) -> None:
    spaced = MANIFEST.raw.replace(b",", b" ,\n  ")
    registry.on("GET", "manifests", Reply(200, {"Content-Type": MANIFEST.media_type}, spaced))
    with impatient_client() as client:
        assert fetch(registry, client).raw == spaced


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=utf-8", ""])
def test_a_vague_content_type_is_tolerated(registry: ScriptedRegistry, content_type: str) -> None:
    registry.on("GET", "manifests", Reply(200, {"Content-Type": content_type}, MANIFEST.raw))
    with impatient_client() as client:
        assert fetch(registry, client) == MANIFEST


def test_a_content_type_that_contradicts_the_body_is_refused(registry: ScriptedRegistry) -> None:
    wrong = {"Content-Type": "application/vnd.docker.distribution.manifest.v2+json"}
    registry.on("GET", "manifests", Reply(200, wrong, MANIFEST.raw))
    with impatient_client() as client, pytest.raises(BadManifest):
        fetch(registry, client)


@pytest.mark.parametrize(
    "digest",
    ["../../../etc/x", "sha256:../../x", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "md5:" + "0" * 32],
)
def test_a_layer_with_a_hostile_digest_stops_before_any_request(
    registry: ScriptedRegistry, digest: str
) -> None:
    raw = MANIFEST.raw.replace(str(DIGEST).encode(), digest.encode())
    assert raw != MANIFEST.raw
    registry.on("GET", "manifests", Reply(200, {"Content-Type": MANIFEST.media_type}, raw))
    with impatient_client() as client, pytest.raises(BadManifest):
        fetch(registry, client)
    assert registry.requests("GET", "blobs") == []


# Blobs down


def test_a_wrong_blob_never_appears(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.blobs[str(DIGEST)] = BLOB[:-1] + b"!"
    with impatient_client() as client, pytest.raises(DigestMismatch):
        download(registry, client, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_longer_blob_is_not_read_to_its_end(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("HEAD", "blobs", Reply(200, length=len(BLOB)))
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += len(BLOB)
            yield BLOB

    registry.on("GET", "blobs", lambda _: Reply(body=endless(), length=None))
    with impatient_client() as client, pytest.raises(SizeMismatch):
        download(registry, client, tmp_path / "out")
    assert sent < 64 << 20
    assert list(tmp_path.iterdir()) == []


def test_a_blob_of_another_announced_size_is_not_read(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("HEAD", "blobs", Reply(200, length=len(BLOB)))
    registry.blobs[str(DIGEST)] = BLOB + b"more"
    with impatient_client() as client, pytest.raises(SizeMismatch):
        download(registry, client, tmp_path / "out")


def test_a_missing_blob_is_named(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.blobs.clear()
    with impatient_client() as client, pytest.raises(RemoteBlobNotFound) as caught:
        download(registry, client, tmp_path / "out")
    assert str(DIGEST) in str(caught.value)


def test_an_encoded_blob_is_refused(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("GET", "blobs", Reply(200, {"Content-Encoding": "gzip"}, BLOB))
    with impatient_client() as client, pytest.raises(RegistryError, match="Content-Encoding"):
        download(registry, client, tmp_path / "out")
    assert registry.requests("GET", "blobs")[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("length", [len(BLOB), None], ids=["content-length", "until close"])
def test_a_broken_download_goes_on_where_it_ended(
    registry: ScriptedRegistry, tmp_path: Path, length: int | None
) -> None:
    registry.on("GET", "blobs", Reply(body=BLOB[:300_000], length=length, cut=length is not None), times=1)
    with impatient_client() as client:
        assert download(registry, client, tmp_path / "out") == BLOB
    assert [seen.headers.get("range") for seen in registry.requests("GET", "blobs")] == [
        None,
        "bytes=300000-",
    ]


def test_a_hundred_breaks_are_survived(registry: ScriptedRegistry, tmp_path: Path) -> None:
    step = len(BLOB) // 100

    def a_little(seen: Seen) -> Reply | None:
        first = int(seen.headers.get("range", "bytes=0-")[6:-1])
        if first + step >= len(BLOB):
            return None
        headers = {"Content-Range": f"bytes {first}-{len(BLOB) - 1}/{len(BLOB)}"}
        return Reply(206 if first else 200, headers, BLOB[first : first + step], len(BLOB) - first, cut=True)

    registry.on("GET", "blobs", a_little)
    with impatient_client() as client:
        assert download(registry, client, tmp_path / "out") == BLOB
    assert len(registry.requests("GET", "blobs")) >= 100


def test_breaks_that_bring_nothing_end(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("GET", "blobs", Reply(body=b"", length=len(BLOB), cut=True))
    waits = Waits()
    with impatient_client(sleep=waits) as client, pytest.raises(RegistryUnreachable):
        download(registry, client, tmp_path / "out")
    assert len(registry.requests("GET", "blobs")) == 6
    assert 0 < sum(waits.seconds) < 120


SIZE = len(BLOB)
RANGE_FAULTS = {
    "ignored": Reply(200, {}, BLOB),
    "another start": Reply(206, {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"}, BLOB),
    "another total": Reply(
        206, {"Content-Range": f"bytes 300000-{len(BLOB)}/{len(BLOB) + 1}"}, BLOB[299_999:]
    ),
    "a shorter end": Reply(206, {"Content-Range": f"bytes 300000-400000/{len(BLOB)}"}, BLOB[300_000:400_001]),
    "no content-range": Reply(206, {}, BLOB[300_000:]),
    "multipart": Reply(206, {"Content-Type": "multipart/byteranges; boundary=x"}, b"--x"),
    "junk": Reply(206, {"Content-Range": "bytes x-y/z"}, b"--x"),
    "416": Reply(416, {"Content-Range": f"bytes */{len(BLOB)}"}, b""),
}


@pytest.mark.parametrize("fault", RANGE_FAULTS.values(), ids=RANGE_FAULTS.keys())
def test_a_range_answered_wrongly_means_from_the_start(
    registry: ScriptedRegistry, tmp_path: Path, fault: Reply
) -> None:
    registry.on("GET", "blobs", lambda seen: fault if "range" in seen.headers else None)
    registry.on("GET", "blobs", Reply(body=BLOB[:300_000], length=len(BLOB), cut=True), times=1)
    with impatient_client() as client:
        assert download(registry, client, tmp_path / "out") == BLOB


def test_a_resumed_blob_with_other_bytes_is_refused(registry: ScriptedRegistry, tmp_path: Path) -> None:
    rest = b"x" * (len(BLOB) - 300_000)
    headers = {"Content-Range": f"bytes 300000-{len(BLOB) - 1}/{len(BLOB)}"}
    registry.on("GET", "blobs", lambda seen: Reply(206, headers, rest) if "range" in seen.headers else None)
    registry.on("GET", "blobs", Reply(body=BLOB[:300_000], length=len(BLOB), cut=True), times=1)
    with impatient_client() as client, pytest.raises(DigestMismatch):
        download(registry, client, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_stall_is_noticed(registry: ScriptedRegistry, tmp_path: Path) -> None:
    def stalls() -> Iterator[bytes]:
        yield BLOB[:1000]
        time.sleep(3)

    registry.on("GET", "blobs", Reply(body=stalls(), length=len(BLOB)), times=1)
    with impatient_client(read_timeout_s=0.3) as client:
        assert download(registry, client, tmp_path / "out") == BLOB


def test_a_trickle_is_given_up_for_another_attempt(
    registry: ScriptedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes come, so no time-out sees it: but so few that it would take for ever."""
    monkeypatch.setattr(transport, "_WATCH_S", 0.2)
    ended = threading.Event()

    def trickles() -> Iterator[bytes]:
        for offset in range(len(BLOB)):
            yield BLOB[offset : offset + 1]
            if ended.wait(0.05):
                return

    registry.on("GET", "blobs", lambda _: Reply(body=trickles(), length=len(BLOB)), times=1)
    try:
        with impatient_client() as client:
            assert download(registry, client, tmp_path / "out") == BLOB
    finally:
        ended.set()
    first, second, *_ = registry.requests("GET", "blobs")
    assert "range" not in first.headers
    assert second.headers["range"].startswith("bytes=")


def test_a_registry_that_stops_reading_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_SEND_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with impatient_client() as client, pytest.raises(RegistryUnreachable, match="no answer in time"):
            # Nobody accepts: the kernel takes the connection and what fits its buffers.
            client.do_request(f"http://127.0.0.1:{port}/v2/", "PUT", data=bytes(64 << 20))


def test_a_token_that_expires_in_mid_transfer_is_replaced(registry: ScriptedRegistry, tmp_path: Path) -> None:
    tokens = iter(["t1", "t2"])
    valid = ["t1"]

    def wants(seen: Seen) -> Reply | None:
        if seen.authorization == f"Bearer {valid[0]}":
            return None
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="{registry.url}/token"'})

    def breaks_off(seen: Seen) -> Reply | None:
        if seen.authorization != "Bearer t1" or valid[0] == "t2":
            return None
        valid[0] = "t2"
        return Reply(body=BLOB[:300_000], length=len(BLOB), cut=True)

    registry.on("*", "/v2/team", wants)
    registry.on("GET", "/token", lambda _: Reply(body=b'{"token":"%s"}' % next(tokens).encode()))
    registry.on("GET", "blobs", breaks_off)
    with impatient_client() as client:
        assert download(registry, client, tmp_path / "out") == BLOB
    assert registry.requests("GET", "blobs")[-1].headers["range"] == "bytes=300000-"


# Retries


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_passing_troubles_pass(registry: ScriptedRegistry, status: int) -> None:
    registry.on("GET", "manifests", Reply(status), times=3)
    waits = Waits()
    with impatient_client(sleep=waits) as client:
        assert fetch(registry, client) == MANIFEST
    assert len(waits.seconds) == 3
    assert all(0.25 <= wait <= 30 for wait in waits.seconds)


def test_500_is_tried_once_more(registry: ScriptedRegistry) -> None:
    registry.on("GET", "manifests", Reply(500))
    with impatient_client() as client, pytest.raises(RegistryError, match="status 500"):
        fetch(registry, client)
    assert len(registry.requests("GET", "manifests")) == 2


@pytest.mark.parametrize("status", [400, 404, 405, 410, 418, 451, 501])
def test_final_answers_are_not_repeated(registry: ScriptedRegistry, status: int) -> None:
    registry.on("GET", "manifests", Reply(status))
    with impatient_client() as client, pytest.raises(LadingError):
        fetch(registry, client)
    assert len(registry.requests("GET", "manifests")) == 1


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("7", 7, 7), ("0", 0, 0), ("1000000000", 120, 120), ("-5", 0.2, 30), ("soon", 0.2, 30),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 120, 120)],
)  # fmt: skip
def test_retry_after_is_honoured_within_reason(
    registry: ScriptedRegistry, header: str, low: float, high: float
) -> None:
    registry.on("GET", "manifests", Reply(429, {"Retry-After": header}), times=1)
    waits = Waits()
    with impatient_client(sleep=waits) as client:
        fetch(registry, client)
    assert len(waits.seconds) == 1
    assert low <= waits.seconds[0] <= high


def test_endless_throttling_ends(registry: ScriptedRegistry) -> None:
    registry.on("GET", "manifests", Reply(429))
    with impatient_client() as client, pytest.raises(RegistryBusy):
        fetch(registry, client)
    assert len(registry.requests("GET", "manifests")) == 6


def test_a_host_that_never_answered_is_given_up_quickly(free_port: object) -> None:
    with scripted_registry() as gone:
        pass
    waits = Waits()
    with impatient_client(sleep=waits) as client, pytest.raises(RegistryUnreachable) as caught:
        fetch(gone, client)
    assert "connection refused" in str(caught.value)
    assert caught.value.hint is not None
    assert len(waits.seconds) <= 1


# Blobs up


def test_an_upload_goes_in_one_piece(registry: ScriptedRegistry, tmp_path: Path) -> None:
    with impatient_client() as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert registry.blobs[str(DIGEST)] == BLOB
    assert [seen.method for seen in registry.requests("", "blobs")] == ["HEAD", "POST", "PUT"]
    (put,) = registry.requests("PUT")
    assert put.headers["content-length"] == str(len(BLOB))
    assert put.parameters == {"state": ["1"], "digest": [str(DIGEST)]}


def test_an_upload_elsewhere_is_refused(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path
) -> None:
    with logged_in(registry) as client:
        away = Reply(202, {"Location": f"{elsewhere.url}/collect"})
        registry.on("POST", "uploads", lambda s: away if s.authorization else None)
        with pytest.raises(RegistryUnsafe, match="another place"):
            upload(registry, client, tmp_path / "in")
    assert elsewhere.seen == []


def test_an_upload_host_that_is_allowed_gets_bytes_but_no_credentials(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path
) -> None:
    elsewhere.on("PUT", "/bucket", Reply(201))
    registry.on("*", "/v2/team", lambda s: None if s.authorization else WANTS_BASIC)
    away = Reply(202, {"Location": f"{elsewhere.url}/bucket/1?sig=x"})
    registry.on("POST", "uploads", lambda s: away if s.authorization else None)
    with impatient_client(known_to(registry.host), upload_hosts=(elsewhere.host,)) as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    (seen,) = elsewhere.seen
    assert seen.body == BLOB
    assert seen.authorization is None


@pytest.mark.parametrize(
    "location", ["", "ftp://x/", "http://u:p@127.0.0.1/", "//evil.example/x", "http://[::"]
)
def test_unusable_upload_locations_are_refused(
    registry: ScriptedRegistry, tmp_path: Path, location: str
) -> None:
    registry.on("POST", "uploads", Reply(202, {"Location": location} if location else {}))
    with impatient_client() as client, pytest.raises(RegistryError):
        upload(registry, client, tmp_path / "in")
    assert registry.requests("PUT") == []


def test_an_upload_is_not_redirected_elsewhere(
    registry: ScriptedRegistry, elsewhere: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.on("PUT", "uploads", Reply(307, {"Location": f"{elsewhere.url}/collect"}))
    with impatient_client() as client, pytest.raises(RegistryUnsafe):
        upload(registry, client, tmp_path / "in")
    assert elsewhere.seen == []


def test_a_lost_session_is_begun_again(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("PUT", "uploads", error(404, "BLOB_UPLOAD_UNKNOWN"), times=1)
    with impatient_client() as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert len(registry.requests("POST", "uploads")) == 2


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_failing_upload_is_sent_again_from_its_start(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    registry.on("PUT", "uploads", Reply(status), times=2)
    with impatient_client() as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert registry.blobs[str(DIGEST)] == BLOB


def test_an_upload_that_arrived_although_the_answer_did_not(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    def takes_it_and_hangs_up(seen: Seen) -> Reply:
        reply = registry.honest(seen)
        return Reply(reply.status, reply.headers, b"", length=500, cut=True)

    registry.on("PUT", "uploads", takes_it_and_hangs_up, times=1)
    with impatient_client() as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"


@pytest.mark.parametrize("status", [405, 411, 413, 416])
def test_a_registry_that_wants_chunks_gets_them(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    registry.on("PUT", "uploads", lambda seen: Reply(status) if seen.body else None)
    with impatient_client(chunk_size=300_000) as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert [seen.headers["content-range"] for seen in registry.requests("PATCH")] == [
        "0-299999", "300000-599999", "600000-899999", "900000-1048575",
    ]  # fmt: skip


def test_the_smallest_chunk_that_a_registry_takes_is_heeded(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    def wants_large(seen: Seen) -> Reply:
        reply = registry.honest(seen)
        reply.headers["OCI-Chunk-Min-Length"] = "600000"
        return reply

    registry.on("POST", "uploads", wants_large)
    registry.on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None)
    with impatient_client(chunk_size=1000) as client:
        upload(registry, client, tmp_path / "in")
    assert registry.requests("PATCH")[0].headers["content-range"] == "0-599999"


def test_a_broken_chunk_is_sent_again_from_where_it_ended(registry: ScriptedRegistry, tmp_path: Path) -> None:
    def loses_the_answer(seen: Seen) -> Reply:
        registry.honest(seen)
        return Reply(202, {}, b"", length=500, cut=True)

    registry.on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None)
    registry.on("PATCH", "uploads", loses_the_answer, times=2)
    with impatient_client(chunk_size=400_000) as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert registry.blobs[str(DIGEST)] == BLOB
    assert sum(len(seen.body) for seen in registry.requests("PATCH")) == len(BLOB)


def test_a_chunk_out_of_order_is_put_right(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None)
    registry.on("PATCH", "uploads", Reply(416), times=1)
    with impatient_client(chunk_size=400_000) as client:
        assert upload(registry, client, tmp_path / "in") == "uploaded"
    assert registry.blobs[str(DIGEST)] == BLOB


def test_an_upload_stored_under_another_digest_is_an_error(
    registry: ScriptedRegistry, tmp_path: Path
) -> None:
    registry.on("PUT", "uploads", Reply(201, {"Docker-Content-Digest": str(Digest.of(b"other"))}))
    with impatient_client() as client, pytest.raises(DigestMismatch):
        upload(registry, client, tmp_path / "in")


def test_a_refused_digest_says_where_to_look(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.on("PUT", "uploads", error(400, "DIGEST_INVALID"))
    with impatient_client() as client, pytest.raises(RegistryError) as caught:
        upload(registry, client, tmp_path / "in")
    assert "fsck" in str(caught.value.hint)
    assert len(registry.requests("PUT")) == 1


def test_a_present_blob_is_not_sent(registry: ScriptedRegistry, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(BLOB)
    with impatient_client() as client:
        repository = client.repository(reference_at(registry), writes=True)
        descriptor = Descriptor("application/octet-stream", DIGEST, len(BLOB))
        assert BlobUpload(repository, descriptor, tmp_path / "in", lambda _: None).run() == "present"
    assert registry.requests("POST") == []


@pytest.mark.parametrize("status", [201, 202, 404, 405])
def test_a_mount_is_asked_for_and_not_relied_on(
    registry: ScriptedRegistry, tmp_path: Path, status: int
) -> None:
    (tmp_path / "in").write_bytes(BLOB)
    registry.blobs.clear()

    def mounts(seen: Seen) -> Reply | None:
        if "mount" not in seen.parameters or status == 202:
            return None
        return Reply(status, {"Location": "/x"})

    registry.on("POST", "uploads", mounts)
    with impatient_client() as client:
        repository = client.repository(reference_at(registry), writes=True)
        descriptor = Descriptor("application/octet-stream", DIGEST, len(BLOB))
        outcome = BlobUpload(repository, descriptor, tmp_path / "in", lambda _: None).run(("team/base",))
    assert outcome == ("mounted" if status == 201 else "uploaded")
    assert registry.requests("POST")[0].parameters == {"mount": [str(DIGEST)], "from": ["team/base"]}


# Tags


def test_tag_pages_are_followed_at_home_only(registry: ScriptedRegistry, elsewhere: ScriptedRegistry) -> None:
    page = Reply(200, {"Link": '</v2/team/m/tags/list?n=2&last=b>; rel="next"'}, b'{"tags":["a","b"]}')
    registry.on("GET", "tags", lambda seen: None if "last" in seen.parameters else page)
    with impatient_client() as client:
        repository = client.repository(reference_at(registry))
        assert repository.tags() == ["a", "b", "v1"]
        registry.on("GET", "tags", Reply(200, {"Link": f'<{elsewhere.url}/x>; rel="next"'}, b'{"tags":[]}'))
        with pytest.raises(RegistryError, match="elsewhere"):
            repository.tags()
    assert elsewhere.seen == []


def test_a_tag_list_without_end_ends(registry: ScriptedRegistry) -> None:
    def more(seen: Seen) -> Reply:
        number = int(seen.parameters.get("last", ["0"])[0]) + 1
        return Reply(200, {"Link": f'</v2/team/m/tags/list?last={number}>; rel="next"'}, b'{"tags":["x"]}')

    registry.on("GET", "tags", more)
    with impatient_client() as client, pytest.raises(RegistryError, match="does not end"):
        client.repository(reference_at(registry)).tags()


# Our own side


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_a_local_file_that_shrinks_is_noticed(
    registry: ScriptedRegistry, tmp_path: Path, chunked: bool
) -> None:
    path = tmp_path / "in"
    path.write_bytes(BLOB[:-1000])
    registry.blobs.clear()
    if chunked:
        registry.on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None)
    with impatient_client(chunk_size=300_000) as client, pytest.raises(StoreFailure, match="too early"):
        repository = client.repository(reference_at(registry), writes=True)
        descriptor = Descriptor("application/octet-stream", DIGEST, len(BLOB))
        BlobUpload(repository, descriptor, path, lambda _: None).run()
    assert str(DIGEST) not in registry.blobs


def test_a_local_file_that_is_gone_is_noticed(registry: ScriptedRegistry, tmp_path: Path) -> None:
    registry.blobs.clear()
    with impatient_client() as client, pytest.raises(StoreFailure):
        repository = client.repository(reference_at(registry), writes=True)
        descriptor = Descriptor("application/octet-stream", DIGEST, len(BLOB))
        BlobUpload(repository, descriptor, tmp_path / "absent", lambda _: None).run()


@pytest.mark.parametrize("length", ["\u00b2", "-5", "1e9", "9" * 40, "12, 12", "0x10"])
def test_an_odd_content_length_is_no_crash(registry: ScriptedRegistry, tmp_path: Path, length: str) -> None:
    registry.on("HEAD", "blobs", Reply(200, {"Content-Length": length}, length=None))
    registry.on("GET", "blobs", Reply(200, {"Content-Length": length}, BLOB, length=None))
    with impatient_client() as client, pytest.raises(LadingError):
        download(registry, client, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
