"""Which proxy a registry is reached through. Pure.

Source: Go's golang.org/x/net/http/httpproxy, which Docker, Podman and skopeo use: ``NO_PROXY`` lists hosts
(with everything below them), ``.domains`` (only what is below), ``host:port``, addresses, networks such as
``10.0.0.0/8``, and ``*`` for everything. Loopback is never reached through a proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from .origin import Origin


def proxies_for(origin: Origin, proxies: Mapping[str, str], no_proxy: Sequence[str]) -> dict[str, str]:
    """The proxy for each scheme, as `requests` takes them; none where ``origin`` is reached directly."""
    if origin.is_loopback or any(_excludes(entry.strip().lower(), origin) for entry in no_proxy):
        return {}
    return dict(proxies)


def _excludes(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    address = _address(origin.host)
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except (ValueError, TypeError):
            return False
    host, port = _split(entry)
    if not host or (port is not None and port != str(origin.port)):
        return False
    if address is not None:
        return address == _address(host)
    suffix = host.removeprefix("*")
    return (
        origin.host.endswith(suffix) if suffix.startswith(".") else f".{origin.host}".endswith(f".{suffix}")
    )


def _split(entry: str) -> tuple[str, str | None]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":") or None
    host, colon, port = entry.rpartition(":")
    return (host, port) if colon and port.isdigit() and ":" not in host else (entry, None)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
