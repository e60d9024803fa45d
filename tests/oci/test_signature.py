"""Signing and verifying: in the store, at Debian's registry and at our own, read again by other means, and
under attack by whoever can write to the registry."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lading_registry import running_lading_registry
from registry_server import INSTALLED, WHY_NOT, running_registry
from scripted_registry import Reply, ScriptedRegistry, Seen, error, scripted_registry
from store_models import make_manifest as make_model
from store_models import put_model

from lading.modelfile.errors import LadingError
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.manifest import Index, Manifest
from lading.oci.media_type import OCI_EMPTY, OCI_INDEX
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.errors import RegistryDenied
from lading.oci.signing.attachment_tag import attachment_tag, forget_attachments, is_attachment_tag
from lading.oci.signing.attachments import MAX_PAGES, RegistryAttachments, StoreAttachments
from lading.oci.signing.errors import NotSigned, SignatureInvalid
from lading.oci.signing.key import KeyKind, SigningKey
from lading.oci.signing.signature import MAX_SIGNATURES, Form, copy_signatures, sign, verify
from lading.oci.signing.sigstore_bundle import (
    BUNDLE_TYPE,
    SIGNATURE_PREDICATE,
    make_bundle,
    make_referrer,
    make_statement,
)
from lading.oci.signing.simple_signing import SIGNATURE, make_layer, make_manifest, make_payload
from lading.oci.store import Store
from lading.oci.transfer import pull, push

NAME = "registry.test/team/model"
BOTH = {Form.TAG, Form.BUNDLE}
KEY, OTHER = SigningKey.generate(), SigningKey.generate()


@pytest.fixture
def shelf(store: Store) -> StoreAttachments:
    put_model(store, f"{NAME}:v1", b"weights")
    return StoreAttachments(store, Reference.parse(f"{NAME}:v1"))


def subject_of(shelf: StoreAttachments) -> Descriptor:
    return shelf.store.find(shelf.reference).descriptor


def signed(shelf: StoreAttachments, key: SigningKey = KEY) -> Digest:
    subject = subject_of(shelf)
    sign(shelf, subject, key, identity=shelf.reference.name)
    return subject.digest


@pytest.mark.parametrize("kind", list(KeyKind))
def test_signed_and_verified(shelf: StoreAttachments, kind: KeyKind) -> None:
    key = SigningKey.generate(kind)
    digest = signed(shelf, key)
    found = verify(shelf, digest, [OTHER.public, key.public])
    assert {good.form for good in found} == BOTH
    assert {good.key for good in found} == {key.public}
    assert {good.identity for good in found} == {NAME, None}
    assert shelf.store.fsck().problems == ()


def test_nobody_signed_it(shelf: StoreAttachments) -> None:
    with pytest.raises(NotSigned, match="it is not signed"):
        verify(shelf, subject_of(shelf).digest, [KEY.public])


def test_somebody_else_signed_it(shelf: StoreAttachments) -> None:
    digest = signed(shelf, OTHER)
    with pytest.raises(SignatureInvalid, match="not by a key that counts") as caught:
        verify(shelf, digest, [KEY.public])
    assert len(caught.value.reasons) == 2
    with pytest.raises(SignatureInvalid):
        verify(shelf, digest, [])


def test_signing_again_adds_nothing_and_others_add_theirs(shelf: StoreAttachments) -> None:
    digest = signed(shelf)
    subject = subject_of(shelf)
    assert sign(shelf, subject, KEY, identity=NAME) == ()
    assert sign(shelf, subject, OTHER, identity=NAME) == (Form.TAG, Form.BUNDLE)
    document = shelf.find(attachment_tag(digest, ".sig"))
    assert isinstance(document, Manifest) and len(document.layers) == 2
    assert len(shelf.referrers(digest, BUNDLE_TYPE)) == 2
    for key in (KEY, OTHER):
        assert {good.form for good in verify(shelf, digest, [key.public])} == BOTH


def test_the_sweep_keeps_signatures_and_they_go_with_the_model(shelf: StoreAttachments) -> None:
    digest = signed(shelf)
    shelf.store.gc()
    assert len(verify(shelf, digest, [KEY.public])) == 2
    forget_attachments(shelf.store, shelf.reference, digest)  # the model is still there: nothing happens
    assert shelf.any(digest)
    shelf.store.untag(shelf.reference)
    forget_attachments(shelf.store, shelf.reference, digest)
    assert shelf.store.tags() == []


@pytest.mark.parametrize(
    ("tag", "attached"),
    [
        ("latest", False),
        ("sha256-" + "a" * 64, True),
        ("sha256-" + "a" * 64 + ".sig", True),
        ("sha256-" + "a" * 64 + ".att", True),
        ("sha256-" + "a" * 63, False),
        ("sha256-" + "a" * 64 + ".sigs", False),
        ("x-sha256-" + "a" * 64, False),
        (None, False),
    ],
)
def test_tags_that_are_no_models(tag: str | None, attached: bool) -> None:
    assert is_attachment_tag(tag) is attached


# Registries


@pytest.fixture(params=["debian", "ours"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "ours":
        with running_lading_registry(tmp_path / "served") as address:
            yield address
        return
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path / "registry") as registry:
        yield registry.host


def get(url: str, accept: str = "") -> bytes:
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Accept": accept}), timeout=10
    ) as answer:
        data: bytes = answer.read()
        return data


def openssl_verifies(folder: Path, key: SigningKey, message: bytes, signature: bytes) -> bool:
    (folder / "key").write_bytes(key.public.to_pem())
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(signature)
    command = ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "signature", "message"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    return done.stdout == b"Verified OK\n"


def cosign_verifies_tag(url: str, digest: str, key: SigningKey, folder: Path) -> dict[str, Any]:
    """What `cosign verify --key` does with the tag, done again with nothing of ours; the payload."""
    manifest = json.loads(
        get(f"{url}/manifests/{digest.replace(':', '-')}.sig", "application/vnd.oci.image.manifest.v1+json")
    )
    (layer,) = manifest["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    payload = get(f"{url}/blobs/{layer['digest']}")
    assert layer["digest"] == "sha256:" + hashlib.sha256(payload).hexdigest()
    config = json.loads(get(f"{url}/blobs/{manifest['config']['digest']}"))
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    signature = base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
    assert openssl_verifies(folder, key, payload, signature)
    value: dict[str, Any] = json.loads(payload)
    assert value["critical"]["image"]["docker-manifest-digest"] == digest
    assert value["critical"]["type"] == "cosign container image signature"
    return value


def cosign_verifies_bundle(url: str, digest: str, key: SigningKey, folder: Path) -> None:
    """What cosign 3 does with a bundle, done again."""
    try:
        index = json.loads(get(f"{url}/referrers/{digest}"))
    except urllib.error.HTTPError as error:
        assert error.code == 404
        error.close()
        tag = digest.replace(":", "-")
        index = json.loads(get(f"{url}/manifests/{tag}", "application/vnd.oci.image.index.v1+json"))
    (entry,) = index["manifests"]
    assert entry["artifactType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert entry["annotations"]["dev.sigstore.bundle.predicateType"] == "https://sigstore.dev/cosign/sign/v1"
    manifest = json.loads(get(f"{url}/manifests/{entry['digest']}", entry["mediaType"]))
    assert manifest["subject"]["digest"] == digest
    bundle = json.loads(get(f"{url}/blobs/{manifest['layers'][0]['digest']}"))
    envelope = bundle["dsseEnvelope"]
    body, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(body)).encode(), body])
    assert openssl_verifies(folder, key, message, base64.b64decode(envelope["signatures"][0]["sig"]))
    assert json.loads(body)["subject"] == [{"digest": {"sha256": digest.removeprefix("sha256:")}}]
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-outform", "DER"],
        input=key.public.to_pem(),
        capture_output=True,
        check=True,
    ).stdout
    hint = base64.b64encode(hashlib.sha256(der).digest()).decode()
    assert bundle["verificationMaterial"]["publicKey"] == {"hint": hint}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_push_brings_signatures_that_others_verify(host: str, tmp_path: Path, store: Store) -> None:
    reference = Reference.parse(f"{host}/team/model:v1")
    digest = put_model(store, str(reference), b"weights").descriptor.digest
    shelf = StoreAttachments(store, reference)
    signed(shelf)
    with RegistryClient() as client:
        push(store, client, reference)
        push(store, client, reference)
        attachments = RegistryAttachments(client.repository(reference), reference)
        found = verify(attachments, digest, [KEY.public], identity=None)
        assert {good.form for good in found} == BOTH
    url = f"http://{host}/v2/team/model"
    payload = cosign_verifies_tag(url, str(digest), KEY, tmp_path)
    assert payload["critical"]["identity"] == {"docker-reference": f"{host}/team/model"}
    cosign_verifies_bundle(url, str(digest), KEY, tmp_path)


def test_signing_at_the_registry_and_fetching_it_from_there(host: str, tmp_path: Path, store: Store) -> None:
    reference = Reference.parse(f"{host}/team/model:v1")
    subject = put_model(store, str(reference), b"weights").descriptor
    with RegistryClient() as client:
        push(store, client, reference)
        there = RegistryAttachments(client.repository(reference, writes=True), reference)
        for key in (KEY, OTHER):
            assert sign(there, subject, key, identity=reference.name) == (Form.TAG, Form.BUNDLE)
            assert sign(there, subject, key, identity=reference.name) == ()
        here = StoreAttachments(store, reference)
        assert copy_signatures(there, here, subject.digest) == 4
        assert copy_signatures(there, here, subject.digest) == 0
        assert copy_signatures(here, there, subject.digest) == 0
        for key in (KEY, OTHER):
            for shelf in (here, there):
                assert {good.form for good in verify(shelf, subject.digest, [key.public])} == BOTH
        another = Store.open(tmp_path / "another")
        pull(another, client, reference)
        assert [str(tag.reference) for tag in another.tags()] == [str(reference)]


# Attacks: the attacker may write whatever they like beside the model, but has not the key


def put_tagged(shelf: StoreAttachments, digest: Digest, *layers: tuple[Descriptor, bytes]) -> None:
    manifest, config = make_manifest([layer for layer, _ in layers])
    shelf.write(manifest, [config, *(data for _, data in layers)], attachment_tag(digest, ".sig"))


def put_bundle(shelf: StoreAttachments, bundle: bytes) -> None:
    referrer = make_referrer(bundle, subject_of(shelf), SIGNATURE_PREDICATE, shelf.store.tags()[0].modified)
    shelf.write(referrer, [b"{}", bundle], None)


def refused(shelf: StoreAttachments, reason: str, *, identity: str | None = None) -> None:
    with pytest.raises(SignatureInvalid, match=reason):
        verify(shelf, subject_of(shelf).digest, [KEY.public], identity=identity)


def _payload(shelf: StoreAttachments) -> bytes:
    return make_payload(subject_of(shelf).digest, NAME)


def test_a_signature_for_another_model_is_of_no_use(shelf: StoreAttachments) -> None:
    digest = subject_of(shelf).digest
    other = Digest.of(b"other")
    payload = make_payload(other, NAME)
    put_tagged(shelf, digest, (make_layer(payload, KEY.sign(payload)), payload))
    put_bundle(shelf, make_bundle(make_statement(other, SIGNATURE_PREDICATE, {}), KEY))
    refused(shelf, "for another manifest")


def test_a_signature_for_another_repository(shelf: StoreAttachments) -> None:
    digest = subject_of(shelf).digest
    sign(shelf, subject_of(shelf), KEY, identity="mirror.test/team/model")
    assert len(verify(shelf, digest, [KEY.public])) == 2  # mirrored, and nobody minds
    refused(shelf, f"not for {NAME}", identity=NAME)
    sign(shelf, subject_of(shelf), KEY, identity=NAME)
    (good,) = verify(shelf, digest, [KEY.public], identity=NAME)
    assert (good.form, good.identity) == (Form.TAG, NAME)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p[:-1], "key that counts"),
        (lambda p: p.replace(b"team", b"evil"), "key that counts"),
        (lambda p: b" " + p, "key that counts"),
        (lambda p: b"", "key that counts"),
    ],
    ids=["truncated", "changed", "reformatted", "empty"],
)
def test_a_changed_payload(shelf: StoreAttachments, change: Any, reason: str) -> None:
    payload = _payload(shelf)
    changed = change(payload)
    put_tagged(shelf, subject_of(shelf).digest, (make_layer(changed, KEY.sign(payload)), changed))
    refused(shelf, reason)


SIGNED_NONSENSE = {
    "duplicate keys": b'{"critical":{},"critical":{}}',
    "another type": b'{"critical":{"identity":{"docker-reference":"x"},'
    b'"image":{"docker-manifest-digest":"D"},"type":"x"}}',
    "no digest": b'{"critical":{"identity":{"docker-reference":"x"},"image":{},'
    b'"type":"cosign container image signature"}}',
    "numbers": b'{"critical":{"identity":{"docker-reference":1},'
    b'"image":{"docker-manifest-digest":2},"type":3}}',
    "a list": b"[]",
    "no JSON": b"hello",
    "not UTF-8": b"\xff",
    "depth": b"[" * 5000,
    "huge": b" " * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("payload", SIGNED_NONSENSE.values(), ids=SIGNED_NONSENSE.keys())
def test_signed_nonsense(shelf: StoreAttachments, payload: bytes) -> None:
    """Signed by the right key, but not what it should be: another program's, or a mistake."""
    digest = subject_of(shelf).digest
    payload = payload.replace(b'"D"', f'"{digest}"'.encode())
    put_tagged(shelf, digest, (make_layer(payload, KEY.sign(payload)), payload))
    refused(shelf, "cosign tag: ")


