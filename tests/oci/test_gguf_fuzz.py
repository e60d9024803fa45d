"""Whatever the bytes are: the checker answers, with BadGguf or with a header that can be used."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from ggufmaker import (
    bpe_metadata,
    make_adapter,
    make_gguf,
    make_model,
    make_projector,
    make_shards,
    model_tensors,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lading.oci.gguf.check import check_file
from lading.oci.gguf.reader import BadGguf, GgufArray, read_array

SEEDS = {
    "model": make_model(),
    "bpe": make_gguf(bpe_metadata(["a", "b", "ab", "c"], ["a b"]), model_tensors(vocabulary=4)),
    "adapter": make_adapter(),
    "projector": make_projector(),
    "shard": make_shards(2)[1],
}
INTERESTING = [
    0,
    1,
    2,
    7,
    8,
    9,
    12,
    13,
    32,
    255,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
]

positions = st.integers(min_value=0, max_value=8_000)
flips = st.tuples(st.just("byte"), positions, st.integers(0, 255))
fields = st.tuples(st.sampled_from(["<I", "<Q"]), positions, st.sampled_from(INTERESTING))
remains = st.tuples(st.just("remaining"), positions, st.sampled_from([-1, 0, 1]))
swaps = st.tuples(st.just("swap"), positions, positions)
cuts = st.tuples(st.just("cut"), positions, st.just(0))
mutations = st.lists(st.one_of(flips, fields, remains, swaps, cuts), min_size=1, max_size=6)


def mutated(data: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    out = bytearray(data)
    for kind, position, value in steps:
        at = position % max(1, len(out) - 16)
        match kind:
            case "byte":
                out[at : at + 1] = bytes([value])
            case "remaining":
                out[at : at + 8] = struct.pack("<Q", max(0, len(out) - at - 8 + value))
            case "swap":
                other = value % max(1, len(out) - 16)
                out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]
            case "cut":
                del out[at:]
            case code:
                size = struct.calcsize(code)
                out[at : at + size] = struct.pack(code, value & (256**size - 1))
    return bytes(out)


def answer(path: Path, data: bytes) -> None:
    """Ask the checker; use what it lets through."""
    path.write_bytes(data)
    try:
        header = check_file(path)
    except BadGguf as error:
        assert error.problems
        assert all(line.isprintable() for line in str(error).splitlines())
        return
    assert header.file_size == len(data)
    for accessor in ("name", "file_type", "chat_template", "context_length", "vocabulary_size", "split"):
        getattr(header, accessor)
    for tensor in header.tensors:
        assert header.data_offset + tensor.offset + tensor.size <= len(data)
    for value in header.metadata.values():
        if isinstance(value, GgufArray):
            assert len(read_array(path, value)) == value.count


@pytest.mark.parametrize("seed", SEEDS.values(), ids=SEEDS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=mutations)
def test_mutations_of_sound_files(tmp_path: Path, seed: bytes, steps: list[tuple[str, int, int]]) -> None:
    answer(tmp_path / "x.gguf", mutated(seed, steps))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=300),
    start=st.sampled_from([b"", b"GGUF", b"GGUF\3\0\0\0", b"GGUF\3\0\0\0" + b"\1" + bytes(7)]),
)
def test_noise(tmp_path: Path, data: bytes, start: bytes) -> None:
    answer(tmp_path / "x.gguf", start + data)
