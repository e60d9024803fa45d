"""Hostile and broken GGUF files: each is refused, for the right reason, in a sentence, quickly."""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ggufmaker import (
    ARRAY,
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    STRING,
    UINT8,
    UINT32,
    Tensor,
    Typed,
    boolean,
    bpe_metadata,
    changed,
    f32,
    i32,
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
    u8,
    u16,
    u32,
    u64,
)

from lading.oci.gguf.check import check_adapter_fits, check_file, check_shards
from lading.oci.gguf.problem import ProblemCode as Code
from lading.oci.gguf.reader import BadGguf, GgufKind, read_header

TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "hello", "world"]
COUNT = len(TOKENS)
TENSORS = model_tensors()
U64_MAX = 2**64 - 1


def check(tmp_path: Path, data: bytes, **options: bool) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    check_file(path, **options)


def problems(tmp_path: Path, data: bytes) -> BadGguf:
    started = time.process_time()
    with pytest.raises(BadGguf) as caught:
        check(tmp_path, data)
    assert time.process_time() - started < 1
    message = str(caught.value)
    assert "x.gguf" in message
    assert len(message) < 8_000
    assert all(line.isprintable() for line in message.splitlines())
    return caught.value


def test_sound_files_pass(tmp_path: Path) -> None:
    for data in (make_model(), make_adapter(), make_projector(), *make_shards(3)):
        check(tmp_path, data)


def test_the_shipped_model_passes(tiny_chat: Path) -> None:
    header = check_file(tiny_chat)
    assert header.architecture
    assert header.chat_template


# what is no GGUF file at all

SAFETENSORS = struct.pack("<Q", 30) + b'{"__metadata__":{"format":"pt"}}'
NOT_GGUF = {
    "empty": (b"", "empty"),
    "GGML": (b"lmgg" + bytes(40), "before GGUF"),
    "GGJT": (b"tjgg" + bytes(40), "before GGUF"),
    "ELF": (b"\x7fELF" + bytes(40), "program"),
    "zip": (b"PK\x03\x04" + bytes(40), "PyTorch"),
    "pickle": (b"\x80\x02}q\x00." + bytes(40), "pickle"),
    "safetensors": (SAFETENSORS + bytes(40), "safetensors"),
    "web page": (b"<!DOCTYPE html><html>" + bytes(40), "web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    "noise": (b"\xde\xad\xbe\xef" * 10, "it starts with"),
    "3 bytes": (b"GGU", "it starts with"),
}


@pytest.mark.parametrize(("data", "words"), NOT_GGUF.values(), ids=NOT_GGUF)
def test_other_files_are_called_what_they_are(tmp_path: Path, data: bytes, words: str) -> None:
    error = problems(tmp_path, data)
    assert error.codes == {Code.NOT_GGUF}
    assert words in str(error)


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1, 0x03000000, 0x02000000, 0x10003])
def test_versions_other_than_2_and_3(tmp_path: Path, version: int) -> None:
    error = problems(tmp_path, make_gguf(model_metadata(), TENSORS, version=version))
    assert error.codes == {Code.UNSUPPORTED_VERSION}
    assert ("big-endian" in str(error)) == (version in (0x03000000, 0x02000000))


