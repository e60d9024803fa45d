"""Who may talk to a server on this machine: the rules on ``Host`` and ``Origin``.

A page of any web site can send requests to 127.0.0.1; and with a name of its own that it points there (DNS
rebinding) it can even read the answers. The Origin rule stops the first, the Host rule the second.

Source: Ollama's allow list and host filter.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0"})
_APP_SCHEMES = frozenset({"app", "file", "tauri", "vscode-webview", "vscode-file"})
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@]*)", re.ASCII)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::([0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class OriginRules:
    """Which web origins may use the server. `patterns` may hold one ``*`` each."""

    patterns: tuple[str, ...] = ()

    def allows(self, origin: str, host: str) -> bool:
        """Whether a request with this ``Origin`` to this ``Host`` goes through."""
        origin = origin.lower()
        if origin in (f"http://{host.lower()}", f"https://{host.lower()}"):
            return True
        parts = _ORIGIN.fullmatch(origin)
        if parts is None:
            return "*" in self.patterns
        scheme, place = parts.groups()
        if scheme in _APP_SCHEMES:
            return True
        if scheme in ("http", "https"):
            name, port_ok = split_host(place)
            if port_ok and name in _LOCAL_HOSTS:
                return True
        return any(_matches(pattern.lower(), origin) for pattern in self.patterns)

    @property
    def everything(self) -> bool:
        """Whether ``*`` was asked for, so that answers may say ``*`` too."""
        return "*" in self.patterns


@dataclass(frozen=True, slots=True)
class HostRules:
    """Which ``Host`` names are this machine's. Asked while listening on loopback, and elsewhere once names
    have been given: nobody else knows how a machine is called on its network."""

    asked: bool
    names: Collection[str] = frozenset()

    @classmethod
    def of(cls, bind_host: str, extra: Sequence[str] = ()) -> HostRules:
        """The rules for a server bound to `bind_host`."""
        names = (*extra, bind_host.strip("[]"), socket.gethostname())
        return cls(is_loopback(bind_host) or bool(extra), frozenset(name.lower() for name in names))

    def allows(self, host: str) -> bool:
        if not self.asked:
            return True
        name, port_ok = split_host(host)
        if not port_ok:
            return False
        if name in ("", "localhost") or name in self.names or name.endswith(_LOCAL_SUFFIXES):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or address.is_private or address.is_unspecified


def split_host(host: str) -> tuple[str, bool]:
    """The lower-case name without its port, and whether the whole is well formed."""
    parts = _HOST.fullmatch(host)
    if parts is None:
        return "", False
    return parts.group(1).lower(), parts.group(2) is None or int(parts.group(2)) <= 65535


def _matches(pattern: str, origin: str) -> bool:
    if pattern == "*":
        return True
    before, star, after = pattern.partition("*")
    if not star:
        return origin == pattern
    return len(origin) >= len(before) + len(after) and origin.startswith(before) and origin.endswith(after)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
