"""Quantising with llama.cpp in its process: what comes out, and what is left when it goes wrong."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import TINY_CHAT
from ggufmaker import make_gguf, model_metadata, model_tensors
from model_shelf import ModelShelf
from quantiser_processes import quantiser_processes, wait_for_none, wait_for_quantiser
from random_models import embedding_model, hybrid_model, recurrent_model
from small_disk import small_file_system
from split_model import split_model

from lading.modelfile.errors import LadingError
from lading.modelfile.syntax import parse
from lading.oci.building.build import BuildResult, build
from lading.oci.building.quantising import QuantisationJob, Quantiser, Quantising
from lading.oci.errors import DiskFull, SourceChanged, StoreFailure
from lading.oci.gguf.header import GgufHeader
from lading.oci.gguf.quantisation import QUANTISATIONS, parse_quantisation
from lading.oci.gguf.reader import read_header
from lading.oci.layer import Role
from lading.oci.model import read_model
from lading.oci.reference import Reference
from lading.runtime.errors import QuantisationRefused, QuantiserLost
from lading.runtime.quantiser import SandboxedQuantiser
from lading.runtime.settings import RuntimeSettings

SOURCE = f"FROM {TINY_CHAT}\n"


def quantising(type_name: str, *, threads: int = 1) -> Quantising:
    return Quantising(parse_quantisation(type_name), SandboxedQuantiser(RuntimeSettings(threads=threads)))


def quantise(shelf: ModelShelf, type_name: str, modelfile: str = SOURCE, *, threads: int = 1) -> BuildResult:
    return shelf.quantise("made", modelfile, quantising(type_name, threads=threads))


def weights(shelf: ModelShelf, built: BuildResult) -> GgufHeader:
    [layer] = [layer for layer in built.layers if layer.role is Role.WEIGHTS]
    return read_header(shelf.store.blob_path(layer.digest))


def types_of(header: GgufHeader) -> set[str]:
    """Of the matrices."""
    return {tensor.type.name for tensor in header.tensors if len(tensor.shape) > 1}


@pytest.fixture
def leaves_nothing(shelf: ModelShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Afterwards there is no process, no file on its way, no scratch folder, and what was there is there."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = {path.name for path in shelf.store.layout.blobs.rglob("*")}
    yield
    wait_for_none(os.getpid())
    assert list(shelf.store.layout.ingest.iterdir()) == []
    assert list(scratch.iterdir()) == []
    assert {path.name for path in shelf.store.layout.blobs.rglob("*")} == before
    assert [tag.reference.display for tag in shelf.store.tags()] == ["tiny:latest"]
    assert shelf.store.fsck().clean


# What comes out


@pytest.mark.parametrize("type_name", QUANTISATIONS)
def test_every_type_of_the_table_can_be_made(shelf: ModelShelf, type_name: str) -> None:
    header = weights(shelf, quantise(shelf, type_name))
    assert header.file_type == type_name
    original = read_header(TINY_CHAT)
    assert {tensor.name: tensor.shape for tensor in header.tensors} == {
        tensor.name: tensor.shape for tensor in original.tensors
    }
    if type_name == "F16":  # as it is already
        assert header == original
    else:
        assert types_of(header) != types_of(original)
    bits = header.data_size * 8 / header.parameter_count
    assert 0.8 < bits / QUANTISATIONS[type_name].bits < 1.5, bits


def test_the_same_bytes_come_out_each_time_and_with_any_number_of_threads(
    tmp_path: Path, shelf: ModelShelf
) -> None:
    digests = set()
    for number, threads in enumerate((1, 1, 2, 3, 8)):
        other = ModelShelf(tmp_path / f"store{number}", tmp_path)
        digests.add(quantise(other, "Q4_K_M", threads=threads).manifest.digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("make", "type_name"), [(embedding_model, "Q8_0"), (recurrent_model, "Q5_0"), (hybrid_model, "Q4_0")]
)
def test_other_kinds_of_models(shelf: ModelShelf, make: Callable[[Path, Path], Path], type_name: str) -> None:
    make(shelf.folder / "other.gguf", TINY_CHAT)
    header = weights(shelf, quantise(shelf, type_name, "FROM other.gguf"))
    assert type_name in types_of(header)


def test_rows_that_a_type_cannot_have_get_another(shelf: ModelShelf) -> None:
    """Rows of 64 are no multiple of 256, which types with K need: llama.cpp takes the next best."""
    embedding_model(shelf.folder / "narrow.gguf", TINY_CHAT)
    header = weights(shelf, quantise(shelf, "Q4_K_M", "FROM narrow.gguf"))
    assert header.file_type == "Q4_K_M"
    assert types_of(header) <= {"Q5_0", "Q5_1", "Q8_0", "F32"} and "Q5_0" in types_of(header)


def test_shards_become_one_file(shelf: ModelShelf, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    assert len(split_model(TINY_CHAT, folder, tensors=12)) > 2
    split = quantise(shelf, "Q5_1", f"FROM {folder}")
    header = weights(shelf, split)
    assert header.split is None
    whole = weights(shelf, quantise(shelf, "Q5_1"))
    assert header.tensors == whole.tensors
    [layer] = [layer for layer in split.layers if layer.role is Role.WEIGHTS]
    assert layer.filepath == "model-Q5_1.gguf"
    stored = shelf.store.read_blob(layer.digest, limit=1 << 24)[header.data_offset :]
    [other] = [layer for layer in quantise(shelf, "Q5_1").layers if layer.role is Role.WEIGHTS]
    assert stored == shelf.store.read_blob(other.digest, limit=1 << 24)[whole.data_offset :]


def test_another_alignment_than_llama_cpp_writes(shelf: ModelShelf, tmp_path: Path) -> None:
    [path] = split_model(TINY_CHAT, tmp_path, tensors=0, alignment=128)
    assert read_header(path).alignment == 128
    header = weights(shelf, quantise(shelf, "Q5_0", f"FROM {path}"))
    assert header.alignment == 32
    assert types_of(header) == {"Q5_0", "Q8_0"} or types_of(header) == {"Q5_0", "Q6_K"}


def test_a_file_whose_name_is_no_text(shelf: ModelShelf, tmp_path: Path) -> None:
    folder = tmp_path / "\udcff folder"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(TINY_CHAT.read_bytes())
    link = tmp_path / "link"
    link.symlink_to(folder)
    built = quantise(shelf, "Q5_0", f"FROM {link}/model.gguf")
    assert weights(shelf, built).file_type == "Q5_0"


# What goes wrong


@pytest.mark.usefixtures("leaves_nothing")
def test_a_process_that_is_killed(shelf: ModelShelf) -> None:
    failures: list[Exception] = []

    def work() -> None:
        try:
            quantise(shelf, "IQ3_S")
        except LadingError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    os.kill(wait_for_quantiser(os.getpid()), signal.SIGKILL)
    thread.join(30)
    [error] = failures
    assert isinstance(error, QuantiserLost)
    assert "quantizing tiny-chat.gguf to IQ3_S" in error.message
    assert "killed by SIGKILL" in error.message


@pytest.mark.usefixtures("leaves_nothing")
def test_weights_that_llama_cpp_refuses(shelf: ModelShelf) -> None:
    """The header is sound, the numbers are not."""
    data = b"\xff" * 4_000_000  # not a number, each of them
    (shelf.folder / "nan.gguf").write_bytes(
        make_gguf(model_metadata(), model_tensors(), data=data[: sum(t.size for t in model_tensors())])
    )
    with pytest.raises(QuantisationRefused, match=r"quantizing nan\.gguf to Q8_0: .*invalid data") as caught:
        quantise(shelf, "Q8_0", "FROM nan.gguf")
    assert str(tempfile.gettempdir()) not in caught.value.message


@pytest.mark.usefixtures("leaves_nothing")
def test_whoever_watches_can_end_it(shelf: ModelShelf) -> None:
    class Enough(Exception):
        pass

    def report(_: object) -> None:
        if quantiser_processes(os.getpid()):
            raise Enough

    with pytest.raises(Enough):
        build(
            parse(SOURCE),
            context=shelf.folder,
            store=shelf.store,
            reference=Reference.parse("made"),
            base=shelf.store.resolve,
            quantising=quantising("Q4_0"),
            progress=report,
        )


def tampering(inner: Quantiser, tamper: Callable[[QuantisationJob], None]) -> Quantiser:
    """Quantises, and does something once the process is at work."""

    def quantiser(job: QuantisationJob, report: Callable[[int], None]) -> None:
        done = False

        def tell(size: int) -> None:
            nonlocal done
            if not done:
                done = True
                tamper(job)
            report(size)

        inner(job, tell)

    return quantiser


@pytest.mark.usefixtures("leaves_nothing")
@pytest.mark.parametrize("change", ["written", "cut", "removed"])
def test_a_source_that_changes_meanwhile(shelf: ModelShelf, change: str) -> None:
    path = shelf.folder / "m.gguf"
    path.write_bytes(TINY_CHAT.read_bytes())

    def tamper(job: QuantisationJob) -> None:
        if change == "removed":
            path.unlink()
        elif change == "cut":
            os.truncate(path, 1_000_000)
        else:
            with path.open("r+b") as file:
                file.seek(4_000_000)
                file.write(b"\0" * 100)

    how = quantising("Q5_0")
    with pytest.raises(SourceChanged):
        shelf.quantise("made", "FROM m.gguf", Quantising(how.type, tampering(how.quantiser, tamper)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 9 MiB: room for the tiny model, and for a little more."""
    with small_file_system(tmp_path / "small", 9) as folder:
        yield folder


