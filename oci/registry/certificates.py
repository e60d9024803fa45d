"""Certificates for single registries, where Docker and Podman keep them.

    FOLDER/HOST[:PORT]/NAME.crt     an authority that this registry's certificate may be signed by
    FOLDER/HOST[:PORT]/NAME.cert    our certificate for it, and NAME.key the key to it

Source: Docker's "Verify repository client with certificates"; containers/image ``containers-certs.d(5)``.
The first folder that has the registry counts. What is there but cannot be used is an error and not passed
by: without it, somebody would wonder why a registry refuses what it was given.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...modelfile.errors import InputError
from ..errors import quoted
from .origin import Origin

_MAX_FILES = 64


class BadCertificate(InputError):
    """A file of certificates, or a key, cannot be used. Shows the path, never the content."""

    def __init__(self, path: Path, reason: str, *, hint: str | None = None) -> None:
        self.path = path
        super().__init__(f"reading {quoted(str(path), limit=300)}: {reason}", hint=hint)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What we show to a registry that asks who we are."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class HostCertificates:
    """What is used for one registry beside what holds for all."""

    authorities: tuple[Path, ...] = ()
    clients: tuple[ClientCertificate, ...] = ()

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises: BadCertificate."""
        for path in self.authorities:
            load_authorities(context, path)
        for client in self.clients:
            try:
                # Without a password function, OpenSSL would ask for one on the terminal.
                context.load_cert_chain(client.certificate, client.key, password=lambda: b"")
            except (OSError, ssl.SSLError, ValueError) as error:
                hint = "the key must belong to the certificate, and must not be encrypted"
                raise BadCertificate(client.key, _reason(error), hint=hint) from error


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Lets the context trust the authorities in a PEM file. Raises: BadCertificate."""
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise BadCertificate(
            path, f"certificate authorities cannot be read from it: {_reason(error)}"
        ) from error


def default_folders(environment: Mapping[str, str], home: Path) -> tuple[Path, ...]:
    """Where Podman and Docker look, in this order; they need not exist."""
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    return (
        config / "containers" / "certs.d",
        Path("/etc/containers/certs.d"),
        home / ".docker" / "certs.d",
        Path("/etc/docker/certs.d"),
    )


def find_certificates(folders: Sequence[Path], origin: Origin) -> HostCertificates:
    """Those for a registry; none where no folder has it. Raises: BadCertificate."""
    for folder in folders:
        for name in dict.fromkeys((origin.netloc, f"{origin.host}:{origin.port}")):
            here = folder / name
            try:
                files = sorted(here.iterdir())[:_MAX_FILES]
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise BadCertificate(here, _reason(error)) from error
            return HostCertificates(
                authorities=tuple(path for path in files if path.suffix == ".crt"),
                clients=_clients(files),
            )
    return HostCertificates()


def _clients(files: Sequence[Path]) -> tuple[ClientCertificate, ...]:
    there = set(files)
    found = []
    for path in files:
        if path.suffix == ".cert":
            if path.with_suffix(".key") not in there:
                hint = "authorities have the suffix .crt, our own certificates .cert"
                raise BadCertificate(path, f"its key, {path.stem}.key, is missing", hint=hint)
            found.append(ClientCertificate(path, path.with_suffix(".key")))
        elif path.suffix == ".key" and path.with_suffix(".cert") not in there:
            raise BadCertificate(path, f"its certificate, {path.stem}.cert, is missing")
    return tuple(found)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
    return str(text).replace("_", " ").lower()
