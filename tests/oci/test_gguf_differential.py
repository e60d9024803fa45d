"""What the checker lets through does not kill the process that loads it.

Files are made at random, from a fixed seed: odd vocabularies, and sound files with some bytes changed. Those
that pass the check are loaded and used by llama.cpp, in processes of their own. In development the same was
run on tens of thousands of files.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf_loader
import pytest
from ggufmaker import (
    FLOAT32,
    INT32,
    Typed,
    boolean,
    bpe_metadata,
    make_gguf,
    make_model,
    model_metadata,
    model_tensors,
    numbers,
    string,
    strings,
    u32,
)

from lading.oci.gguf.check import check_file
from lading.oci.gguf.reader import BadGguf

pytestmark = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")

MODELS = ["llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "gemma4", "whitespace", "hybriddna"]
PRES = ["default", "llama-bpe", "gpt-2", "qwen2", "gemma4", "glm4", "tekken", "whitespace", "gpt-4o", "bloom"]
ODD = [
    "<unk>",
    "<s>",
    "</s>",
    "[CLS]",
    "[SEP]",
    "<oov>",
    "<|im_end|>",
    "\n",
    "\\n",
    "▁",
    "Ġ",
    " ",
    "",
    "a\0b",
]


def odd_vocabulary(chance: random.Random) -> bytes:
    tokens = _odd_tokens(chance)
    ids = {
        f"tokenizer__ggml__{name}_token_id": u32(chance.randrange(len(tokens)))
        for name in ("bos", "eos", "unknown", "seperator")
        if chance.random() < 0.6
    }
    flags = {
        f"tokenizer__ggml__{name}": boolean(chance.random() < 0.5)
        for name in ("add_bos_token", "add_eos_token", "add_space_prefix")
        if chance.random() < 0.4
    }
    changes: dict[str, Typed | None] = {
        **{f"tokenizer__ggml__{name}_token_id": None for name in ("bos", "eos", "unknown")},
        "tokenizer__ggml__add_bos_token": None,
        "tokenizer__ggml__model": string(chance.choice(MODELS)),
        "tokenizer__ggml__pre": string(chance.choice(PRES)) if chance.random() < 0.8 else None,
        "tokenizer__ggml__tokens": strings(tokens),
        "tokenizer__ggml__scores": numbers(FLOAT32, [chance.uniform(-9, 9) for _ in tokens]),
        "tokenizer__ggml__token_type": numbers(INT32, [_type(chance, token) for token in tokens]),
        "tokenizer__ggml__merges": strings(
            chance.choice(tokens) + b" " + chance.choice(tokens) for _ in range(chance.randrange(20))
        ),
        "llama__vocab_size": u32(len(tokens)),
    }
    return make_gguf(model_metadata(**(changes | ids | flags)), model_tensors(vocabulary=len(tokens)))


def _odd_tokens(chance: random.Random) -> list[bytes]:
    tokens = [chance.choice(ODD).encode() for _ in range(chance.randrange(1, 20))]
    tokens += [chance.randbytes(chance.randrange(6)) for _ in range(chance.randrange(20))]
    for more, share in (
        ([b"<0x%02X>" % byte for byte in range(256)], 0.7),
        ([repr(bytes([byte]))[2:-1].encode() for byte in range(256)], 0.3),
        ([b"w%d" % number for number in range(120)], 0.3),
    ):
        tokens += more if chance.random() < share else []
    chance.shuffle(tokens)
    return list(dict.fromkeys(tokens))


def _type(chance: random.Random, token: bytes) -> int:
    return (
        6 if token.startswith(b"<0x") and chance.random() < 0.95 else chance.choice([1, 1, 1, 1, 2, 3, 4, 5])
    )


def with_changed_bytes(chance: random.Random) -> bytes:
    letters = [chr(code) for code in range(33, 127)]
    bpe = make_gguf(bpe_metadata([*letters, "ab"], ["a b"]), model_tensors(vocabulary=95))
    data = bytearray(chance.choice([make_model(), bpe]))
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(4, 9_000)
        size = chance.choice([1, 4, 8])
        data[at : at + size] = chance.choice([chance.randbytes(size), b"\xff" * size, bytes(size)])
    return bytes(data)


@pytest.mark.parametrize(("make", "count"), [(odd_vocabulary, 150), (with_changed_bytes, 100)])
def test_files_that_pass_do_no_harm(tmp_path: Path, make: object, count: int) -> None:
    assert callable(make)
    chance = random.Random(2026)
    passed = []
    for number in range(count):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(make(chance))
        try:
            check_file(path)
        except BadGguf:
            continue
        passed.append(str(path))
    assert len(passed) > count // 6
    done = subprocess.run(
        [sys.executable, gguf_loader.__file__, *passed],
        capture_output=True,
        timeout=100,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert {name: end for name, end in json.loads(done.stdout).items() if end} == {}


def test_the_loader_tells_of_a_crash(tmp_path: Path) -> None:
    """The instrument works: a file that the checker refuses does kill the process."""
    path = tmp_path / "x.gguf"
    path.write_bytes(make_model(llama__block_count=u32(100_000)))
    with pytest.raises(BadGguf):
        check_file(path)
    done = subprocess.run(
        [sys.executable, gguf_loader.__file__, str(path)],
        capture_output=True,
        timeout=60,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    assert json.loads(done.stdout) == {"x.gguf": 6}
