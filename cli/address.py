"""Addresses of servers as people write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from ..modelfile.errors import UsageError


class BadAddress(UsageError):
    """A text that should name a host and port does not."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"reading the address {text!r}: expected host:port, such as 127.0.0.1:11434")


def parse_address(text: str, *, default_port: int) -> tuple[str, int]:
    """``host``, ``host:port``, ``:port``, ``[::1]:port`` or a URL as host and port.

    As in Ollama's OLLAMA_HOST, a scheme without a port means that scheme's port.

    >>> parse_address("0.0.0.0", default_port=11434)
    ('0.0.0.0', 11434)
    >>> parse_address(":8080", default_port=11434), parse_address("http://box", default_port=11434)
    (('127.0.0.1', 8080), ('box', 80))

    Raises: BadAddress.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except ValueError:
        raise BadAddress(text) from None
    if separator and scheme not in ("http", "https"):
        raise BadAddress(text)
    if port is None:
        port = {"http": 80, "https": 443}.get(scheme, default_port)
    host = parts.hostname or "127.0.0.1"
    if parts.username or any(character.isspace() for character in host):
        raise BadAddress(text)
    return host, port
