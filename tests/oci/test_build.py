"""Building models: from files, from other models, and what goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from ggufmaker import (
    FLOAT32,
    INT32,
    bpe_metadata,
    make_adapter,
    make_gguf,
    make_model,
    make_projector,
    make_shards,
    model_metadata,
    model_tensors,
    numbers,
    string,
    strings,
    u32,
)

from lading.modelfile.syntax import parse
from lading.oci.building.build import BuildResult, build
from lading.oci.building.errors import BuildError, InsecurePath, NeedsConversion, SourceNotFound
from lading.oci.dialects import modelpack
from lading.oci.digest import Digest
from lading.oci.errors import ModelNotFound, SourceChanged
from lading.oci.gguf.reader import BadGguf
from lading.oci.layer import Role
from lading.oci.media_type import FILEPATH
from lading.oci.model import Model, read_model
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.store import Store

NAME = "registry.example/team/model:v1"

GOLDEN = "sha256:b7c5a85175171ac33ba67032e97709596e924b3acf3a57d33a9625f9f6448f27"


class Kitchen:
    """A folder with files, a store, and ``create``."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.progress: list[Progress] = []

    def write(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def create(
        self,
        text: str,
        name: str = NAME,
        *,
        args: Mapping[str, str] | None = None,
        epoch: int | None = None,
    ) -> BuildResult:
        return build(
            parse(text),
            context=self.folder,
            store=self.store,
            reference=Reference.parse(name),
            base=self.store.resolve,
            args=args,
            source_date_epoch=epoch,
            progress=self.progress.append,
        )

    def model(self, name: str = NAME) -> Model:
        return read_model(self.store, self.store.resolve(Reference.parse(name)))

    def names(self) -> list[str]:
        return [str(tag.reference) for tag in self.store.tags()]


@pytest.fixture
def kitchen(tmp_path: Path, store: Store) -> Kitchen:
    folder = tmp_path / "context"
    folder.mkdir()
    made = Kitchen(folder, store)
    made.write("m.gguf", make_model())
    return made


def roles(result: BuildResult) -> list[str]:
    return [str(layer.role) for layer in result.layers]


FULL = '''
FROM ./m.gguf
PARAMETER temperature 0.5
PARAMETER num_ctx 2048
PARAMETER stop <end>
PARAMETER stop <stop>
TEMPLATE """{{ .System }}{{ .Prompt }}"""
SYSTEM You are terse.
LICENSE """MIT
"""
LICENSE Second
MESSAGE user hi
MESSAGE assistant hello
COPY README.md README.md
LABEL org.opencontainers.image.licenses=MIT
RENDERER qwen3
PARSER qwen3
REQUIRES 0.14.0
'''


# what a model consists of


def test_every_instruction_becomes_what_it_should(kitchen: Kitchen) -> None:
    kitchen.write("README.md", "# Model\n")
    result = kitchen.create(FULL)
    assert roles(result) == [
        "weights",
        "template",
        "system",
        "params",
        "messages",
        "license",
        "license",
        "readme",
        "modelfile",
    ]
    model = kitchen.model()
    assert model.params() == {"temperature": 0.5, "num_ctx": 2048, "stop": ["<end>", "<stop>"]}
    assert model.system() == "You are terse."
    template = model.template()
    assert template is not None
    assert (template.kind, template.text) == ("go", "{{ .System }}{{ .Prompt }}")
    assert model.licenses() == ("MIT\n", "Second")
    assert [(message.role, message.content) for message in model.messages()] == [
        ("user", "hi"),
        ("assistant", "hello"),
    ]
    assert (model.renderer, model.parser, model.requires) == ("qwen3", "qwen3", "0.14.0")
    assert model.manifest.annotations["org.opencontainers.image.licenses"] == "MIT"
    assert model.store.blob_path(model.weights[0].digest).read_bytes() == make_model()
    assert model.size == sum(blob.size for blob in model.manifest.blobs)


def test_the_envelope_is_modelpack(kitchen: Kitchen) -> None:
    kitchen.write("README.md", "# Model\n")
    manifest = kitchen.create(FULL).manifest
    assert manifest.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert manifest.artifact_type == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest.config.media_type == "application/vnd.cncf.model.config.v1+json"
    titles = [layer.annotations["org.opencontainers.image.title"] for layer in manifest.layers]
    assert titles == [
        "m.gguf",
        "template.gotmpl",
        "system.txt",
        "params.json",
        "messages.json",
        "LICENSE",
        "LICENSE-2",
        "README.md",
        "Modelfile",
    ]
    for layer in manifest.layers:
        assert (
            layer.annotations["org.cncf.model.filepath"]
            == layer.annotations["org.opencontainers.image.title"]
        )
        assert layer.media_type.endswith(".raw")
    assert {layer.media_type.split(".v1.")[0].rpartition("model.")[2] for layer in manifest.layers} == {
        "weight",
        "weight.config",
        "doc",
    }
    config = json.loads(kitchen.store.read_blob(manifest.config.digest, limit=1 << 20))
    assert config["modelfs"] == {
        "type": "layers",
        "diffIds": [str(layer.digest) for layer in manifest.layers],
    }
    assert config["descriptor"] == {"family": "llama", "name": "Fixture"}
    assert config["config"]["format"] == "gguf"
    assert config["config"]["paramSize"] == "27K"
    assert config["config"]["quantization"] == "F32"
    assert "created" not in manifest.raw.decode()


def test_the_kitfile_lists_every_layer_in_order(kitchen: Kitchen) -> None:
    kitchen.write("README.md", "# Model\n")
    manifest = kitchen.create(FULL).manifest
    kitfile = json.loads(manifest.annotations["ml.kitops.modelkit.kitfile"])
    paths = {"weight.v1": [], "weight.config.v1": [], "doc.v1": []}
    for layer in manifest.layers:
        kind = layer.media_type.removeprefix("application/vnd.cncf.model.").removesuffix(".raw")
        paths[kind].append(layer.annotations[FILEPATH])
    assert [kitfile["model"]["path"]] == paths["weight.v1"]
    assert [part["path"] for part in kitfile["model"]["parts"]] == paths["weight.config.v1"]
    assert [doc["path"] for doc in kitfile["docs"]] == paths["doc.v1"]
    assert kitfile["model"]["parameters"]["num_ctx"] == 2048


def test_details_say_what_listings_show(kitchen: Kitchen) -> None:
    kitchen.create("FROM m.gguf")
    details = kitchen.model().details
    assert details.format == "gguf"
    assert (details.family, details.families) == ("llama", ("llama",))
    assert (details.parameter_size, details.quantization_level) == ("27K", "F32")
    assert (details.context_length, details.embedding_length) == (512, 32)
    assert details.parent_model == ""


def test_the_modelfile_layer_names_no_local_path(kitchen: Kitchen) -> None:
    kitchen.write("docs/README.md", "# Model\n")
    kitchen.write("lora.gguf", make_adapter())
    text = f"""
    ARG who=you
    # a comment
    FROM {kitchen.folder}/m.gguf
    ADAPTER ./lora.gguf
    COPY docs/README.md README.md
    SYSTEM Hello ${{who}}
    """
    result = kitchen.create(text, args={"who": "me"})
    modelfile = kitchen.model().modelfile()
    digests = {layer.role: layer.digest for layer in result.layers}
    assert modelfile is not None
    assert str(kitchen.folder) not in modelfile
    assert modelfile.split("\n\n") == [
        f"FROM @{digests[Role.WEIGHTS]}",
        f"ADAPTER @{digests[Role.ADAPTER]}",
        f"COPY @{digests[Role.README]} README.md",
        "SYSTEM Hello me\n",
    ]
    assert str(kitchen.folder) not in result.manifest.raw.decode()


def test_the_modelfile_layer_builds_the_same_model_again(kitchen: Kitchen) -> None:
    kitchen.write("model.gguf", make_model(seed=5))
    kitchen.write("README.md", "# Model\n")
    first = kitchen.create(FULL.replace("./m.gguf", "model.gguf"))
    text = kitchen.model().modelfile()
    assert text is not None
    again = kitchen.create(text, "again")
    assert again.manifest.raw == first.manifest.raw


# reproducible


def test_the_same_inputs_give_the_same_bytes_anywhere(tmp_path: Path) -> None:
    manifests = []
    for number, (folder, name) in enumerate((("a", "x"), ("b/deep er/ü", "host:5000/y/z:1"))):
        context = tmp_path / folder
        context.mkdir(parents=True)
        kitchen = Kitchen(context, Store.open(tmp_path / f"store-{number}"))
        kitchen.write("m.gguf", make_model())
        readme = kitchen.write("README.md", "# Model\n")
        os.utime(readme, (number * 1000, number * 1000))
        readme.chmod(0o600 + number)
        manifests.append(kitchen.create(FULL, name).manifest.raw)
    assert manifests[0] == manifests[1]


def test_golden_digest(kitchen: Kitchen) -> None:
    """A change of this digest means that every user's models change theirs: say so in the change log."""
    kitchen.write("README.md", "# Model\n")
    assert str(kitchen.create(FULL).manifest.digest) == GOLDEN


def test_golden_digest_of_the_tiny_model_s_weights(kitchen: Kitchen, tiny_chat: Path) -> None:
    kitchen.write("tiny-chat.gguf", tiny_chat.read_bytes())
    layer = kitchen.create("FROM tiny-chat.gguf").layers[0]
    assert layer.digest == Digest.of(tiny_chat.read_bytes())
    assert layer.filepath == "tiny-chat.gguf"
    assert kitchen.model().details.parameter_size.endswith("M")


def test_any_input_changes_the_digest(kitchen: Kitchen) -> None:
    digests = {kitchen.create("FROM m.gguf").manifest.digest}
    for text in ("FROM m.gguf\nSYSTEM x", "FROM m.gguf\nSYSTEM y", "FROM m.gguf\nLABEL a=b", "FROM n.gguf"):
        kitchen.write("n.gguf", make_model())
        digests.add(kitchen.create(text).manifest.digest)
    kitchen.write("m.gguf", make_model(seed=1))
    digests.add(kitchen.create("FROM m.gguf").manifest.digest)
    assert len(digests) == 6


def test_a_date_is_written_when_it_is_given(kitchen: Kitchen) -> None:
    manifest = kitchen.create("FROM m.gguf", epoch=1_700_000_000).manifest
    assert manifest.annotations["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    config = json.loads(kitchen.store.read_blob(manifest.config.digest, limit=1 << 20))
    assert config["descriptor"]["createdAt"] == "2023-11-14T22:13:20Z"


# inheritance


def test_a_derived_model_shares_layers_and_overrides(kitchen: Kitchen) -> None:
    kitchen.write("README.md", "# Model\n")
    base = kitchen.create(FULL)
    result = kitchen.create(
        f"FROM {NAME}\nPARAMETER temperature 1\nPARAMETER stop other\nSYSTEM New\nLICENSE Third", "child"
    )
    model = kitchen.model("child")
    assert model.params() == {"temperature": 1.0, "num_ctx": 2048, "stop": ["other"]}
    assert model.system() == "New"
    template = model.template()
    assert template is not None and template.text.startswith("{{ .System }}")
    assert len(model.messages()) == 2
    assert model.licenses() == ("MIT\n", "Second", "Third")
    assert (model.renderer, model.parser, model.requires) == ("qwen3", "qwen3", "0.14.0")
    assert model.details.parent_model == Reference.parse(NAME).display
    assert model.manifest.annotations[modelpack.BASE_DIGEST] == str(base.manifest.digest)
    shared = {layer.digest for layer in base.layers} & {layer.digest for layer in result.layers}
    assert len(shared) == 6  # weights, template, messages, two licences, README
    assert model.modelfile() is not None
    assert f"FROM {NAME}@{base.manifest.digest}\n" in str(model.modelfile())


INHERITANCE = {
    "messages replaced": ("MESSAGE user new", lambda m: [x.content for x in m.messages()] == ["new"]),
    "empty system keeps the base's": ('SYSTEM ""', lambda m: m.system() == "You are terse."),
    "empty template keeps the base's": ('TEMPLATE ""', lambda m: m.template().kind == "go"),
    "jinja replaces go": (
        "TEMPLATE {% for m in messages %}{% endfor %}",
        lambda m: (m.template().kind, m.template_of("go")) == ("jinja", None),
    ),
    "no parameters keep the base's": ("SYSTEM x", lambda m: m.params()["num_ctx"] == 2048),
    "the same licence is not repeated": ("LICENSE Second", lambda m: m.licenses() == ("MIT\n", "Second")),
    "renderer replaced": ("RENDERER other", lambda m: (m.renderer, m.parser) == ("other", "qwen3")),
    "readme replaced": ("COPY NEW.md README.md", lambda m: len(m.of(Role.README)) == 1),
}


@pytest.mark.parametrize(("text", "holds"), INHERITANCE.values(), ids=INHERITANCE)
def test_what_a_derived_model_inherits(kitchen: Kitchen, text: str, holds: object) -> None:
    kitchen.write("README.md", "# Model\n")
    kitchen.write("NEW.md", "# New\n")
    kitchen.create(FULL)
    kitchen.create(f"FROM {NAME}\n{text}\n", "child")
    assert callable(holds) and holds(kitchen.model("child"))


def test_a_derived_model_copies_no_weights(kitchen: Kitchen) -> None:
    kitchen.create("FROM m.gguf")
    before = {
        path: path.stat().st_ino for path in (kitchen.store.root / "blobs").rglob("*") if path.is_file()
    }
    kitchen.create(f"FROM {NAME}\nSYSTEM x", "child")
    after = {path: path.stat().st_ino for path in (kitchen.store.root / "blobs").rglob("*") if path.is_file()}
    assert all(after[path] == inode for path, inode in before.items())
    assert all(path.stat().st_size < 10_000 for path in set(after) - set(before))


def test_children_of_children(kitchen: Kitchen) -> None:
    kitchen.create("FROM m.gguf\nPARAMETER top_k 1", "a")
    kitchen.create("FROM a\nPARAMETER top_p 0.5", "b")
    kitchen.create("FROM b\nPARAMETER top_k 3", "c")
    assert kitchen.model("c").params() == {"top_k": 3, "top_p": 0.5}
    assert kitchen.model("c").weights[0].filepath == "m.gguf"


def test_a_base_pinned_by_digest(kitchen: Kitchen) -> None:
    first = kitchen.create("FROM m.gguf\nSYSTEM first", "a")
    kitchen.create("FROM m.gguf\nSYSTEM first", "keep")
    kitchen.create("FROM m.gguf\nSYSTEM second", "a")
    kitchen.create(f"FROM keep@{first.manifest.digest}", "child")
    assert kitchen.model("child").system() == "first"


# FROM: files, folders, blobs, shards, projectors, adapters, drafts


def test_a_blob_of_the_store(kitchen: Kitchen) -> None:
    imported = kitchen.store.import_file(kitchen.folder / "m.gguf")
    result = kitchen.create(f"FROM @{imported.digest}")
    assert result.layers[0].digest == imported.digest
    assert result.layers[0].filepath == "model.gguf"


@pytest.mark.parametrize("text", ["FROM .", "FROM ./", "FROM sub", 'FROM ""'], ids=repr)
def test_a_folder_with_one_gguf_file(kitchen: Kitchen, text: str) -> None:
    kitchen.write("sub/n.gguf", make_model(seed=1))
    kitchen.write("sub/config.json", "{}")
    assert kitchen.create(text).layers[0].filepath == ("n.gguf" if "sub" in text else "m.gguf")


def test_shards_of_a_folder_keep_their_order_and_names(kitchen: Kitchen) -> None:
    shards = make_shards(3)
    for number, data in enumerate(shards, 1):
        kitchen.write(f"split/big-{number:05}-of-00003.gguf", data)
    result = kitchen.create("FROM split")
    weights = [layer for layer in result.layers if layer.role is Role.WEIGHTS]
    assert [layer.filepath for layer in weights] == [f"big-{n:05}-of-00003.gguf" for n in (1, 2, 3)]
    assert [layer.digest for layer in weights] == [Digest.of(data) for data in shards]
    assert kitchen.model().details.parameter_size == "27K"


def test_shards_named_in_any_order_and_way(kitchen: Kitchen) -> None:
    for letter, data in zip("cab", make_shards(3), strict=True):
        kitchen.write(f"{letter}.gguf", data)
    result = kitchen.create("FROM a.gguf\nFROM b.gguf\nFROM c.gguf")
    assert [layer.filepath for layer in result.layers[:3]] == [f"c-{n:05}-of-00003.gguf" for n in (1, 2, 3)]


def test_projector_adapter_and_draft(kitchen: Kitchen) -> None:
    kitchen.write("vision.gguf", make_projector())
    kitchen.write("lora.gguf", make_adapter())
    kitchen.write("small.gguf", make_model(seed=9))
    result = kitchen.create("FROM vision.gguf\nFROM m.gguf\nADAPTER lora.gguf\nDRAFT small.gguf")
    assert [(str(layer.role), layer.filepath) for layer in result.layers[:4]] == [
        ("weights", "m.gguf"),
        ("projector", "mmproj-vision.gguf"),
        ("adapter", "adapter.gguf"),
        ("draft", "draft.gguf"),
    ]
    model = kitchen.model()
    assert model.projector and model.draft and model.adapters
    assert model.config["config"]["capabilities"]["inputTypes"] == ["text", "image"]
    kitchen.write("lora2.gguf", make_adapter(seed=3))
    kitchen.create(f"FROM {NAME}\nADAPTER lora2.gguf", "child")
    child = kitchen.model("child")
    assert child.projector == model.projector
    assert child.config["config"]["capabilities"]["inputTypes"] == ["text", "image"]
    assert [layer.digest for layer in child.adapters] == [Digest.of(make_adapter(seed=3))]


def test_a_projector_added_to_a_model(kitchen: Kitchen) -> None:
    kitchen.create("FROM m.gguf", "base")
    kitchen.write("x-mmproj.gguf", make_projector())
    kitchen.create("FROM base\nFROM x-mmproj.gguf")
    projector = kitchen.model().projector
    assert projector is not None
    assert projector.filepath == "x-mmproj.gguf"


def test_an_adapter_in_from_is_an_adapter(kitchen: Kitchen) -> None:
    kitchen.write("lora.gguf", make_adapter())
    assert "adapter" in roles(kitchen.create("FROM m.gguf\nFROM lora.gguf"))


def test_the_last_adapter_counts(kitchen: Kitchen) -> None:
    kitchen.write("lora.gguf", make_adapter())
    result = kitchen.create("FROM m.gguf\nADAPTER missing.gguf\nADAPTER lora.gguf")
    assert roles(result).count("adapter") == 1
    assert "missing" not in str(kitchen.model().modelfile())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Model v1 (Q4).gguf", "Model-v1-Q4.gguf"),
        ("plain", "plain.gguf"),
        ("UPPER.GGUF", "UPPER.gguf"),
        ("größe.gguf", "gr-e.gguf"),
        (".hidden.gguf", "hidden.gguf"),
        ("mmproj-not.gguf", "model.gguf"),
    ],
)
def test_names_of_weights_are_safe_everywhere(kitchen: Kitchen, name: str, expected: str) -> None:
    kitchen.write(name, make_model())
    assert kitchen.create(f"FROM ./{name}").layers[0].filepath == expected