@pytest.mark.parametrize(
    "text", ["", "!", "AAAA", "A" * 100_000, "MEUCIQ==\n", None], ids=lambda text: str(text)[:10]
)
def test_hostile_signature_texts(shelf: StoreAttachments, text: str | None) -> None:
    payload = _payload(shelf)
    annotations = {SIGNATURE: text} if text is not None else {}
    layer = replace(make_layer(payload, b""), annotations=annotations)
    put_tagged(shelf, subject_of(shelf).digest, (layer, payload))
    refused(shelf, "cosign tag: ")


def _bundle(shelf: StoreAttachments, **changes: Any) -> bytes:
    bundle = make_bundle(make_statement(subject_of(shelf).digest, SIGNATURE_PREDICATE, {}), KEY)
    value = json.loads(bundle)
    value["dsseEnvelope"].update({k: v for k, v in changes.items() if k != "mediaType"})
    if "mediaType" in changes:
        value["mediaType"] = changes["mediaType"]
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"mediaType": "application/vnd.dev.sigstore.bundle+json;version=0.1"},
        {"payloadType": "text/plain"},
        {"payload": "e30="},
        {"payload": "no base64"},
        {"payload": None},
        {"signatures": []},
        {"signatures": [{"sig": "AAAA"}]},
        {"signatures": [{"sig": "AAAA"}, {"sig": "AAAA"}]},
        {"signatures": {"sig": "AAAA"}},
        {"signatures": None},
    ],
    ids=str,
)
def test_changed_bundles(shelf: StoreAttachments, changes: dict[str, Any]) -> None:
    put_bundle(shelf, _bundle(shelf, **changes))
    refused(shelf, "sigstore bundle: ")


