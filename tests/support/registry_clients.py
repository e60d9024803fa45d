"""Registry clients for tests: impatient ones, which note how long they would have waited."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lading.oci.registry.client import RegistryClient
from lading.oci.registry.credentials import Credential, Credentials, GivenCredentials, NoCredentials
from lading.oci.registry.settings import RegistrySettings

USER, SECRET = "porter", "s3cret-pass"


@dataclass
class Waits:
    """Instead of sleeping, remembers."""

    seconds: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def known_to(host: str, *, username: str = USER, secret: str = SECRET, identity: bool = False) -> Credentials:
    """Credentials for one registry."""
    credential = Credential(
        username=username, secret=secret, identity_token=identity, source="the test's file"
    )
    return GivenCredentials(host, credential)


def impatient_client(
    credentials: Credentials | None = None, *, sleep: Any = None, **settings: Any
) -> RegistryClient:
    """A client that does not wait between attempts."""
    options: dict[str, Any] = {"connect_timeout_s": 5.0, "read_timeout_s": 5.0, **settings}
    return RegistryClient(RegistrySettings(**options), credentials or NoCredentials(), sleep=sleep or Waits())
