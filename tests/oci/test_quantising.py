"""Which weights may be quantised to what, and how a build takes in what a quantiser made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ggufmaker import (
    make_adapter,
    make_gguf,
    make_model,
    make_projector,
    make_shards,
    model_metadata,
    model_tensors,
    u32,
)

from lading.modelfile.errors import BusyError
from lading.modelfile.syntax import parse
from lading.oci.building.build import BuildResult, build
from lading.oci.building.quantising import QuantisationJob, Quantiser, Quantising, quantised_name
from lading.oci.dialects import modelpack
from lading.oci.digest import Digest
from lading.oci.errors import DiskFull
from lading.oci.gguf.header import GgufHeader
from lading.oci.gguf.problem import BadGguf
from lading.oci.gguf.quantisation import (
    ALIASES,
    QUANTISATIONS,
    NotQuantisable,
    UnknownQuantisation,
    largest_size,
    parse_quantisation,
    require_quantisable,
)
from lading.oci.gguf.reader import read_header
from lading.oci.gguf.type_table import FILE_TYPES
from lading.oci.history import history
from lading.oci.layer import Role
from lading.oci.model import Model, read_model
from lading.oci.progress import Progress
from lading.oci.reference import Reference
from lading.oci.signing.provenance import provenance
from lading.oci.store import Store

NAME = "registry.example/team/model:v1"
TENSORS = model_tensors()
Q8_TENSORS = [
    type(tensor)(tensor.name, tensor.shape, 8 if len(tensor.shape) > 1 else 0) for tensor in TENSORS
]
Q8_MODEL = make_gguf(model_metadata(general__file_type=u32(7)), Q8_TENSORS)


def writes(data: bytes) -> Quantiser:
    """What a process with llama.cpp would write, sound or not."""

    def quantiser(job: QuantisationJob, report: Callable[[int], None]) -> None:
        report(len(data))
        with job.output.open("wb") as file:
            file.write(data)

    return quantiser


class Kitchen:
    """A folder with files, a store, and ``create``."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.progress: list[Progress] = []

    def create(
        self, text: str, quantiser: Quantiser | None = None, *, name: str = NAME, type_name: str = "Q8_0"
    ) -> BuildResult:
        return build(
            parse(text),
            context=self.folder,
            store=self.store,
            reference=Reference.parse(name),
            base=self.store.resolve,
            quantising=Quantising(parse_quantisation(type_name), quantiser) if quantiser else None,
            progress=self.progress.append,
        )

    def model(self, name: str = NAME) -> Model:
        return read_model(self.store, self.store.resolve(Reference.parse(name)))

    @property
    def leftovers(self) -> list[Path]:
        return list(self.store.layout.ingest.iterdir())


@pytest.fixture
def kitchen(tmp_path: Path, store: Store) -> Kitchen:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "m-f32.gguf").write_bytes(make_model())
    return Kitchen(folder, store)


# The table


@pytest.mark.parametrize("name", QUANTISATIONS)
def test_the_numbers_are_those_of_the_format(name: str) -> None:
    assert FILE_TYPES[QUANTISATIONS[name].file_type] == name


def test_ollamas_types_are_among_them() -> None:
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M"} <= set(QUANTISATIONS)
    assert set(ALIASES.values()) <= set(QUANTISATIONS)


@pytest.mark.parametrize(
    ("text", "name"), [("q4_K_M", "Q4_K_M"), ("Q4_K", "Q4_K_M"), ("q8_0", "Q8_0"), (" iq4_nl ", "IQ4_NL")]
)
def test_names_are_read_in_any_case(text: str, name: str) -> None:
    assert parse_quantisation(text).name == name


@pytest.mark.parametrize("text", ["", "Q4", "IQ2_XXS", "int4", "Q4_K_M\n\x1b[2J", "q" * 500])
def test_what_is_no_type_is_refused_in_ollamas_words(text: str) -> None:
    with pytest.raises(UnknownQuantisation) as caught:
        parse_quantisation(text)
    assert caught.value.message.startswith("unsupported quantization type ")
    assert " - supported types are F32, F16, " in caught.value.message
    assert caught.value.message.isprintable() and len(caught.value.message) < 400


def _header(tmp_path: Path, data: bytes) -> GgufHeader:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    return read_header(path)


@pytest.mark.parametrize(
    ("stated", "type_", "found"),
    [(0, 0, "F32"), (1, 1, "F16"), (32, 30, "BF16"), (None, 1, "F16"), (15, 1, "F16")],
)
def test_what_the_tensors_are_counts(tmp_path: Path, stated: int | None, type_: int, found: str) -> None:
    metadata = model_metadata(general__file_type=u32(stated) if stated is not None else None)
    data = make_gguf(metadata, model_tensors(type_=type_))
    assert require_quantisable("m", [_header(tmp_path, data)]) == found


