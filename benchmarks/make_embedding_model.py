"""Makes the model that embeddings are benchmarked with: random weights at the shape of all-MiniLM-L6-v2, F16.

    python benchmarks/make_embedding_model.py [--folder DIR]

BERT with mean pooling: 6 layers, 384 wide, 12 heads, texts of up to 512 tokens, a WordPiece vocabulary of
30,522 with the words that the benchmark's texts are made of. The same seed makes the same file. Prints the
path; the file (45 MB) is made once and kept in the folder, by default where make_model.py keeps its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import gguf
import numpy as np
from make_model import WORDS, default_folder

SEED = 384
BLOCKS, WIDTH, HEADS, FEED_FORWARD, CONTEXT = 6, 384, 12, 1536, 512
VOCABULARY = 30_522
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PAD, _UNKNOWN, _BEGIN, _SEPARATOR, _MASK = range(len(SPECIAL))
_BLANK = "▁"
"""llama.cpp's mark of a word's beginning."""


def write_model(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("Benchmark MiniLM")
    writer.add_block_count(BLOCKS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    _add_vocabulary(writer)
    generator = np.random.default_rng(SEED)
    for name, shape in _shapes().items():
        writer.add_tensor(name, _weights(name, shape, generator))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    letters = [chr(byte) for byte in range(ord("!"), ord("~") + 1)]
    tokens = [
        *SPECIAL,
        *letters,
        *(_BLANK + letter for letter in letters),
        *(_BLANK + word for word in WORDS),
    ]
    types = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    unused = VOCABULARY - len(tokens)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([*tokens, *(f"[unused{i}]" for i in range(unused))])
    writer.add_token_types([*types, *[gguf.TokenType.UNUSED] * unused])
    writer.add_bos_token_id(_BEGIN)
    writer.add_eos_token_id(_SEPARATOR)
    writer.add_unk_token_id(_UNKNOWN)
    writer.add_sep_token_id(_SEPARATOR)
    writer.add_pad_token_id(_PAD)
    writer.add_mask_token_id(_MASK)


def _shapes() -> dict[str, tuple[int, ...]]:
    """Rows first."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
    }
    for i in range(BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes |= {f"blk.{i}.{name}.weight": (WIDTH, WIDTH), f"blk.{i}.{name}.bias": (WIDTH,)}
        shapes |= {
            f"blk.{i}.ffn_up.weight": (FEED_FORWARD, WIDTH),
            f"blk.{i}.ffn_up.bias": (FEED_FORWARD,),
            f"blk.{i}.ffn_down.weight": (WIDTH, FEED_FORWARD),
            f"blk.{i}.ffn_down.bias": (WIDTH,),
        }
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes |= {f"blk.{i}.{name}.weight": (WIDTH,), f"blk.{i}.{name}.bias": (WIDTH,)}
    return shapes


def _weights(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    if name.endswith("norm.weight"):
        return np.ones(shape, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    values = generator.standard_normal(shape, np.float32) * np.float32(0.04)
    # llama.cpp adds these to others as they are, and takes them in no other type.
    return values if name.startswith(("position", "token_types")) else values.astype(np.float16)


def model(folder: Path) -> Path:
    """The model's file, made where it is not there yet. What an interruption leaves is made anew."""
    target = folder / "bench-minilm-f16.gguf"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    print(f"making {target} …", file=sys.stderr)
    part = folder / "bench-minilm.part"
    try:
        write_model(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the file is kept")
    print(model(parser.parse_args().folder))


if __name__ == "__main__":
    main()
