"""Which registries clients may have the server talk to, by the names of models.

A server can reach what its clients cannot: itself, its network, its cloud's metadata. So what a client names
is looked at before anything is sent. Names that merely resolve to such addresses are not refused: that is
how companies name their registries.

Source: CVE-2026-5530 (Ollama) and CVE-2026-33990 (Docker Model Runner), requests that servers were made to
send.
"""

from __future__ import annotations

import ipaddress
import re

from ..modelfile.errors import InputError
from ..oci.reference import Reference
from ..oci.registry.origin import Origin, is_internal
from .origin import is_loopback
from .settings import ServerSettings

_NUMERIC = re.compile(r"(?:0x[0-9a-f]+|[0-9]+)(?:\.(?:0x[0-9a-f]+|[0-9]+)){0,3}")
"""What the C library reads as an IPv4 address, in whatever notation."""
_METADATA = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})


class RegistryForbidden(InputError):
    """A client names a registry that this server does not talk to for its clients."""

    registry: str

    def __init__(self, registry: str) -> None:
        super().__init__(
            f"reaching {registry}: this server talks to no such address for its clients",
            hint="whoever runs the server can name it in `internal_registries` or `insecure_registries`",
        )
        self.registry = registry


def require_reachable(reference: Reference, settings: ServerSettings, default_registry: str) -> None:
    """Nothing, or the refusal.

    Loopback and private addresses are for clients on this machine: they could reach them by themselves. So
    they are refused where others can be clients, unless the settings name the registry.

    Raises: RegistryForbidden.
    """
    origin = Origin.of(f"https://{reference.registry}")
    if reference.registry == default_registry or settings.registries.may_be_internal(origin):
        return
    local = is_loopback(settings.host) and not settings.behind_proxy
    if _is_odd(origin.host) or (not local and _is_of_this_network(origin)):
        raise RegistryForbidden(reference.registry)


def _is_odd(host: str) -> bool:
    """No registry is there, whoever asks: metadata services, broadcasts, addresses in disguise."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in _METADATA or _NUMERIC.fullmatch(host) is not None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return True
    # Some call all of 127.0.0.0/8 reserved, too.
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (address.is_reserved and not address.is_loopback)
    )


def _is_of_this_network(origin: Origin) -> bool:
    if origin.is_loopback:
        return True
    try:
        ipaddress.ip_address(origin.host)
    except ValueError:
        return False
    return is_internal(origin.host)
