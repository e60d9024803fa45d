"""What the routes work with: made once for each web process, handed to every resource."""

from __future__ import annotations

from dataclasses import dataclass

from ..oci.store import Store
from ..runtime.inference import Inference
from .catalogue import Catalogue
from .names import Names
from .settings import ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    settings: ServerSettings
    store: Store
    inference: Inference
    catalogue: Catalogue
    names: Names
    version: str
    """Lading's own."""