@pytest.mark.parametrize(
    "statement",
    [
        b"{}",
        b"[]",
        b"hello",
        b'{"_type":"https://in-toto.io/Statement/v1","_type":"https://in-toto.io/Statement/v1"}',
        b'{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://sigstore.dev/cosign/sign/v1"}',
        b'{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://sigstore.dev/cosign/sign/v1",'
        b'"subject":[{"digest":{"sha512":"HEX"}}]}',
        b'{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://sigstore.dev/cosign/sign/v1",'
        b'"subject":[7]}',
        b'{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://slsa.dev/provenance/v1",'
        b'"subject":[{"digest":{"sha256":"HEX"}}]}',
    ],
    ids=["empty", "list", "text", "duplicate", "no-subject", "sha512", "number", "provenance"],
)
def test_signed_statements_that_are_no_signatures(shelf: StoreAttachments, statement: bytes) -> None:
    statement = statement.replace(b"HEX", subject_of(shelf).digest.hex.encode())
    put_bundle(shelf, make_bundle(statement, KEY))
    refused(shelf, "sigstore bundle: ")


@pytest.mark.parametrize(
    "bundle", [b"", b"{}", b"\xff", b" " * 600_000], ids=["empty", "object", "binary", "huge"]
)
def test_bundles_that_are_none(shelf: StoreAttachments, bundle: bytes) -> None:
    put_bundle(shelf, bundle)
    refused(shelf, "sigstore bundle: ")


