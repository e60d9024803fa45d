"""Owners of llama.cpp's model and vocabulary; `llama_context` has the others. Runner process only.

Nothing here decides anything. The classes own pointers and the Python objects that C code looks at
(callbacks, arrays), turn C's conventions (buffers, negative counts, NULL) into Python's, and free what they
own in ``close``.

Rules for editing this file:

* A ctypes callback or array that llama.cpp keeps a pointer to must stay referenced as long as llama.cpp may
  use it.
* Every return code is looked at.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp

from ...modelfile.errors import InputError
from .llama_log import LlamaLog

NO_TOKEN = -1

_libc = ctypes.CDLL(None)
_libc.fdopen.restype = ctypes.c_void_p
_libc.fdopen.argtypes = (ctypes.c_int, ctypes.c_char_p)
_libc.fclose.argtypes = (ctypes.c_void_p,)

Adapter = Any
"""llama.cpp's pointer to a loaded adapter: a ctypes pointer object, which no type names."""


class LoadError(InputError):
    """llama.cpp refuses a file. ``log`` has its last error lines."""

    log: tuple[str, ...]

    def __init__(self, message: str, log: tuple[str, ...] = (), *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.log = log


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How weights are loaded. ``n_gpu_layers`` -1 means all."""

    paths: tuple[str, ...]
    n_gpu_layers: int = -1
    main_gpu: int = -1
    tensor_split: tuple[float, ...] = ()
    """How many of these layers each device takes, in llama.cpp's order; empty: as it likes."""
    use_mmap: bool = True
    use_mlock: bool = False


class LlamaModel:
    """A loaded model and its vocabulary.

    Raises:
        LoadError: llama.cpp refuses the file. Nothing stays allocated.
    """

    def __init__(self, settings: ModelSettings, log: LlamaLog, progress: Callable[[float], bool]) -> None:
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = settings.n_gpu_layers
        if settings.main_gpu >= 0:
            params.main_gpu = settings.main_gpu
            params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
        split = (ctypes.c_float * llama_cpp.llama_max_devices())(*settings.tensor_split)
        if settings.tensor_split:
            params.tensor_split = split
        params.load_mode = _load_mode(settings)
        callback = llama_cpp.llama_progress_callback(lambda fraction, _data: progress(fraction))
        params.progress_callback = callback
        paths = [path.encode() for path in settings.paths]
        if len(paths) == 1:
            pointer = llama_cpp.llama_model_load_from_file(paths[0], params)
        else:
            array = (ctypes.c_char_p * len(paths))(*paths)
            pointer = llama_cpp.llama_model_load_from_splits(array, len(paths), params)
        if not pointer:
            raise LoadError(f"loading {settings.paths[0]}: llama.cpp refuses the file", log.errors)
        self.pointer: int = pointer
        vocab = llama_cpp.llama_model_get_vocab(pointer)
        assert vocab is not None
        self.vocab = LlamaVocab(vocab)

    def close(self) -> None:
        llama_cpp.llama_model_free(self.pointer)
        self.vocab.pointer = 0

    @property
    def n_ctx_train(self) -> int:
        return int(llama_cpp.llama_model_n_ctx_train(self.pointer))

    @property
    def n_embd(self) -> int:
        return int(llama_cpp.llama_model_n_embd(self.pointer))

    @property
    def n_embd_inp(self) -> int:
        """Width of what stands for a token in an `EmbeddingBatch`."""
        return int(llama_cpp.llama_model_n_embd_inp(self.pointer))

    @property
    def n_embd_out(self) -> int:
        """Width of an embedding, which a projection may make differ from the width inside."""
        return int(llama_cpp.llama_model_n_embd_out(self.pointer))

    @property
    def n_cls_out(self) -> int:
        """Numbers that a model for ranking or classifying answers with."""
        return int(llama_cpp.llama_model_n_cls_out(self.pointer))

    @property
    def n_layer(self) -> int:
        return int(llama_cpp.llama_model_n_layer(self.pointer))

    @property
    def sliding_window(self) -> int:
        """Tokens of the attention window; 0: attention is full."""
        return max(0, int(llama_cpp.llama_model_n_swa(self.pointer)))

    @property
    def size(self) -> int:
        return int(llama_cpp.llama_model_size(self.pointer))

    @property
    def parameter_count(self) -> int:
        return int(llama_cpp.llama_model_n_params(self.pointer))

    @property
    def has_encoder(self) -> bool:
        return bool(llama_cpp.llama_model_has_encoder(self.pointer))

    @property
    def has_decoder(self) -> bool:
        return bool(llama_cpp.llama_model_has_decoder(self.pointer))

    @property
    def keeps_state(self) -> bool:
        """Some or all of its layers keep a state, from which no token can be taken back."""
        pointer = self.pointer
        return bool(llama_cpp.llama_model_is_recurrent(pointer) or llama_cpp.llama_model_is_hybrid(pointer))

    @property
    def is_diffusion(self) -> bool:
        return bool(llama_cpp.llama_model_is_diffusion(self.pointer))

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str:
        """The Jinja template in the file's metadata, or ""."""
        text = llama_cpp.llama_model_chat_template(self.pointer, None)
        return text.decode("utf-8", "replace") if text else ""

    def load_adapter(self, fd: int, log: LlamaLog) -> Adapter:
        """A LoRA adapter for this model, from a file that is open at its start; closes it. Not while a
        context of the model evaluates.

        Raises: LoadError.
        """
        file = _libc.fdopen(fd, b"rb")
        if not file:
            os.close(fd)
            raise LoadError("loading an adapter: its file cannot be read")
        try:
            pointer = llama_cpp.llama_adapter_lora_init_from_file_ptr(self.pointer, file)
        finally:
            _libc.fclose(file)
        if not pointer:
            said = log.errors[-1].rpartition("failed to apply lora adapter: ")[2] if log.errors else ""
            reason = f": {said.strip()}" if said else ""
            raise LoadError(f"loading an adapter: llama.cpp refuses the file{reason}", log.errors)
        return pointer

    def free_adapter(self, adapter: Adapter) -> None:
        """It must not be applied to any context."""
        llama_cpp.llama_adapter_lora_free(adapter)

    def metadata(self, key: str) -> str | None:
        """A metadata value as text; None where the file has no such key. At most 4 KiB."""
        buffer = ctypes.create_string_buffer(4096)
        size = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if size < 0 else buffer.value.decode("utf-8", "replace")


class LlamaVocab:
    """Text to tokens and back. Safe to use from several threads."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer
        self.type: int = llama_cpp.llama_vocab_type(pointer)
        """llama.cpp's number for the kind of tokenizer."""
        self.size: int = llama_cpp.llama_vocab_n_tokens(pointer)
        self.bos: int = llama_cpp.llama_vocab_bos(pointer)
        self.eos: int = llama_cpp.llama_vocab_eos(pointer)
        self.sep: int = llama_cpp.llama_vocab_sep(pointer)
        self.add_bos: bool = llama_cpp.llama_vocab_get_add_bos(pointer)
        self.add_eos: bool = llama_cpp.llama_vocab_get_add_eos(pointer)
        self.add_sep: bool = llama_cpp.llama_vocab_get_add_sep(pointer)
        self.fim_prefix: int = llama_cpp.llama_vocab_fim_pre(pointer)
        self.fim_suffix: int = llama_cpp.llama_vocab_fim_suf(pointer)
        self.fim_middle: int = llama_cpp.llama_vocab_fim_mid(pointer)
        self.ends = [token for token in range(self.size) if llama_cpp.llama_vocab_is_eog(pointer, token)]
        """Tokens that end an answer: EOS, end of turn, end of message."""
        self._ends = frozenset(self.ends)
        self.controls = [
            token for token in range(self.size) if llama_cpp.llama_vocab_is_control(pointer, token)
        ]
        """Tokens that are no text: ends and beginnings of turns, separators, places of images."""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """Tokens of ``text``; ``add_special`` puts BOS and EOS where the model wants them, ``parse_special``
        reads the names of special tokens as those tokens."""
        data = text.encode("utf-8", "surrogatepass")
        capacity = len(data) + 8
        buffer = (llama_cpp.llama_token * capacity)()
        count = self._tokenize(data, buffer, add_special, parse_special)
        if count < 0:
            buffer = (llama_cpp.llama_token * -count)()
            count = self._tokenize(data, buffer, add_special, parse_special)
        return buffer[:count]

    def _tokenize(
        self, data: bytes, buffer: ctypes.Array[ctypes.c_int32], add_special: bool, parse_special: bool
    ) -> int:
        return int(
            llama_cpp.llama_tokenize(
                self.pointer, data, len(data), buffer, len(buffer), add_special, parse_special
            )
        )

    def piece(self, token: int, *, special: bool) -> bytes:
        """The bytes of a token: not always whole characters. Control tokens are empty unless ``special``."""
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self.pointer, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def detokenize(self, tokens: Sequence[int], *, special: bool = True) -> str:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        size = 8 * len(tokens) + 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama_cpp.llama_detokenize(
                self.pointer,
                array,
                len(tokens),
                buffer,
                size,
                False,
                special,
            )
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def is_end(self, token: int) -> bool:
        return token in self._ends

    def is_control(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_control(self.pointer, token))

    def is_tag(self, token: int, piece: bytes) -> bool:
        """Whether a token is no text: a control token, or one that was added and looks like a tag."""
        attributes = llama_cpp.llama_vocab_get_attr(self.pointer, token)
        if attributes & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL:
            return True
        is_added = bool(attributes & llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED)
        return is_added and piece.startswith(b"<") and piece.endswith(b">")

    @property
    def tokenize_address(self) -> int:
        """Where llama.cpp's own tokenizer is, for libraries that call it."""
        return ctypes.cast(llama_cpp.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value or 0

    def text(self, token: int) -> str:
        """The token as the vocabulary spells it; "" for `NO_TOKEN`."""
        if not 0 <= token < self.size:
            return ""
        text: bytes = llama_cpp.llama_vocab_get_text(self.pointer, token)
        return text.decode("utf-8", "replace")

    def suppressed(self) -> list[int]:
        """Tokens that the model's metadata says must never be sampled."""
        count = ctypes.c_int32(0)
        tokens = llama_cpp.llama_vocab_get_suppress_tokens(self.pointer, ctypes.byref(count))
        return [tokens[i] for i in range(count.value)] if count.value else []


def _load_mode(settings: ModelSettings) -> int:
    if settings.use_mmap:
        return int(
            llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK if settings.use_mlock else llama_cpp.LLAMA_LOAD_MODE_MMAP
        )
    return int(llama_cpp.LLAMA_LOAD_MODE_MLOCK if settings.use_mlock else llama_cpp.LLAMA_LOAD_MODE_NONE)
