"""Model names as clients write them, and back."""

from __future__ import annotations

from dataclasses import dataclass

from ..oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, Reference


@dataclass(frozen=True, slots=True)
class Names:
    """What completes a bare name."""

    registry: str = DEFAULT_REGISTRY
    namespace: str = DEFAULT_NAMESPACE

    def parse(self, text: str) -> Reference:
        """Raises: BadReference."""
        return Reference.parse(text.strip(), default_registry=self.registry, default_namespace=self.namespace)

    def short(self, reference: Reference) -> str:
        """The shortest name that `parse` reads as `reference`."""
        return reference.shortened(self.registry, self.namespace)