@pytest.mark.parametrize(("stated", "named"), [(7, "Q8_0"), (15, "Q4_K_M"), (1, "Q8_0"), (None, "Q8_0")])
def test_what_lost_too_much_is_refused(tmp_path: Path, stated: int | None, named: str) -> None:
    data = make_gguf(
        model_metadata(general__file_type=u32(stated) if stated is not None else None), Q8_TENSORS
    )
    with pytest.raises(NotQuantisable) as caught:
        require_quantisable("m.gguf", [_header(tmp_path, data)])
    assert caught.value.message == (
        f"quantization is only supported for F16, BF16 and F32 models: m.gguf is {named}"
    )
    assert caught.value.hint


def test_no_type_makes_more_than_the_largest_size(tmp_path: Path) -> None:
    header = _header(tmp_path, make_gguf(model_metadata(), model_tensors(type_=1)))
    assert header.file_size * 2 < largest_size([header]) < header.file_size * 6


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("m.gguf", "m-Q8_0.gguf"),
        ("M-F16.GGUF", "M-Q8_0.gguf"),
        ("m.fp16.gguf", "m-Q8_0.gguf"),
        ("m-bf16-00001-of-00003.gguf", "m-Q8_0.gguf"),
        ("f16.gguf", "f16-Q8_0.gguf"),
        ("model", "model-Q8_0.gguf"),
    ],
)
def test_the_new_file_is_named_after_its_type(name: str, made: str) -> None:
    assert quantised_name(name, "Q8_0") == made


# Building


def test_the_model_has_the_new_weights_and_says_what_they_were(kitchen: Kitchen) -> None:
    built = kitchen.create("FROM m-f32.gguf\nSYSTEM Be kind.", writes(Q8_MODEL))
    model = kitchen.model()
    [weights] = model.weights
    assert weights.digest == Digest.of(Q8_MODEL)
    assert (weights.filepath, model.details.quantization_level) == ("m-Q8_0.gguf", "Q8_0")
    original = Digest.of((kitchen.folder / "m-f32.gguf").read_bytes())
    assert weights.descriptor.annotations[modelpack.QUANTIZED_FROM] == str(original)
    assert history(model)[0].created_by == f"FROM m-Q8_0.gguf (quantized from {original.short})"
    [stated, *_] = provenance(model, builder="urn:x", version="1")["buildDefinition"]["resolvedDependencies"]
    assert stated["annotations"]["quantizedFrom"] == [str(original)]
    assert not kitchen.store.has(original)  # it was read where it lies
    assert built.layers[0].digest == weights.digest
    assert kitchen.leftovers == []


def test_progress_is_told_in_ollamas_words(kitchen: Kitchen) -> None:
    kitchen.create("FROM m-f32.gguf", writes(Q8_MODEL))
    statuses = list(dict.fromkeys(report.status for report in kitchen.progress))
    assert statuses[:5] == [
        "parsing GGUF",
        "hashing file m-f32.gguf",
        "quantizing F32 model to Q8_0",
        "verifying conversion",
        f"creating new layer {Digest.of(Q8_MODEL)}",
    ]
    counted = [r for r in kitchen.progress if r.status == "quantizing F32 model to Q8_0"]
    assert (counted[-1].completed, counted[-1].total) == (len(Q8_MODEL), len(Q8_MODEL))
    assert counted[-1].digest == Digest.of(make_model())


def test_the_canonical_modelfile_builds_the_same(kitchen: Kitchen) -> None:
    first = kitchen.create("FROM m-f32.gguf\nSYSTEM Be kind.", writes(Q8_MODEL))
    text = kitchen.model().modelfile()
    assert text == f"FROM @{Digest.of(Q8_MODEL)}\n\nSYSTEM Be kind.\n"
    again = kitchen.create(text, name="registry.example/team/again:v1")
    assert [layer.digest for layer in again.layers] == [layer.digest for layer in first.layers]


def test_shards_become_one_file_where_the_first_was_named(kitchen: Kitchen) -> None:
    shards = make_shards(3)
    for number, data in enumerate(shards, start=1):
        (kitchen.folder / f"s-{number:05}-of-00003.gguf").write_bytes(data)
    names = [f"FROM s-{number:05}-of-00003.gguf" for number in (2, 1, 3)]
    seen: list[QuantisationJob] = []

    def quantiser(job: QuantisationJob, report: Callable[[int], None]) -> None:
        seen.append(job)
        writes(Q8_MODEL)(job, report)

    kitchen.create("\n".join(names), quantiser)
    assert [path.name[:7] for path in seen[0].sources] == ["s-00001", "s-00002", "s-00003"]
    [weights] = kitchen.model().weights
    assert weights.filepath == "s-Q8_0.gguf"
    originals = modelpack.quantized_from(weights)
    assert originals == tuple(map(Digest.of, shards))
    assert history(kitchen.model())[0].created_by.endswith(f"from {originals[0].short} and 2 more)")
    assert kitchen.model().modelfile() == f"FROM @{Digest.of(Q8_MODEL)}\n"