def test_paths_that_are_no_regular_files(tmp_path: Path) -> None:
    sound = tmp_path / "sound.gguf"
    sound.write_bytes(make_model())
    link, fifo = tmp_path / "link.gguf", tmp_path / "fifo.gguf"
    link.symlink_to(sound)
    os.mkfifo(fifo)
    for path, words in (
        (link, "symbolic link"),
        (fifo, "not a regular file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "none.gguf", "cannot be opened"),
    ):
        with pytest.raises(BadGguf, match=words):
            check_file(path)


def test_the_size_must_be_the_promised_one(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(make_model())
    size = path.stat().st_size
    check_file(path, expected_size=size)
    for wrong in (size - 1, size + 1):
        with pytest.raises(BadGguf, match="expected"):
            check_file(path, expected_size=wrong)


# structure: counts, strings, arrays, keys

HUGE = {"2^63": 2**63, "2^64-1": U64_MAX, "2^40": 2**40, "2^32": 2**32, "65537": 65_537}


@pytest.mark.parametrize("count", HUGE.values(), ids=HUGE)
def test_counts_beyond_the_limit(tmp_path: Path, count: int) -> None:
    for counts in ({"n_tensors": count}, {"n_values": count}):
        error = problems(tmp_path, make_gguf(model_metadata(), TENSORS, **counts))
        assert error.codes <= {Code.TOO_LARGE, Code.TRUNCATED}


STRUCTURE = {
    "one value promised, none there": (make_gguf(n_values=1), Code.TRUNCATED),
    "4,097 values": (make_gguf([(f"k{i}", u8(0)) for i in range(4097)]), Code.TOO_LARGE),
    "no values but tensors": (make_gguf({}, TENSORS), Code.UNSUPPORTED_ARCHITECTURE),
    "key length 2^63": (make_gguf(n_values=1, data=struct.pack("<Q", 2**63) + bytes(64)), Code.TRUNCATED),
    "key of 65,536 bytes": (make_gguf([("k" * 65_536, u8(0))]), Code.TOO_LARGE),
    "empty key": (make_gguf([("", u64(0))]), Code.BAD_METADATA),
    "key that is not ASCII": (make_gguf([("schlüssel", u8(0))]), Code.BAD_METADATA),
    "key with NUL": (make_gguf([("a\0b", u8(0))]), Code.BAD_METADATA),
    "key with a space": (make_gguf([("a b", u8(0))]), Code.BAD_METADATA),
    "the same key twice": (make_gguf([("a", u8(0)), ("a", u8(1))]), Code.BAD_METADATA),
    "value type 13": (make_gguf({"a": Typed(13, bytes(8))}), Code.BAD_METADATA),
    "value type 255": (make_gguf({"a": Typed(255, bytes(8))}), Code.BAD_METADATA),
    "value type 2^31": (make_gguf({"a": Typed(2**31, bytes(8))}), Code.BAD_METADATA),
    "bool 7": (make_gguf({"a": Typed(BOOL, b"\7")}), Code.BAD_METADATA),
    "bools with a 7": (
        make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", BOOL, 3) + b"\1\0\7")}),
        Code.BAD_METADATA,
    ),
    "text that is not UTF-8": (make_gguf({"general.name": string(b"\xff\xfe")}), Code.BAD_METADATA),
    "text longer than the file": (
        make_gguf({"a": Typed(STRING, struct.pack("<Q", 2**32) + b"x")}),
        Code.TRUNCATED,
    ),
    "text one byte longer than the file": (
        make_gguf({"a": Typed(STRING, struct.pack("<Q", 3) + b"xx")}),
        Code.TRUNCATED,
    ),
    "array in an array": (make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", ARRAY, 1))}), Code.BAD_METADATA),
    "1,000 arrays in each other": (
        make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", ARRAY, 1) * 1000)}),
        Code.BAD_METADATA,
    ),
    "array of type 13": (make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", 13, 1))}), Code.BAD_METADATA),
    "array of 2^63 bytes": (
        make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", UINT8, 2**63))}),
        Code.TRUNCATED,
    ),
    "array of 2^61 numbers of 8 bytes": (
        make_gguf({"a": Typed(ARRAY, struct.pack("<IQ", 10, 2**61) + bytes(64))}),
        Code.TRUNCATED,
    ),
    "array one element too long": (
        make_gguf({"a": numbers(UINT32, [1, 2, 3], count=4)}),
        Code.TRUNCATED,
    ),
    "strings one too many": (make_gguf({"a": strings(["a", "b"], count=3)}), Code.TRUNCATED),
    "string in an array longer than the file": (
        make_gguf({"a": Typed(ARRAY, struct.pack("<IQQ", STRING, 1, 2**63) + bytes(64))}),
        Code.TRUNCATED,
    ),
    "token of 64 KiB and a byte": (
        make_gguf({"tokenizer.ggml.tokens": strings(["x" * 65_537])}),
        Code.TOO_LARGE,
    ),
    "tensor info cut off": (make_gguf(model_metadata(), TENSORS)[:3000], Code.TRUNCATED),
}


@pytest.mark.parametrize(("data", "code"), STRUCTURE.values(), ids=STRUCTURE)
def test_malformed_structure(tmp_path: Path, data: bytes, code: Code) -> None:
    error = problems(tmp_path, data)
    assert code in error.codes, str(error)


@pytest.mark.parametrize(
    "value",
    [u32(0), u32(1), u32(3), u32(4), u32(31), u32(0x80000000), u32(131_072), string("32"), number(11, 32)],
    ids=["0", "1", "3", "4", "31", "2^31", "2^17", "text", "i64"],
)
def test_alignment(tmp_path: Path, value: Typed) -> None:
    error = problems(tmp_path, make_gguf({**model_metadata(), "general.alignment": value}, TENSORS))
    assert "general.alignment" in str(error)


# tensors: infos and layout


def with_tensor(*tensors: Tensor, data: bytes | None = None) -> bytes:
    return make_gguf(model_metadata(), [*TENSORS, *tensors], data=data)


TENSOR_FAULTS = {
    "empty name": (Tensor(""), "name has 0 bytes"),
    "name of 64 bytes": (Tensor("n" * 64), "name has 64 bytes"),
    "name with NUL": (Tensor("a\0b"), "control characters"),
    "name with ESC": (Tensor("a\x1b[31m"), "control characters"),
    "name that is not UTF-8": (Tensor(b"\xff"), "not UTF-8"),
    "the same name twice": (Tensor("token_embd.weight"), "comes twice"),
    "no dimensions": (Tensor("t", (), n_dims=0), "0 dimensions"),
    "5 dimensions": (Tensor("t", (1, 1, 1, 1, 1)), "5 dimensions"),
    "2^32-1 dimensions": (Tensor("t", (1,), n_dims=2**32 - 1), "dimensions"),
    "a zero": (Tensor("t", (32, 0)), "every dimension"),
    "a negative": (Tensor("t", (32, 2**63)), "every dimension"),
    "(2^31)^4": (Tensor("t", (2**31,) * 4), "more than 2^63-1 elements"),
    "2^62 x 4": (Tensor("t", (2**62, 4)), "more than 2^63-1 elements"),
    "(2^42+1) x 2^21": (Tensor("t", (2**42 + 1, 2**21)), "more than 2^63-1"),
    "2^60 elements": (Tensor("t", (2**30, 2**30)), "bytes of data in a file"),
    "type 4": (Tensor("t", type=4), "tensor type 4"),
    "type 5": (Tensor("t", type=5), "tensor type 5"),
    "type 31": (Tensor("t", type=31), "tensor type 31"),
    "type 36": (Tensor("t", type=36), "tensor type 36"),
    "type 43": (Tensor("t", type=43), "tensor type 43"),
    "type 2^31": (Tensor("t", type=2**31), "tensor type"),
    "type -1": (Tensor("t", type=-1), "tensor type"),
    "rows of 100 for Q4_K": (Tensor("t", (100, 2), type=12), "multiple of 256 for Q4_K"),
    "rows of 33 for Q8_0": (Tensor("t", (33, 2), type=8), "multiple of 32 for Q8_0"),
}


@pytest.mark.parametrize(("tensor", "words"), TENSOR_FAULTS.values(), ids=TENSOR_FAULTS)
def test_malformed_tensors(tmp_path: Path, tensor: Tensor, words: str) -> None:
    error = problems(tmp_path, with_tensor(tensor, data=bytes(200_000)))
    assert error.codes <= {Code.BAD_TENSOR, Code.TRUNCATED}, str(error)
    assert words in str(error)


LAYOUT_FAULTS = {
    "not at 0": ([Tensor("a", offset=32), Tensor("b")], "gap"),
    "unaligned": ([Tensor("a"), Tensor("b", offset=513)], "multiple of 32"),
    "overlap": ([Tensor("a"), Tensor("b", offset=32)], "overlaps"),
    "same offset": ([Tensor("a"), Tensor("b", offset=0)], "overlaps"),
    "gap": ([Tensor("a"), Tensor("b", offset=1024)], "gap"),
    "out of order": ([Tensor("a", offset=512), Tensor("b", offset=0)], "gap"),
    "offset 2^64-32": ([Tensor("a"), Tensor("b", offset=2**64 - 32)], "gap"),
}


@pytest.mark.parametrize(("tensors", "words"), LAYOUT_FAULTS.values(), ids=LAYOUT_FAULTS)
def test_tensors_that_do_not_follow_each_other(tmp_path: Path, tensors: list[Tensor], words: str) -> None:
    error = problems(tmp_path, make_gguf(model_metadata(), tensors, data=bytes(2048)))
    assert error.codes == {Code.BAD_LAYOUT}
    assert words in str(error)


def test_data_one_byte_past_the_end(tmp_path: Path) -> None:
    tensors = [Tensor("a", (32, 4)), Tensor("b", (30,))]  # 120 bytes: 8 of padding follow
    sound = make_gguf(model_metadata(), tensors)
    check(tmp_path, sound[:-8])  # the last padding may be missing
    error = problems(tmp_path, sound[:-9])
    assert error.codes == {Code.TRUNCATED}
    assert "'b'" in str(error)


def test_bytes_after_the_last_tensor(tmp_path: Path) -> None:
    check(tmp_path, make_model() + bytes(64 * 1024))
    assert problems(tmp_path, make_model() + bytes(64 * 1024 + 1)).codes == {Code.BAD_LAYOUT}


def test_a_sparse_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(make_model())
    os.truncate(path, 1 << 40)
    started = time.process_time()
    with pytest.raises(BadGguf, match="follow the last tensor"):
        check_file(path)
    assert time.process_time() - started < 1


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    data = make_gguf(bpe_metadata(["a", "b", "ab"], ["a b"]), [Tensor("t", (32, 4)), Tensor("u", (8,))])
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    check_file(path)
    for size in range(len(data) - 1, -1, -1):
        os.truncate(path, size)
        with pytest.raises(BadGguf):
            check_file(path)


# metadata of the architecture


def replaced(**changes: Typed | None) -> Callable[[], bytes]:
    return lambda: make_model(**changes)


HYPERPARAMETERS: dict[str, tuple[dict[str, Typed | None], str]] = {
    "no architecture": ({"general__architecture": None}, "is missing"),
    "unknown architecture": ({"general__architecture": string("gpt99")}, "does not know"),
    "architecture of 1 MB": ({"general__architecture": string("a" * 1_000_000)}, "does not know"),
    "architecture is a number": ({"general__architecture": u32(7)}, "not a string"),
    "no blocks": ({"llama__block_count": u32(0)}, "1 to 512"),
    "513 blocks": ({"llama__block_count": u32(513)}, "1 to 512"),
    "100,000 blocks": ({"llama__block_count": u32(100_000)}, "100,000"),
    "2^32-1 blocks": ({"llama__block_count": u32(2**32 - 1)}, "1 to 512"),
    "blocks missing": ({"llama__block_count": None}, "is missing"),
    "blocks as u64": ({"llama__block_count": u64(2)}, "uint64, expected uint32"),
    "context 0": ({"llama__context_length": u32(0)}, "16,777,216"),
    "context 2^32-1": ({"llama__context_length": u32(2**32 - 1)}, "16,777,216"),
    "context missing": ({"llama__context_length": None}, "is missing"),
    "context as text": ({"llama__context_length": string("4096")}, "expected uint32"),
    "embedding 0": ({"llama__embedding_length": u32(0)}, "embedding_length"),
    "embedding not a multiple of heads": ({"llama__embedding_length": u32(33)}, "multiple of the 4"),
    "heads 0": ({"llama__attention__head_count": u32(0)}, "is 0"),
    "heads 1025": ({"llama__attention__head_count": u32(1025)}, "0 to 1,024"),
    "heads as array too short": ({"llama__attention__head_count": numbers(UINT32, [4])}, "one for each"),
    "heads as array of floats": ({"llama__attention__head_count": numbers(FLOAT32, [4, 4])}, "float32"),
    "heads as array of 0": ({"llama__attention__head_count": numbers(UINT32, [0, 0])}, "is 0"),
    "heads as array of -1": ({"llama__attention__head_count": numbers(INT32, [4, -1])}, "-1"),
    "kv heads 0": ({"llama__attention__head_count_kv": u32(0)}, "is 0"),
    "kv heads do not divide": ({"llama__attention__head_count_kv": u32(3)}, "does not divide"),
    "kv heads more than heads": ({"llama__attention__head_count_kv": u32(8)}, "does not divide"),
    "rope odd": ({"llama__rope__dimension_count": u32(7)}, "even"),
    "rope larger than a head": ({"llama__rope__dimension_count": u32(16)}, "8 dimensions"),
    "rope scaling": ({"llama__rope__scaling__type": string("magic")}, "yarn"),
    "rope base NaN": ({"llama__rope__freq_base": f32(math.nan)}, "finite"),
    "rope base 0": ({"llama__rope__freq_base": f32(0)}, "above 0"),
    "epsilon 0": ({"llama__attention__layer_norm_rms_epsilon": f32(0)}, "above 0"),
    "epsilon infinite": ({"llama__attention__layer_norm_rms_epsilon": f32(math.inf)}, "finite"),
    "epsilon negative": ({"llama__attention__layer_norm_rms_epsilon": f32(-1)}, "above 0"),
    "1,025 experts": ({"llama__expert_count": u32(1025)}, "0 to 1,024"),
    "experts used, none there": ({"llama__expert_used_count": u32(2)}, "0 experts"),
    "more used than there are": (
        {"llama__expert_count": u32(4), "llama__expert_used_count": u32(5)},
        "has 4 experts",
    ),
    "none used": ({"llama__expert_count": u32(4), "llama__expert_used_count": u32(0)}, "is 0"),
    "vocabulary size differs": ({"llama__vocab_size": u32(COUNT + 1)}, f"{COUNT:,} tokens"),
    "kind is a number": ({"general__type": u32(1)}, "general.type"),
    "kind unknown": ({"general__type": string("imatrix")}, "imatrix"),
    "template of 300 KiB": ({"tokenizer__chat_template": string("x" * 300_000)}, "262,144"),
    "template is a number": ({"tokenizer__chat_template": u32(1)}, "not a string"),
    "second template": ({"tokenizer__chat_template__tool_use": u32(1)}, "not a string"),
}


@pytest.mark.parametrize(("changes", "words"), HYPERPARAMETERS.values(), ids=HYPERPARAMETERS)
def test_figures_out_of_range(tmp_path: Path, changes: dict[str, Typed | None], words: str) -> None:
    assert words in str(problems(tmp_path, make_model(**changes)))


SOUND = {
    "heads per layer": {"llama__attention__head_count": numbers(UINT32, [4, 8])},
    "kv heads per layer": {"llama__attention__head_count_kv": numbers(INT32, [2, 0])},
    "stated head size": {
        "llama__embedding_length": u32(30),
        "llama__attention__key_length": u32(8),
        "llama__attention__value_length": u32(8),
    },
    "rope scaling none": {
        "llama__rope__scaling__type": string("none"),
        "llama__rope__scaling__factor": f32(0),
    },
    "no kv heads stated": {"llama__attention__head_count_kv": None},
    "two empty tokens": {"tokenizer__ggml__tokens": strings([*TOKENS[:-2], "", ""])},
    "token that is not UTF-8": {"tokenizer__ggml__tokens": strings([*TOKENS[:-1], b"\xff"])},
    "more scores than tokens": {"tokenizer__ggml__scores": numbers(FLOAT32, [0.0] * (COUNT + 9))},
    "scores as integers": {"tokenizer__ggml__scores": numbers(INT32, [0] * COUNT)},
    "unknown keys": {"some__thing": strings(["x"]), "other": u64(3)},
}


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_unusual_but_sound_models_pass(tmp_path: Path, changes: dict[str, Typed | None]) -> None:
    check(tmp_path, make_model(**changes))


def test_models_without_attention_have_no_heads(tmp_path: Path) -> None:
    metadata = {
        key.replace("llama.", "mamba."): value
        for key, value in model_metadata(llama__rope__dimension_count=None).items()
    }
    metadata["general.architecture"] = string("mamba")
    metadata["mamba.attention.head_count"] = u32(0)
    check(tmp_path, make_gguf(metadata, TENSORS))


# tokenizer

VOCABULARY: dict[str, tuple[dict[str, Typed | None], str]] = {
    "token twice": ({"tokenizer__ggml__tokens": strings([*TOKENS[:-1], "hello"])}, "'hello' comes twice"),
    "token named as an empty one": (
        {"tokenizer__ggml__tokens": strings([*TOKENS[:-2], "", f"[EMPTY_{COUNT - 2}]"])},
        "comes twice",
    ),
    "no tokens": ({"tokenizer__ggml__tokens": strings([])}, "0 tokens"),
    "tokens alike up to a NUL": (
        {"tokenizer__ggml__tokens": strings([*TOKENS[:-2], "a\0b", "a\0c"])},
        "'a' comes twice",
    ),
    "a NUL as a raw byte only": (
        {"tokenizer__ggml__tokens": strings([*TOKENS[:3], "x", *TOKENS[4:-1], b"\0"])},
        "<0x00>",
    ),
    "pre-tokenizer of another kind": ({"tokenizer__ggml__pre": string("whitespace")}, "does not go with"),
    "no bos for gemma4": (
        {
            "tokenizer__ggml__model": string("gemma4"),
            "tokenizer__ggml__merges": strings(["a b"]),
            "tokenizer__ggml__bos_token_id": None,
            "tokenizer__ggml__add_bos_token": boolean(False),
        },
        "bos_token_id",
    ),
    "tokens missing": ({"tokenizer__ggml__tokens": None}, "is missing"),
    "tokens are numbers": ({"tokenizer__ggml__tokens": numbers(INT32, [1] * COUNT)}, "expected string"),
    "tokens are a text": ({"tokenizer__ggml__tokens": string("abc")}, "expected an array"),
    "tokenizer unknown": ({"tokenizer__ggml__model": string("magic")}, "'magic'"),
    "tokenizer missing": ({"tokenizer__ggml__model": None}, "is missing"),
    "tokenizer is a number": ({"tokenizer__ggml__model": u32(1)}, "expected one of"),
    "scores too short": ({"tokenizer__ggml__scores": numbers(FLOAT32, [0.0] * (COUNT - 1))}, "260 elements"),
    "scores of int8": ({"tokenizer__ggml__scores": numbers(INT8, [0] * COUNT)}, "int8"),
    "score NaN": ({"tokenizer__ggml__scores": numbers(FLOAT32, [0.0] * (COUNT - 1) + [math.nan])}, "nan"),
    "score infinite": ({"tokenizer__ggml__scores": numbers(FLOAT32, [math.inf] * COUNT)}, "inf"),
    "types too short": ({"tokenizer__ggml__token_type": numbers(INT32, [1] * 9)}, "9 elements"),
    "types of u32": ({"tokenizer__ggml__token_type": numbers(UINT32, [1] * COUNT)}, "expected int32"),
    "type 0": ({"tokenizer__ggml__token_type": numbers(INT32, [1] * (COUNT - 1) + [0])}, "type 0"),
    "type 7": ({"tokenizer__ggml__token_type": numbers(INT32, [7] * COUNT)}, "1 to 6"),
    "type -1": ({"tokenizer__ggml__token_type": numbers(INT32, [-1] * COUNT)}, "type -1"),
    "byte <0x-1>": ({"tokenizer__ggml__tokens": strings([*TOKENS[:3], "<0x-1>", *TOKENS[4:]])}, "'<0x-1>'"),
    "byte <0xZZ>": ({"tokenizer__ggml__tokens": strings([*TOKENS[:3], "<0xZZ>", *TOKENS[4:]])}, "'<0xZZ>'"),
    "byte <0x1>": ({"tokenizer__ggml__tokens": strings([*TOKENS[:3], "<0x1>", *TOKENS[4:]])}, "'<0x1>'"),
    "byte with a newline": (
        {"tokenizer__ggml__tokens": strings([*TOKENS[:3], "<0x00>\n", *TOKENS[4:]])},
        "token 3",
    ),
    "bos beyond the tokens": ({"tokenizer__ggml__bos_token_id": u32(COUNT)}, "bos_token_id"),
    "eos 2^32-1": ({"tokenizer__ggml__eos_token_id": u32(2**32 - 1)}, "eos_token_id"),
    "bos as i32": ({"tokenizer__ggml__bos_token_id": i32(-1)}, "expected uint32"),
    "merges missing": ({"tokenizer__ggml__model": string("gpt2")}, "merges"),
    "tokenizer none": ({"tokenizer__ggml__model": string("none")}, "without a vocabulary"),
    "no tokenizer at all": (
        {f"tokenizer__ggml__{name}": None for name in ("model", "tokens", "scores", "token_type")},
        "is missing",
    ),
    "no token for a byte": (
        {"tokenizer__ggml__tokens": strings([*TOKENS[:3], "<0xff>", *TOKENS[4:]])},
        "no token for 1 of 256 bytes: <0x00>",
    ),
    "no bos where one is added": (
        {
            "tokenizer__ggml__model": string("gpt2"),
            "tokenizer__ggml__merges": strings(["a b"]),
            "tokenizer__ggml__pre": string("glm4"),
            "tokenizer__ggml__bos_token_id": None,
            "tokenizer__ggml__add_bos_token": boolean(True),
        },
        "bos_token_id",
    ),
    "bytes in WordPiece": ({"tokenizer__ggml__model": string("bert")}, "stand for bytes"),
    "charsmap short": ({"tokenizer__ggml__precompiled_charsmap": numbers(UINT8, [1, 0])}, "too short"),
    "charsmap larger than itself": (
        {"tokenizer__ggml__precompiled_charsmap": numbers(UINT8, [200, 0, 0, 0, 1, 2])},
        "fewer",
    ),
    "charsmap without texts": (
        {"tokenizer__ggml__precompiled_charsmap": numbers(INT8, [2, 0, 0, 0, 1, 2])},
        "fewer",
    ),
    "charsmap of 3 MiB": (
        {"tokenizer__ggml__precompiled_charsmap": numbers(UINT8, bytes(3 << 20))},
        "at most 2,097,152",
    ),
    "charsmap of u32": ({"tokenizer__ggml__precompiled_charsmap": numbers(UINT32, [1])}, "int8 or uint8"),
}


@pytest.mark.parametrize(("changes", "words"), VOCABULARY.values(), ids=VOCABULARY)
def test_bad_vocabularies(tmp_path: Path, changes: dict[str, Typed | None], words: str) -> None:
    error = problems(tmp_path, make_model(**changes))
    assert error.codes == {Code.BAD_VOCABULARY}, str(error)
    assert words in str(error)


@pytest.mark.parametrize("merge", ["ab", "", " ", "a ", " b", "a  b", "a b c", "a b\0"], ids=repr)
def test_bad_merges(tmp_path: Path, merge: str) -> None:
    tokens = ["a", "b", "ab"]
    check(tmp_path, make_gguf(bpe_metadata(tokens, ["a b", "é ü"]), TENSORS))
    error = problems(tmp_path, make_gguf(bpe_metadata(tokens, ["a b", merge]), TENSORS))
    assert error.codes == {Code.BAD_VOCABULARY}
    assert "merge 1" in str(error)


RWKV = [repr(bytes([byte]))[2:-1] for byte in range(256)]


@pytest.mark.parametrize("missing", [None, "h", "\\n", "\\x00"])
def test_rwkv_needs_a_token_for_each_byte(tmp_path: Path, missing: str | None) -> None:
    tokens = [token for token in RWKV if token != missing]
    data = make_model(
        tokenizer__ggml__model=string("rwkv"),
        tokenizer__ggml__tokens=strings(tokens),
        tokenizer__ggml__scores=None,
        tokenizer__ggml__token_type=None,
        llama__vocab_size=u32(len(tokens)),
    )
    if missing is None:
        check(tmp_path, data)
    else:
        assert f"no token for 1 of 256 bytes: {missing}" in str(problems(tmp_path, data))


def charsmap(entries: list[int], texts: bytes = b"x\0") -> Typed:
    data = struct.pack(f"<I{len(entries)}I", 4 * len(entries), *entries) + texts
    return numbers(UINT8, list(data))


def entry(base: int, byte: int = 0, leaf: bool = False) -> int:
    return base << 10 | leaf << 8 | byte


def trie(child: int, value: int = 0) -> list[int]:
    """A table of 512 entries that maps "A" to a text: the root's children are at 256."""
    entries = [entry(256)] + [0] * 511
    index = 256 ^ ord("A")
    entries[index] = entry(child, ord("A"), leaf=True)
    entries[index ^ child] = value if index ^ child < 512 else 0
    return entries


CHARSMAPS = {
    "sound": (charsmap(trie(1)), ""),
    "empty": (charsmap([], b"x"), ""),
    "text beyond": (charsmap(trie(1, value=2)), "replacement text"),
    "text not ended": (charsmap(trie(1), b"x"), "replacement text"),
    "root beyond": (charsmap([entry(512)] + [0] * 511), "refers to 512"),
    "too few for any byte": (charsmap([entry(0)] * 255), "255 entries"),
    "points at itself": (charsmap(trie(256)), ""),
}


@pytest.mark.parametrize(("value", "words"), CHARSMAPS.values(), ids=CHARSMAPS)
def test_charsmaps(tmp_path: Path, value: Typed, words: str) -> None:
    data = make_model(tokenizer__ggml__model=string("t5"), tokenizer__ggml__precompiled_charsmap=value)
    if words:
        assert words in str(problems(tmp_path, data))
    else:
        check(tmp_path, data)


def test_wordpiece_needs_the_tokens_around_a_text(tmp_path: Path) -> None:
    changes = {
        "tokenizer__ggml__model": string("bert"),
        "tokenizer__ggml__tokens": strings(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]),
        "tokenizer__ggml__scores": None,
        "tokenizer__ggml__token_type": None,
        "tokenizer__ggml__seperator_token_id": u32(3),
        "llama__vocab_size": u32(5),
    }
    check(tmp_path, make_model(**changes))
    error = problems(tmp_path, make_model(**changes | {"tokenizer__ggml__seperator_token_id": None}))
    assert "seperator_token_id" in str(error)


@pytest.mark.parametrize("kind", GgufKind)
def test_the_kind_must_be_the_expected_one(tmp_path: Path, kind: GgufKind) -> None:
    path = tmp_path / "x.gguf"
    made = {
        GgufKind.MODEL: make_model(),
        GgufKind.ADAPTER: make_adapter(),
        GgufKind.PROJECTOR: make_projector(),
    }
    for made_kind, data in made.items():
        path.write_bytes(data)
        if made_kind is kind:
            check_file(path, expected_kind=kind)
        else:
            with pytest.raises(BadGguf, match="expected a") as caught:
                check_file(path, expected_kind=kind)
            assert caught.value.codes == {Code.WRONG_KIND}


# kinds


def test_a_vocabulary_alone_is_no_model(tmp_path: Path) -> None:
    data = make_gguf(model_metadata())
    assert problems(tmp_path, data).codes == {Code.WRONG_KIND}
    check(tmp_path, data, allow_vocabulary_only=True)


ADAPTERS: dict[str, tuple[dict[str, Typed | None], str]] = {
    "type missing": ({"adapter__type": None}, "adapter.type"),
    "type other": ({"adapter__type": string("ia3")}, "expected 'lora'"),
    "alpha NaN": ({"adapter__lora__alpha": f32(math.nan)}, "finite"),
    "alpha as text": ({"adapter__lora__alpha": string("16")}, "expected float32"),
    "alpha as u32": ({"adapter__lora__alpha": u32(16)}, "expected float32"),
    "architecture": ({"general__architecture": string("none")}, "does not know"),
}


@pytest.mark.parametrize(("changes", "words"), ADAPTERS.values(), ids=ADAPTERS)
def test_bad_adapters(tmp_path: Path, changes: dict[str, Typed | None], words: str) -> None:
    assert words in str(problems(tmp_path, make_adapter(**changes)))


ADAPTER_HEAD = {
    "general.architecture": string("llama"),
    "general.type": string("adapter"),
    "adapter.type": string("lora"),
}
PAIRS = {
    "half a pair": ([Tensor("x.lora_a", (32, 4))], "without its other half"),
    "ranks differ": ([Tensor("x.lora_a", (32, 4)), Tensor("x.lora_b", (8, 32))], "ranks"),
    "vectors": ([Tensor("x.lora_a", (32,)), Tensor("x.lora_b", (32,))], "expected matrices"),
    "integers": ([Tensor("x.lora_a", (32, 4), 26), Tensor("x.lora_b", (4, 32))], "is of type I32"),
    "doubles": ([Tensor("x.lora_a", (32, 4)), Tensor("x.lora_b", (4, 32), 28)], "is of type F64"),
    "other tensor": ([Tensor("x.weight", (32, 4))], "ends with .lora_a"),
    "none": ([], "no tensors"),
}


@pytest.mark.parametrize(("tensors", "words"), PAIRS.values(), ids=PAIRS)
def test_bad_adapter_tensors(tmp_path: Path, tensors: list[Tensor], words: str) -> None:
    assert words in str(problems(tmp_path, make_gguf(ADAPTER_HEAD, tensors)))


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        (make_adapter(), ""),
        (make_adapter(embedding=64), "another model"),
        (make_adapter(general__architecture=string("qwen2")), "the model is 'llama'"),
        (
            make_gguf(ADAPTER_HEAD, [Tensor("y.lora_a", (32, 4)), Tensor("y.lora_b", (4, 32))]),
            "no such tensor",
        ),
        (
            make_gguf(
                ADAPTER_HEAD,
                [
                    Tensor("blk.0.attn_q.weight.lora_a", (32, 4, 2)),
                    Tensor("blk.0.attn_q.weight.lora_b", (4, 32, 2)),
                ],
            ),
            "another model",
        ),
        (
            make_gguf(
                ADAPTER_HEAD,
                [
                    Tensor("token_embd.weight.lora_a", (4, 261)),
                    Tensor("token_embd.weight.lora_b", (4, 32)),
                ],
            ),
            "the model writes with it",
        ),
    ],
    ids=["fits", "other width", "other architecture", "other tensors", "experts of none", "tied embeddings"],
)
def test_adapters_and_their_models(tmp_path: Path, adapter: bytes, words: str) -> None:
    (tmp_path / "m.gguf").write_bytes(make_model())
    (tmp_path / "a.gguf").write_bytes(adapter)
    found = check_adapter_fits(read_header(tmp_path / "a.gguf"), [read_header(tmp_path / "m.gguf")])
    assert bool(found) == bool(words)
    assert words in "\n".join(map(str, found))


PROJECTORS: dict[str, tuple[dict[str, Typed | None], str]] = {
    "image 2^31": ({"clip__vision__image_size": u32(2**31)}, "8,192"),
    "image 0": ({"clip__vision__image_size": u32(0)}, "image_size"),
    "patch 0": ({"clip__vision__patch_size": u32(0)}, "patch_size"),
    "heads 0": ({"clip__vision__attention__head_count": u32(0)}, "head_count"),
    "image as text": ({"clip__vision__image_size": string("224")}, "expected uint32"),
    "not clip": ({"general__architecture": string("llama")}, "expected 'clip'"),
}


@pytest.mark.parametrize(("changes", "words"), PROJECTORS.values(), ids=PROJECTORS)
def test_bad_projectors(tmp_path: Path, changes: dict[str, Typed | None], words: str) -> None:
    assert words in str(problems(tmp_path, make_projector(**changes)))


# splits

SPLITS: dict[str, tuple[dict[str, Typed | None], str]] = {
    "number beyond the count": (
        {"split__no": u16(2), "split__count": u16(2), "split__tensors__count": i32(99)},
        "split.no",
    ),
    "count 0": ({"split__no": u16(0), "split__count": u16(0), "split__tensors__count": i32(99)}, "is 0"),
    "number as u32": (
        {"split__no": u32(0), "split__count": u16(2), "split__tensors__count": i32(99)},
        "uint16",
    ),
    "count missing": ({"split__no": u16(0), "split__tensors__count": i32(99)}, "split.count"),
    "fewer tensors than here": (
        {"split__no": u16(0), "split__count": u16(2), "split__tensors__count": i32(1)},
        "alone",
    ),
}


@pytest.mark.parametrize(("changes", "words"), SPLITS.values(), ids=SPLITS)
def test_bad_splits(tmp_path: Path, changes: dict[str, Typed | None], words: str) -> None:
    error = problems(tmp_path, make_model(**changes))
    assert error.codes == {Code.BAD_SPLIT}, str(error)
    assert words in str(error)


def test_shards_of_one_model_fit_together(tmp_path: Path) -> None:
    headers = []
    for index, data in enumerate(make_shards(3)):
        path = tmp_path / f"{index}.gguf"
        path.write_bytes(data)
        headers.append(check_file(path))
    assert check_shards(headers) == []
    assert "2 of 3" in str(check_shards([headers[0], headers[2], headers[1]])[0])
    assert any("expected 20" in str(problem) for problem in check_shards(headers[:2]))
    assert any("two shards" in str(problem) for problem in check_shards([headers[0], headers[1], headers[1]]))


# all at once


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    data = make_gguf(
        changed(
            model_metadata(),
            {
                "llama__block_count": u32(0),
                "llama__context_length": None,
                "tokenizer__ggml__tokens": strings([*TOKENS[:-1], "hello"]),
                "tokenizer__ggml__bos_token_id": u32(9999),
            },
        ),
        [*TENSORS, Tensor("bad", type=4), Tensor("worse", (0,))],
    )
    error = problems(tmp_path, data)
    for words in ("block_count", "context_length", "'hello'", "bos_token_id", "'bad'", "'worse'"):
        assert words in str(error)
    assert len(error.problems) == 6


def test_the_message_stays_short_when_everything_is_wrong(tmp_path: Path) -> None:
    tensors = [Tensor(f"t{index}", type=4) for index in range(60_000)]
    error = problems(tmp_path, make_gguf(model_metadata(), tensors, data=b""))
    assert len(error.problems) >= 60_000
    assert "more" in str(error).splitlines()[-1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (make_model()[:-5000], "get it again"),
        (make_model(general__architecture=string("gpt99")), "newer version"),
        (make_gguf(model_metadata(), TENSORS, version=1), "convert"),
        (make_model(llama__block_count=u32(0)), "damaged"),
        (b"<!DOCTYPE html>", None),
    ],
    ids=["cut off", "architecture", "version", "figures", "web page"],
)
def test_hints_say_what_to_do(tmp_path: Path, data: bytes, words: str | None) -> None:
    hint = problems(tmp_path, data).hint
    assert hint is None if words is None else words in str(hint)


def test_errors_survive_pickling(tmp_path: Path) -> None:
    import pickle

    error = problems(tmp_path, b"GGUF")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.problems == error.problems