def test_rubbish_beside_it_hides_no_good_signature(shelf: StoreAttachments) -> None:
    digest = subject_of(shelf).digest
    put_tagged(shelf, digest, *((make_layer(bytes([n]), b"x"), bytes([n])) for n in range(10)))
    put_bundle(shelf, b"{}")
    signed(shelf)
    assert {good.form for good in verify(shelf, digest, [KEY.public])} == BOTH


def test_endless_signatures_are_not_all_looked_at(shelf: StoreAttachments) -> None:
    digest = subject_of(shelf).digest
    put_tagged(shelf, digest, *((make_layer(b"%d" % n, b"x"), b"%d" % n) for n in range(MAX_SIGNATURES * 3)))
    with pytest.raises(SignatureInvalid) as caught:
        verify(shelf, digest, [KEY.public])
    assert len(caught.value.reasons) == MAX_SIGNATURES
    assert len(str(caught.value)) < 500


def test_a_taken_tag_is_said_and_kept(shelf: StoreAttachments) -> None:
    """Under the tag of the signatures is an index, under that of the index a manifest."""
    subject = subject_of(shelf)
    index = Index.build(manifests=[subject])
    shelf.store.tag(
        shelf.reference.with_tag(attachment_tag(subject.digest, ".sig")), shelf.store.put_manifest(index)
    )
    shelf.store.tag(shelf.reference.with_tag(attachment_tag(subject.digest)), subject)
    with pytest.raises(NotSigned):
        verify(shelf, subject.digest, [KEY.public])
    with pytest.raises(LadingError, match="taken by something"):
        signed(shelf)