def test_a_symbolic_link_that_is_named_is_followed(kitchen: Kitchen, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.bin.gguf"
    target.write_bytes(make_model(seed=2))
    (kitchen.folder / "link.gguf").symlink_to(target)
    layer = kitchen.create("FROM link.gguf").layers[0]
    assert (layer.filepath, layer.digest) == ("link.gguf", Digest.of(make_model(seed=2)))


def test_home_is_expanded(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(kitchen.folder))
    assert kitchen.create("FROM ~/m.gguf").layers[0].filepath == "m.gguf"


# COPY


def test_a_folder_of_documents(kitchen: Kitchen) -> None:
    kitchen.write("docs/b.md", "b")
    kitchen.write("docs/sub/a.md", "a")
    kitchen.write("docs/sub/b.md", "other")
    kitchen.write("docs/.hidden", "x")
    result = kitchen.create("FROM m.gguf\nCOPY docs manual")
    docs = {layer.filepath: layer for layer in result.layers if layer.role is Role.DOC}
    assert sorted(docs) == ["manual/b.md", "manual/sub/a.md", "manual/sub/b-2.md"]
    titles = [layer.annotations["org.opencontainers.image.title"] for layer in result.manifest.layers]
    assert len(set(titles)) == len(titles)
    assert all("/" not in title for title in titles)


def test_a_jinja_template_can_be_copied(kitchen: Kitchen) -> None:
    kitchen.write("t.jinja", "{% for m in messages %}{% endfor %}")
    kitchen.create("FROM m.gguf\nTEMPLATE {{ .Prompt }}", "base")
    kitchen.create("FROM base\nCOPY t.jinja chat_template.jinja")
    template = kitchen.model().template()
    assert template is not None
    assert template.kind == "jinja"
    assert kitchen.model().template_of("go") is None
    with pytest.raises(BuildError, match="template already"):
        kitchen.create("FROM m.gguf\nTEMPLATE x\nCOPY t.jinja chat_template.jinja")


# progress


def test_progress_speaks_like_ollama(kitchen: Kitchen) -> None:
    result = kitchen.create("FROM m.gguf\nSYSTEM x")
    statuses = [step.status for step in kitchen.progress]
    assert statuses[0] == "parsing GGUF"
    assert f"creating new layer {result.layers[0].digest}" in statuses
    assert statuses[-2:] == ["writing manifest", "success"]
    copied = [step for step in kitchen.progress if step.status == "copying file m.gguf"]
    assert copied[-1].completed == copied[-1].total == len(make_model())
    kitchen.progress.clear()
    kitchen.create(f"FROM {NAME}", "child")
    assert f"using existing layer {result.layers[0].digest}" in [step.status for step in kitchen.progress]


# what goes wrong: the error, what its message says; and that nothing is tagged

FAILURES: dict[str, tuple[str, type[Exception], str]] = {
    "missing file": ("FROM ./x.gguf", SourceNotFound, "file not found"),
    "missing file names what is there": ("FROM ./x.gguf", SourceNotFound, "x.gguf"),
    "missing file without a dot": ("FROM x.gguf", SourceNotFound, "file not found"),
    "missing absolute file": ("FROM /nowhere/x", SourceNotFound, "file not found"),
    "missing user": ("FROM ~nobody-here/x", BuildError, "FROM ~nobody-here/x"),
    "unknown model": ("FROM nothere", ModelNotFound, "nothere"),
    "no such name": ("FROM a b", BuildError, "no file of that name"),
    "bad digest": ("FROM @sha256:12", BuildError, "64"),
    "blob not there": (f"FROM @sha256:{'0' * 64}", BuildError, "no such blob"),
    "safetensors": ("FROM w.safetensors", NeedsConversion, "conversion is not supported yet"),
    "folder of safetensors": ("FROM hf", NeedsConversion, "model.safetensors"),
    "empty folder": ("FROM empty", SourceNotFound, "no .gguf file"),
    "not GGUF": ("FROM text.gguf", BadGguf, "it starts with"),
    "broken GGUF": ("FROM broken.gguf", BadGguf, "block_count"),
    "cut off": ("FROM cut.gguf", BadGguf, "cut.gguf"),
    "two models": ("FROM m.gguf\nFROM n.gguf", BuildError, "names 2 models: m.gguf, n.gguf"),
    "model and weights": ("FROM base\nFROM m.gguf", BuildError, "both a model"),
    "two base models": ("FROM base\nFROM other", BuildError, "base model already"),
    "only a projector": ("FROM mmproj.gguf", BuildError, "no FROM names the weights"),
    "two projectors": ("FROM m.gguf\nFROM mmproj.gguf\nFROM mmproj2.gguf", BuildError, "only one projector"),
    "shard missing": ("FROM s1.gguf\nFROM s2.gguf", BuildError, "2 of its 3 shards"),
    "one shard alone": ("FROM s1.gguf", BuildError, "1 of its 3 shards"),
    "adapter is a model": ("FROM m.gguf\nADAPTER n.gguf", BuildError, "expected an adapter"),
    "adapter missing": ("FROM m.gguf\nADAPTER x.gguf", SourceNotFound, "ADAPTER x.gguf"),
    "adapter by name": ("FROM m.gguf\nADAPTER nothere", BuildError, "file not found: nothere"),
    "adapter of another model": ("FROM m.gguf\nADAPTER wide.gguf", BadGguf, "another model"),
    "draft is an adapter": ("FROM m.gguf\nDRAFT lora.gguf", BuildError, "expected a model"),
    "draft of another vocabulary": ("FROM m.gguf\nDRAFT bpe.gguf", BadGguf, "'tokenizer.ggml.model'"),
    "draft of a larger vocabulary": (
        "FROM base\nDRAFT large.gguf",
        BadGguf,
        "390 tokens, but the model has 261",
    ),
    "draft with another token": ("FROM m.gguf\nDRAFT other.gguf", BadGguf, "token 260 is not the model's"),
    "draft that begins otherwise": ("FROM m.gguf\nDRAFT begins.gguf", BadGguf, "bos_token_id"),
    "draft is the model": ("FROM m.gguf\nDRAFT m.gguf", BuildError, "same local path"),
    "imatrix": ("FROM imatrix.gguf", BadGguf, "imatrix"),
    "vocabulary only": ("FROM vocab.gguf", BadGguf, "no tensors"),
    "FIFO": ("FROM fifo.gguf", BuildError, "not a regular file"),
    "copy missing": ("FROM m.gguf\nCOPY x.md x.md", SourceNotFound, "x.md"),
    "copy link out": ("FROM m.gguf\nCOPY out.md x.md", InsecurePath, "insecure path"),
    "copy GGUF": ("FROM m.gguf\nCOPY n.gguf n.gguf", BuildError, "no document"),
    "folder with link out": ("FROM linked", InsecurePath, "insecure path"),
    "template broken": ("FROM m.gguf\nTEMPLATE {{ if }}", BuildError, "not a Go template"),
    "template not closed": ("FROM m.gguf\nTEMPLATE {{ .Prompt", BuildError, "line 2: TEMPLATE {{ .Prompt"),
    "system too large": ("FROM m.gguf\nSYSTEM " + "x" * (4 << 20) + "x", BuildError, "at most 4,194,304"),
    "reserved label": ("FROM m.gguf\nLABEL org.lading.role=x", BuildError, "reserved"),
}


@pytest.mark.parametrize(("text", "error", "words"), FAILURES.values(), ids=FAILURES)
def test_failures_are_clear_and_leave_no_tag(
    kitchen: Kitchen, tmp_path: Path, text: str, error: type[Exception], words: str
) -> None:
    stock(kitchen, tmp_path)
    before = kitchen.names()
    with pytest.raises(error) as caught:
        kitchen.create(text, "failed")
    assert words in str(caught.value)
    assert kitchen.names() == before
    kitchen.store.gc()
    assert kitchen.store.fsck().problems == ()


def stock(kitchen: Kitchen, tmp_path: Path) -> None:
    """Fill the folder with everything that can go wrong."""
    outside = tmp_path / "outside.gguf"
    outside.write_bytes(make_model())
    kitchen.write("n.gguf", make_model(seed=1))
    kitchen.write("w.safetensors", b"\0" * 100)
    kitchen.write("hf/model.safetensors", b"\0" * 100)
    kitchen.write("text.gguf", "hello, this is no model at all, just some text")
    kitchen.write("broken.gguf", make_model(llama__block_count=u32(0)))
    kitchen.write("cut.gguf", make_model()[:-50_000])
    kitchen.write("mmproj.gguf", make_projector())
    kitchen.write("mmproj2.gguf", make_projector(seed=1))
    kitchen.write("lora.gguf", make_adapter())
    kitchen.write("wide.gguf", make_adapter(embedding=64))
    tokens, merges = [chr(ord("a") + i) for i in range(9)], ["a b"]
    kitchen.write("bpe.gguf", make_gguf(bpe_metadata(tokens, merges), model_tensors(vocabulary=9)))
    kitchen.write("large.gguf", larger_model(129))
    kitchen.write("other.gguf", make_model().replace(b"world", b"wOrld"))
    kitchen.write("begins.gguf", make_model(tokenizer__ggml__bos_token_id=u32(2)))
    kitchen.write("imatrix.gguf", make_model(general__type=string("imatrix")))
    kitchen.write("vocab.gguf", make_gguf({"general.architecture": string("llama")}))
    for number, data in enumerate(make_shards(3), 1):
        kitchen.write(f"s{number}.gguf", data)
    (kitchen.folder / "empty").mkdir()
    (kitchen.folder / "linked").mkdir()
    (kitchen.folder / "linked" / "x.gguf").symlink_to(outside)
    (kitchen.folder / "out.md").symlink_to(outside)
    os.mkfifo(kitchen.folder / "fifo.gguf")
    kitchen.create("FROM m.gguf", "base")
    kitchen.create("FROM m.gguf", "other")


def larger_model(more: int) -> bytes:
    """The small model with so many tokens at the end of its vocabulary."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "hello", "world"]
    tokens += [f"more{i}" for i in range(more)]
    metadata = model_metadata(
        llama__vocab_size=u32(len(tokens)),
        tokenizer__ggml__tokens=strings(tokens),
        tokenizer__ggml__scores=numbers(FLOAT32, [0.0] * len(tokens)),
        tokenizer__ggml__token_type=numbers(INT32, [2, 3, 3, *[6] * 256, *[1] * (more + 2)]),
    )
    return make_gguf(metadata, model_tensors(vocabulary=len(tokens)))


def test_a_draft_with_some_tokens_more_fits(kitchen: Kitchen) -> None:
    kitchen.write("large.gguf", larger_model(128))
    assert "draft" in roles(kitchen.create("FROM m.gguf\nDRAFT large.gguf"))
    kitchen.create("FROM m.gguf", "base")
    assert "draft" in roles(kitchen.create("FROM base\nDRAFT large.gguf", "child"))


def test_errors_name_the_line(kitchen: Kitchen) -> None:
    with pytest.raises(SourceNotFound, match="line 3") as caught:
        kitchen.create("# hello\n\nFROM ./x.gguf\n")
    assert caught.value.line == 3
    assert caught.value.hint == "in that folder: m.gguf"


def test_a_failed_create_leaves_the_earlier_model(kitchen: Kitchen) -> None:
    before = kitchen.create("FROM m.gguf\nSYSTEM old").manifest
    with pytest.raises(SourceNotFound):
        kitchen.create("FROM x.gguf")
    assert kitchen.store.resolve(Reference.parse(NAME)).raw == before.raw


def test_a_file_that_changes_after_the_check_is_not_taken(kitchen: Kitchen) -> None:
    """A hostile file takes the place of the checked one while the next one is checked."""
    evil = kitchen.write("evil", make_model(llama__block_count=u32(100_000)))
    kitchen.write("mmproj.gguf", make_projector())

    def swap(step: Progress) -> None:
        kitchen.progress.append(step)
        if [step.status for step in kitchen.progress] == ["parsing GGUF"] * 2:
            evil.replace(kitchen.folder / "m.gguf")

    with pytest.raises(SourceChanged, match=r"m\.gguf"):
        build(
            parse("FROM m.gguf\nFROM mmproj.gguf"),
            context=kitchen.folder,
            store=kitchen.store,
            reference=Reference.parse(NAME),
            base=kitchen.store.resolve,
            progress=swap,
        )
    assert not evil.exists()
    assert kitchen.names() == []
