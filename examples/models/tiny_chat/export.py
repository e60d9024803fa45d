"""Write a checkpoint as GGUF: python export.py OUT_DIR tiny-chat.gguf."""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from model import Shape
from tokenizer import CONTROL, SHOWN

BLEND = {"stage-3.pt": 0.25, "stage-4.pt": 0.75}  # forgets less than the last stage alone
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def add_tokenizer(writer: gguf.GGUFWriter, path: Path) -> int:
    """The vocabulary, its merges and special tokens; returns the number of tokens."""
    data = json.loads(path.read_text(encoding="utf-8"))
    ids = dict(data["model"]["vocab"])
    ids.update({token["content"]: token["id"] for token in data["added_tokens"]})
    tokens = sorted(ids, key=lambda token: ids[token])
    kinds = dict.fromkeys(CONTROL, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(SHOWN, gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in data["model"]["merges"]])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_eot_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text(encoding="utf-8").removesuffix("\n"))
    return len(tokens)


def add_metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_type("model")
    writer.add_name("Tiny Chat")
    writer.add_basename("tiny-chat")
    writer.add_description(
        "A very small chat model trained on synthetic dialogue, for tests and demonstrations"
    )
    writer.add_size_label("2.3M")
    writer.add_license("apache-2.0")
    writer.add_languages(["en"])
    writer.add_tags(["text-generation"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)


def adjacent_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix reordered from RoPE over halves to RoPE over adjacent pairs."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def load(source: Path) -> dict[str, torch.Tensor]:
    """The blend of the last stages, or while training is under way its checkpoint."""
    if not all((source / name).exists() for name in BLEND):
        checkpoint: dict[str, torch.Tensor] = torch.load(source / "checkpoint.pt", weights_only=True)
        return checkpoint
    stages = {name: torch.load(source / name, weights_only=True) for name in BLEND}
    names = next(iter(stages.values()))
    return {key: sum(stages[name][key] * share for name, share in BLEND.items()) for key in names}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    weights = load(source)
    shape = Shape(vocabulary=weights["token_embd.weight"].shape[0])
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    add_metadata(writer, shape)
    assert add_tokenizer(writer, source / "tokenizer.json") == shape.vocabulary
    for name, tensor in weights.items():
        weight = tensor.float().numpy()
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            weight = adjacent_pairs(weight, shape.heads)
        writer.add_tensor(name, weight.astype(np.float16 if weight.ndim == 2 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)


if __name__ == "__main__":
    main()
