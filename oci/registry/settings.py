"""How to talk to registries: the settings of a `RegistryClient`, with defaults for ordinary use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from ... import __version__
from ..signing.policy import SignaturePolicy
from .origin import Origin

DOCKER_HUB = "docker.io"
DOCKER_HUB_API = "registry-1.docker.io"

HUB_HOSTS = frozenset({"hf.co", "huggingface.co"})
"""Names of Hugging Face's Hub, as registries."""

KNOWN_REALMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        # Token services that belong to a registry although they live on another host.
        DOCKER_HUB_API: ("auth.docker.io",),
        "registry.gitlab.com": ("gitlab.com",),
        "nvcr.io": ("authn.nvidia.com",),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how long to wait: full-jitter exponential backoff between `base_s` and `cap_s`."""

    tries: int = 6
    base_s: float = 0.5
    cap_s: float = 30.0
    retry_after_cap_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Everything that a registry client may be told. Hosts are written ``host`` or ``host:port``;
    without a port they mean every port of that host.

    plain_http: hosts that are spoken to without TLS. Loopback may always be.
    ca_file: PEM file of certificate authorities to trust beside the system's.
    certificate_folders: where certificates of single registries are looked for: see `certificates.py`.
    mirrors: registry, or a path in it → places to pull its models from first: see `mirror.py`.
    realm_hosts: registry host → further hosts that may see its credentials (its token service), beside
    those of `KNOWN_REALMS`.
    upload_hosts: hosts beside the registry that may be handed uploads, without credentials.
    internal_hosts: hosts that a public registry may send us to although their addresses are private.
    read_timeout_s: longest silence in a body; commit_timeout_s: longest wait for a finished upload to be
    accepted (a registry may hash or copy the whole blob first).
    proxies: scheme → proxy URL, as `requests` takes them; which hosts are reached without: see `proxy.py`.
    parallel: how many connections move blobs at once.
    part_size: bytes; larger blobs are fetched in parts of this size, over several connections.
    chunk_size: bytes of one PATCH, where a registry does not take a blob in one piece.
    download_rate, upload_rate: bytes a second over all connections together; 0 means no bound.
    hub: the URL of Hugging Face's Hub, which `HUB_HOSTS` are names of.
    signatures: which models must be signed to be pulled.
    """

    plain_http: tuple[str, ...] = ()
    ca_file: Path | None = None
    certificate_folders: tuple[Path, ...] = ()
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    realm_hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    upload_hosts: tuple[str, ...] = ()
    internal_hosts: tuple[str, ...] = ()
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    commit_timeout_s: float = 900.0
    user_agent: str = f"lading/{__version__}"
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)  # a URL may hold a password
    no_proxy: tuple[str, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    parallel: int = 4
    part_size: int = 64 * 1024 * 1024
    chunk_size: int = 64 * 1024 * 1024
    download_rate: int = 0
    upload_rate: int = 0
    hub: str = "https://huggingface.co"
    signatures: SignaturePolicy = field(default_factory=SignaturePolicy)

    def allows_plain_http(self, origin: Origin) -> bool:
        """Whether this host may be spoken to without TLS."""
        return origin.is_loopback or listed(origin, self.plain_http)

    def may_be_internal(self, origin: Origin) -> bool:
        """Whether a host may have a private address although a public registry named it."""
        return listed(origin, self.internal_hosts) or listed(origin, self.plain_http)

    def trusts_realm(self, registry: Origin, realm: Origin) -> bool:
        """Whether the registry's credentials may be shown to the realm.

        Only the very origin of the registry, or a host that is bound to it by configuration, may see
        them: a realm is named by the server, so it is no evidence of anything.
        """
        if realm == registry:
            return True
        bound = [
            host
            for table in (KNOWN_REALMS, self.realm_hosts)
            for name in {registry.netloc, registry.host}
            for host in table.get(name, ())
        ]
        encrypted = realm.scheme == "https" or registry.scheme == "http"
        return encrypted and listed(realm, bound)


def listed(origin: Origin, hosts: Sequence[str]) -> bool:
    """Whether `hosts` names this origin, with its port or without any."""
    names = {origin.host, origin.netloc, f"{origin.host}:{origin.port}"}
    if ":" in origin.host:
        names |= {f"[{origin.host}]", f"[{origin.host}]:{origin.port}"}
    return any(host.lower() in names for host in hosts)
