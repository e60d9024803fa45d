"""Small models for store tests: made of a few bytes, complete in every respect."""

from __future__ import annotations

from lading.oci.canonical import canonical_json
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.manifest import Manifest
from lading.oci.reference import Reference
from lading.oci.store import Store, TaggedManifest

CONFIG_TYPE = "application/vnd.cncf.model.config.v1+json"
WEIGHT_TYPE = "application/vnd.cncf.model.weight.v1.raw"
MODEL_TYPE = "application/vnd.cncf.model.manifest.v1+json"


def describe(data: bytes, media_type: str = WEIGHT_TYPE) -> Descriptor:
    """The descriptor of ``data``."""
    return Descriptor(media_type, Digest.of(data), len(data))


def make_manifest(*layers: bytes, config: bytes | None = None) -> tuple[Manifest, tuple[bytes, ...]]:
    """A manifest over ``layers``, and the bytes of its blobs, the config first."""
    body = config if config is not None else canonical_json({"layers": len(layers)})
    manifest = Manifest.build(
        config=describe(body, CONFIG_TYPE),
        layers=[describe(layer) for layer in layers],
        artifact_type=MODEL_TYPE,
    )
    return manifest, (body, *layers)


def put_model(store: Store, name: str, *layers: bytes, config: bytes | None = None) -> TaggedManifest:
    """Store a model of these layers under ``name``, as a create or pull does."""
    manifest, blobs = make_manifest(*layers, config=config)
    with store.lease():
        for blob in blobs:
            store.put_bytes(blob)
        return store.tag(Reference.parse(name), store.put_manifest(manifest))
