"""What llama.cpp itself answers to images and texts: python mtmd_oracle.py MODEL PROJECTOR COUNT PART...

A part is text, or @ and the path of a picture. Evaluates them with `mtmd`'s own helper, one sequence alone,
then prints ``COUNT`` tokens, the likeliest each time, as text.
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image


def main() -> None:
    model_path, projector_path, count, *parts = sys.argv[1:]
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(model_path.encode(), llama_cpp.llama_model_default_params())
    assert model
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 1024, 1, 1
    context = llama_cpp.llama_init_from_model(model, params)
    settings = mtmd.mtmd_context_params_default()
    settings.use_gpu, settings.n_threads = False, 1
    projector = mtmd.mtmd_init_from_file(projector_path.encode(), model, settings)
    assert context and projector
    chunks = tokenized(projector, parts)
    past = llama_cpp.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(projector, context, chunks, 0, 0, 512, True, ctypes.byref(past)) == 0
    sys.stdout.buffer.write(likeliest(model, context, past.value, int(count)))


def tokenized(projector: int, parts: list[str]) -> int:
    texts = [b"<__media__>" if part.startswith("@") else part.encode() for part in parts]
    bitmaps = [bitmap(part[1:]) for part in parts if part.startswith("@")]
    whole = b"".join(texts)
    text = mtmd.mtmd_input_text(text=whole, text_len=len(whole), add_special=True, parse_special=True)
    chunks = mtmd.mtmd_input_chunks_init()
    assert chunks
    array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
    assert mtmd.mtmd_tokenize(projector, chunks, ctypes.byref(text), array, len(bitmaps)) == 0
    return chunks


def bitmap(path: str) -> int:
    picture = Image.open(path).convert("RGB")
    pixels = (ctypes.c_uint8 * (3 * picture.width * picture.height)).from_buffer_copy(picture.tobytes())
    made = mtmd.mtmd_bitmap_init(picture.width, picture.height, pixels)
    assert made
    return made


def likeliest(model: int, context: int, past: int, count: int) -> bytes:
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocabulary)
    said = b""
    for position in range(past, past + count):
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), shape=(size,))
        token = int(logits.argmax())
        if llama_cpp.llama_vocab_is_eog(vocabulary, token):
            break
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
        said += buffer.raw[:length]
        tokens = (llama_cpp.llama_token * 1)(token)
        batch = llama_cpp.llama_batch_get_one(tokens, 1)
        place = llama_cpp.llama_pos(position)
        batch.pos = ctypes.pointer(place)
        assert llama_cpp.llama_decode(context, batch) == 0
    return said


if __name__ == "__main__":
    main()
