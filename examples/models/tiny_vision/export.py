"""Write the eye as a projector for llama.cpp: python export.py OUT_DIR mmproj-tiny-vision.gguf."""

import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from eye import MEAN, STD, Shape

PROJECTOR = "mlp"  # llava's: each patch is one token


def add_metadata(writer: gguf.GGUFWriter, shape: Shape, weights: int) -> None:
    writer.add_type("mmproj")
    writer.add_name("Tiny Vision")
    writer.add_basename("tiny-vision")
    writer.add_description("A very small eye for tiny-chat, trained on drawn pictures, for tests")
    writer.add_size_label(f"{weights // 1000}K")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(PROJECTOR)
    writer.add_vision_image_size(shape.side)
    writer.add_vision_patch_size(shape.patch)
    writer.add_vision_embedding_length(shape.width)
    writer.add_vision_feed_forward_length(shape.feed_forward)
    writer.add_vision_block_count(shape.layers)
    writer.add_vision_head_count(shape.heads)
    writer.add_vision_projection_dim(shape.output)
    writer.add_vision_attention_layernorm_eps(shape.epsilon)
    writer.add_vision_image_mean([MEAN] * 3)
    writer.add_vision_image_std([STD] * 3)
    writer.add_vision_use_gelu(True)
    # The layer whose output is used: without this, llava leaves out the last one.
    writer.add_array("clip.vision.feature_layer", [shape.layers])


def tensor_name(name: str) -> str:
    """The name in llama.cpp of a weight of `eye.Eye`."""
    if name == "position_embd":
        return "v.position_embd.weight"
    for ours, theirs in (("mm_0.", "mm.0."), ("mm_2.", "mm.2.")):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return "v." + name


def main() -> None:
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    weights = torch.load(source / "eye.pt", weights_only=True)
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "clip")
    add_metadata(writer, Shape(), sum(weight.numel() for weight in weights.values()))
    for name, tensor in weights.items():
        weight = tensor.float().numpy()
        is_matrix = weight.ndim > 1 and name != "position_embd"
        writer.add_tensor(tensor_name(name), weight.astype(np.float16 if is_matrix else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)


if __name__ == "__main__":
    main()
