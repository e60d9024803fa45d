"""What the routes work with: made once for each web process, handed to every resource."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..oci.reference import Reference
from ..oci.store import Store
from ..runtime.inference import Inference
from .catalogue import Catalogue
from .keeper.client import KeeperClient
from .names import Names
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..oci.registry.client import RegistryClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: ServerSettings
    store: Store
    inference: Inference
    keeper: KeeperClient
    catalogue: Catalogue
    names: Names
    version: str
    """Lading's own."""

    def registry_client(self, reference: Reference, *, insecure: bool) -> RegistryClient:
        """A client for one pull or push, to be closed; ``insecure`` allows plain HTTP to its registry.

        Raises: RegistryForbidden.
        """
        from ..oci.registry.client import RegistryClient  # brings requests and oras, which few requests need
        from .registry_reach import require_reachable

        require_reachable(reference, self.settings, self.names.registry)
        settings = self.settings.registries
        if insecure:
            settings = replace(settings, plain_http=(*settings.plain_http, reference.registry))
        return RegistryClient(settings, self.settings.credentials)