def test_a_base_models_weights_are_replaced_and_all_else_stays(kitchen: Kitchen) -> None:
    (kitchen.folder / "a.gguf").write_bytes(make_adapter())
    (kitchen.folder / "p.gguf").write_bytes(make_projector())
    base_name = "registry.example/team/base:v1"
    base = kitchen.create("FROM m-f32.gguf\nFROM p.gguf\nADAPTER a.gguf\nSYSTEM Be kind.", name=base_name)
    built = kitchen.create(f"FROM {base_name}", writes(Q8_MODEL))
    roles = {layer.role: layer.digest for layer in built.layers}
    before = {layer.role: layer.digest for layer in base.layers}
    assert roles.pop(Role.WEIGHTS) == Digest.of(Q8_MODEL)
    assert roles.pop(Role.MODELFILE) != before.pop(Role.MODELFILE)
    assert before.pop(Role.WEIGHTS) == Digest.of(make_model())
    assert roles == before
    assert kitchen.model().details.parent_model == "registry.example/team/base:v1"
    pinned = f"FROM {base_name}@{base.manifest.digest}"
    text = kitchen.model().modelfile() or ""
    assert text == f"# To build the same: lading create --quantize Q8_0\n\n{pinned}\n"
    again = kitchen.create(text, writes(Q8_MODEL), name="registry.example/team/again:v1")
    assert again.manifest.digest == built.manifest.digest


def test_a_model_built_on_it_still_says_what_the_weights_were(kitchen: Kitchen) -> None:
    kitchen.create("FROM m-f32.gguf", writes(Q8_MODEL))
    built = kitchen.create(f"FROM {NAME}\nSYSTEM x", name="registry.example/team/child:v1")
    assert modelpack.quantized_from(built.layers[0]) == (Digest.of(make_model()),)


def test_weights_of_the_type_already_stay_as_they_are(kitchen: Kitchen) -> None:
    def never(job: QuantisationJob, report: Callable[[int], None]) -> None:
        raise AssertionError("there is nothing to do")

    plain = kitchen.create("FROM m-f32.gguf")
    same = kitchen.create("FROM m-f32.gguf", never, type_name="F32")
    assert same.manifest.digest == plain.manifest.digest


def test_what_is_wrong_elsewhere_is_found_before_the_work(kitchen: Kitchen) -> None:
    def never(job: QuantisationJob, report: Callable[[int], None]) -> None:
        raise AssertionError("too early")

    with pytest.raises(Exception, match="not a Go template"):
        kitchen.create("FROM m-f32.gguf\nTEMPLATE {{ .Broken", never)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not a model", id="no GGUF"),
        pytest.param(Q8_MODEL[:-1000], id="cut short"),
        pytest.param(make_shards(2)[0], id="a shard"),
        pytest.param(make_gguf(model_metadata(), TENSORS[:-1]), id="a tensor is missing"),
        pytest.param(make_adapter(), id="an adapter"),
    ],
)
def test_what_comes_out_is_checked(kitchen: Kitchen, data: bytes) -> None:
    with pytest.raises(BadGguf, match=r"m-Q8_0\.gguf"):
        kitchen.create("FROM m-f32.gguf", writes(data))
    assert kitchen.leftovers == []
    assert kitchen.store.tags() == []
    assert not kitchen.store.has(Digest.of(data))


def test_room_is_asked_for_before_anything_is_written(kitchen: Kitchen) -> None:
    def quantiser(job: QuantisationJob, report: Callable[[int], None]) -> None:
        report(0)  # not known yet
        report(1 << 60)
        raise AssertionError("there is not that much room")

    with pytest.raises(DiskFull) as caught:
        kitchen.create("FROM m-f32.gguf", quantiser)
    assert caught.value.needed == 1 << 60
    assert kitchen.leftovers == []


@pytest.mark.parametrize("error", [BusyError("no"), OSError(28, "No space left on device")])
def test_a_failure_leaves_nothing(kitchen: Kitchen, error: Exception) -> None:
    def quantiser(job: QuantisationJob, report: Callable[[int], None]) -> None:
        job.output.write_bytes(Q8_MODEL[:500])
        raise error

    with pytest.raises(DiskFull if isinstance(error, OSError) else BusyError):
        kitchen.create("FROM m-f32.gguf", quantiser)
    assert kitchen.leftovers == []
    assert kitchen.store.tags() == []


def test_an_annotation_that_is_none_of_ours_is_passed_over(kitchen: Kitchen) -> None:
    built = kitchen.create("FROM m-f32.gguf", writes(Q8_MODEL))
    layer = built.layers[0]
    odd = layer.descriptor.annotations | {modelpack.QUANTIZED_FROM: "sha256:zz, or so"}
    changed = type(layer)(layer.role, type(layer.descriptor)("x/y", layer.digest, layer.size, odd), "f")
    assert modelpack.quantized_from(changed) == ()
