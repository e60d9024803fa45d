"""The store is an image layout that other programs read, and write, as it is: shown with skopeo."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from store_models import CONFIG_TYPE, describe, put_model

from lading.oci import media_type
from lading.oci.canonical import canonical_json
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.manifest import Manifest
from lading.oci.reference import Reference
from lading.oci.store import Store

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

NAMES = [
    "llama3.2",
    "user/m:v1.0",
    "hf.co/org/Model-7B-GGUF:Q4_K_M",
    "localhost:5000/team/sub/m:latest",
    "ghcr.io/o/m:t@{digest}",
]


def skopeo(*arguments: str) -> str:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_skopeo_finds_a_model_by_its_full_name_and_copies_it(store: Store, tmp_path: Path, name: str) -> None:
    digest = put_model(store, "first", b"weights" * 1000).descriptor.digest
    tagged = put_model(store, name.format(digest=digest), b"weights" * 1000)
    put_model(store, "another", b"other")
    manifest = store.resolve(tagged.reference)
    source = f"oci:{store.root}:{tagged.reference}"

    assert skopeo("inspect", "--raw", source).encode() == manifest.raw

    skopeo("copy", source, f"dir:{tmp_path / 'dir'}")
    assert (tmp_path / "dir" / "manifest.json").read_bytes() == manifest.raw
    assert (tmp_path / "dir" / manifest.layers[0].digest.hex).read_bytes() == b"weights" * 1000

    skopeo("copy", source, f"oci:{tmp_path / 'copy'}:{tagged.reference}")
    copy = Store.open(tmp_path / "copy")
    assert copy.resolve(tagged.reference) == manifest
    assert copy.fsck().clean
    assert copy.gc().blobs == ()


def test_skopeo_inspects_a_model_that_is_an_image(store: Store) -> None:
    layer = describe(b"weights", "application/vnd.oci.image.layer.v1.tar")
    config = canonical_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"org.example": "yes"}},
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
        }
    )
    store.put_bytes(b"weights")
    manifest = Manifest.build(
        config=Descriptor(media_type.OCI_CONFIG, store.put_bytes(config), len(config)), layers=[layer]
    )
    tagged = store.tag(Reference.parse("car"), store.put_manifest(manifest))
    shown = json.loads(skopeo("inspect", f"oci:{store.root}:{tagged.reference}"))
    assert shown["Digest"] == str(manifest.digest)
    assert shown["Layers"] == [str(layer.digest)]
    assert shown["Labels"] == {"org.example": "yes"}


def test_skopeo_copies_into_a_store(store: Store, tmp_path: Path) -> None:
    kept = put_model(store, "kept", b"weights")
    other = Store.open(tmp_path / "other")
    tagged = put_model(other, "hf.co/o/new:Q4", b"new weights")
    skopeo("copy", f"oci:{other.root}:{tagged.reference}", f"oci:{store.root}:{tagged.reference}")

    found = store.find(Reference.parse("hf.co/o/new:q4"))
    assert found.descriptor.digest == tagged.descriptor.digest
    assert found.modified.year >= 2024
    assert store.find(Reference.parse("kept")) == kept
    assert store.gc().blobs == ()
    assert store.intact(Digest.of(b"new weights"))
    assert [problem.kind for problem in store.fsck(repair=True).problems] in ([], ["changed-index"])
    assert store.fsck().clean


def test_skopeo_reads_what_is_copied_into_a_registry_form(store: Store, tmp_path: Path) -> None:
    tagged = put_model(store, "m", b"weights", config=b"{}")
    archive = tmp_path / "m.tar"
    skopeo("copy", f"oci:{store.root}:{tagged.reference}", f"oci-archive:{archive}:{tagged.reference}")
    raw = skopeo("inspect", "--raw", f"oci-archive:{archive}:{tagged.reference}")
    assert json.loads(raw)["config"]["mediaType"] == CONFIG_TYPE