def test_a_referrer_that_is_no_bundle(shelf: StoreAttachments) -> None:
    subject = subject_of(shelf)
    empty = Descriptor(OCI_EMPTY, Digest.of(b"{}"), 2)
    referrer = Manifest.build(config=empty, layers=[empty, empty], artifact_type=BUNDLE_TYPE, subject=subject)
    shelf.write(referrer, [b"{}"], None)
    refused(shelf, "it is no bundle")


def test_a_damaged_signature_blob(shelf: StoreAttachments) -> None:
    digest = signed(shelf)
    payload = make_payload(digest, NAME)
    path = shelf.store.blob_path(Digest.of(payload))
    path.chmod(0o600)
    path.write_bytes(payload.replace(b"team", b"evil"))
    (good,) = verify(shelf, digest, [KEY.public])
    assert good.form is Form.BUNDLE


# Registries that list referrers, and those that pretend to


MODEL, MODEL_BLOBS = make_model(b"weights")
REFERRERS = rf"/v2/team/m/referrers/{MODEL.digest}"


@pytest.fixture
def scripted() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MODEL, MODEL_BLOBS, "team/m:v1")
        yield running


@contextmanager
def attachments_at(registry: ScriptedRegistry) -> Iterator[RegistryAttachments]:
    reference = Reference.parse(f"{registry.host}/team/m:v1")
    with RegistryClient() as client:
        yield RegistryAttachments(client.repository(reference, writes=True), reference)


def listing(*manifests: Manifest) -> Reply:
    entries = [replace(manifest.descriptor, annotations=manifest.annotations) for manifest in manifests]
    return Reply(200, {"Content-Type": OCI_INDEX}, Index.build(manifests=entries).raw)


def bundle_of(key: SigningKey) -> tuple[Manifest, bytes]:
    bundle = make_bundle(make_statement(MODEL.digest, SIGNATURE_PREDICATE, {}), key)
    return make_referrer(
        bundle, MODEL.descriptor, SIGNATURE_PREDICATE, datetime(2026, 1, 1, tzinfo=UTC)
    ), bundle


def test_a_registry_that_lists_referrers_gets_no_index(scripted: ScriptedRegistry) -> None:
    scripted.on("GET", REFERRERS, listing())
    with attachments_at(scripted) as there:
        sign(there, MODEL.descriptor, KEY, identity="x.test/team/m")
    assert f"sha256-{MODEL.digest.hex}.sig" in {
        seen.path.rpartition("/")[2] for seen in scripted.requests("PUT")
    }
    assert not scripted.requests("PUT", f".*/manifests/sha256-{MODEL.digest.hex}$")


