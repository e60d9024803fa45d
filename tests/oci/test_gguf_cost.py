"""What checking costs at worst: time and memory, for real sizes and for files made to be costly.

Each file is checked in a process of its own, so that its peak memory can be seen.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ggufmaker import (
    ARRAY,
    FLOAT32,
    INT32,
    STRING,
    UINT8,
    Tensor,
    Typed,
    bpe_metadata,
    make_gguf,
    model_metadata,
    model_tensors,
    numbers,
    string,
    strings,
    u32,
)

# The worst of these takes 0.8 s where nothing else runs; the tests may share their processors.
LIMIT_S = 2.0

# Checks sys.argv[1]; prints processor seconds, growth of peak memory in bytes, and what was said. By VmHWM,
# since the ru_maxrss of a new process starts at that of its parent.
_CHECK = """
import json, re, sys, time
from pathlib import Path
from lading.oci.gguf.reader import BadGguf
from lading.oci.gguf.check import check_file
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before, started = peak(), time.process_time()
try:
    check_file(Path(sys.argv[1]))
    said = ""
except BadGguf as error:
    said = str(error)
spent = time.process_time() - started
print(json.dumps([spent, peak() - before, said[:500]]))
"""


def cost(path: Path, data: bytes) -> tuple[float, int, str]:
    path.write_bytes(data)
    command = [sys.executable, "-c", _CHECK, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    spent, grown, said = json.loads(done.stdout)
    return float(spent), int(grown), str(said)


def test_a_vocabulary_of_150_000_tokens_and_merges(tmp_path: Path) -> None:
    count = 150_000
    tokens = [f"token-{index:06}" for index in range(count)]
    merges = [f"token {index:06}" for index in range(count)]
    data = make_gguf(bpe_metadata(tokens, merges), model_tensors(vocabulary=4))
    spent, grown, said = cost(tmp_path / "x.gguf", data)
    assert said == ""
    assert spent < 1.5
    assert grown < 64 << 20


def _empty_strings(count: int) -> Typed:
    return Typed(ARRAY, struct.pack("<IQ", STRING, count) + bytes(8 * count))


def _many_tokens(type_: int, count: int = 1 << 20) -> bytes:
    tokens = b"".join(struct.pack("<Q8s", 8, b"%08x" % index) for index in range(count))
    metadata = model_metadata(
        tokenizer__ggml__tokens=Typed(ARRAY, struct.pack("<IQ", STRING, count) + tokens),
        tokenizer__ggml__scores=Typed(ARRAY, struct.pack("<IQ", FLOAT32, count) + bytes(4 * count)),
        tokenizer__ggml__token_type=numbers(INT32, [type_] * count),
        llama__vocab_size=u32(count),
    )
    return make_gguf(metadata, model_tensors(vocabulary=4))


def _equal_tokens() -> bytes:
    count = 1 << 20
    tokens = struct.pack("<Q2s", 2, b"a\0") * count
    metadata = model_metadata(
        tokenizer__ggml__tokens=Typed(ARRAY, struct.pack("<IQ", STRING, count) + tokens),
        llama__vocab_size=u32(count),
    )
    return make_gguf(metadata, model_tensors(vocabulary=4))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "2 million empty strings": lambda: make_gguf({"a": _empty_strings(2 << 20)}),
    "too many empty strings": lambda: make_gguf({"a": _empty_strings((2 << 20) + 1)}),
    "a million tokens": lambda: _many_tokens(1),
    "a million times the same token": _equal_tokens,
    "a million tokens and one more": lambda: _many_tokens(1, (1 << 20) + 1),
    "a million byte tokens": lambda: _many_tokens(6),
    "a million tokens of no type": lambda: _many_tokens(0),
    "16 million bytes": lambda: make_gguf(
        {"a": Typed(ARRAY, struct.pack("<IQ", UINT8, 1 << 24) + bytes(1 << 24))}
    ),
    "a text of 16 MiB": lambda: make_gguf({"a": string("x" * (16 << 20))}),
    "texts of 32 MiB": lambda: make_gguf({f"k{i}": string("x" * (8 << 20)) for i in range(4)}),
    "strings of 64 KiB each": lambda: make_gguf({"a": strings(["x" * 65_536] * 500)}),
    "65,536 tensors": lambda: make_gguf(model_metadata(), [Tensor(f"t{i}", (1,)) for i in range(65_536)]),
    "65,536 bad tensors": lambda: make_gguf(
        model_metadata(), [Tensor(f"t{i}", type=4) for i in range(65_536)], data=b""
    ),
    "4,096 short arrays": lambda: make_gguf({f"k{i}": numbers(INT32, range(1024)) for i in range(4000)}),
    "10 million merges": lambda: make_gguf(
        {"tokenizer.ggml.merges": Typed(ARRAY, struct.pack("<IQ", STRING, 10_000_000) + bytes(80_000_000))}
    ),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_files_made_to_be_costly(tmp_path: Path, make: Callable[[], bytes]) -> None:
    spent, grown, said = cost(tmp_path / "x.gguf", make())
    assert spent < LIMIT_S, said
    assert grown < 64 << 20, said
