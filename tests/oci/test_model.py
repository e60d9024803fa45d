"""Reading models: roles in each dialect, bounded texts, details, and the history of layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ggufmaker import make_model, make_projector, make_shards
from tarmaker import make_tar

from lading.modelfile.syntax import parse
from lading.oci.building.build import build
from lading.oci.canonical import canonical_json
from lading.oci.descriptor import Descriptor
from lading.oci.digest import Digest
from lading.oci.errors import BadJson, BadManifest, BlobNotFound, SizeMismatch
from lading.oci.gguf.reader import BadGguf
from lading.oci.history import history
from lading.oci.layer import Role
from lading.oci.manifest import Manifest
from lading.oci.model import Dialect, Model, read_model
from lading.oci.parameter_count import format_parameter_count
from lading.oci.reference import Reference
from lading.oci.store import Store
from lading.oci.unpacking import BadLayer

OLLAMA = "application/vnd.ollama.image."
DOCKER_AI = "application/vnd.docker.ai."
PACK = "application/vnd.cncf.model."
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"

Blob = tuple[str, bytes, dict[str, str]]


def put(
    store: Store,
    blobs: list[Blob],
    *,
    config: Any,
    config_type: str,
    artifact_type: str | None = None,
    docker: bool = False,
    name: str = "foreign",
) -> Manifest:
    """Store and tag an artifact of these blobs: (media type, bytes, annotations)."""
    with store.lease():
        layers = [Descriptor(type_, store.put_bytes(data), len(data), notes) for type_, data, notes in blobs]
        body = config if isinstance(config, bytes) else canonical_json(config)
        manifest = Manifest.build(
            config=Descriptor(config_type, store.put_bytes(body), len(body)),
            layers=layers,
            artifact_type=artifact_type,
            media_type="application/vnd.docker.distribution.manifest.v2+json"
            if docker
            else "application/vnd.oci.image.manifest.v1+json",
        )
        store.tag(Reference.parse(name), store.put_manifest(manifest))
    return manifest


def put_ollama(store: Store, blobs: list[Blob], config: Any = None, name: str = "foreign") -> Manifest:
    return put(
        store,
        blobs,
        config={"model_format": "gguf"} if config is None else config,
        config_type="application/vnd.docker.container.image.v1+json",
        docker=True,
        name=name,
    )


def put_pack(
    store: Store, blobs: list[Blob], config: Any = None, artifact_type: str | None = PACK + "manifest.v1+json"
) -> Manifest:
    body: Any = {"descriptor": {}, "config": {}, "modelfs": {}} if config is None else config
    return put(store, blobs, config=body, config_type=PACK + "config.v1+json", artifact_type=artifact_type)


WEIGHTS = make_model()
OLLAMA_BLOBS: list[Blob] = [
    (OLLAMA + "model", WEIGHTS, {}),
    (OLLAMA + "projector", make_projector(), {}),
    (OLLAMA + "template", b"{{ .Prompt }}", {}),
    (OLLAMA + "system", b"You are terse.", {}),
    (OLLAMA + "params", b'{"stop":["x"],"num_ctx":8192}', {}),
    (OLLAMA + "messages", b'[{"role":"user","content":"hi"}]', {}),
    (OLLAMA + "license", b"MIT", {}),
    (OLLAMA + "license", b"more", {}),
    (OLLAMA + "embed", b"obsolete", {}),
]
OLLAMA_CONFIG = {
    "model_format": "gguf",
    "model_family": "llama",
    "model_families": ["llama", "clip"],
    "model_type": "3.2B",
    "file_type": "Q4_K_M",
    "renderer": "qwen3",
    "context_length": 4096,
    "architecture": "amd64",
    "os": "linux",
}


def read(store: Store, manifest: Manifest) -> Model:
    return read_model(store, manifest)


def test_ollama_s_manifests(store: Store) -> None:
    model = read(store, put_ollama(store, OLLAMA_BLOBS, OLLAMA_CONFIG))
    assert model.dialect is Dialect.OLLAMA
    assert [str(layer.role) for layer in model.layers] == [
        "weights",
        "projector",
        "template",
        "system",
        "params",
        "messages",
        "license",
        "license",
        "other",
    ]
    assert model.system() == "You are terse."
    assert model.params() == {"stop": ["x"], "num_ctx": 8192}
    assert model.licenses() == ("MIT", "more")
    template = model.template()
    assert template is not None and (template.kind, template.text) == ("go", "{{ .Prompt }}")
    assert (model.renderer, model.parser, model.requires) == ("qwen3", None, None)
    details = model.details
    assert (details.family, details.families) == ("llama", ("llama", "clip"))
    assert (details.parameter_size, details.quantization_level, details.context_length) == (
        "3.2B",
        "Q4_K_M",
        4096,
    )


def test_a_model_of_ollama_s_can_be_built_upon(store: Store, tmp_path: Path) -> None:
    put_ollama(store, OLLAMA_BLOBS, OLLAMA_CONFIG, name="llama3.2")
    result = build(
        parse("FROM llama3.2\nPARAMETER temperature 0\n"),
        context=tmp_path,
        store=store,
        reference=Reference.parse("mine"),
        base=store.resolve,
    )
    model = read(store, result.manifest)
    assert model.dialect is Dialect.MODELPACK
    assert model.weights[0].digest == Digest.of(WEIGHTS)
    assert model.weights[0].filepath == "model.gguf"
    assert model.projector is not None and "mmproj" in model.projector.filepath
    assert model.params() == {"stop": ["x"], "num_ctx": 8192, "temperature": 0.0}
    assert model.system() == "You are terse."
    assert model.licenses() == ("MIT", "more")
    assert model.renderer == "qwen3"
    assert model.details.parent_model == "llama3.2:latest"


def test_docker_s_manifests(store: Store) -> None:
    one, two = make_shards(2)
    manifest = put(
        store,
        [
            (DOCKER_AI + "gguf.v3", two, {FILEPATH: "m-00002-of-00002.gguf"}),
            (DOCKER_AI + "gguf.v3", one, {FILEPATH: "m-00001-of-00002.gguf"}),
            (DOCKER_AI + "mmproj", make_projector(), {}),
            (DOCKER_AI + "chat.template.jinja", b"{% for m in messages %}{% endfor %}", {}),
            (DOCKER_AI + "license", b"MIT", {}),
        ],
        config={
            "config": {"format": "gguf", "architecture": "llama", "parameters": "27K", "quantization": "F32"}
        },
        config_type=DOCKER_AI + "model.config.v0.1+json",
    )
    model = read(store, manifest)
    assert model.dialect is Dialect.DOCKER
    assert [layer.digest for layer in model.weights] == [Digest.of(one), Digest.of(two)]
    template = model.template()
    assert template is not None and template.kind == "jinja"
    assert (model.details.family, model.details.parameter_size) == ("llama", "27K")


FOREIGN: dict[str, tuple[list[Blob], list[str]]] = {
    "by file path": (
        [
            (PACK + "weight.config.v1.raw", b"{%%}", {FILEPATH: "chat_template.jinja"}),
            (PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "llama.Q4_K_M.gguf"}),
            (PACK + "doc.v1.raw", b"MIT", {FILEPATH: "LICENSE"}),
            (PACK + "doc.v1.raw", b"# x", {FILEPATH: "docs/README.md"}),
            (PACK + "doc.v1.raw", b"x", {FILEPATH: "notes.txt"}),
        ],
        ["weights", "chat-template", "license", "readme", "doc"],
    ),
    "by title": ([(PACK + "weight.v1.raw", WEIGHTS, {TITLE: "x.gguf"})], ["weights"]),
    "mmproj by name": (
        [
            (PACK + "weight.v1.raw", make_projector(), {FILEPATH: "mmproj-f16.gguf"}),
            (PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "main.gguf"}),
        ],
        ["weights", "projector"],
    ),
    "archives that are no part of the model are left alone": (
        [
            (PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "main.gguf"}),
            (PACK + "code.v1.tar", b"x", {FILEPATH: "README.md"}),
            (PACK + "dataset.v1.tar+zstd", b"x", {FILEPATH: "x.gguf"}),
        ],
        ["weights", "other", "other"],
    ),
    "our annotation counts first": (
        [
            (PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "a.gguf", "org.lading.role": "draft"}),
            (PACK + "weight.v1.raw", make_model(seed=1), {FILEPATH: "b.gguf", "org.lading.role": "weights"}),
        ],
        ["weights", "draft"],
    ),
    "a role from the future": (
        [
            (PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "a.gguf"}),
            (PACK + "weight.config.v1.raw", b"x", {FILEPATH: "params.json", "org.lading.role": "sound"}),
        ],
        ["weights", "other"],
    ),
    "hostile path": (
        [(PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "../../x.gguf", "org.lading.role": "weights"})],
        ["weights"],
    ),
}


@pytest.mark.parametrize(("blobs", "roles"), FOREIGN.values(), ids=FOREIGN)
def test_modelpack_of_others(store: Store, blobs: list[Blob], roles: list[str]) -> None:
    model = read(store, put_pack(store, blobs))
    assert [str(layer.role) for layer in model.layers] == roles
    assert all(".." not in layer.filepath for layer in model.layers)
    assert model.details.family == "llama"  # from the header: the config says nothing
    assert model.details.quantization_level == "F32"


def test_an_artifact_with_an_empty_config_is_read(store: Store) -> None:
    manifest = put(
        store,
        [("application/octet-stream", WEIGHTS, {FILEPATH: "x.gguf"})],
        config=b"{}",
        config_type="application/vnd.oci.empty.v1+json",
        artifact_type=PACK + "manifest.v1+json",
    )
    assert read(store, manifest).weights[0].filepath == "x.gguf"


REFUSED: dict[str, list[Blob]] = {
    "no weights": [(PACK + "doc.v1.raw", b"x", {FILEPATH: "README.md"})],
    "no layers": [],
}


@pytest.mark.parametrize("blobs", REFUSED.values(), ids=REFUSED)
def test_artifacts_without_usable_weights(store: Store, blobs: list[Blob]) -> None:
    manifest = put_pack(store, blobs)
    with pytest.raises(BadManifest, match="model"):
        read(store, manifest)


def test_ordinary_images_are_no_models(store: Store) -> None:
    config = {"config": {}, "config_type": "application/vnd.oci.image.config.v1+json"}
    layer = "application/vnd.oci.image.layer.v1.tar"
    with pytest.raises(BadManifest, match="no layer with weights"):
        read(store, put(store, [(layer, make_tar({"etc/model.gguf": WEIGHTS}), {})], **config))
    with pytest.raises(BadLayer, match="not a tar archive"):
        read(store, put(store, [(layer, b"x" * 1024, {})], **config))
    with pytest.raises(BadLayer, match="compression is damaged"):
        read(store, put(store, [(layer + "+gzip", b"x", {})], **config))
    with pytest.raises(BadLayer, match="zstd"):
        read(store, put(store, [(layer + "+zstd", b"x", {})], **config))
    with pytest.raises(BadManifest, match="not models that can be read"):
        read(store, put(store, [("application/x", b"x", {})], **config))


@pytest.mark.parametrize("config", [b"[]", b"null", b'"x"', b"{", b'{"a":1,"a":2}', b"NaN"], ids=repr)
def test_bad_configs(store: Store, config: bytes) -> None:
    manifest = put_pack(store, [(PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "x.gguf"})], config)
    with pytest.raises((BadManifest, BadJson)):
        read(store, manifest)


@pytest.mark.parametrize(
    "config",
    [
        {"descriptor": [], "config": 7},
        {"descriptor": {"family": 7}, "config": {"paramSize": ["x"], "quantization": None}},
        {},
    ],
    ids=str,
)
def test_configs_of_odd_shape_fall_back_to_the_header(store: Store, config: object) -> None:
    manifest = put_pack(store, [(PACK + "weight.v1.raw", WEIGHTS, {FILEPATH: "x.gguf"})], config)
    assert read(store, manifest).details.parameter_size == "27K"


TEXTS: dict[str, tuple[str, bytes, str]] = {
    "params list": ("params", b"[]", "params"),
    "params broken": ("params", b"{", "params"),
    "params with NaN": ("params", b'{"x":NaN}', "params"),
    "params twice": ("params", b'{"x":1,"x":2}', "params"),
    "messages object": ("messages", b"{}", "messages"),
    "message without role": ("messages", b'[{"content":"x"}]', "messages"),
    "message of unknown role": ("messages", b'[{"role":"tool","content":"x"}]', "messages"),
    "message with number": ("messages", b'[{"role":"user","content":1}]', "messages"),
    "system not UTF-8": ("system", b"\xff", "system"),
    "template not UTF-8": ("template", b"\xff", "template"),
    "system too large": ("system", b"x" * ((4 << 20) + 1), "system"),
}


@pytest.mark.parametrize(("kind", "data", "method"), TEXTS.values(), ids=TEXTS)
def test_bad_texts(store: Store, kind: str, data: bytes, method: str) -> None:
    model = read(store, put_ollama(store, [OLLAMA_BLOBS[0], (OLLAMA + kind, data, {})]))
    with pytest.raises((BadManifest, BadJson, SizeMismatch)):
        getattr(model, method)()


def test_missing_blobs_are_named(store: Store) -> None:
    manifest = put_ollama(store, OLLAMA_BLOBS)
    system = manifest.layers[3].digest
    store.blob_path(system).unlink()
    with pytest.raises(BlobNotFound, match=system.hex):
        read(store, manifest).system()


def test_a_model_without_extras(store: Store) -> None:
    model = read(store, put_ollama(store, OLLAMA_BLOBS[:1]))
    assert model.params() == {}
    assert model.messages() == ()
    assert model.licenses() == ()
    assert model.system() is model.template() is model.modelfile() is model.projector is model.draft is None


def test_weights_that_are_no_gguf(store: Store) -> None:
    model = read(store, put_ollama(store, [(OLLAMA + "model", b"x" * 100, {})]))
    with pytest.raises(BadGguf):
        _ = model.details


def test_a_base_with_hostile_weights_is_refused(store: Store, tmp_path: Path) -> None:
    put_ollama(store, [(OLLAMA + "model", WEIGHTS[:-100], {})], name="evil")
    with pytest.raises(BadGguf, match="weights of evil"):
        build(
            parse("FROM evil"),
            context=tmp_path,
            store=store,
            reference=Reference.parse("mine"),
            base=store.resolve,
        )


# history


def test_history_names_the_instruction_of_each_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(WEIGHTS)
    (tmp_path / "README.md").write_text("# hi")
    base = """FROM m.gguf