def test_referrers_over_several_pages(scripted: ScriptedRegistry) -> None:
    others, mine = bundle_of(OTHER), bundle_of(KEY)
    for manifest, bundle in (others, mine):
        scripted.add(manifest, (b"{}", bundle), "team/m:x")
    first = listing(others[0])
    first.headers["Link"] = f'<{REFERRERS}?page=2>; rel="next"'
    scripted.on("GET", REFERRERS, lambda seen: listing(mine[0]) if "page=2" in seen.query else first)
    with attachments_at(scripted) as there:
        (good,) = verify(there, MODEL.digest, [KEY.public])
    assert good.form is Form.BUNDLE


@pytest.mark.parametrize("link", ["<http://127.0.0.2:1/v2/x>", "<?artifactType=x>", "<http://[>"])
def test_a_next_page_elsewhere_is_refused(scripted: ScriptedRegistry, link: str) -> None:
    def answer(seen: Seen) -> Reply:
        page = listing()
        page.headers["Link"] = f"{link}; rel=next"
        return page

    scripted.on("GET", REFERRERS, answer)
    with attachments_at(scripted) as there:
        if link.startswith("<?"):  # the same query over and over: it ends all the same
            with pytest.raises(LadingError):
                verify(there, MODEL.digest, [KEY.public])
        else:
            with pytest.raises(LadingError, match="elsewhere"):
                verify(there, MODEL.digest, [KEY.public])
    assert len(scripted.requests("GET", REFERRERS)) <= MAX_PAGES


def test_pages_without_end(scripted: ScriptedRegistry) -> None:
    count = iter(range(10**6))

    def answer(seen: Seen) -> Reply:
        page = listing(*(bundle_of(OTHER)[0] for _ in range(2)))
        page.headers["Link"] = f"<{REFERRERS}?page={next(count)}>; rel=next"
        return page

    scripted.on("GET", REFERRERS, answer)
    with attachments_at(scripted) as there, pytest.raises(SignatureInvalid):
        verify(there, MODEL.digest, [KEY.public])
    assert len(scripted.requests("GET", REFERRERS)) == MAX_PAGES


@pytest.mark.parametrize(
    "reply",
    [Reply(404), Reply(405), Reply(200, {}, b"<html>"), Reply(200, {}, b"{}")],
    ids=["404", "405", "html", "object"],
)
def test_without_referrers_the_tag_is_asked(scripted: ScriptedRegistry, reply: Reply) -> None:
    scripted.on("GET", REFERRERS, lambda seen: reply)
    manifest, bundle = bundle_of(KEY)
    scripted.add(manifest, (b"{}", bundle), "team/m:x")
    index = Index.build(manifests=[manifest.descriptor])
    scripted.on(
        "GET", rf".*/manifests/sha256-{MODEL.digest.hex}", Reply(200, {"Content-Type": OCI_INDEX}, index.raw)
    )
    with attachments_at(scripted) as there:
        assert len(verify(there, MODEL.digest, [KEY.public])) == 1


def test_a_registry_that_refuses_is_not_an_unsigned_model(scripted: ScriptedRegistry) -> None:
    scripted.on("GET", rf".*/manifests/sha256-{MODEL.digest.hex}.sig", error(403, "DENIED"))
    with attachments_at(scripted) as there, pytest.raises(RegistryDenied):
        verify(there, MODEL.digest, [KEY.public])


def test_a_payload_that_is_not_what_it_says(scripted: ScriptedRegistry) -> None:
    payload = make_payload(MODEL.digest, "x.test/team/m")
    manifest, config = make_manifest([make_layer(payload, KEY.sign(payload))])
    scripted.add(manifest, (config, payload), f"team/m:{attachment_tag(MODEL.digest, '.sig')}")
    with attachments_at(scripted) as there:
        assert len(verify(there, MODEL.digest, [KEY.public])) == 1
        scripted.on(
            "GET", rf".*/blobs/{Digest.of(payload)}", Reply(200, {}, payload.replace(b"team", b"evil"))
        )
        with pytest.raises(SignatureInvalid, match="expected sha256:"):
            verify(there, MODEL.digest, [KEY.public])
