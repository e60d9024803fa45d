"""Makes the model that the serving benchmarks run on: random weights at the shape of Qwen2.5-0.5B, Q4_K_M.

    python benchmarks/make_model.py [--folder DIR] [--vocabulary FILE.gguf]

What a step costs depends on a model's shape and its quantisation, not on what it has learnt, so nothing has
to be downloaded. The same seed makes the same file on every machine with the same numpy and llama.cpp. The
vocabulary is made as well: 151,936 tokens of syllables and words with their merges, or that of a GGUF file.
Rows of tokens that would end an answer are zero, as are those that are not whole characters, so an answer
goes on as long as it may and each token is text.

Prints the path; the file is made once and kept in the folder (default: lading/benchmarks in the user's
cache). About 1.5 GB of disk and a minute are needed, of which 0.4 GB stay.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

SEED = 20250
BLOCKS, WIDTH, HEADS, KV_HEADS, FEED_FORWARD = 24, 896, 14, 2, 4864
HEAD = WIDTH // HEADS
CONTEXT = 32768
VOCABULARY = 151_936
ENDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYLLABLES = tuple(c + v for c, v in itertools.product("bcdfghjklmnpqrstvwyz", "aeiou"))
WORDS = tuple(a + b for a, b in itertools.product(SYLLABLES, SYLLABLES))
"""10,000 words of two syllables, each one token with the blank before it."""
_PUNCTUATION = ('{"', '":', '",', '"}', ', "', ': "', '":"', '","', "[{", "}]", "},", "],")
_BLANK = "Ġ"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    tokens: list[str]
    types: list[int]
    merges: list[str]
    eos: int
    end_of_turn: int
    pre: str


def made_vocabulary() -> Vocabulary:
    """Byte-level BPE: letters, then syllables, then words of two and three, then those after a blank."""
    longer = [a + b for a, b in itertools.product(WORDS, SYLLABLES)]
    longer = random.Random(SEED).sample(longer, 65_000)
    pairs = [(text[0], text[1]) for text in SYLLABLES]
    pairs += [(text[:2], text[2:]) for text in WORDS]
    pairs += [(text[:4], text[4:]) for text in longer]
    pairs += [(_BLANK, text) for text in (*WORDS, *longer)]
    seen = {"".join(pair) for pair in pairs}
    for text in _PUNCTUATION:
        shown = text.replace(" ", _BLANK)
        for end in range(2, len(shown) + 1):
            if shown[:end] not in seen:
                seen.add(shown[:end])
                pairs.append((shown[: end - 1], shown[end - 1]))
    tokens = [*_byte_characters(), *("".join(pair) for pair in pairs)]
    types = [int(gguf.TokenType.NORMAL)] * len(tokens)
    eos = len(tokens)
    tokens += ENDS
    types += [int(gguf.TokenType.CONTROL)] * len(ENDS)
    unused = VOCABULARY - len(tokens)
    tokens += [f"[unused{i}]" for i in range(unused)]
    types += [int(gguf.TokenType.UNUSED)] * unused
    merges = [" ".join(pair) for pair in pairs]
    return Vocabulary(tokens, types, merges, eos, eos + 2, "qwen2")


def _byte_characters() -> list[str]:
    """GPT-2's spelling of the 256 bytes."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + i) for i in range(len(hidden))]


def read_vocabulary(path: Path) -> Vocabulary:
    """The byte-level BPE vocabulary of a GGUF file, with or without weights."""
    fields = gguf.GGUFReader(path).fields
    value = {name: field.contents() for name, field in fields.items() if name.startswith("tokenizer.")}
    if value["tokenizer.ggml.model"] != "gpt2":
        sys.exit(f"{path}: expected a byte-level BPE vocabulary, got {value['tokenizer.ggml.model']}")
    tokens = value["tokenizer.ggml.tokens"]
    eos = value["tokenizer.ggml.eos_token_id"]
    turn = tokens.index("<|im_end|>") if "<|im_end|>" in tokens else eos
    return Vocabulary(
        tokens,
        value["tokenizer.ggml.token_type"],
        value["tokenizer.ggml.merges"],
        eos,
        turn,
        value.get("tokenizer.ggml.pre", "default"),
    )


def write_model(path: Path, vocabulary: Vocabulary) -> None:
    """The model in F16, 1 GB."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name("Benchmark 0.5B")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(vocabulary.end_of_turn)
    writer.add_pad_token_id(vocabulary.eos)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    shapes = _shapes(len(vocabulary.tokens))
    for name, shape in shapes.items():
        kind = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    generator = np.random.default_rng(SEED)
    silent = np.flatnonzero(
        [not _is_text(t, k) for t, k in zip(vocabulary.tokens, vocabulary.types, strict=True)]
    )
    for name, shape in shapes.items():
        data = _weights(name, shape, generator)
        if name == "token_embd.weight":
            data[silent] = 0
        writer.write_tensor_data(data)
    writer.close()


def _is_text(token: str, kind: int) -> bool:
    """Whether a token is whole characters, and no control token."""
    return kind == gguf.TokenType.NORMAL and all(
        "!" <= character <= "~" or character == _BLANK for character in token
    )


def _shapes(n_vocab: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for i in range(BLOCKS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.attn_q.weight": (WIDTH, WIDTH),
            f"blk.{i}.attn_q.bias": (WIDTH,),
            f"blk.{i}.attn_k.weight": (KV_HEADS * HEAD, WIDTH),
            f"blk.{i}.attn_k.bias": (KV_HEADS * HEAD,),
            f"blk.{i}.attn_v.weight": (KV_HEADS * HEAD, WIDTH),
            f"blk.{i}.attn_v.bias": (KV_HEADS * HEAD,),
            f"blk.{i}.attn_output.weight": (WIDTH, WIDTH),
            f"blk.{i}.ffn_norm.weight": (WIDTH,),
            f"blk.{i}.ffn_gate.weight": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_up.weight": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, FEED_FORWARD),
        }
    return shapes


def _weights(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    data = generator.standard_normal(shape, np.float32)
    data *= 0.04
    return data.astype(np.float16)


_QUANTISE = """
import sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), params))
"""


def quantise(source: Path, target: Path) -> None:
    """By llama.cpp's own quantiser, in a process of its own, for it may abort."""
    done = subprocess.run([sys.executable, "-c", _QUANTISE, source, target], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"llama.cpp's quantiser ended with {done.returncode}:\n{done.stderr[-2000:]}")


def default_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "lading" / "benchmarks"


def model(folder: Path, vocabulary: Path | None = None) -> Path:
    """The model's file, made where it is not there yet. What an interruption leaves is made anew."""
    name = f"bench-0.5b-{vocabulary.stem}" if vocabulary else "bench-0.5b"
    target = folder / f"{name}-q4_k_m.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    plain, quantised = folder / f"{name}-f16.part", folder / f"{name}-q4.part"
    print(f"making {target} …", file=sys.stderr)
    try:
        write_model(plain, read_vocabulary(vocabulary) if vocabulary else made_vocabulary())
        quantise(plain, quantised)
        quantised.replace(target)
    finally:
        plain.unlink(missing_ok=True)
        quantised.unlink(missing_ok=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the file is kept")
    parser.add_argument("--vocabulary", type=Path, help="a GGUF file to take the vocabulary from")
    options = parser.parse_args()
    print(model(options.folder, options.vocabulary))


if __name__ == "__main__":
    main()
