"""A registry that fails, lies or attacks, in each way that we know of: what must come of it, then the oracle.

After every pull, whatever came of it: the tags are as before, all that has a name is complete and right, no
more is left over than `gc` removes, and the same pull from an honest registry succeeds without a hand's help.
After every push: what the registry has under the tag is the model of before or all of the new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from registry_clients import Waits, impatient_client, known_to
from scripted_registry import Answer, Reply, ScriptedRegistry, Seen, error, scripted_registry
from store_models import make_manifest, put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.modelfile.errors import LadingError
from lading.oci.digest import Digest
from lading.oci.errors import BadManifest, DigestMismatch, SizeMismatch
from lading.oci.reference import Reference
from lading.oci.registry.errors import (
    RegistryBusy,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
    RegistryUnsafe,
    RemoteBlobNotFound,
    RemoteModelNotFound,
)
from lading.oci.store import Store
from lading.oci.transfer import pull, push

PART = 40_000
WEIGHTS = os.urandom(5 * PART + 77)
MANIFEST, BLOBS = make_manifest(WEIGHTS, b"{{ .Prompt }}")
BLOB = str(Digest.of(WEIGHTS))
OTHER = str(Digest.of(b"other"))
SECRET = "s3cret-pass"

Outcome = type[LadingError] | tuple[type[LadingError], ...] | None
Fault = Callable[[ScriptedRegistry], None]


def on(method: str, path: str, answer: Answer, times: int | None = None) -> Fault:
    return lambda registry: registry.on(method, path, answer, times=times)


def manifest(body: bytes, **headers: str) -> Fault:
    """Another manifest under the tag."""
    typed = {"Content-Type": MANIFEST.media_type, **headers}
    return on("GET", "manifests", Reply(200, typed, body))


def changed(**members: object) -> Fault:
    """The manifest with other members."""
    return manifest(json.dumps({**json.loads(MANIFEST.raw), **members}).encode())


def layer(**members: object) -> Fault:
    """The manifest with another first layer."""
    described = {**json.loads(MANIFEST.raw)["layers"][0], **members}
    return changed(layers=[described])


def endless(start: bytes = b"") -> Iterator[bytes]:
    yield start
    while True:
        yield b" " * 65536


def blob(answer: Answer, times: int | None = None) -> Fault:
    return on("GET", BLOB, answer, times)


def part(change: Callable[[Seen, Reply], Reply | None], times: int | None = None) -> Fault:
    """Changes the honest answers to requests for the weights."""

    def fault(registry: ScriptedRegistry) -> None:
        registry.on("GET", BLOB, lambda seen: change(seen, registry.honest(seen)), times=times)

    return fault


def headers_of(**headers: str) -> Callable[[Seen, Reply], Reply]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda seen, reply: Reply(reply.status, {**reply.headers, **named}, reply.body)


def body_of(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


def as_whole(seen: Seen, reply: Reply) -> Reply:
    return Reply(200, {}, WEIGHTS)


def flipped(seen: Seen, reply: Reply) -> Reply:
    data = body_of(reply)
    return Reply(reply.status, reply.headers, data[:-1] + bytes([data[-1] ^ 1]))


def challenge(text: str) -> Fault:
    return on("*", "/v2/team", lambda seen: Reply(401, {"WWW-Authenticate": text}))


def token_service(answer: Answer) -> Fault:
    def fault(registry: ScriptedRegistry) -> None:
        asks = Reply(401, {"WWW-Authenticate": f'Bearer realm="{registry.url}/token",service="s"'})
        registry.on("*", "/v2/team", lambda seen: None if seen.authorization == "Bearer good" else asks)
        registry.on("GET", "/token", answer)

    return fault


def away(location: str, status: int = 307) -> Fault:
    return blob(Reply(status, {"Location": location}))


PULLS: dict[str, tuple[Fault, Outcome]] = {
    # Manifests
    "no manifest": (on("GET", "manifests", error(404, "MANIFEST_UNKNOWN")), RemoteModelNotFound),
    "an HTML page": (
        on("GET", "manifests", Reply(200, {"Content-Type": "text/html"}, b"<html>")),
        BadManifest,
    ),
    "another digest in the header": (
        manifest(MANIFEST.raw, **{"Docker-Content-Digest": OTHER}),
        DigestMismatch,
    ),
    "no digest in the header": (manifest(MANIFEST.raw), None),
    "an endless manifest": (
        lambda r: r.on("GET", "manifests", lambda _: Reply(200, {}, endless(b"{"), length=None)),
        RegistryError,
    ),
    "a manifest cut short": (
        on("GET", "manifests", Reply(200, {}, MANIFEST.raw[:50], length=len(MANIFEST.raw), cut=True)),
        RegistryUnreachable,
    ),
    "null": (manifest(b"null"), BadManifest),
    "a list": (manifest(b"[]"), BadManifest),
    "an empty object": (manifest(b"{}"), BadManifest),
    "no layers": (changed(layers=None), BadManifest),
    "no config": (changed(config=None), BadManifest),
    "a size below zero": (layer(size=-1), BadManifest),
    "a size as text": (layer(size="12"), BadManifest),
    "a size with a fraction": (layer(size=1.5), BadManifest),
    "a size beyond all numbers": (
        manifest(MANIFEST.raw.replace(b'"size":', b'"size":1e999,"x":', 1)),
        BadManifest,
    ),
    "schema version 1": (changed(schemaVersion=1), BadManifest),
    "a media type that is a number": (changed(mediaType=7), BadManifest),
    "ten thousand digits": (manifest(b'{"a":' + b"9" * 10_000 + b"}"), BadManifest),
    "deep nesting": (manifest(b"[" * 2000 + b"]" * 2000), BadManifest),
    "NaN": (manifest(b'{"a":NaN}'), BadManifest),
    "not UTF-8": (manifest(b'{"a":"\xff"}'), BadManifest),
    "a byte order mark": (manifest(b"\xef\xbb\xbf" + MANIFEST.raw), BadManifest),
    "one name twice": (manifest(b'{"layers":[],' + MANIFEST.raw[1:]), BadManifest),
    "both layers and manifests": (changed(manifests=[]), BadManifest),
    "a type that contradicts the body": (
        manifest(MANIFEST.raw, **{"Content-Type": "application/vnd.oci.image.index.v1+json"}),
        BadManifest,
    ),
    "a digest with a path": (layer(digest="sha256:../../../../etc/passwd"), BadManifest),
    "a digest that is a path": (layer(digest="../../etc/passwd"), BadManifest),
    "a digest in upper case": (layer(digest=BLOB.upper()), BadManifest),
    "a digest of a weak kind": (layer(digest="md5:d41d8cd98f00b204e9800998ecf8427e"), BadManifest),
    "a digest with a query": (layer(digest=f"sha256:{'a' * 62}?b"), BadManifest),
    "a huge config": (changed(config={**json.loads(MANIFEST.raw)["config"], "size": 2 << 20}), BadManifest),
    "too many layers": (changed(layers=json.loads(MANIFEST.raw)["layers"][:1] * 5000), BadManifest),
    "one digest with two sizes": (
        changed(
            layers=[
                json.loads(MANIFEST.raw)["layers"][0],
                {**json.loads(MANIFEST.raw)["layers"][0], "size": 5},
            ]
        ),
        BadManifest,
    ),
    "a layer that is elsewhere": (
        layer(digest=OTHER, size=5, urls=["http://169.254.169.254/latest"]),
        RemoteBlobNotFound,
    ),
    # Blobs
    "no blob": (blob(error(404, "BLOB_UNKNOWN")), RemoteBlobNotFound),
    "a blob that is denied": (blob(error(403, "DENIED")), RegistryDenied),
    "a blob of the same size": (blob(Reply(200, {}, os.urandom(len(WEIGHTS)))), DigestMismatch),
    "a blob that announces more": (blob(Reply(200, {}, WEIGHTS + b"x")), SizeMismatch),
    "a blob that announces less": (blob(Reply(200, {}, WEIGHTS[:-1])), SizeMismatch),
    "a blob that goes on": (blob(Reply(200, {}, WEIGHTS + b"x", length=None)), SizeMismatch),
    "an endless blob": (
        blob(lambda _: Reply(200, {}, endless(WEIGHTS), length=None)),
        SizeMismatch,
    ),
    "an empty blob": (blob(Reply(200, {}, b"", length=None)), RegistryUnreachable),
    "a blob that always breaks off at once": (
        blob(Reply(200, {}, b"", length=len(WEIGHTS), cut=True)),
        RegistryUnreachable,
    ),
    "a blob that breaks off twice": (
        blob(Reply(200, {}, WEIGHTS[:9], length=len(WEIGHTS), cut=True), 2),
        None,
    ),
    "no answer for a blob": (blob(Reply(0)), RegistryUnreachable),
    "no answer, twice": (blob(Reply(0), 2), None),
    "a compressed blob": (part(headers_of(Content_Encoding="gzip")), RegistryError),
    "a blob compressed twice": (part(headers_of(Content_Encoding="gzip, br")), RegistryError),
    "a blob with no content": (blob(Reply(204)), RegistryError),
    "wrong bytes in a part": (part(flipped), DigestMismatch),
    "wrong bytes in a part, once": (part(flipped, 1), None),
    # Ranges
    "ranges ignored": (part(as_whole), None),
    "ranges ignored now and then": (part(as_whole, 3), None),
    "416": (part(lambda seen, reply: Reply(416) if "range" in seen.headers else reply), None),
    "416 for everything": (blob(Reply(416)), RegistryError),
    "another range": (part(headers_of(Content_Range=f"bytes 1-{PART}/{len(WEIGHTS)}"), 1), None),
    "another total": (part(headers_of(Content_Range=f"bytes 0-{PART - 1}/7"), 1), None),
    "an unreadable range": (part(headers_of(Content_Range="bytes x-y/z"), 1), None),
    "a range with a huge number": (part(headers_of(Content_Range=f"bytes 0-{'9' * 19}/*"), 1), None),
    "several ranges": (
        part(headers_of(Content_Type="multipart/byteranges; boundary=x", Content_Range="x")),
        None,
    ),
    "a part that is too short": (
        part(
            lambda _, reply: Reply(
                206, reply.headers, body_of(reply)[:-1], length=len(body_of(reply)), cut=True
            ),
            3,
        ),
        None,
    ),
    # Redirects
    "a redirect to nowhere": (away(""), (RegistryUnsafe, RegistryError)),
    "a redirect to a file": (away("file:///etc/passwd"), RegistryUnsafe),
    "a redirect with a password": (away("http://user:pw@127.0.0.1/x"), RegistryUnsafe),
    "a redirect with a line break": (away("http://127.0.0.1/\tx"), RegistryUnsafe),
    "a circle of redirects": (away(f"/v2/team/m/blobs/{BLOB}"), RegistryUnsafe),
    # Status
    "500, once": (blob(Reply(500), 1), None),
    "500, always": (blob(Reply(500)), RegistryError),
    "502, 3 times": (blob(Reply(502), 3), None),
    "503, always": (blob(Reply(503)), RegistryError),
    "504, with a date": (blob(Reply(504, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), 2), None),
    "429, always": (blob(Reply(429)), RegistryBusy),
    "429, for a million years": (blob(Reply(429, {"Retry-After": "9" * 30}), 1), None),
    "429, for less than nothing": (blob(Reply(429, {"Retry-After": "-5"}), 1), None),
    "418": (blob(Reply(418)), RegistryError),
    "an error of all zeros": (blob(Reply(400, {}, bytes(70_000))), RegistryError),
    # Credentials
    "401 without a challenge": (challenge(""), RegistryDenied),
    "a challenge of an unknown kind": (challenge("Negotiate abc"), RegistryDenied),
    "a challenge that is never content": (challenge('Basic realm="x"'), RegistryDenied),
    "a challenge of 64 KB": (challenge('Bearer realm="' + "x" * 65_000 + '"'), RegistryDenied),
    "a token service on FTP": (challenge('Bearer realm="ftp://x/token"'), RegistryUnsafe),
    "a token service in plain text": (challenge('Bearer realm="http://auth.example/token"'), RegistryUnsafe),
    "a token service that is a path": (challenge('Bearer realm="/token"'), RegistryDenied),
    "a token service that refuses": (token_service(Reply(403)), RegistryDenied),
    "a token service that redirects": (token_service(Reply(307, {"Location": "/x"})), RegistryError),
    "a token that is none": (token_service(Reply(200, {}, b'{"token":7}')), RegistryError),
    "a token with a line break": (token_service(Reply(200, {}, b'{"token":"a\\r\\nX: y"}')), RegistryError),
    "an endless token": (
        token_service(lambda _: Reply(200, {}, endless(b'{"token":"'), length=None)),
        RegistryError,
    ),
    "a token that is refused": (token_service(Reply(200, {}, b'{"token":"bad"}')), RegistryDenied),
    "a good token": (token_service(Reply(200, {}, b'{"access_token":"good"}')), None),
}


@pytest.fixture(scope="module")
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        yield running


@pytest.fixture
def store(memory_folder: Path | None, tmp_path: Path) -> Store:
    """In memory where there is room: what is tested here is not the disk."""
    return Store.open((memory_folder or tmp_path) / "store")


@pytest.fixture(autouse=True)
def honest(registry: ScriptedRegistry) -> None:
    """Whatever the test before made of it."""
    for kept in (registry.rules, registry.seen, registry.blobs, registry.manifests, registry.uploads):
        kept.clear()


@pytest.mark.parametrize(("fault", "outcome"), PULLS.values(), ids=PULLS.keys())
def test_a_pull_from_it(registry: ScriptedRegistry, store: Store, fault: Fault, outcome: Outcome) -> None:
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    put_model(store, "kept", BLOBS[2])  # shares a layer with what fails
    put_model(store, str(reference), b"the earlier version")
    before = snapshot(store)
    registry.add(MANIFEST, BLOBS, "team/m:v1")
    fault(registry)
    waits = Waits()
    with impatient_client(known_to(registry.host, secret=SECRET), part_size=PART, sleep=waits) as client:
        if outcome is None:
            assert pull(store, client, reference) == MANIFEST
        else:
            with pytest.raises(outcome) as caught:
                pull(store, client, reference)
            assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"
            assert snapshot(store) == before
    assert max(waits.seconds, default=0) <= 120
    registry.rules.clear()
    registry.add(MANIFEST, BLOBS, "team/m:v1")
    with impatient_client(part_size=PART) as client:
        assert pull(store, client, reference) == MANIFEST
    assert_nothing_lost(store.root, before, may_change=(str(reference),))


def location(value: str) -> Fault:
    return on("POST", "uploads", Reply(202, {"Location": value}))


def claims_to_have(registry: ScriptedRegistry) -> None:
    registry.on("HEAD", "blobs", Reply(200))
    registry.on("PUT", "manifests", error(400, "MANIFEST_BLOB_UNKNOWN"), times=1)


PUSHES: dict[str, tuple[Fault, Outcome]] = {
    "an honest one": (lambda registry: None, None),
    "no uploads": (on("POST", "uploads", error(405, "UNSUPPORTED")), RegistryError),
    "denied": (on("POST", "uploads", error(403, "DENIED")), RegistryDenied),
    "no session": (on("POST", "uploads", Reply(202)), RegistryError),
    "a session at another host": (location("https://evil.example/take"), RegistryUnsafe),
    "a session at another host, cleverly": (location("//evil.example/take"), RegistryUnsafe),
    "a session in a file": (location("file:///tmp/x"), RegistryUnsafe),
    "a session with a password": (location("http://u:p@127.0.0.1/x"), RegistryUnsafe),
    "a session that is not there": (location("/v2/team/m/blobs/uploads/none"), RegistryError),
    "an upload sent on": (
        on("PUT", "uploads", Reply(307, {"Location": "https://evil.example/"})),
        RegistryUnsafe,
    ),
    "a digest refused": (on("PUT", "uploads", error(400, "DIGEST_INVALID")), RegistryError),
    "another digest stored": (
        on("PUT", "uploads", Reply(201, {"Docker-Content-Digest": OTHER})),
        DigestMismatch,
    ),
    "too large": (on("PUT", "uploads", Reply(413)), RegistryError),
    "too large in one piece": (on("PUT", "uploads", lambda seen: Reply(413) if seen.body else None), None),
    "uploads fail, twice": (on("PUT", "uploads", Reply(502), 2), None),
    "uploads fail, always": (on("PUT", "uploads", Reply(500)), RegistryError),
    "uploads break off, twice": (on("PUT", "uploads", Reply(0), 2), None),
    "uploads break off, always": (on("PUT", "uploads", Reply(0)), RegistryUnreachable),
    "throttled": (on("PUT", "uploads", Reply(429, {"Retry-After": "3"}), 2), None),
    "throttled, always": (on("PUT", "uploads", Reply(429)), (RegistryBusy, RegistryError)),
    "the blob is only claimed to be there": (claims_to_have, None),
    "blobs never stay": (on("PUT", "manifests", error(400, "MANIFEST_BLOB_UNKNOWN")), RegistryError),
    "the manifest is refused": (on("PUT", "manifests", error(400, "MANIFEST_INVALID")), RegistryError),
    "the manifest is denied": (on("PUT", "manifests", error(401, "UNAUTHORIZED")), RegistryDenied),
    "the manifest becomes another": (
        on("PUT", "manifests", Reply(201, {"Docker-Content-Digest": OTHER})),
        DigestMismatch,
    ),
    "the manifest fails, once": (on("PUT", "manifests", Reply(503), 1), None),
    "no answer to the manifest": (on("PUT", "manifests", Reply(0), 1), None),
    "HEAD fails": (on("HEAD", "blobs", Reply(400)), RegistryError),
    "HEAD tells another size": (
        on("HEAD", "blobs", Reply(200, {"Content-Length": "5"}, length=None)),
        None,
    ),
}


@pytest.mark.parametrize(("fault", "outcome"), PUSHES.values(), ids=PUSHES.keys())
def test_a_push_to_it(registry: ScriptedRegistry, store: Store, fault: Fault, outcome: Outcome) -> None:
    earlier, blobs = make_manifest(b"the earlier version")
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    put_model(store, str(reference), WEIGHTS, BLOBS[2])
    before = snapshot(store)
    registry.add(earlier, blobs, "team/m:v1")
    fault(registry)
    with impatient_client(known_to(registry.host, secret=SECRET), chunk_size=PART) as client:
        if outcome is None:
            push(store, client, reference)
        else:
            with pytest.raises(outcome) as caught:
                push(store, client, reference)
            assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.hint}"
        there = registry.manifests["team/m/v1"][1]
        assert there == (MANIFEST.raw if outcome is None else earlier.raw)
        registry.rules.clear()
        push(store, client, reference)
    assert registry.manifests["team/m/v1"][1] == MANIFEST.raw
    assert registry.blobs[BLOB] == WEIGHTS
    assert_nothing_lost(store.root, before)


def test_an_attacked_push_sends_nothing_away(
    registry: ScriptedRegistry, store: Store, tmp_path: Path
) -> None:
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    put_model(store, str(reference), WEIGHTS)
    with scripted_registry() as trap:
        for rule in (
            location(f"{trap.url}/take"),
            on("PUT", "uploads", Reply(307, {"Location": f"{trap.url}/take"})),
            challenge(f'Bearer realm="{trap.url}/token"'),
        ):
            registry.rules.clear()
            rule(registry)
            with (
                impatient_client(known_to(registry.host, secret=SECRET)) as client,
                pytest.raises((RegistryUnsafe, RegistryError, RegistryDenied)),
            ):
                push(store, client, reference)
        assert all(seen.authorization is None and not seen.body for seen in trap.seen)
