"""A token service for a real registry: signs what is asked for, for one user; strangers may only pull.

Source: the token authentication of distribution 2.8: JSON Web Tokens signed with ES256, the certificate in
the header's ``x5c``.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID
from scripted_registry import Reply, Seen

SERVICE, ISSUER = "registry.test", "issuer.test"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class TokenService:
    """Answers ``GET /token`` (use `answer` as a scripted registry's rule). `life_s`: how long tokens last."""

    username: str
    password: str
    life_s: int = 300
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    granted: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def configuration(self, realm: str, folder: Path) -> str:
        """The ``auth`` section of a registry that believes this service."""
        folder.mkdir(parents=True, exist_ok=True)
        bundle = folder / "issuer.pem"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return (
            "auth:\n  token:\n"
            f"    realm: {realm}\n    service: {SERVICE}\n"
            f"    issuer: {ISSUER}\n    rootcertbundle: {bundle}\n"
        )

    def answer(self, seen: Seen) -> Reply:
        """Grants everything to the user, and pulling to strangers."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if seen.authorization not in {None, f"Basic {pair}"}:
            return Reply(401)
        scopes = seen.parameters.get("scope", [])
        self.granted.append(scopes)
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if seen.authorization else ["pull"]
            access.append({"type": kind, "name": name, "actions": allowed})
        body = {"token": self._sign(access), "expires_in": self.life_s}
        return Reply(body=json.dumps(body).encode())

    def _sign(self, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        claims = {
            "iss": ISSUER, "sub": self.username, "aud": SERVICE, "jti": secrets.token_hex(8),
            "nbf": now - 10, "iat": now, "exp": now + self.life_s, "access": access,
        }  # fmt: skip
        text = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = utils.decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
