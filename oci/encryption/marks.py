"""How one sees that layers are encrypted, without a look at the keys."""

from __future__ import annotations

from ..manifest import Manifest

SUFFIX = "+encrypted"
"""Of the media type."""


def is_encrypted(manifest: Manifest) -> bool:
    """Whether any layer is."""
    return any(layer.media_type.endswith(SUFFIX) for layer in manifest.layers)
