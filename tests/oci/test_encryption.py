"""Encrypted layers: for the holders of a key, there and back, and as skopeo has them."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from registry_clients import impatient_client
from registry_server import INSTALLED, WHY_NOT, running_registry
from store_models import put_model
from store_oracle import assert_nothing_lost, snapshot

from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.encryption.errors import BadEncryption, Encrypted, KeyUnfit, NoKeyFits
from lading.oci.encryption.jwe import seal, unseal
from lading.oci.encryption.marks import SUFFIX, is_encrypted
from lading.oci.encryption.model_encryption import KEYS, PUBLIC, decrypt, encrypt
from lading.oci.errors import DigestMismatch
from lading.oci.manifest import Manifest
from lading.oci.model import read_model
from lading.oci.reference import Reference
from lading.oci.signing.key import KeyKind, SigningKey
from lading.oci.store import Store
from lading.oci.transfer import push

SKOPEO = shutil.which("skopeo")
WEIGHTS = os.urandom((3 << 20) + 17)
RSA, EC, OTHER = (SigningKey.generate(kind) for kind in (KeyKind.RSA, KeyKind.ECDSA, KeyKind.ECDSA))
NAME = Reference.parse("m")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.open(tmp_path / "store")
    put_model(made, "m", WEIGHTS, b"a template", b"")
    return made


@pytest.mark.parametrize("recipients", [[RSA], [EC], [RSA, EC]], ids=["rsa", "ec", "both"])
def test_what_is_encrypted_is_decrypted_to_the_same_model(store: Store, recipients: list[SigningKey]) -> None:
    plain = store.resolve(NAME)
    before = snapshot(store)
    with store.lease():
        encrypted = encrypt(store, plain, [key.public for key in recipients])
        assert encrypted.config == plain.config
        for layer, was in zip(encrypted.layers, plain.layers, strict=True):
            assert layer.media_type == was.media_type + SUFFIX
            assert layer.size == was.size
            if was.size:
                assert layer.digest != was.digest
                assert str(was.digest) not in json.dumps(layer.to_json()), "the plain digest is a secret"
        for key in recipients:
            assert decrypt(store, encrypted, [OTHER, key]) == plain
        with pytest.raises(NoKeyFits):
            decrypt(store, encrypted, [OTHER])
        with pytest.raises(Encrypted, match="encrypted"):
            read_model(store, encrypted)
    assert_nothing_lost(store.root, before)


def test_a_store_without_the_plain_layers_gets_them_back(store: Store, tmp_path: Path) -> None:
    plain = store.resolve(NAME)
    with store.lease():
        encrypted = encrypt(store, plain, [EC.public])
        for layer in plain.layers[:2]:
            (store.root / "blobs" / "sha256" / layer.digest.hex).unlink()
        assert decrypt(store, encrypted, [EC]) == plain
    assert store.read_blob(plain.layers[0].digest, limit=1 << 30) == WEIGHTS


def test_keys_that_only_sign_cannot_encrypt(store: Store) -> None:
    with pytest.raises(KeyUnfit, match="Ed25519"), store.lease():
        encrypt(store, store.resolve(NAME), [SigningKey.generate(KeyKind.ED25519).public])


def _annotated(manifest: Manifest, **changes: str) -> Manifest:
    value = json.loads(manifest.raw)
    value["layers"][0]["annotations"] |= {KEYS: changes.get("keys", value["layers"][0]["annotations"][KEYS])}
    value["layers"][0]["annotations"] |= {
        PUBLIC: changes.get("public", value["layers"][0]["annotations"][PUBLIC])
    }
    return Manifest.parse(json.dumps(value).encode())


def _json64(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def _sealed(value: object) -> str:
    return base64.b64encode(seal(json.dumps(value).encode(), [EC.public])).decode()


GOOD_KEY = {"symkey": base64.b64encode(bytes(32)).decode(), "digest": str(Digest.of(b"x"))}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"keys": ""}, NoKeyFits),
        ({"keys": "%%%"}, NoKeyFits),
        ({"keys": "e30="}, NoKeyFits),
        ({"keys": _json64({"protected": 5, "iv": [], "tag": None})}, NoKeyFits),
        ({"keys": _json64([1, 2])}, NoKeyFits),
        ({"keys": _sealed([])}, BadEncryption),
        (
            {"keys": _sealed({"symkey": "AA==", "digest": "x", "cipheroptions": {"nonce": "AA=="}})},
            BadEncryption,
        ),
        ({"keys": _sealed(GOOD_KEY)}, BadEncryption),
        (
            {"keys": _sealed(GOOD_KEY | {"cipheroptions": {"nonce": base64.b64encode(bytes(16)).decode()}})},
            BadEncryption,
        ),
        ({"public": "e30="}, BadEncryption),
        ({"public": _json64({"cipher": "ROT13", "hmac": "AA==", "cipheroptions": {}})}, BadEncryption),
        (
            {"public": _json64({"cipher": "AES_256_CTR_HMAC_SHA256", "hmac": "AA==", "cipheroptions": {}})},
            BadEncryption,
        ),
    ],
)
def test_hostile_annotations(store: Store, changes: dict[str, str], error: type[Exception]) -> None:
    plain = store.resolve(NAME)
    with store.lease():
        encrypted = encrypt(store, plain, [EC.public])
        (store.root / "blobs" / "sha256" / plain.layers[0].digest.hex).unlink()
        with pytest.raises(error):
            decrypt(store, _annotated(encrypted, **changes), [EC])
    assert not store.has(plain.layers[0].digest)
    assert not list((store.root / "ingest").iterdir())


def test_a_swapped_layer_is_noticed(store: Store) -> None:
    plain = store.resolve(NAME)
    with store.lease():
        encrypted = encrypt(store, plain, [EC.public])
        (store.root / "blobs" / "sha256" / plain.layers[0].digest.hex).unlink()
        other = store.put_bytes(os.urandom(len(WEIGHTS)))
        value = json.loads(encrypted.raw)
        value["layers"][0]["digest"] = str(other)
        with pytest.raises(BadEncryption, match="authentication code"):
            decrypt(store, Manifest.parse(json.dumps(value).encode()), [EC])


@pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
def test_a_message_is_opened_by_its_recipient_only(key: SigningKey) -> None:
    message = seal(b"secret", [key.public])
    assert unseal(message, key) == b"secret"
    assert unseal(message, OTHER) is None
    for position in range(0, len(message), 41):  # no damage passes, and none raises
        damaged = message[:position] + bytes([message[position] ^ 1]) + message[position + 1 :]
        assert unseal(damaged, key) in (None, b"secret")


def _pem(key: SigningKey, path: Path) -> Path:
    der = path.with_suffix(".der")
    der.write_bytes(key.to_pkcs8())
    subprocess.run(["openssl", "pkey", "-inform", "DER", "-in", der, "-out", path], check=True)
    return path


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
@pytest.mark.skipif(not INSTALLED, reason=WHY_NOT)
@pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
def test_skopeo_decrypts_what_we_encrypt(store: Store, key: SigningKey, tmp_path: Path) -> None:
    assert SKOPEO is not None
    plain = store.resolve(NAME)
    with running_registry(tmp_path / "registry") as registry, impatient_client() as client:
        target = Reference.parse(f"{registry.host}/secret/m:v1")
        with store.lease():
            encrypted = encrypt(store, plain, [OTHER.public, key.public])
            push(store, client, NAME, target=target, manifest=encrypted)
        private = _pem(key, tmp_path / "key.pem")
        done = subprocess.run(
            [
                *(SKOPEO, "copy", "--src-tls-verify=false", f"--decryption-key={private}"),
                *(f"docker://{target}", f"oci:{tmp_path / 'out'}:m"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    got = Store.open(tmp_path / "out").tags()
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    written = json.loads((tmp_path / "out" / "blobs" / "sha256" / digest).read_text())
    assert [layer["digest"] for layer in written["layers"]] == [str(layer.digest) for layer in plain.layers]
    assert [layer["mediaType"] for layer in written["layers"]] == [
        layer.media_type for layer in plain.layers
    ], got


@pytest.mark.skipif(SKOPEO is None, reason="skopeo is not installed")
@pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
def test_we_decrypt_what_skopeo_encrypts(key: SigningKey, tmp_path: Path) -> None:
    """skopeo encrypts images only."""
    assert SKOPEO is not None
    store = Store.open(tmp_path / "store")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    layer = store.put_bytes(WEIGHTS)
    config["rootfs"]["diff_ids"] = [str(layer)]  # type: ignore[index]  # a literal
    data = json.dumps(config).encode()
    image = Manifest.build(
        config=Descriptor("application/vnd.oci.image.config.v1+json", store.put_bytes(data), len(data)),
        layers=[Descriptor("application/vnd.oci.image.layer.v1.tar", layer, len(WEIGHTS))],
    )
    store.tag(Reference.parse("image"), store.put_manifest(image))
    (tmp_path / "key.pub").write_bytes(key.public.to_pem())
    subprocess.run(
        [
            *(SKOPEO, "copy", f"--encryption-key=jwe:{tmp_path / 'key.pub'}"),
            *(
                f"oci:{store.root}:registry.ollama.ai/library/image:latest",
                f"oci:{tmp_path / 'out'}:m:latest",
            ),
        ],
        check=True,
        capture_output=True,
    )
    out = Store.open(tmp_path / "out")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    manifest = out.read_manifest(replace(Descriptor.from_json(index["manifests"][0]), annotations={}))
    assert isinstance(manifest, Manifest) and is_encrypted(manifest)
    with out.lease():
        plain = decrypt(out, manifest, [key])
    assert [layer.media_type for layer in plain.layers] == ["application/vnd.oci.image.layer.v1.tar+gzip"]
    assert gzip.decompress(out.read_blob(plain.layers[0].digest, limit=1 << 30)) == WEIGHTS


def test_damaged_ciphertext_is_noticed(store: Store) -> None:
    """A registry cannot change a byte: digest, authentication code and plain digest all say so."""
    plain = store.resolve(NAME)
    with store.lease():
        encrypted = encrypt(store, plain, [EC.public])
        path = store.root / "blobs" / "sha256" / encrypted.layers[0].digest.hex
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(data)
        (store.root / "blobs" / "sha256" / plain.layers[0].digest.hex).unlink()
        with pytest.raises((BadEncryption, DigestMismatch)):
            decrypt(store, encrypted, [EC])