PARAMETER stop "a b"
PARAMETER use_mmap true
TEMPLATE {{ .Prompt }}
SYSTEM \"\"\"You are
terse. \"\"\"
MESSAGE user hi
LICENSE MIT
COPY README.md README.md
"""
    for text, name in ((base, "base"), ("FROM base\nSYSTEM other\nMESSAGE user a\nMESSAGE user b", "child")):
        build(parse(text), context=tmp_path, store=store, reference=Reference.parse(name), base=store.resolve)
    steps = history(read(store, store.resolve(Reference.parse("base"))))
    assert [step.created_by for step in steps] == [
        "FROM m.gguf",
        "TEMPLATE {{ .Prompt }}",
        "SYSTEM You are terse.",
        "PARAMETER stop 'a b', use_mmap true",
        "MESSAGE (1 message)",
        "LICENSE MIT",
        "COPY README.md",
        "Modelfile",
    ]
    assert not any(step.inherited for step in steps)
    assert steps[0].size == len(WEIGHTS)
    child = history(read(store, store.resolve(Reference.parse("child"))))
    assert {str(step.role): step.inherited for step in child} == {
        "weights": True,
        "template": True,
        "system": False,
        "params": True,
        "messages": False,
        "license": True,
        "readme": True,
        "modelfile": False,
    }
    assert child[4].created_by == "MESSAGE (2 messages)"


def test_history_of_others(store: Store) -> None:
    steps = history(read(store, put_ollama(store, OLLAMA_BLOBS)))
    assert steps[0].created_by == f"FROM @{Digest.of(WEIGHTS)}"
    assert steps[2].created_by == "TEMPLATE {{ .Prompt }}"
    assert steps[-1].role is Role.OTHER


def test_history_shows_no_control_characters(store: Store) -> None:
    blobs = [OLLAMA_BLOBS[0], (OLLAMA + "system", b"a\x1b[31m\r\nb" + b"x" * 500, {})]
    steps = history(read(store, put_ollama(store, blobs)))
    assert steps[1].created_by.isprintable()
    assert len(steps[1].created_by) < 100


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (8_030_261_312, "8.0B"),
        (10**9, "1B"),
        (137_000_000, "137M"),
        (22_700_000, "22.70M"),
        (1_500, "2K"),
        (500, "500"),
        (0, "0"),
        (999_999, "1000K"),
        (70_550_000_000, "70.5B"),
    ],
)
def test_counts_of_parameters(count: int, text: str) -> None:
    assert format_parameter_count(count) == text
