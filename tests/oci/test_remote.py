"""A look at what a registry has, when the registry is honest and when it is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scripted_registry import Reply, ScriptedRegistry, scripted_registry
from store_models import describe, make_manifest

from lading.modelfile.errors import LadingError
from lading.oci.canonical import canonical_json
from lading.oci.errors import BadManifest, DigestMismatch, SizeMismatch
from lading.oci.manifest import Index, Manifest
from lading.oci.reference import Reference
from lading.oci.registry.client import RegistryClient
from lading.oci.registry.errors import RemoteBlobNotFound, RemoteModelNotFound
from lading.oci.registry.remote import RemoteModel, look_up

MANIFEST, BLOBS = make_manifest(b"weights", config=b'{"family":"llama"}')
CONFIG = MANIFEST.config.digest


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    with scripted_registry() as running:
        running.add(MANIFEST, BLOBS, "team/m:v1")
        yield running


def look(registry: ScriptedRegistry, name: str = "team/m:v1") -> RemoteModel:
    reference = Reference.parse(f"{registry.host}/{name}")
    with RegistryClient() as client:
        return look_up(client.repository(reference), reference)


def test_only_small_things_are_fetched(registry: ScriptedRegistry) -> None:
    found = look(registry)
    assert (found.manifest, found.config, found.index) == (MANIFEST, {"family": "llama"}, None)
    assert len(registry.requests("GET", "/blobs/")) == 1


def test_an_index(registry: ScriptedRegistry) -> None:
    index = Index.build(manifests=[MANIFEST.descriptor])
    registry.manifests["team/m/all"] = (index.media_type, index.raw)
    found = look(registry, "team/m:all")
    assert (found.index, found.manifest) == (index, MANIFEST)


def test_an_artifact_whose_config_is_no_json(registry: ScriptedRegistry) -> None:
    manifest, blobs = make_manifest(b"x", config=b"\x00not json")
    registry.add(manifest, blobs, "team/odd:v1")
    assert look(registry, "team/odd:v1").config is None


def test_what_is_not_there(registry: ScriptedRegistry) -> None:
    with pytest.raises(RemoteModelNotFound):
        look(registry, "team/m:v9")
    registry.blobs.clear()
    with pytest.raises(RemoteBlobNotFound):
        look(registry)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (BLOBS[0][:-1] + b"!", DigestMismatch),
        (BLOBS[0] + b" ", SizeMismatch),
        (BLOBS[0][:-1], SizeMismatch),
        (b"", SizeMismatch),
    ],
    ids=["another", "longer", "shorter", "empty"],
)
def test_a_config_that_is_not_what_was_promised(
    registry: ScriptedRegistry, body: bytes, error: type[LadingError]
) -> None:
    for length in (-1, None):
        registry.on("GET", f"/blobs/{CONFIG}", Reply(body=body, length=length))
        with pytest.raises(error):
            look(registry)


def test_a_config_that_is_too_large(registry: ScriptedRegistry) -> None:
    large = Manifest.parse(
        canonical_json(
            {
                "schemaVersion": 2,
                "config": describe(b"x", "a/b").to_json() | {"size": 200 << 20},
                "layers": [],
            }
        )
    )
    registry.add(large, (), "team/large:v1")
    with pytest.raises(SizeMismatch):
        look(registry, "team/large:v1")
    assert registry.requests("GET", "/blobs/") == []


def test_an_index_of_indexes(registry: ScriptedRegistry) -> None:
    inner = Index.build(manifests=[MANIFEST.descriptor])
    outer = Index.build(manifests=[inner.descriptor])
    for tag, index in (("outer", outer), (str(inner.digest), inner)):
        registry.manifests[f"team/m/{tag}"] = (index.media_type, index.raw)
    with pytest.raises(BadManifest):
        look(registry, "team/m:outer")
