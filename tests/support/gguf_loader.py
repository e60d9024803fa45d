"""A program that does with GGUF files what a runner does: load, tokenise, detokenise, decode.

    python gguf_loader.py FILE...

Each file is handled in a fork. Prints a JSON object: file name → the signal that ended the fork, or 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

TEXTS = (
    b"hello world",
    bytes(range(1, 256)),
    "é漢字😀 \n\t x".encode(),
    b"\0a\0",
    b"<s></s><unk>[CLS]",
    b"ACGT <dna>ACGTNACGT</dna>",
    b" " * 50,
    "\u2581\u2581".encode(),
    b"1234567890 I'll don't",
)


def use(path: str) -> None:
    """Load the model and put texts through its tokenizer and its graph."""
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p())
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        return
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    count = llama_cpp.llama_vocab_n_tokens(vocabulary)
    tokens = (llama_cpp.llama_token * 4096)()
    out = ctypes.create_string_buffer(1 << 16)
    for text in TEXTS:
        for special in (True, False):
            found = llama_cpp.llama_tokenize(vocabulary, text, len(text), tokens, 4096, special, True)
            sound = [token for token in tokens[: max(0, found)] if 0 <= token < count]
            array = (llama_cpp.llama_token * max(1, len(sound)))(*sound)
            llama_cpp.llama_detokenize(vocabulary, array, len(sound), out, 1 << 16, False, True)
    for token in range(count):
        for special in (True, False):
            llama_cpp.llama_token_to_piece(vocabulary, token, out, 1 << 16, 0, special)
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_threads = 64, 32, 1
    context = llama_cpp.llama_init_from_model(model, parameters)
    if context:
        prompt = (llama_cpp.llama_token * 4)(*[index % count for index in range(4)])
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(prompt, 4))


def main() -> None:
    import llama_cpp

    llama_cpp.llama_backend_init()
    ended = {}
    for path in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
            signal.alarm(20)
            use(path)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended[path.rpartition("/")[2]] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    print(json.dumps(ended))


if __name__ == "__main__":
    main()
