"""Certificates for tests: an authority, and what it signs for servers and clients."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


@dataclass
class Authority:
    """Signs certificates; its own is in ``folder/ca.crt``."""

    folder: Path
    name: str = "lading tests"
    _key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._write(self._built(self.name, self._key).add_extension(constraints, critical=True), "ca.crt")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, *, client: bool = False, password: bytes | None = None) -> Issued:
        """For a server of that name or address, or for a client that is called so."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = self._built(name, key).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if not client:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name)]), critical=False)
        stem = f"{'client' if client else 'server'}-{name}"
        self._write(builder, f"{stem}.cert")
        protection = (
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        )
        (self.folder / f"{stem}.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
        )
        return Issued(self.folder / f"{stem}.cert", self.folder / f"{stem}.key")

    def _built(self, name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _write(self, builder: x509.CertificateBuilder, name: str) -> None:
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
