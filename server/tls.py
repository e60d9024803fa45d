"""TLS of the server: its certificate, and the authority whose clients it takes.

Source: RFC 9325 for the versions; Python's own list of ciphers.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from ..modelfile.errors import InputError
from .settings import TlsSettings


class BadCertificate(InputError):
    """A file for TLS is missing, unreadable, or not what it should be."""

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"reading {path} for TLS: {reason}", hint=hint)
        self.path = path


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """What connections are served with: TLS 1.2 or 1.3, HTTP/1.1; with `client_ca`, only for clients that
    show a certificate of it.

    Raises: BadCertificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _require_pem(tls.cert, "CERTIFICATE", "a certificate in PEM, the server's own first")
    _require_pem(tls.key, "PRIVATE KEY", "a private key in PEM")
    try:
        context.load_cert_chain(tls.cert, tls.key, password=_refuse_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(tls.key, f"it is not the key of {tls.cert}") from error
        raise BadCertificate(tls.cert, f"OpenSSL refuses it: {error.reason or error}") from error
    except _Encrypted:
        raise BadCertificate(
            tls.key, "it is encrypted", hint="`openssl pkey -in FILE -out PLAIN` removes the password"
        ) from None
    if tls.client_ca is not None:
        _require_pem(tls.client_ca, "CERTIFICATE", "certificates of authorities in PEM")
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            raise BadCertificate(tls.client_ca, f"OpenSSL refuses it: {error.reason or error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


MAX_PEM_SIZE = 1 << 20


def _require_pem(path: Path, label: str, expected: str) -> None:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PEM_SIZE + 1)
    except OSError as error:
        raise BadCertificate(path, error.strerror or str(error)) from error
    if len(data) > MAX_PEM_SIZE or f"{label}-----".encode() not in data:
        raise BadCertificate(path, f"expected {expected}")


class _Encrypted(Exception):
    """OpenSSL has asked for a password, which it would otherwise ask the terminal for."""


def _refuse_password() -> str:
    raise _Encrypted
