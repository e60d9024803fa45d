"""Keys that sign and keys that verify: ECDSA on NIST's curves, RSA, Ed25519.

As cosign uses them with a key pair: ECDSA with the hash that belongs to the curve, as DER; RSA with
PKCS #1 v1.5 and SHA-256; Ed25519 as RFC 8032 has it (pure). Verifying also takes SHA-256 with a larger curve,
which older versions of cosign wrote. What cosign calls ed25519ph is another algorithm, and is not verified.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from .errors import BadKey, WrongPassword

RSA_BITS = range(2048, 8192 + 1)
"""What is accepted: smaller is broken, larger takes long to verify for no good."""

_CURVES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


class KeyKind(StrEnum):
    """What can be generated. cosign's own keys are of the first kind."""

    ECDSA = "ecdsa"
    ED25519 = "ed25519"
    RSA = "rsa"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key to verify with. Two are equal when they are the same key, however it was written.

    der: SubjectPublicKeyInfo, RFC 5280.
    """

    der: bytes = field(repr=False)
    kind: str = field(compare=False)
    _key: _PublicKey = field(compare=False, repr=False)

    @classmethod
    def from_pem(cls, data: bytes) -> PublicKey:
        """The key of a PEM block ``PUBLIC KEY``. Raises: BadKey."""
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey("it is no public key in PEM") from error
        return cls._of(key)

    @classmethod
    def _of(cls, key: object) -> PublicKey:
        kind = _kind(key)
        assert isinstance(key, _PublicKey)
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(der, kind, key)

    def __reduce__(self) -> tuple[Any, ...]:
        return PublicKey.from_pem, (self.to_pem(),)  # settings with keys reach other processes

    def to_pem(self) -> bytes:
        """The block ``PUBLIC KEY``."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @property
    def hint(self) -> str:
        """How sigstore bundles name a key: its SHA-256 in base64. A name, and no evidence."""
        return base64.b64encode(hashlib.sha256(self.der).digest()).decode()

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256 for people, as OpenSSH writes it."""
        return f"SHA256:{self.hint.rstrip('=')}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is one of `message` by this key."""
        key = self._key
        if isinstance(key, ec.EllipticCurvePublicKey):
            algorithms = {type(hash_): hash_ for hash_ in (_CURVES[key.curve.name], hashes.SHA256())}
            return any(_ecdsa_verifies(key, message, signature, hash_) for hash_ in algorithms.values())
        try:
            if isinstance(key, rsa.RSAPublicKey):
                key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            else:
                key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key. Its text form shows the public part only."""

    public: PublicKey
    _key: _PrivateKey = field(compare=False, repr=False)

    @classmethod
    def generate(cls, kind: KeyKind = KeyKind.ECDSA) -> SigningKey:
        """A new key: P-256 for ECDSA, 3072 bits for RSA."""
        match kind:
            case KeyKind.ECDSA:
                return cls._of(ec.generate_private_key(ec.SECP256R1()))
            case KeyKind.ED25519:
                return cls._of(ed25519.Ed25519PrivateKey.generate())
            case KeyKind.RSA:
                return cls._of(rsa.generate_private_key(public_exponent=65537, key_size=3072))

    @classmethod
    def from_pem(cls, data: bytes, password: bytes | None = None) -> SigningKey:
        """The key of a PEM block: PKCS #8, SEC 1 (``EC``) or PKCS #1 (``RSA``), encrypted or not.

        Raises: WrongPassword where it is encrypted and `password` is not its own; BadKey.
        """
        try:
            return cls._of(serialization.load_pem_private_key(data, password))
        except TypeError as error:  # a password too many, or none where one is needed
            raise WrongPassword from error
        except (ValueError, UnsupportedAlgorithm) as error:
            if password is not None:
                raise WrongPassword from error
            raise BadKey("it is no private key in PEM") from error

    @classmethod
    def from_pkcs8(cls, data: bytes) -> SigningKey:
        """The key of an unencrypted PKCS #8 structure in DER. Raises: BadKey."""
        try:
            return cls._of(serialization.load_der_private_key(data, None))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadKey("it holds no private key") from error

    @classmethod
    def _of(cls, key: object) -> SigningKey:
        if not isinstance(key, _PrivateKey):
            raise BadKey(f"{type(key).__name__.removesuffix('PrivateKey')} keys do not sign models")
        return cls(PublicKey._of(key.public_key()), key)

    def to_pkcs8(self) -> bytes:
        """PKCS #8 in DER, unencrypted: a secret."""
        return self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """A signature of `message`. ECDSA's is another each time."""
        key = self._key
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key.sign(message, ec.ECDSA(_CURVES[key.curve.name]))
        if isinstance(key, rsa.RSAPrivateKey):
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return key.sign(message)


def _ecdsa_verifies(
    key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    try:
        key.verify(signature, message, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _kind(key: object) -> str:
    """What a public key is, for people. Raises: BadKey for what we do not use."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in _CURVES:
            raise BadKey(f"the curve {key.curve.name} is not one of {', '.join(_CURVES)}")
        return f"ECDSA {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in RSA_BITS:
            raise BadKey(f"expected RSA of {RSA_BITS.start} to {RSA_BITS.stop - 1} bits, got {key.key_size}")
        return f"RSA {key.key_size}"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    raise BadKey(f"{type(key).__name__.removesuffix('PublicKey')} keys do not sign models")
