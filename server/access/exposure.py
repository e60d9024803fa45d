"""What a server that listens beyond its own machine must have: a key, so that not everybody is served, and
TLS, so that the key is not read on the way.
"""

from __future__ import annotations

from ...modelfile.errors import UsageError
from ..origin import is_loopback
from ..settings import ServerSettings
from .key_ring import KeyRing


class Exposed(UsageError):
    """The server would be open to the network. ``missing`` says what it lacks."""

    def __init__(self, host: str, missing: str, hint: str) -> None:
        super().__init__(f"listening on {host}, beyond this machine: expected {missing}", hint=hint)
        self.host, self.missing = host, missing


def require_protection(settings: ServerSettings) -> None:
    """Raises: Exposed; BadKeyFile or BadKey where keys cannot be read."""
    ring = KeyRing(settings.api_keys, settings.api_key)
    if is_loopback(settings.host) or settings.insecure_no_auth:
        return
    certified = settings.tls is not None and settings.tls.client_ca is not None
    if not ring.required() and not certified:
        raise Exposed(
            settings.host,
            "API keys, got none",
            "`lading apikey create NAME` makes one; --insecure-no-auth serves whoever can reach the address",
        )
    if settings.tls is None and not settings.behind_proxy:
        raise Exposed(
            settings.host,
            "TLS, which keeps keys from being read on the way",
            "give --tls-cert and --tls-key, or --behind-proxy where a proxy in front of the server has TLS",
        )
