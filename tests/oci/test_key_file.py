"""Key files: real ones of cosign's, OpenSSL's in every form, our own, and hostile ones."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lading.oci.signing.errors import BadKey, WrongPassword
from lading.oci.signing.key import KeyKind, SigningKey
from lading.oci.signing.key_file import encrypt_private_key, read_private_key, read_public_key

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

# A key that cosign 2 wrote, with an empty password. Source: sigstore/cosign, pkg/signature/keys_test.go.
COSIGN_KEY = b"""-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJxYVVSY1ppbTN3RE9ZMVlselFGaFdVWHBnMU5tZlAv
YndiM2ZpWE54ck5BPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJMRjNVN3crNXgzWmRvMlNGUkFicE1nY1N5Y2sxN3R1LyJ9LCJj
aXBoZXJ0ZXh0IjoiY2lUQTYrODVWRDdsTlpwRTVLdmpMdjJrTXNZdmtvOHNHV0tq
QTRYZDY2WFRaTUw3UG5xczQ2NloycDRyWGJUdXBlcStwSXlnSXhvS29UVmFHbG9N
RXc9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
COSIGN_PUB = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAFs2AhZmYWkoEsqUf6yotyIwVb5uATpuKK194tq8OkoQ=
-----END PUBLIC KEY-----
"""


def never_asked() -> bytes:
    raise AssertionError("there was no need of a password")


def _cosign_json(data: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.b64decode(b"".join(data.splitlines()[1:-1])))
    return value


def _cosign_pem(value: object) -> bytes:
    body = base64.encodebytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    label = b"ENCRYPTED SIGSTORE PRIVATE KEY"
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, body, label)


def _openssl(*arguments: str | Path, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_a_key_that_cosign_wrote() -> None:
    key = read_private_key(COSIGN_KEY, lambda: b"")
    assert key.public == read_public_key(COSIGN_PUB)
    assert key.public.verifies(b"model", key.sign(b"model"))


def test_the_older_label_is_understood() -> None:
    older = COSIGN_KEY.replace(b"SIGSTORE", b"COSIGN")
    assert read_private_key(older, lambda: b"").public == read_public_key(COSIGN_PUB)


def test_line_ends_of_other_systems_and_text_around_it() -> None:
    text = b"my key:\r\n" + COSIGN_KEY.replace(b"\n", b"\r\n") + b"\r\nend\r\n"
    assert read_private_key(text, lambda: b"").public == read_public_key(COSIGN_PUB)


@pytest.mark.parametrize("kind", [KeyKind.ECDSA, KeyKind.ED25519])
def test_our_own_file(kind: KeyKind) -> None:
    key = SigningKey.generate(kind)
    text = encrypt_private_key(key, b"pass word \xc3\xa9")
    assert read_private_key(text, lambda: b"pass word \xc3\xa9").public == key.public
    value = _cosign_json(text)  # what cosign's own parser asks for
    assert value["kdf"]["name"] == "scrypt" and value["cipher"]["name"] == "nacl/secretbox"
    assert value["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert len(base64.b64decode(value["kdf"]["salt"])) == 32
    assert max(map(len, text.splitlines())) <= 64
    with pytest.raises(WrongPassword):
        read_private_key(text, lambda: b"pass word")


def test_no_key_is_shown() -> None:
    key = SigningKey.generate()
    secret = key.to_pkcs8()
    assert base64.b64encode(secret).decode()[60:100] not in repr(key)
    assert secret.hex()[60:100] not in repr(key)


@needs_openssl
@pytest.mark.parametrize(
    "command",
    [
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521",
        "ecparam -genkey -name prime256v1",  # SEC 1, with a block of parameters before it
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "genrsa -traditional 2048",
        "genpkey -algorithm ED25519",
    ],
    ids=lambda command: "-".join(command.split()[::3]),
)
def test_keys_of_openssl(command: str, tmp_path: Path) -> None:
    pem = _openssl(*command.split())
    key = read_private_key(pem, never_asked)
    public = read_public_key(_openssl("pkey", "-pubout", data=pem))
    assert key.public == public and read_public_key(public.to_pem()) == public
    signature = key.sign(b"message")
    assert public.verifies(b"message", signature)
    assert not public.verifies(b"messagf", signature)
    assert not public.verifies(b"message", signature[:-1])
    assert not public.verifies(b"message", b"")
    (tmp_path / "pub").write_bytes(public.to_pem())
    (tmp_path / "signature").write_bytes(signature)
    (tmp_path / "message").write_bytes(b"message")
    digest = {"P-384": "-sha384", "P-521": "-sha512"}.get(command[-5:], "-sha256")
    how = ["-rawin"] if "25519" in command else ["-rawin", "-digest", digest[1:]]
    files: list[str | Path] = ["-inkey", tmp_path / "pub", "-in", tmp_path / "message"]
    told = _openssl("pkeyutl", "-verify", "-pubin", *how, *files, "-sigfile", tmp_path / "signature")
    assert b"Verified Successfully" in told


@needs_openssl
@pytest.mark.parametrize("form", ["pkcs8", "ec-aes256"])
def test_encrypted_keys_of_openssl(form: str) -> None:
    plain = _openssl("ecparam", "-genkey", "-noout", "-name", "prime256v1")
    how = ("pkcs8", "-topk8", "-v2", "aes256") if form == "pkcs8" else ("ec", "-aes256")
    encrypted = _openssl(*how, "-passout", "pass:secret", data=plain)
    assert (
        read_private_key(encrypted, lambda: b"secret").public == read_private_key(plain, never_asked).public
    )
    for wrong in (b"Secret", b""):
        with pytest.raises(WrongPassword):
            read_private_key(encrypted, lambda wrong=wrong: wrong)  # type: ignore[misc]


@needs_openssl
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("genpkey -algorithm X25519", "do not sign"),
        ("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1", "secp256k1"),
        ("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024", "2048 to 8192 bits, got 1024"),
    ],
    ids=["x25519", "secp256k1", "rsa-1024"],
)
def test_keys_that_are_not_for_this(command: str, reason: str) -> None:
    pem = _openssl(*command.split())
    with pytest.raises(BadKey, match=reason):
        read_private_key(pem, never_asked)
    with pytest.raises(BadKey, match=reason):
        read_public_key(_openssl("pkey", "-pubout", data=pem))


def _with(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = _cosign_json(COSIGN_KEY)
    change(value)
    return _cosign_pem(value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no private key"),
        (b"\0" * 200_000, "at most"),
        (COSIGN_PUB, "no private key"),
        (COSIGN_KEY[:200], "no private key"),
        (_cosign_pem(b"{"), "damaged"),
        (_cosign_pem(b"[]"), "damaged"),
        (_cosign_pem(b"\xff"), "damaged"),
        (_cosign_pem(b"[" * 50_000), "damaged"),
        (_cosign_pem(b'{"kdf":{},"kdf":{}}'), "twice"),
        (_with(lambda v: v["kdf"]["params"].update(N=1 << 40)), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"]["params"].update(N=65536.0)), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"]["params"].update(N=[65536])), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"]["params"].update(N=2)), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"]["params"].update(r=1 << 20)), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"]["params"].update(p=1 << 20)), "scrypt that is not cosign's"),
        (_with(lambda v: v["kdf"].update(name="argon2")), "not how cosign encrypts"),
        (_with(lambda v: v["cipher"].update(name="none")), "not how cosign encrypts"),
        (_with(lambda v: v["kdf"].update(salt="")), "wrong length"),
        (_with(lambda v: v["kdf"].update(salt="!!!!")), "damaged"),
        (_with(lambda v: v["cipher"].update(nonce="AAAA")), "wrong length"),
        (_with(lambda v: v.update(ciphertext="A" * 90_000)), "wrong length"),
        (_with(lambda v: v.update(ciphertext=7)), "damaged"),
        (_with(lambda v: v.pop("kdf")), "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no private key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "OpenSSH"),
    ],
)  # fmt: skip
def test_hostile_private_keys(data: bytes, reason: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadKey, match=reason):
        read_private_key(data, never_asked)
    assert time.monotonic() - began < 2


def test_a_changed_box_is_a_wrong_password() -> None:
    value = _cosign_json(COSIGN_KEY)
    box = bytearray(base64.b64decode(value["ciphertext"]))
    box[-1] ^= 1
    value["ciphertext"] = base64.b64encode(box).decode()
    with pytest.raises(WrongPassword):
        read_private_key(_cosign_pem(value), lambda: b"")


def test_a_password_without_bound_is_refused() -> None:
    with pytest.raises(BadKey, match="password of at most"):
        read_private_key(COSIGN_KEY, lambda: bytes(1 << 20))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no public key"),
        (COSIGN_KEY, "no public key"),
        (COSIGN_PUB.replace(b"MCow", b"MCox"), "no public key in PEM"),
        (COSIGN_PUB + bytes(200_000), "at most"),
    ],
    ids=["empty", "private", "damaged", "long"],
)
def test_hostile_public_keys(data: bytes, reason: str) -> None:
    with pytest.raises(BadKey, match=reason):
        read_public_key(data)
