"""Origins: whom a URL talks to. Every rule about credentials, redirects and plain HTTP is stated on them.

Source: RFC 6454 (scheme, host and port); the address classes are IANA's special-purpose registries,
as `ipaddress` knows them, plus those that only wrap another address (IPv4-mapped, NAT64, 6to4).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from ...modelfile.errors import InputError

MAX_URL_LENGTH = 16 * 1024  # signed storage URLs reach a few KiB

_DEFAULT_PORT = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_ALSO_INTERNAL = tuple(
    # Special-purpose blocks that some versions of `ipaddress` still call global.
    ipaddress.ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/23", "5f00::/16")
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadUrl(InputError):
    """A URL that is never followed: the wrong scheme, user information, no host, odd characters."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower case, IPv6 without brackets) and port of a URL."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of an absolute http(s) URL. Raises: BadUrl."""
        _require_plain(url)
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
        except ValueError as error:
            raise BadUrl(f"reading a URL: {error}") from None
        if scheme not in _DEFAULT_PORT:
            raise BadUrl(f"reading a URL: expected http or https, got {scheme or 'no scheme'!r}")
        if parts.username is not None or parts.password is not None:
            raise BadUrl("reading a URL: expected no user name or password in it")
        if not host or not _HOST.fullmatch(host):
            raise BadUrl(f"reading a URL: expected a host name, got {host!r}")
        return cls(scheme, host.lower().rstrip("."), port if port is not None else _DEFAULT_PORT[scheme])

    @property
    def netloc(self) -> str:
        """``host`` or ``host:port``, the port only when it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host can only be this machine. A name that merely resolves so does not count."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        address = _address(self.host)
        return address is not None and _unwrapped(address).is_loopback

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


def resolve(base: str, location: str) -> str:
    """The absolute URL that a Location header means, the fragment removed. Raises: BadUrl."""
    location = location.strip(" \t")
    _require_plain(location)  # before joining, which silently drops line breaks
    try:
        url = urljoin(base, location)
    except ValueError as error:
        raise BadUrl(f"reading a URL: {error}") from None
    url = url.partition("#")[0]
    Origin.of(url)
    return url


def _require_plain(url: str) -> None:
    if len(url) > MAX_URL_LENGTH:
        raise BadUrl(f"reading a URL: expected at most {MAX_URL_LENGTH} characters, got {len(url)}")
    if any(ord(c) <= 0x20 or ord(c) >= 0x7F for c in url) or "\\" in url:
        raise BadUrl("reading a URL: expected printable ASCII without spaces")


def is_internal(address: str) -> bool:
    """Whether an IP address belongs to no public host: loopback, private, link-local, shared, reserved,
    multicast, or an IPv6 form that wraps such an address. What is no address counts as internal."""
    parsed = _address(address.partition("%")[0])
    if parsed is None:
        return True
    parsed = _unwrapped(parsed)
    if any(parsed in network for network in _ALSO_INTERNAL if network.version == parsed.version):
        return True
    return not parsed.is_global or parsed.is_multicast


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _unwrapped(address: _Address) -> _Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
