"""Every dialect, written and read: the same model comes back, as far as the dialect has places for it."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from byte_counter import counting_bytes
from ggufmaker import make_adapter, make_model, make_projector, make_shards, string
from model_shelf import ModelShelf
from registry_clients import impatient_client
from registry_server import INSTALLED, WHY_NOT, RunningRegistry, running_registry
from tarmaker import make_tar

from lading.oci.canonical import canonical_json, strict_json
from lading.oci.conversion import convert
from lading.oci.descriptor import Descriptor
from lading.oci.dialects import modelcar
from lading.oci.dialects.dialect import Dialect, Written
from lading.oci.dialects.ollama import NotOneFile
from lading.oci.dialects.packing import Packing, packing_of
from lading.oci.digest import Digest
from lading.oci.errors import BlobNotFound, StoreCorrupt
from lading.oci.layer import Role
from lading.oci.manifest import Manifest
from lading.oci.model import Model, read_model
from lading.oci.offline.archive import load, packing, save
from lading.oci.offline.archive_reader import ArchiveReader
from lading.oci.offline.image_layout import LayoutPlace, pull_from, push_to
from lading.oci.reference import Reference
from lading.oci.signing.policy import SignaturePolicy
from lading.oci.store import PackedFile, Store, SweepPolicy
from lading.oci.transfer import pull, push
from lading.oci.unpacking import BadLayer, unpacked

FULL = '''
FROM ./m.gguf
FROM ./vision.gguf
ADAPTER ./lora.gguf
DRAFT ./small.gguf
PARAMETER temperature 0.5
PARAMETER num_ctx 2048
PARAMETER stop <end>
TEMPLATE """{{ .System }}{{ .Prompt }}"""
SYSTEM You are terse. Ja, wirklich: ümlaut.
LICENSE MIT
LICENSE Second
MESSAGE user hi
MESSAGE assistant hello
COPY README.md README.md
COPY notes.txt docs/notes.txt
LABEL org.example.team=ours
RENDERER qwen3
PARSER qwen3
REQUIRES 0.14.0
'''
FULL_MODEL = Reference.parse("full")
JINJA_MODEL = Reference.parse("jinja")
SHARDED_MODEL = Reference.parse("sharded")
WEIGHTS = make_model(general__name=string("m" * 300_000))  # large enough that a second copy shows
ALL = [*Dialect]

IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar"
PACK = "application/vnd.cncf.model."
KIT = "application/vnd.kitops.modelkit."


def stock(shelf: ModelShelf) -> ModelShelf:
    """Three models, of all that a model can have."""
    shelf.folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {
        "m.gguf": WEIGHTS,
        "vision.gguf": make_projector(),
        "lora.gguf": make_adapter(),
        "small.gguf": make_model(seed=5),
        "README.md": b"# Model\n",
        "notes.txt": b"notes",
        "chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}",
        **{f"s-{number:05}-of-00003.gguf": data for number, data in enumerate(make_shards(3), 1)},
    }
    for name, data in files.items():
        (shelf.folder / name).write_bytes(data)
    shelf.create(str(FULL_MODEL), FULL)
    shelf.create(str(JINJA_MODEL), "FROM ./m.gguf\nCOPY chat_template.jinja chat_template.jinja\nSYSTEM x\n")
    shards = "".join(f"FROM ./s-{number:05}-of-00003.gguf\n" for number in (1, 2, 3))
    shelf.create(str(SHARDED_MODEL), shards)
    return shelf


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> ModelShelf:
    folder = tmp_path_factory.mktemp("shelf")
    return stock(ModelShelf(folder / "store", folder / "files"))


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    if not INSTALLED:
        pytest.skip(WHY_NOT)
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def written(shelf: ModelShelf, reference: Reference, dialect: Dialect) -> Written:
    """The model in a dialect, tagged so that it stays."""
    with shelf.store.lease():
        found = convert(shelf.store, shelf.store.resolve(reference), dialect)
        shelf.store.tag(reference.with_tag(str(dialect)), found.manifest.descriptor)
    return found


def facets(model: Model) -> dict[str, Any]:
    """All that matters of a model, but for its documents and labels."""
    template, details = model.template(), model.details
    return {
        "weights": [layer.digest for layer in model.weights],
        "projector": model.projector.digest if model.projector else None,
        "adapters": [layer.digest for layer in model.adapters],
        "draft": model.draft.digest if model.draft else None,
        "params": model.params(),
        "system": model.system(),
        "messages": model.messages(),
        "template": (template.kind, template.text) if template else None,
        "licenses": model.licenses(),
        "renderer": (model.renderer, model.parser, model.requires),
        "family": details.family,
        "parameters": details.parameter_size,
        "quantization": details.quantization_level,
        "context": details.context_length,
    }


def documents(model: Model) -> set[str]:
    return {layer.filepath for layer in model.of(Role.README) + model.of(Role.DOC)}


# writing and reading


@pytest.mark.parametrize("dialect", ALL)
def test_the_same_model_in_every_dialect(shelf: ModelShelf, dialect: Dialect) -> None:
    before = read_model(shelf.store, shelf.store.resolve(FULL_MODEL))
    result = written(shelf, FULL_MODEL, dialect)
    after = read_model(shelf.store, result.manifest)
    assert after.dialect is dialect
    assert facets(after) == facets(before)
    if dialect is Dialect.OLLAMA:
        assert [note.partition(":")[0] for note in result.left_out] == [
            "README.md, docs/notes.txt",
            "the Modelfile",
            "labels",
        ]
    else:
        assert result.left_out == ()
        assert {path.rpartition("/")[2] for path in documents(after)} == {"README.md", "notes.txt"}
        assert after.modelfile() == before.modelfile()
        assert after.stated.labels == {"org.example.team": "ours"}


@pytest.mark.parametrize("dialect", ALL)
def test_there_and_back(shelf: ModelShelf, dialect: Dialect) -> None:
    original = shelf.store.resolve(FULL_MODEL)
    there = written(shelf, FULL_MODEL, dialect).manifest
    with shelf.store.lease():
        back = convert(shelf.store, there, Dialect.MODELPACK).manifest
    assert facets(read_model(shelf.store, back)) == facets(read_model(shelf.store, original))
    if dialect in (Dialect.MODELPACK, Dialect.KIT):
        assert back == original
    if dialect in (Dialect.DOCKER, Dialect.MODELCAR):
        assert {layer.digest for layer in back.layers} == {layer.digest for layer in original.layers}


@pytest.mark.parametrize("dialect", ALL)
def test_a_template_in_jinja(shelf: ModelShelf, dialect: Dialect) -> None:
    before = read_model(shelf.store, shelf.store.resolve(JINJA_MODEL))
    result = written(shelf, JINJA_MODEL, dialect)
    after = read_model(shelf.store, result.manifest)
    if dialect is Dialect.OLLAMA:
        assert after.template() is None and "Jinja" in result.left_out[0]
    else:
        assert after.template() == before.template()
    assert after.system() == "x"


@pytest.mark.parametrize("dialect", [d for d in ALL if d is not Dialect.OLLAMA])
def test_shards_keep_their_order_and_names(shelf: ModelShelf, dialect: Dialect) -> None:
    before = read_model(shelf.store, shelf.store.resolve(SHARDED_MODEL))
    after = read_model(shelf.store, written(shelf, SHARDED_MODEL, dialect).manifest)
    assert [layer.digest for layer in after.weights] == [layer.digest for layer in before.weights]
    assert [layer.filepath for layer in after.weights] == [f"s-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


def test_ollama_has_no_shards(shelf: ModelShelf) -> None:
    with pytest.raises(NotOneFile, match="3 files") as caught:
        convert(shelf.store, shelf.store.resolve(SHARDED_MODEL), Dialect.OLLAMA)
    assert "llama-gguf-split --merge" in str(caught.value.hint)


def test_the_same_model_gives_the_same_bytes_anywhere(shelf: ModelShelf, tmp_path: Path) -> None:
    other = stock(ModelShelf(tmp_path / "store", tmp_path / "files"))
    for dialect in ALL:
        here, there = (written(each, FULL_MODEL, dialect).manifest for each in (shelf, other))
        assert here.raw == there.raw, dialect


@pytest.mark.parametrize("dialect", ALL)
def test_weights_are_stored_once(shelf: ModelShelf, dialect: Dialect) -> None:
    shelf.store.gc(policy=SweepPolicy(keep_partial_s=0))
    before = _stored(shelf.store)
    written(shelf, FULL_MODEL, dialect)
    assert _stored(shelf.store) - before < 64 << 10


def _stored(store: Store) -> int:
    return sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())


def test_what_each_dialect_looks_like(shelf: ModelShelf) -> None:
    """What their own readers go by."""
    manifests = {dialect: written(shelf, FULL_MODEL, dialect).manifest for dialect in ALL}
    values = {dialect: strict_json(manifest.raw) for dialect, manifest in manifests.items()}
    configs = {
        dialect: strict_json(shelf.store.read_blob(manifest.config.digest, limit=1 << 20))
        for dialect, manifest in manifests.items()
    }
    weights = str(Digest.of(WEIGHTS))

    ollama = values[Dialect.OLLAMA]
    assert ollama["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert not any("annotations" in layer for layer in ollama["layers"])
    assert ollama["layers"][0] == {
        "mediaType": "application/vnd.ollama.image.model", "digest": weights, "size": len(WEIGHTS)
    }  # fmt: skip
    config = configs[Dialect.OLLAMA]
    assert (config["model_format"], config["renderer"], config["os"]) == ("gguf", "qwen3", "linux")
    assert config["model_families"] == ["llama", "clip"]

    docker = values[Dialect.DOCKER]
    assert docker["config"]["mediaType"] == "application/vnd.docker.ai.model.config.v0.1+json"
    assert docker["layers"][0]["mediaType"] == "application/vnd.docker.ai.gguf.v3"
    assert configs[Dialect.DOCKER]["config"]["context_size"] == 2048
    assert configs[Dialect.DOCKER]["config"]["gguf"]["general.architecture"] == "llama"
    assert "general.name" not in configs[Dialect.DOCKER]["config"]["gguf"]  # too long to be repeated

    kit = values[Dialect.KIT]
    assert kit["artifactType"] == KIT + "manifest.v1+json"
    assert kit["layers"][0]["mediaType"] == KIT + "model.v1.raw"
    kitfile = configs[Dialect.KIT]
    assert kitfile["model"]["path"] == "m.gguf" and kitfile["model"]["parameters"]["num_ctx"] == 2048
    assert [doc["path"] for doc in kitfile["docs"]] == [
        "LICENSE", "LICENSE-2", "README.md", "docs/notes.txt"
    ]  # fmt: skip

    car = values[Dialect.MODELCAR]
    assert "artifactType" not in car
    assert {layer["mediaType"] for layer in car["layers"]} == {IMAGE_LAYER}
    layers = [layer["digest"] for layer in car["layers"]]
    assert configs[Dialect.MODELCAR]["rootfs"] == {"type": "layers", "diff_ids": layers}
    names: dict[str, bytes | str] = {}
    for layer in manifests[Dialect.MODELCAR].layers:
        with shelf.store.open_blob(layer.digest) as blob, tarfile.open(fileobj=blob) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isreg() else None
                names[member.name] = file.read() if file else member.linkname
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
    assert names["models/m.gguf"] == WEIGHTS
    assert names["models/model.file"] == "m.gguf"
    assert names["models/system.txt"] == "You are terse. Ja, wirklich: ümlaut.".encode()


def test_files_beyond_what_tar_can_say(tmp_path: Path) -> None:
    """From 8 GiB on, the size does not fit into a header."""
    size = (9 << 30) + 5
    file = PackedFile("models/huge.gguf", Digest.of(b""), size)
    head, tail = modelcar.gaps_around((file,), "huge.gguf")
    path = tmp_path / "layer.tar"
    with path.open("wb") as out:
        out.write(head)
        out.seek(size, io.SEEK_CUR)  # a hole
        out.write(tail)
    with tarfile.open(path) as archive:
        names = {member.name: member.size for member in archive}
    assert names == {"models": 0, "models/model.file": 0, "models/huge.gguf": size}
    with path.open("rb") as layer:
        found = {member.name: member.size for member in ArchiveReader(layer, passes_over=True).members()}
    assert found["models/huge.gguf"] == size


# to a registry and back


@pytest.mark.parametrize("dialect", ALL)
def test_a_second_dialect_sends_no_weights(
    docker: RunningRegistry, shelf: ModelShelf, tmp_path: Path, dialect: Dialect
) -> None:
    first = Reference.parse(f"{docker.host}/second/{dialect}:v1")
    with impatient_client() as client:
        push(shelf.store, client, FULL_MODEL, target=first)
        with counting_bytes(docker.host) as counter:
            target = Reference.parse(f"{counter.host}/second/{dialect}:other")
            result = written(shelf, FULL_MODEL, dialect)
            push(shelf.store, client, FULL_MODEL, target=target, manifest=result.manifest)
        other = Store.open(tmp_path / "other")
        at_home = Reference.parse(f"{docker.host}/second/{dialect}:other")
        assert pull(other, client, at_home) == result.manifest
    # The layers of an image are archives: other bytes than the files, which the registry cannot know.
    assert counter.sent < 100_000 or dialect is Dialect.MODELCAR
    model = read_model(other, other.resolve(at_home))
    assert facets(model) == facets(read_model(shelf.store, shelf.store.resolve(FULL_MODEL)))
    assert other.fsck().clean
    assert other.gc().freed == 0


def test_a_pulled_modelcar_is_kept_as_its_files(
    docker: RunningRegistry, shelf: ModelShelf, tmp_path: Path
) -> None:
    target = Reference.parse(f"{docker.host}/car/m:v1")
    car = written(shelf, FULL_MODEL, Dialect.MODELCAR).manifest
    other = Store.open(tmp_path / "other")
    with impatient_client() as client:
        push(shelf.store, client, FULL_MODEL, target=target, manifest=car)
        pull(other, client, target)
        blob = other.blob_path(Digest.of(WEIGHTS))
        for layer in car.layers:
            assert other.intact(layer.digest, layer.size)
            with pytest.raises(BlobNotFound):
                other.blob_path(layer.digest)
        # It can be passed on, byte for byte, and what is damaged is noticed and fetched again.
        push(other, client, target, target=target.with_tag("again"))
        assert pull(shelf.store, client, target.with_tag("again")) == car
        blob.chmod(0o644)
        blob.write_bytes(WEIGHTS[:-1] + b"!")
        assert not other.intact(car.layers[0].digest)
        kinds = {(problem.kind, problem.subject) for problem in other.fsck().problems}
        assert ("corrupt-blob", str(car.layers[0].digest)) in kinds
        assert ("corrupt-blob", str(Digest.of(WEIGHTS))) in kinds
        pull(other, client, target)
    assert other.fsck().clean
    other.untag(target)
    other.gc()
    assert [path for path in other.root.rglob("*") if path.is_file() and path.parent.name == "sha256"] == []


def test_a_modelcar_in_archives_and_folders(shelf: ModelShelf, tmp_path: Path) -> None:
    """There its layers are whole: other programs read them."""
    car = written(shelf, FULL_MODEL, Dialect.MODELCAR).manifest
    name = FULL_MODEL.with_tag("modelcar")
    out = io.BytesIO()
    with packing(shelf.store, [name]) as packed:
        save(shelf.store, packed, out)
    out.seek(0)
    loaded = Store.open(tmp_path / "loaded")
    load(loaded, out, policy=SignaturePolicy())
    push_to(shelf.store, name, LayoutPlace(tmp_path / "layout"))
    copied = Store.open(tmp_path / "copied")
    pull_from(copied, LayoutPlace(tmp_path / "layout"), policy=SignaturePolicy())
    for layer in car.layers:
        path = tmp_path / "layout" / "blobs" / "sha256" / layer.digest.hex
        assert Digest.of(path.read_bytes()) == layer.digest
    for store in (loaded, copied):
        assert store.resolve(name) == car
        assert facets(read_model(store, car)) == facets(read_model(shelf.store, car))
        assert _stored(store) < len(WEIGHTS) * 2
        assert store.fsck().clean


# reading what others write


@dataclass(frozen=True)
class Foreign:
    """An artifact of another tool: its layers by media type, its config and what it says that it is."""

    layers: tuple[tuple[str, bytes], ...]
    config: Any
    config_type: str = "application/vnd.oci.image.config.v1+json"
    artifact_type: str | None = None


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


BASE_LAYER = make_tar(
    {"bin": None, "bin/busybox": b"x" * 2_000_000, "bin/sh": "busybox", "etc/odd\nname": b"", "models": None}
)
TEXTS: dict[str, bytes | str | None] = {"models/system.txt": b"Hi.", "models/params.json": b'{"num_ctx":64}'}

FOREIGN = {
    "KServe's modelcar": Foreign(
        (
            (IMAGE_LAYER + "+gzip", gz(BASE_LAYER)),
            (IMAGE_LAYER, make_tar({"models/model.gguf": WEIGHTS, **TEXTS})),
        ),
        {"os": "linux", "architecture": "amd64"},
    ),
    "RamaLama's raw image": Foreign(
        (
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                gz(
                    make_tar(
                        {
                            "./models/tiny": None,
                            "./models/tiny/model.gguf": WEIGHTS,
                            "./models/tiny/system.txt": b"Hi.",
                            "./models/tiny/params.json": b'{"num_ctx":64}',
                            "./models/model.file": "./tiny/model.gguf",
                        },
                        format=tarfile.GNU_FORMAT,
                    )
                ),
            ),
        ),
        {"config": {"Labels": {"org.containers.type": "ai.image.model.raw"}}},
        "application/vnd.docker.container.image.v1+json",
    ),
    "an image whose layers replace and remove": Foreign(
        (
            (IMAGE_LAYER, make_tar({"models/old.gguf": make_model(seed=9), "models/system.txt": b"Old."})),
            (IMAGE_LAYER, make_tar({"models/dir/x.gguf": make_model(seed=8)})),
            (
                IMAGE_LAYER + "+gzip",
                gz(
                    make_tar(
                        {
                            "models/model.gguf": WEIGHTS,
                            "models/.wh.old.gguf": b"",
                            "models/dir/.wh..wh..opq": b"",
                            **TEXTS,
                        }
                    )
                ),
            ),
        ),
        {},
    ),
    "ModelPack in archives": Foreign(
        (
            (PACK + "weight.v1.tar", make_tar({"model.gguf": WEIGHTS})),
            (
                PACK + "weight.config.v1.tar+gzip",
                gz(make_tar({"system.txt": b"Hi.", "params.json": b'{"num_ctx":64}'})),
            ),
        ),
        {"config": {"format": "gguf"}},
        PACK + "config.v1+json",
        PACK + "manifest.v1+json",
    ),
    "a ModelKit in archives": Foreign(
        (
            (KIT + "model.v1.tar+gzip", gz(make_tar({"model.gguf": WEIGHTS}))),
            (KIT + "modelpart.v1.tar", make_tar({"system.txt": b"Hi."})),
            (KIT + "dataset.v1.tar", make_tar({"params.json": b"[]", "data.gguf": b"x"})),
        ),
        {"model": {"path": "model.gguf", "parameters": {"num_ctx": 64}}},
        KIT + "config.v1+json",
    ),
}  # fmt: skip


def put(store: Store, foreign: Foreign) -> Manifest:
    """Store the artifact and tag it."""
    config = canonical_json(foreign.config)
    with store.lease():
        manifest = Manifest.build(
            config=Descriptor(foreign.config_type, store.put_bytes(config), len(config)),
            layers=[Descriptor(kind, store.put_bytes(data), len(data)) for kind, data in foreign.layers],
            artifact_type=foreign.artifact_type,
        )
        store.tag(Reference.parse("foreign"), store.put_manifest(manifest))
    return manifest


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN)
def test_models_of_others_that_are_packed(store: Store, foreign: Foreign) -> None:
    manifest = put(store, foreign)
    model = read_model(store, manifest)
    assert [layer.digest for layer in model.weights] == [Digest.of(WEIGHTS)]
    assert model.weights[0].filepath.rpartition("/")[2] == "model.gguf"
    assert (model.system(), model.params()) == ("Hi.", {"num_ctx": 64})
    assert model.details.family == "llama"
    assert store.gc().freed == 0  # the files that were unpacked belong to the model
    assert store.fsck().clean
    for layer in manifest.layers:  # nothing was lost of the layers, unpacked or not
        with store.open_blob(layer.digest) as blob:
            assert Digest.of(blob.read()) == layer.digest
    with store.lease():
        result = convert(store, manifest, Dialect.MODELPACK)
    native = read_model(store, result.manifest)
    assert {packing_of(layer.media_type) for layer in result.manifest.layers} == {Packing.RAW}
    assert (native.system(), native.params()) == ("Hi.", {"num_ctx": 64})
    assert len(result.left_out) == sum("dataset" in kind for kind, _ in foreign.layers)


def test_a_layer_is_assembled_from_any_place(store: Store) -> None:
    layer = make_tar({"models/a.gguf": WEIGHTS, "models/b.txt": b"b" * 513, "models/empty": b""})
    descriptor = Descriptor(IMAGE_LAYER, store.put_bytes(layer), len(layer))
    contents = unpacked(store, descriptor)
    assert [file.path for file in contents.files] == ["models/a.gguf", "models/b.txt", "models/empty"]
    assert contents.gaps is not None
    with store.open_blob(descriptor.digest) as blob:
        with pytest.raises(OSError):
            blob.fileno()
        for start in (0, 1, 511, 512, 600, len(WEIGHTS), len(layer) - 1500, len(layer) - 1, len(layer) + 5):
            blob.seek(start)
            assert blob.read(700) == layer[start : start + 700]
        assert blob.seek(-3, io.SEEK_END) == len(layer) - 3


def huge_name() -> bytes:
    header = bytearray(make_tar({"a": b""})[:512])
    header[156:157] = b"x"
    header[124:136] = b"00010000000\0"  # an extended header of a gibibyte
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + bytes(1024)


HOSTILE = {
    "a bomb": (IMAGE_LAYER + "+gzip", gz(make_tar({"models/a.gguf": bytes(200 << 20)})), "far larger"),
    "cut short": (IMAGE_LAYER, make_tar({"models/a.gguf": WEIGHTS})[:-30_000], "ends"),
    "cut short, compressed": (IMAGE_LAYER + "+gzip", gz(BASE_LAYER)[:-10], "damaged"),
    "a huge extended header": (IMAGE_LAYER, huge_name(), "extended header"),
    "the same file twice": (
        IMAGE_LAYER,
        make_tar({"models/a": b"1"})[:1024] + make_tar({"models/a": b"2"}),
        "twice",
    ),
    "no archive": (IMAGE_LAYER, b"\0\1" * 600, "not a tar archive"),
    "compressed, but not as it says": (IMAGE_LAYER, gz(BASE_LAYER), "compressed"),
}


@pytest.mark.parametrize(("kind", "data", "words"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_layers(store: Store, kind: str, data: bytes, words: str) -> None:
    manifest = put(store, Foreign(((kind, data),), {}))
    blobs = {path for path, _ in store.layout.iter_blob_files()}
    with pytest.raises(BadLayer, match=words):
        read_model(store, manifest)
    assert not store.layout.contents.exists()
    assert list(store.layout.ingest.iterdir()) == []
    store.gc()
    assert {path for path, _ in store.layout.iter_blob_files()} == blobs


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b'{"files":[],"gaps":["!"],"size":1}', b'{"files":[{}]}']
)
def test_damaged_records_are_found_and_taken_away(store: Store, record: bytes) -> None:
    manifest = put(store, FOREIGN["KServe's modelcar"])
    read_model(store, manifest)
    path = store.layout.contents_of(manifest.layers[1].digest)
    path.write_bytes(record)
    with pytest.raises(BlobNotFound):
        read_model(store, manifest)
    with pytest.raises(StoreCorrupt):
        store.gc()  # nobody knows which blobs it needs
    assert [problem.subject for problem in store.fsck(repair=True).problems] == [
        str(manifest.layers[1].digest)
    ]
    assert not path.exists()
    path.write_bytes(record)
    put(store, FOREIGN["KServe's modelcar"])  # as a pull does
    assert read_model(store, manifest).system() == "Hi."
    assert store.fsck().clean


def test_a_record_that_tells_other_bytes_is_not_believed(store: Store) -> None:
    manifest = put(store, FOREIGN["KServe's modelcar"])
    read_model(store, manifest)
    layer = manifest.layers[1]
    path = store.layout.contents_of(layer.digest)
    path.write_bytes(path.read_bytes().replace(b'gaps":["bW', b'gaps":["bX'))
    assert not store.intact(layer.digest)
    assert str(layer.digest) in {problem.subject for problem in store.fsck().problems}
