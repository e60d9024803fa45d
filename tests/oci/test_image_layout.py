"""Models between the store and image layouts in folders: ours, skopeo's, and broken ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from store_models import describe, put_model

from lading.modelfile.errors import InputError, LadingError, NotFoundError
from lading.oci.errors import BlobNotFound, DigestMismatch, ModelNotFound, NotAStore, SizeMismatch
from lading.oci.offline import image_layout
from lading.oci.offline.image_layout import LayoutPlace, push_to
from lading.oci.reference import Reference
from lading.oci.signing.attachments import StoreAttachments
from lading.oci.signing.errors import NotSigned
from lading.oci.signing.key import SigningKey
from lading.oci.signing.policy import Mode, Rule, SignaturePolicy
from lading.oci.signing.signature import sign, verify
from lading.oci.store import Store
from lading.oci.store.index import TaggedManifest

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
WEIGHTS = bytes(range(256)) * 50_000
NAME = "hf.co/team/model:q4"


def pull_from(store: Store, place: LayoutPlace) -> TaggedManifest:
    """Where nothing needs to be signed."""
    return image_layout.pull_from(store, place, policy=SignaturePolicy())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:a", LayoutPlace(Path("a"))),
        ("oci:/a/b:m:v1", LayoutPlace(Path("/a/b"), "m:v1")),
        ("oci:a:localhost:5000/m:v1", LayoutPlace(Path("a"), "localhost:5000/m:v1")),
        ("oci", None),
        ("ocix:a", None),
        ("host/oci:a", None),
    ],
)
def test_places(text: str, expected: LayoutPlace | None) -> None:
    assert LayoutPlace.parse(text) == expected
    if expected is not None:
        assert str(expected) == text


@pytest.mark.parametrize("text", ["oci:", "oci::m", "oci:a:", "oci:a\0b"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(InputError):
        LayoutPlace.parse(text)


def test_there_and_back(store: Store, other: Store, folder: Path) -> None:
    tagged = put_model(store, NAME, WEIGHTS)
    put_model(store, "second", WEIGHTS, b"more")
    pushed = push_to(store, tagged.reference, LayoutPlace(folder))
    assert (pushed.reference, pushed.descriptor) == (tagged.reference, tagged.descriptor)
    push_to(store, Reference.parse("second"), LayoutPlace(folder, "theirs:v2"))
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < len(WEIGHTS) + 20_000
    assert Store.open(folder).fsck().clean
    assert pull_from(other, LayoutPlace(folder, NAME)).descriptor == tagged.descriptor
    assert pull_from(other, LayoutPlace(folder, "THEIRS:v2")).reference == Reference.parse("theirs:v2")
    assert other.resolve(tagged.reference) == store.resolve(tagged.reference)
    assert other.fsck().clean and other.gc().blobs == ()


def test_of_several_the_name_must_be_said(store: Store, other: Store, folder: Path) -> None:
    for name in (NAME, "second"):
        push_to(store, put_model(store, name, WEIGHTS).reference, LayoutPlace(folder))
    with pytest.raises(InputError, match="2 models") as caught:
        pull_from(other, LayoutPlace(folder))
    assert NAME in str(caught.value.hint)
    with pytest.raises(NotFoundError, match="third"):
        pull_from(other, LayoutPlace(folder, "third"))
    assert other.tags() == []


def test_one_without_name_takes_the_one_that_is_said(store: Store, other: Store, folder: Path) -> None:
    push_to(store, put_model(store, NAME, WEIGHTS).reference, LayoutPlace(folder))
    index = json.loads((folder / "index.json").read_text())
    index = {"schemaVersion": 2, "manifests": [{**index["manifests"][0], "annotations": {}}]}
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="no name"):
        pull_from(other, LayoutPlace(folder))
    assert pull_from(other, LayoutPlace(folder, "mine")).reference == Reference.parse("mine")


def test_a_layout_is_read_without_writing(store: Store, other: Store, folder: Path) -> None:
    push_to(store, put_model(store, NAME, WEIGHTS).reference, LayoutPlace(folder))
    for name in ("ingest", "leases", "lock", "store.json"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = sorted(folder.rglob("*"))
    pull_from(other, LayoutPlace(folder))
    assert sorted(folder.rglob("*")) == before


def damage(folder: Path, kind: str) -> None:
    path = folder / "blobs" / "sha256" / describe(WEIGHTS).digest.hex
    path.chmod(0o644)
    if kind == "missing":
        path.unlink()
    elif kind == "link":
        path.unlink()
        path.symlink_to("/etc/passwd")
    elif kind == "longer":
        path.write_bytes(WEIGHTS + b"!")
    elif kind == "shorter":
        path.write_bytes(WEIGHTS[:-1])
    else:
        path.write_bytes(WEIGHTS[:-1] + b"!")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("missing", BlobNotFound),
        ("link", BlobNotFound),
        ("longer", SizeMismatch),
        ("shorter", SizeMismatch),
        ("flipped", DigestMismatch),
    ],
)
def test_a_damaged_layout(
    store: Store, other: Store, folder: Path, kind: str, error: type[LadingError]
) -> None:
    push_to(store, put_model(store, NAME, WEIGHTS).reference, LayoutPlace(folder))
    damage(folder, kind)
    with pytest.raises(error):
        pull_from(other, LayoutPlace(folder))
    assert other.tags() == []
    other.gc()
    assert [path for path, _ in other.layout.iter_blob_files()] == []
    assert list(other.layout.ingest.iterdir()) == []


def test_folders_that_are_none(store: Store, tmp_path: Path) -> None:
    put_model(store, NAME, WEIGHTS)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("precious")
    with pytest.raises(NotFoundError):
        pull_from(store, LayoutPlace(tmp_path / "missing"))
    with pytest.raises(NotAStore):
        pull_from(store, LayoutPlace(full))
    with pytest.raises(NotAStore):
        push_to(store, Reference.parse(NAME), LayoutPlace(full))
    with pytest.raises(ModelNotFound):
        push_to(store, Reference.parse("missing"), LayoutPlace(tmp_path / "new"))
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]
    assert not (tmp_path / "new").exists() and not (tmp_path / "missing").exists()


def test_signatures_go_along_and_count(store: Store, other: Store, folder: Path) -> None:
    key = SigningKey.generate()
    tagged = put_model(store, NAME, WEIGHTS)
    policy = SignaturePolicy((Rule(prefix="hf.co/team", mode=Mode.REQUIRE, keys=(key.public,)),))
    push_to(store, tagged.reference, LayoutPlace(folder))
    with pytest.raises(NotSigned):
        image_layout.pull_from(other, LayoutPlace(folder), policy=policy)
    assert other.tags() == [] and not other.has(describe(WEIGHTS).digest)
    sign(StoreAttachments(store, tagged.reference), tagged.descriptor, key, identity=tagged.reference.name)
    push_to(store, tagged.reference, LayoutPlace(folder))
    image_layout.pull_from(other, LayoutPlace(folder), policy=policy)
    assert verify(StoreAttachments(other, tagged.reference), tagged.descriptor.digest, [key.public])
    assert other.fsck().clean and Store.open(folder).fsck().clean


def skopeo(*arguments: str) -> None:
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@needs_skopeo
def test_with_skopeo_on_the_other_side(store: Store, other: Store, folder: Path, tmp_path: Path) -> None:
    tagged = put_model(store, NAME, WEIGHTS)
    push_to(store, tagged.reference, LayoutPlace(folder))
    skopeo("copy", f"oci:{folder}:{NAME}", f"oci:{tmp_path / 'theirs'}:team/m:v1")
    assert pull_from(other, LayoutPlace(tmp_path / "theirs")).reference == Reference.parse("team/m:v1")
    push_to(other, Reference.parse("team/m:v1"), LayoutPlace(tmp_path / "theirs", "team/m:v2"))
    skopeo("inspect", "--raw", f"oci:{tmp_path / 'theirs'}:team/m:v1")
    skopeo("inspect", "--raw", f"oci:{tmp_path / 'theirs'}:{Reference.parse('team/m:v2')}")
    assert other.fsck().clean
