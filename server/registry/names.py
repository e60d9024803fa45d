"""Which model of the store a repository name on the wire means, and the other way round.

The store names models by full references; a client of our registry names them by path and tag only. The rule:

    on the wire                     in the store
    ─────────────────────────────   ─────────────────────────────────────────
    mymodel:latest                  <default registry>/library/mymodel:latest
    library/mymodel:latest          <default registry>/library/mymodel:latest
    team/mymodel:v1                 <default registry>/team/mymodel:v1
    hf.co/org/repo:Q4_K_M           hf.co/org/repo:Q4_K_M
    localhost/mymodel:v1            localhost/mymodel:v1

So a model that was built here as ``mymodel`` is pulled from another machine as ``thishost:5000/mymodel``; one
that is pushed to ``thishost:5000/team/mymodel`` runs here as ``team/mymodel``; and what was pulled from
another registry is served under that registry's name as the first part of the path.

To read, one more name is tried, and first: the one that the client itself used, ``thishost:5000/mymodel``. It
finds what was tagged here for pushing. It takes part in nothing else, because a client can write what it
likes into its Host header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...modelfile.errors import InputError
from ...oci.digest import Digest
from ...oci.errors import BadReference
from ...oci.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, Reference

# Source: OCI distribution-spec 1.1, pulling manifests; upper case is allowed as in `Reference`.
_COMPONENT = r"[A-Za-z0-9]+(?:(?:\.|_|__|-+)[A-Za-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MAX_NAME = 255


class BadName(InputError):
    """Not a repository name."""


class BadTag(InputError):
    """Neither a tag nor a digest."""


@dataclass(frozen=True, slots=True)
class RegistryNames:
    """The rule above, for one default registry and namespace."""

    registry: str = DEFAULT_REGISTRY
    namespace: str = DEFAULT_NAMESPACE

    def stored(self, name: str, tag: str) -> Reference:
        """The reference that a push of ``name:tag`` sets. Raises: BadName, BadTag."""
        require_name(name)
        if not _TAG.fullmatch(tag):
            raise BadTag("invalid tag")
        try:
            return Reference.parse(
                f"{name}:{tag}", default_registry=self.registry, default_namespace=self.namespace
            )
        except BadReference as error:
            raise BadName(error.message) from None

    def candidates(self, name: str, tag: str, host: str) -> list[Reference]:
        """The references that a pull of ``name:tag`` may mean, the most specific first.

        host: what the client called us, ``host[:port]``. Raises: BadName, BadTag.
        """
        stored = self.stored(name, tag)
        try:
            asked = Reference(host.lower(), name, tag)
        except BadReference:  # a Host header that is no registry host
            return [stored]
        return [stored] if asked == stored else [asked, stored]

    def on_the_wire(self, reference: Reference) -> str | None:
        """The name under which a reference of the store is listed; None where it has none: a registry with
        a port cannot be part of a path."""
        if reference.registry == self.registry:
            return reference.repository if _NAME.fullmatch(reference.repository) else None
        name = f"{reference.registry}/{reference.repository}"
        return name if _NAME.fullmatch(name) else None

    def same_repository(self, name: str, host: str) -> frozenset[str]:
        """The ``registry/repository`` names of the store that `name` stands for. Raises: BadName."""
        return frozenset(reference.name.lower() for reference in self.candidates(name, "latest", host))


def require_name(name: str) -> None:
    """Raises: BadName."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise BadName("invalid repository name")


def parse_digest(text: str) -> Digest | None:
    """The digest that a manifest is asked for by; None where `text` is a tag. Raises: BadDigest."""
    return Digest.parse(text) if ":" in text else None
