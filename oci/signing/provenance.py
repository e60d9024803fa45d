"""Where a model comes from, as a SLSA provenance: the build's inputs by digest, and who built it.

Everything in it is read from the model itself, which has the same digest wherever it is built; by whom it was
built is what the signer adds. Source: SLSA 1.0, provenance.
"""

from __future__ import annotations

from typing import Any

from ..dialects import modelpack
from ..layer import Layer, Role
from ..model import Model

BUILD_TYPE = "urn:lading:build:modelfile:v1"
"""A Modelfile and the files it names become a manifest. ``externalParameters.modelfile`` is the canonical
text, in which local paths are digests."""

_INPUTS = frozenset({Role.WEIGHTS, Role.PROJECTOR, Role.ADAPTER, Role.DRAFT, Role.TEMPLATE_JINJA})


def provenance(model: Model, *, builder: str, version: str, invocation: str | None = None) -> dict[str, Any]:
    """The predicate. builder: a URI that says who built it; invocation: one that names the run, if any.

    Raises: BlobNotFound, DigestMismatch where the model's Modelfile cannot be read.
    """
    inputs = [
        {
            "name": layer.filepath or layer.role.value,
            "digest": {layer.digest.algorithm: layer.digest.hex},
            "annotations": {"role": layer.role.value, "size": layer.size, **_origin(layer)},
        }
        for layer in model.layers
        if layer.role in _INPUTS
    ]
    metadata = {"invocationId": invocation} if invocation else {}
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"modelfile": model.modelfile() or ""},
            "internalParameters": {"lading": version},
            "resolvedDependencies": inputs,
        },
        "runDetails": {"builder": {"id": builder}, **({"metadata": metadata} if metadata else {})},
    }


def _origin(layer: Layer) -> dict[str, list[str]]:
    """What weights were quantised from."""
    originals = modelpack.quantized_from(layer)
    return {"quantizedFrom": [str(digest) for digest in originals]} if originals else {}