def test_a_disk_without_room_is_known_before_anything_is_written(small_disk: Path) -> None:
    shelf = ModelShelf(small_disk / "store", small_disk)
    shelf.create("tiny", SOURCE)
    with pytest.raises(DiskFull) as caught:
        quantise(shelf, "F32", "FROM tiny")
    assert caught.value.needed and abs(caught.value.needed - 2 * TINY_CHAT.stat().st_size) < 300_000
    assert list(shelf.store.layout.ingest.iterdir()) == []


def test_a_disk_that_gets_full(small_disk: Path) -> None:
    """The room that was there is taken by somebody else, once the plan is known."""
    shelf = ModelShelf(small_disk / "store", small_disk)
    shelf.create("tiny", SOURCE)
    how = quantising("Q8_0")

    def fill(job: QuantisationJob, report: Callable[[int], None]) -> None:
        def tell(size: int) -> None:
            report(size)
            if size and not (small_disk / "other").exists():
                with pytest.raises(OSError), (small_disk / "other").open("wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)

        how.quantiser(job, tell)

    # The process may be through before it is told of: then the disk was not full in time.
    for _ in range(5):
        (small_disk / "other").unlink(missing_ok=True)
        try:
            shelf.quantise("made", "FROM tiny", Quantising(how.type, fill))
        except (DiskFull, StoreFailure) as error:
            assert isinstance(error, DiskFull), error
            break
    else:
        pytest.fail("the disk never got full in time")
    assert list(shelf.store.layout.ingest.iterdir()) == []
    assert [tag.reference.display for tag in shelf.store.tags()] == ["tiny:latest"]


def test_the_process_is_confined(shelf: ModelShelf) -> None:
    found: dict[str, str] = {}

    def look(job: QuantisationJob) -> None:
        pid = wait_for_quantiser(os.getpid())
        found.update(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )

    how = quantising("Q5_0")
    inner = how.quantiser

    def after_the_plan(job: QuantisationJob, report: Callable[[int], None]) -> None:
        def tell(size: int) -> None:
            if size and not found:
                look(job)
            report(size)

        inner(job, tell)

    shelf.quantise("made", SOURCE, Quantising(how.type, after_the_plan))
    assert found["NoNewPrivs"] == "1"
    if os.uname().machine in ("x86_64", "aarch64"):
        assert found["Seccomp"] == "2"


def test_the_blob_is_like_any_other(shelf: ModelShelf) -> None:
    quantise(shelf, "Q5_0")
    model = read_model(shelf.store, shelf.store.resolve(shelf.store.tags()[0].reference))
    path = shelf.store.blob_path(model.weights[0].digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert shelf.store.intact(model.weights[0].digest, path.stat().st_size)
    assert shelf.store.fsck().clean
