"""JSON Web Encryption, as far as ocicrypt uses it: a few bytes, for the holders of one or several keys.

The content is encrypted with AES-256-GCM; its key is wrapped for each recipient, with RSA-OAEP for RSA keys
and ECDH-ES+A256KW for elliptic curves. Source: RFC 7516, sections 7.2 and 5; RFC 7518, sections 4.3, 4.6 and
5.3; ocicrypt, keywrap/jwe.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from ...modelfile.errors import LadingError
from ..canonical import canonical_json, strict_json
from ..signing.key import PublicKey, SigningKey
from .errors import KeyUnfit

MAX_MESSAGE = 256 * 1024
"""Bytes. A message for one recipient has about one KiB."""
MAX_RECIPIENTS = 64

_ENCRYPTION = "A256GCM"
_RSA, _RSA_SHA256, _EC = "RSA-OAEP", "RSA-OAEP-256", "ECDH-ES+A256KW"
_KEY_SIZE, _IV_SIZE, _TAG_SIZE = 32, 12, 16
_CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {_RSA: hashes.SHA1(), _RSA_SHA256: hashes.SHA256()}


def seal(content: bytes, recipients: Sequence[PublicKey]) -> bytes:
    """A message with ``content`` that each of the recipients can open.

    Raises: KeyUnfit for keys that can only sign.
    """
    key = os.urandom(_KEY_SIZE)
    wrapped = [_wrap(key, recipient) for recipient in recipients]
    if len(wrapped) == 1:
        header, encrypted = wrapped[0]
        protected = _encode(canonical_json({"enc": _ENCRYPTION, **header}))
        members: dict[str, Any] = {"encrypted_key": _encode(encrypted)}
    else:
        protected = _encode(canonical_json({"enc": _ENCRYPTION}))
        members = {
            "recipients": [
                {"header": header, "encrypted_key": _encode(encrypted)} for header, encrypted in wrapped
            ]
        }
    iv = os.urandom(_IV_SIZE)
    sealed = AESGCM(key).encrypt(iv, content, protected.encode("ascii"))
    return canonical_json(
        {
            "protected": protected,
            **members,
            "iv": _encode(iv),
            "ciphertext": _encode(sealed[:-_TAG_SIZE]),
            "tag": _encode(sealed[-_TAG_SIZE:]),
        }
    )


def unseal(message: bytes, key: SigningKey) -> bytes | None:
    """The content of a message; None where it is no message, or not for the holder of this key."""
    try:
        value = strict_json(message, what="message", limit=MAX_MESSAGE)
        protected = str(value["protected"])
        shared = json.loads(_decode(protected))
        iv, tag = _decode(value["iv"]), _decode(value["tag"])
        if len(iv) != _IV_SIZE or len(tag) != _TAG_SIZE:
            return None
        ciphertext = _decode(value["ciphertext"])
        for recipient in value.get("recipients", [value])[:MAX_RECIPIENTS]:
            header = {**recipient.get("header", {}), **shared}
            if header.get("enc") != _ENCRYPTION:
                return None
            content_key = _unwrap(header, _decode(recipient["encrypted_key"]), key)
            if content_key is not None:
                sealed = ciphertext + tag
                return AESGCM(content_key).decrypt(iv, sealed, protected.encode("ascii"))
    except (LadingError, KeyError, TypeError, AttributeError, ValueError, InvalidTag, UnsupportedAlgorithm):
        return None  # whatever it is, it is no message for us
    return None


def _wrap(content_key: bytes, recipient: PublicKey) -> tuple[dict[str, Any], bytes]:
    """The header that says how, and the wrapped key."""
    key = serialization.load_der_public_key(recipient.der)
    if isinstance(key, rsa.RSAPublicKey):
        return {"alg": _RSA}, key.encrypt(content_key, _oaep(_RSA))
    if isinstance(key, ec.EllipticCurvePublicKey):
        ephemeral = ec.generate_private_key(key.curve)
        secret = _agree(ephemeral.exchange(ec.ECDH(), key))
        header = {"alg": _EC, "epk": _point_to_json(ephemeral.public_key())}
        return header, keywrap.aes_key_wrap(secret, content_key)
    raise KeyUnfit(recipient.kind)


def _unwrap(header: dict[str, Any], encrypted: bytes, key: SigningKey) -> bytes | None:
    """The content's key; None where it is wrapped for somebody else."""
    private = serialization.load_der_private_key(key.to_pkcs8(), None)
    algorithm = header.get("alg")
    if isinstance(private, rsa.RSAPrivateKey) and algorithm in _HASHES:
        try:
            content_key = private.decrypt(encrypted, _oaep(algorithm))
        except ValueError:
            return None
        return content_key if len(content_key) == _KEY_SIZE else None
    if isinstance(private, ec.EllipticCurvePrivateKey) and algorithm == _EC:
        point = _point_from_json(header["epk"])
        if point.curve.name != private.curve.name:
            return None
        secret = _agree(private.exchange(ec.ECDH(), point), apu=header.get("apu"), apv=header.get("apv"))
        try:
            return keywrap.aes_key_unwrap(secret, encrypted)
        except keywrap.InvalidUnwrap:
            return None
    return None


def _agree(secret: bytes, *, apu: str | None = None, apv: str | None = None) -> bytes:
    """The wrapping key from the shared secret. Source: RFC 7518, section 4.6.2."""
    parts = [_EC.encode("ascii"), _decode(apu or ""), _decode(apv or "")]
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    info += (_KEY_SIZE * 8).to_bytes(4, "big")
    return ConcatKDFHash(hashes.SHA256(), _KEY_SIZE, info).derive(secret)


def _oaep(algorithm: str) -> padding.OAEP:
    digest = _HASHES[algorithm]
    return padding.OAEP(padding.MGF1(digest), digest, None)


def _point_to_json(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    name = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
    size = (key.curve.key_size + 7) // 8
    numbers = key.public_numbers()
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    return {"crv": name, "kty": "EC", "x": _encode(x), "y": _encode(y)}


def _point_from_json(value: dict[str, Any]) -> ec.EllipticCurvePublicKey:
    """Raises: KeyError, ValueError where it is no point of a known curve."""
    x, y = (int.from_bytes(_decode(value[axis]), "big") for axis in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, _CURVES[value["crv"]]).public_key()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Raises: ValueError where it is not in base64url."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
