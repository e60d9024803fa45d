"""Key files: cosign's encrypted private keys, and PEM in general.

cosign's file is a PEM block whose content is JSON: the private key as PKCS #8, in a secret box
(`secretbox.py`) whose key comes from the password by scrypt. `lading key generate` writes such a file,
`cosign` reads it, and the other way round.

A key file is not trusted before it is open: it is bounded, and the cost of scrypt that it asks for must be
one of those that cosign has ever written.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Any

from ...modelfile.errors import LadingError
from ..canonical import canonical_json, strict_json
from ..errors import quoted
from .errors import BadKey, WrongPassword
from .key import PublicKey, SigningKey
from .secretbox import KEY_SIZE, MAX_MESSAGE, NONCE_SIZE, BadBox, seal, unseal

MAX_KEY_FILE = 128 * 1024
"""Bytes."""

MAX_PASSWORD = 1024
"""Bytes."""

SCRYPT_COSTS = (32768, 65536, 131072)
"""N; r is 8 and p is 1. The middle one is written. Source: go-securesystemslib, encrypted, version 0.10."""

_COSIGN_LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----\r?\n(.*?)-----END \1-----", re.DOTALL)

Password = Callable[[], bytes]
"""Asks for the password of a key; called only where there is need of one."""


def read_private_key(data: bytes, password: Password) -> SigningKey:
    """The private key of a file: cosign's, or the first private key in PEM.

    Raises: BadKey, WrongPassword.
    """
    label, block, body = _find_block(data, "PRIVATE KEY")
    if label in _COSIGN_LABELS:
        return _open_cosign_key(body, password)
    if label == "OPENSSH PRIVATE KEY":
        raise BadKey("it is in OpenSSH's own form", hint="ssh-keygen -p -m PKCS8 -f COPY_OF_IT changes it")
    encrypted = label == "ENCRYPTED PRIVATE KEY" or b"Proc-Type: 4,ENCRYPTED" in body
    return SigningKey.from_pem(block, _bounded(password()) if encrypted else None)


def read_public_key(data: bytes) -> PublicKey:
    """The first public key in a PEM file. Raises: BadKey."""
    _, block, _ = _find_block(data, "PUBLIC KEY")
    return PublicKey.from_pem(block)


def encrypt_private_key(key: SigningKey, password: bytes) -> bytes:
    """`key` as cosign's file. The password may be empty; then the file alone is the secret."""
    cost = SCRYPT_COSTS[1]
    salt, nonce = secrets.token_bytes(32), secrets.token_bytes(NONCE_SIZE)
    box = seal(key.to_pkcs8(), _derive(_bounded(password), salt, cost), nonce)
    value = {
        "kdf": {"name": "scrypt", "params": {"N": cost, "r": 8, "p": 1}, "salt": _encode(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _encode(nonce)},
        "ciphertext": _encode(box),
    }
    text = base64.b64encode(canonical_json(value))
    lines = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
    label = _COSIGN_LABELS[0].encode()
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, lines, label)


def _find_block(data: bytes, wanted: str) -> tuple[str, bytes, bytes]:
    """Label, whole text and inner text of the first PEM block whose label ends with `wanted`."""
    if len(data) > MAX_KEY_FILE:
        raise BadKey(f"expected at most {MAX_KEY_FILE} bytes")
    labels = []
    for match in _BLOCK.finditer(data):
        label = match[1].decode("ascii")
        if label.endswith(wanted):
            return label, match[0] + b"\n", match[2]
        labels.append(label)
    there = f", but {quoted(labels[0])}" if labels else ""
    hint = None
    if wanted == "PUBLIC KEY" and any(label.endswith("PRIVATE KEY") for label in labels):
        hint = "the file with the public key ends in .pub; openssl pkey -in KEY -pubout makes one from PEM"
    raise BadKey(f"there is no {wanted.lower()} in PEM{there}", hint=hint)


def _open_cosign_key(body: bytes, password: Password) -> SigningKey:
    try:
        value = strict_json(_decode(body.decode("ascii")), what="key file", limit=MAX_KEY_FILE)
        salt, nonce, box, cost = _read_cosign_key(value)
    except (KeyError, TypeError, UnicodeDecodeError, binascii.Error) as error:
        raise BadKey("the encrypted key is damaged") from error
    except BadKey:
        raise
    except LadingError as error:
        raise BadKey(f"the encrypted key is damaged ({error.message})") from error
    try:
        plain = unseal(box, _derive(_bounded(password()), salt, cost), nonce)
    except BadBox:
        raise WrongPassword from None
    return SigningKey.from_pkcs8(plain)


def _read_cosign_key(value: Any) -> tuple[bytes, bytes, bytes, int]:
    """Salt, nonce, box and cost, each within its bounds.

    Raises: BadKey; KeyError, TypeError, binascii.Error where something is missing or of another type.
    """
    kdf, cipher = value["kdf"], value["cipher"]
    if kdf["name"] != "scrypt" or cipher["name"] != "nacl/secretbox":
        raise BadKey(
            f"{quoted(str(kdf['name']))} with {quoted(str(cipher['name']))} is not how cosign encrypts"
        )
    cost = kdf["params"]["N"]
    if (
        type(cost) is not int
        or cost not in SCRYPT_COSTS
        or (kdf["params"]["r"], kdf["params"]["p"]) != (8, 1)
    ):
        raise BadKey(f"it asks for a scrypt that is not cosign's: expected N of {SCRYPT_COSTS}, r=8, p=1")
    salt, nonce, box = _decode(kdf["salt"]), _decode(cipher["nonce"]), _decode(value["ciphertext"])
    if not 16 <= len(salt) <= 64 or len(nonce) != NONCE_SIZE or not 16 < len(box) <= MAX_MESSAGE:
        raise BadKey("the encrypted key is damaged (a part has the wrong length)")
    return salt, nonce, box, cost


def _derive(password: bytes, salt: bytes, cost: int) -> bytes:
    """Takes 128·N·r bytes of memory while it runs: at most 128 MiB."""
    return hashlib.scrypt(
        password, salt=salt, n=cost, r=8, p=1, maxmem=1024 * cost + (1 << 20), dklen=KEY_SIZE
    )


def _bounded(password: bytes) -> bytes:
    if len(password) > MAX_PASSWORD:
        raise BadKey(f"expected a password of at most {MAX_PASSWORD} bytes")
    return password


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decode(text: str) -> bytes:
    """Base64 with or without line ends, but nothing else. Raises: binascii.Error, TypeError."""
    if not isinstance(text, str):
        raise TypeError("expected text")
    return base64.b64decode("".join(text.split()), validate=True)
