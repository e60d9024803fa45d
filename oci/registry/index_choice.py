"""Which manifest of an index is the model.

An index may list one artifact for each platform, attestations beside them, or the same model in several
forms. In order: attestations and other machines' platforms are left out; a ModelPack artifact goes before
anything else; what is left must be one, or nobody can say which is meant.
"""

from __future__ import annotations

import platform as machine
import sys
from dataclasses import dataclass

from ..descriptor import Descriptor
from ..errors import BadManifest
from ..manifest import Index
from ..media_type import MANIFEST_TYPES
from ..reference import Reference

_MODELPACK = "application/vnd.cncf.model.manifest.v1+json"
_ATTESTATION = "vnd.docker.reference.type"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and a processor architecture, in Go's names as OCI uses them."""

    os: str
    architecture: str

    @classmethod
    def here(cls) -> Platform:
        """This machine's."""
        name = machine.machine().lower()
        return cls(sys.platform, _ARCHITECTURES.get(name, name))

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"


def choose_manifest(index: Index, reference: Reference, platform: Platform | None = None) -> Descriptor:
    """The one manifest of the index that is the model, on `platform` (this machine's by default).

    Raises: BadManifest, listing what there is.
    """
    wanted = platform or Platform.here()
    manifests = [
        entry
        for entry in index.manifests
        if entry.media_type in MANIFEST_TYPES and _ATTESTATION not in entry.annotations
    ]
    models = [entry for entry in manifests if entry.artifact_type == _MODELPACK] or manifests
    fitting = [entry for entry in models if _platform_of(entry) in {None, wanted}]
    # A model does not depend on a platform, though images that carry one name it.
    fitting = [entry for entry in fitting if _platform_of(entry) == wanted] or fitting or models
    distinct = {entry.digest: entry for entry in fitting}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if not distinct:
        raise BadManifest([f"{reference.display} is an index without any model"], what="index")
    shown = ", ".join(f"{entry.digest} ({_platform_of(entry) or 'any platform'})" for entry in fitting[:8])
    raise BadManifest(
        [f"{reference.display} is an index of {len(distinct)} manifests; name one by its digest: {shown}"],
        what="index",
    )


def _platform_of(entry: Descriptor) -> Platform | None:
    """The platform that an entry is for; None for any. Docker writes unknown/unknown for "none"."""
    value = entry.extra.get("platform")
    if not isinstance(value, dict):
        return None
    os, architecture = value.get("os"), value.get("architecture")
    if not isinstance(os, str) or not isinstance(architecture, str) or os == "unknown":
        return None
    return Platform(os[:32], architecture[:32])
