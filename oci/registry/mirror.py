"""Mirrors: other places that a registry's models may be fetched from. Pure.

As in Podman's ``registries.conf``: a mirror is set for a registry, or a path in it, and takes its place in
the name. Mirrors are asked in order, and the registry itself last. They are for pulls only, and the model
keeps the name that was asked for. The longest prefix that fits counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..reference import Reference
from .settings import DOCKER_HUB


def mirrors_of(reference: Reference, mirrors: Mapping[str, Sequence[str]]) -> tuple[Reference, ...]:
    """The names of the same model at its mirrors, ``HOST[:PORT][/PATH]`` each. Raises: BadReference."""
    repository = reference.repository
    if reference.registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    name = f"{reference.registry}/{repository}"
    fitting = [prefix for prefix in mirrors if f"{name}/".startswith(f"{prefix}/")]
    if not fitting:
        return ()
    prefix = max(fitting, key=len)
    rest = name.removeprefix(prefix)
    places = [Reference.parse(f"{mirror}{rest}") for mirror in mirrors[prefix]]
    return tuple(replace(reference, registry=place.registry, repository=place.repository) for place in places)
