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

    def for_runtime(self, text: str) -> str:
        """What the runtime, which completes names by Ollama's defaults, reads as the same model; the
        client's own words where that can be, for they come back in messages. Raises: BadReference.
        """
        reference = self.parse(text)
        return (
            text
            if (self.registry, self.namespace) == (DEFAULT_REGISTRY, DEFAULT_NAMESPACE)
            else str(reference)
        )

    def short(self, reference: Reference) -> str:
        """The shortest name that `parse` reads as `reference`."""
        return reference.shortened(self.registry, self.namespace)
