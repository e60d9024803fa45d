"""The tables agree with the llama.cpp that is installed. It is asked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lading.oci.gguf.type_table import (
    ARCHITECTURES,
    FILE_TYPES,
    HYBRID_ARCHITECTURES,
    RECURRENT_ARCHITECTURES,
    TENSOR_TYPES,
)

# Symbols of C++ functions that have no C interface: llm_arch_name(llm_arch) and its like.
_ASK = """
import ctypes, json, sys
folder = sys.argv[1]
for name in ("ggml-base", "ggml-cpu", "ggml"):
    library = ctypes.CDLL(f"{folder}/lib{name}.so", mode=ctypes.RTLD_GLOBAL)
    if name == "ggml-base":
        base = library
base.ggml_type_name.restype = ctypes.c_char_p
base.ggml_type_size.restype = ctypes.c_size_t
base.ggml_blck_size.restype = ctypes.c_int64
types = {}
for number in range(64):
    try:
        name = base.ggml_type_name(number)
    except Exception:
        break
    if name is None or b"TYPE_COUNT" in name or b"NONE" == name:
        break
    block = base.ggml_blck_size(number)
    if block:
        types[number] = [name.decode().upper(), block, base.ggml_type_size(number)]
    if number == int(sys.argv[2]):
        break
llama = ctypes.CDLL(f"{folder}/libllama.so")
name_of = llama["_Z13llm_arch_name8llm_arch"]
name_of.restype = ctypes.c_char_p
flags = {"recurrent": "_Z21llm_arch_is_recurrentRK8llm_arch", "hybrid": "_Z18llm_arch_is_hybridRK8llm_arch"}
result = {"types": types, "architectures": [], "recurrent": [], "hybrid": []}
number = 0
while (name := name_of(number).decode()) != "(unknown)":
    result["architectures"].append(name)
    for flag, symbol in flags.items():
        function = llama[symbol]
        function.restype = ctypes.c_bool
        if function(ctypes.byref(ctypes.c_int(number))):
            result[flag].append(name)
    number += 1
llama.llama_ftype_name.restype = ctypes.c_char_p
result["file_types"] = {n: llama.llama_ftype_name(n).decode() for n in range(42)}
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def library() -> dict[str, Any]:
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        pytest.skip("llama-cpp-python is not installed")
    folder = Path(spec.origin).parent / "lib"
    if not (folder / "libggml-base.so").exists():
        pytest.skip(f"no libggml-base.so in {folder}")
    command = [sys.executable, "-c", _ASK, str(folder), str(max(TENSOR_TYPES))]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout))


def test_tensor_types_are_those_of_the_library(library: dict[str, Any]) -> None:
    ours = {str(row.id): [row.name, row.block, row.block_size] for row in TENSOR_TYPES.values()}
    assert ours == library["types"]


def test_architectures_are_those_of_the_library(library: dict[str, Any]) -> None:
    assert sorted(ARCHITECTURES) == sorted(library["architectures"])
    assert sorted(RECURRENT_ARCHITECTURES) == sorted(library["recurrent"])
    assert sorted(HYBRID_ARCHITECTURES) == sorted(library["hybrid"])


def test_file_types_are_those_of_the_library(library: dict[str, Any]) -> None:
    """The library's names are longer: "Q4_K - Medium" is our Q4_K_M, "all F32" our F32."""
    words = {"Small": "_S", "Medium": "_M", "Large": "_L"}
    named: dict[int, str] = {}
    for number, name in library["file_types"].items():
        head, _, tail = name.removeprefix("all ").removesuffix(" MoE").partition(" - ")
        if "unknown" not in name:
            named[int(number)] = head + words.get(tail, "")
    named[10] = named[10].removesuffix("_M")  # there is no Q2_K_M
    named[27] = "IQ3_M"  # "IQ3_S mix"
    assert dict(FILE_TYPES) == named


def test_what_reads_model_files_has_not_loaded_the_library() -> None:
    script = (
        "import lading.oci.building.build, lading.oci.gguf.check\n"
        "import lading.runtime.keeper, lading.server.gunicorn_app\n"
        "print('libllama' in open('/proc/self/maps').read())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
