"""Reading headers: what is read, what the accessors say, and agreement with the gguf package."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import pytest
from ggufmaker import (
    ARRAY,
    FLOAT32,
    INT32,
    Typed,
    boolean,
    f32,
    make_adapter,
    make_gguf,
    make_model,
    make_projector,
    make_shards,
    model_metadata,
    model_tensors,
    number,
    numbers,
    string,
    strings,
    u32,
    u64,
)

from lading.oci.gguf.reader import BadGguf, GgufArray, GgufHeader, GgufKind, read_array, read_header
from lading.oci.gguf.type_table import ValueType

SCALARS = {
    ValueType.UINT8: 200,
    ValueType.INT8: -100,
    ValueType.UINT16: 65_000,
    ValueType.INT16: -32_000,
    ValueType.UINT32: 4_000_000_000,
    ValueType.INT32: -2_000_000_000,
    ValueType.FLOAT32: 0.5,
    ValueType.UINT64: 2**64 - 1,
    ValueType.INT64: -(2**63),
    ValueType.FLOAT64: 1e300,
}


def read(tmp_path: Path, data: bytes) -> GgufHeader:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    return read_header(path)


def test_facts_of_a_model(tmp_path: Path) -> None:
    data = make_model()
    header = read(tmp_path, data)
    assert header.version == 3
    assert header.architecture == "llama"
    assert header.name == "Fixture"
    assert header.kind is GgufKind.MODEL
    assert header.file_type == "F32"
    assert header.context_length == 512
    assert header.embedding_length == 32
    assert header.block_count == 2
    assert header.vocabulary_size == 261
    assert header.split is None
    assert header.pooling_type is None
    assert header.chat_template is not None and header.chat_template.startswith("{%")
    assert header.parameter_count == sum(tensor.elements for tensor in header.tensors) == 26_944
    assert header.data_size == 4 * 26_944
    assert header.file_size == len(data)
    assert header.data_offset % header.alignment == 0
    assert header.kv("attention.head_count") == 4
    assert header.kv("no.such.key") is None


@pytest.mark.parametrize(("type_", "value"), SCALARS.items(), ids=str)
def test_scalars_of_every_type(tmp_path: Path, type_: ValueType, value: float) -> None:
    header = read(tmp_path, make_gguf({"x": number(type_, value)}))
    assert header.metadata["x"] == value
    assert header.types["x"] is type_


def test_texts_and_truths(tmp_path: Path) -> None:
    header = read(tmp_path, make_gguf({"a": string("grüße\n\0"), "b": boolean(True), "c": boolean(False)}))
    assert dict(header.metadata) == {"a": "grüße\n\0", "b": True, "c": False}
    assert header.metadata["b"] is True


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 70_000])
def test_arrays_are_read_whether_kept_or_not(tmp_path: Path, count: int) -> None:
    texts = [f"token {index}" for index in range(count)]
    metadata = {"n": numbers(INT32, list(range(count))), "t": strings(texts), "after": u32(7)}
    header = read(tmp_path, make_gguf(metadata))
    n, t = header.metadata["n"], header.metadata["t"]
    assert isinstance(n, GgufArray) and isinstance(t, GgufArray)
    assert (n.values is not None) == (t.values is not None) == (count <= 1024)
    assert n.count == t.count == count
    path = tmp_path / "x.gguf"
    assert read_array(path, n) == tuple(range(count))
    assert read_array(path, t) == tuple(texts)
    assert header.metadata["after"] == 7


def test_strings_longer_than_the_window_are_read(tmp_path: Path) -> None:
    long = "x" * 700_000
    array = ["y" * 60_000] * 30
    header = read(tmp_path, make_gguf({"a": string(long), "b": strings(array), "c": string("end")}))
    assert header.metadata["a"] == long
    assert header.metadata["c"] == "end"
    found = header.metadata["b"]
    assert isinstance(found, GgufArray) and found.values is None
    assert read_array(tmp_path / "x.gguf", found) == tuple(array)


def test_reading_an_array_of_a_file_that_shrank_is_an_error(tmp_path: Path) -> None:
    header = read(tmp_path, make_gguf({"n": numbers(INT32, range(5000))}))
    array = header.metadata["n"]
    assert isinstance(array, GgufArray)
    path = tmp_path / "x.gguf"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BadGguf, match="cut off"):
        read_array(path, array)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (make_model(), GgufKind.MODEL),
        (make_model(general__type=None), GgufKind.MODEL),
        (make_adapter(), GgufKind.ADAPTER),
        (make_projector(), GgufKind.PROJECTOR),
        (make_projector(general__type=None), GgufKind.PROJECTOR),
        (make_projector(general__type=string("projector")), GgufKind.PROJECTOR),
        (make_model(general__type=string("imatrix")), GgufKind.OTHER),
    ],
    ids=["model", "untyped", "adapter", "mmproj", "clip", "projector", "imatrix"],
)
def test_kind(tmp_path: Path, data: bytes, kind: GgufKind) -> None:
    assert read(tmp_path, data).kind is kind


@pytest.mark.parametrize(
    ("stated", "tensor_type", "expected"),
    [(u32(15), 0, "Q4_K_M"), (u32(1024 + 7), 0, "Q8_0"), (None, 1, "F16"), (u32(999), 30, "BF16")],
    ids=["stated", "guessed", "from tensors", "unknown"],
)
def test_file_type(tmp_path: Path, stated: Typed | None, tensor_type: int, expected: str) -> None:
    metadata = model_metadata(general__file_type=stated)
    assert read(tmp_path, make_gguf(metadata, model_tensors(type_=tensor_type))).file_type == expected


def test_shards_know_their_place(tmp_path: Path) -> None:
    headers = [read(tmp_path, shard) for shard in make_shards(3)]
    assert [header.split for header in headers] == [(0, 3), (1, 3), (2, 3)]
    assert headers[1].architecture is None


def test_accessors_of_wrongly_typed_values_say_none(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": u32(1),
        "general.name": numbers(FLOAT32, [1.0]),
        "llama.context_length": string("x"),
        "tokenizer.chat_template": boolean(True),
        "split.no": string("0"),
        "split.count": u64(2),
    }
    header = read(tmp_path, make_gguf(metadata))
    assert header.architecture is None
    assert header.name is None
    assert header.context_length is None
    assert header.chat_template is None
    assert header.split is None
    assert header.file_type is None
    assert header.vocabulary_size is None


def test_the_alignment_of_the_file_counts(tmp_path: Path) -> None:
    metadata = {**model_metadata(), "general.alignment": u32(256)}
    header = read(tmp_path, make_gguf(metadata, model_tensors(), alignment=256))
    assert header.alignment == 256
    assert header.data_offset % 256 == 0


def test_version_2_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, make_gguf(model_metadata(), model_tensors(), version=2)).version == 2


@pytest.mark.parametrize("name", ["made", "tiny-chat"])
def test_agrees_with_the_gguf_package(tmp_path: Path, tiny_chat: Path, name: str) -> None:
    if name == "tiny-chat":
        path = tiny_chat
    else:
        path = tmp_path / "x.gguf"
        path.write_bytes(make_model())
    ours = read_header(path)
    theirs = gguf.GGUFReader(path)
    assert ours.data_offset == theirs.data_offset
    assert [
        (t.name, t.shape, t.type.id, t.elements, t.size, ours.data_offset + t.offset) for t in ours.tensors
    ] == [
        (
            t.name,
            tuple(map(int, t.shape)),
            int(t.tensor_type),
            int(t.n_elements),
            int(t.n_bytes),
            t.data_offset,
        )
        for t in theirs.tensors
    ]
    fields = {key: field for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for key, field in fields.items():
        value = ours.metadata[key]
        if isinstance(value, GgufArray):
            assert field.types[0].value == ARRAY
            assert list(read_array(path, value)) == field.contents(), key
        else:
            assert value == field.contents(), key


def test_reads_what_the_gguf_package_writes(tmp_path: Path) -> None:
    import numpy as np

    path = tmp_path / "w.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(99)
    writer.add_array("list", ["a", "bb"])
    writer.add_tensor("t", np.arange(64, dtype=np.float16).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert header.context_length == 99
    (tensor,) = header.tensors
    assert (tensor.name, tensor.shape, tensor.type.name, tensor.size) == ("t", (32, 2), "F16", 128)
    with path.open("rb") as file:
        file.seek(header.data_offset + tensor.offset)
        assert struct.unpack("<64e", file.read(128)) == tuple(range(64))


def test_f32_values_come_back_as_written(tmp_path: Path) -> None:
    header = read(tmp_path, make_gguf({"x": f32(0.1)}))
    assert header.metadata["x"] == struct.unpack("<f", struct.pack("<f", 0.1))[0]
