"""Thin owners of llama.cpp's objects: a model, a context, a batch. Imported in a runner process only.

Nothing here decides anything. The classes own pointers and the Python objects that C code looks at
(callbacks, arrays), turn C's conventions (buffers, negative counts, NULL) into Python's, and free what they
own in ``close``.

Rules for editing this file:

* A ctypes callback or array that llama.cpp keeps a pointer to must stay referenced as long as llama.cpp may
  use it.
* ``llama_decode`` and everything else on a context belongs to one thread. A vocabulary is safe from any
  thread.
* Every return code is looked at.
"""

from __future__ import annotations

import ctypes
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import llama_cpp
import numpy as np
import numpy.typing as npt

from ..modelfile.errors import InputError, ResourceError

_KV_TYPES = {
    "f32": llama_cpp.GGML_TYPE_F32,
    "f16": llama_cpp.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which the binding does not name
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q5_1": llama_cpp.GGML_TYPE_Q5_1,
    "q5_0": llama_cpp.GGML_TYPE_Q5_0,
    "q4_1": llama_cpp.GGML_TYPE_Q4_1,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
}
_FLASH_ATTENTION = {
    "auto": llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
NO_TOKEN = -1

Adapter = Any
"""llama.cpp's pointer to a loaded adapter: a ctypes pointer object, which no type names."""


class LoadError(InputError):
    """llama.cpp refuses a file. ``log`` has its last error lines."""

    log: tuple[str, ...]

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class ContextError(ResourceError):
    """llama.cpp cannot make a context, most often for want of memory."""

    log: tuple[str, ...]

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class LlamaLog:
    """llama.cpp's log, kept in memory: the last lines, and the last errors apart. Install once per process.

    Also where buffer sizes come from: llama.cpp has no C function that tells them.
    """

    _installed: ClassVar[LlamaLog]
    _ERROR, _CONTINUE = 4, 5
    _BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output)\s+buffer size =\s+([0-9.]+) MiB")
    _OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")
    _USES: ClassVar = {"model": "weights", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=200)
        self._errors: deque[str] = deque(maxlen=20)
        self._buffers: list[tuple[str, str, float]] = []
        self.gpu_layers = 0
        """Layers that the last load put on GPUs."""
        self._partial = ""
        self._level = 0
        self._callback = llama_cpp.llama_log_callback(self._log)

    def install(self) -> None:
        LlamaLog._installed = self  # llama.cpp may call it for as long as the process lives
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(self._errors)

    def memory(self, *, gpu_only: bool = False) -> dict[str, int]:
        """Bytes by use (weights, kv, compute, output), summed over devices, as reported since
        installation."""
        sizes: dict[str, int] = {}
        for device, use, mebibytes in self._buffers:
            if gpu_only and device.upper().startswith(("CPU", "HOST")):
                continue
            sizes[use] = sizes.get(use, 0) + int(mebibytes * 2**20)
        return sizes

    def _log(self, level: int, text: bytes, _user_data: object) -> None:
        if level != self._CONTINUE:
            self._level = level
        self._partial += text.decode("utf-8", "replace")
        *whole, self._partial = self._partial[-65536:].split("\n")
        for line in whole:
            self.lines.append(line[:2000])
            # ggml numbers the levels debug 1, info 2, warn 3, error 4.
            if self._level == self._ERROR:
                self._errors.append(line[:2000])
            if found := self._OFFLOADED.search(line):
                self.gpu_layers = int(found[1])
            if found := self._BUFFER.search(line):
                self._buffers.append((found[1], self._USES[found[2]], float(found[3])))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How weights are loaded. ``n_gpu_layers`` -1 means all."""

    paths: tuple[str, ...]
    n_gpu_layers: int = -1
    main_gpu: int = -1
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
    def n_embd_out(self) -> int:
        """Width of an embedding, which a projection may make differ from the width inside."""
        return int(llama_cpp.llama_model_n_embd_out(self.pointer))

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
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str:
        """The Jinja template in the file's metadata, or ""."""
        text = llama_cpp.llama_model_chat_template(self.pointer, None)
        return text.decode("utf-8", "replace") if text else ""

    def load_adapter(self, path: str, log: LlamaLog) -> Adapter:
        """A LoRA adapter for this model, freed with it.

        Raises: LoadError.
        """
        pointer = llama_cpp.llama_adapter_lora_init(self.pointer, path.encode())
        if not pointer:
            raise LoadError(f"loading the adapter {path}: llama.cpp refuses the file", log.errors)
        return pointer

    def metadata(self, key: str) -> str | None:
        """A metadata value as text; None where the file has no such key. At most 4 KiB."""
        buffer = ctypes.create_string_buffer(4096)
        size = llama_cpp.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if size < 0 else buffer.value.decode("utf-8", "replace")


class LlamaVocab:
    """Text to tokens and back. Safe to use from several threads."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer
        self.size: int = llama_cpp.llama_vocab_n_tokens(pointer)
        self.bos: int = llama_cpp.llama_vocab_bos(pointer)
        self.eos: int = llama_cpp.llama_vocab_eos(pointer)
        self.add_bos: bool = llama_cpp.llama_vocab_get_add_bos(pointer)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextSettings:
    """``n_ctx`` is of one sequence."""

    n_ctx: int
    n_seq: int
    n_batch: int
    n_ubatch: int
    n_threads: int
    kv_cache_type: str = "f16"
    flash_attention: str = "auto"
    embeddings: bool = False


class LlamaContext:
    """Evaluation state: one KV stream for each of ``n_seq`` sequences, so that none changes another's
    arithmetic.

    Raises:
        ContextError: llama.cpp refuses, most often for want of memory. Nothing stays allocated.
    """

    def __init__(self, model: LlamaModel, settings: ContextSettings, log: LlamaLog) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = settings.n_ctx * settings.n_seq
        params.n_seq_max = settings.n_seq
        params.n_batch = settings.n_batch
        params.n_ubatch = settings.n_ubatch
        params.n_threads = params.n_threads_batch = settings.n_threads
        params.type_k = params.type_v = _KV_TYPES[settings.kv_cache_type]
        params.flash_attn_type = _FLASH_ATTENTION[settings.flash_attention]
        params.embeddings = settings.embeddings
        # Room for the logits of one token of each sequence, not of every token of a step: with 150,000 tokens
        # in the vocabulary that is 300 MB less. Embedding models pool over all.
        params.n_outputs_max = 0 if settings.embeddings else settings.n_seq
        params.kv_unified = False
        params.swa_full = False
        params.no_perf = True
        pointer = llama_cpp.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ContextError("preparing the model: llama.cpp cannot make a context", log.errors)
        self.pointer: int = pointer
        self.n_seq = settings.n_seq
        self._n_vocab = model.vocab.size
        self.n_embd = model.n_embd_out
        """Width of an embedding."""
        self._memory = llama_cpp.llama_get_memory(pointer)

    def close(self) -> None:
        llama_cpp.llama_free(self.pointer)

    @property
    def n_ctx_seq(self) -> int:
        """What llama.cpp made of the wanted context of a sequence: padded up."""
        return int(llama_cpp.llama_n_ctx_seq(self.pointer))

    @property
    def pooling(self) -> int:
        return int(llama_cpp.llama_pooling_type(self.pointer))

    def decode(self, batch: LlamaBatch) -> int:
        """llama_decode's code: 0 done, 1 no room, 2 aborted, negative: failed."""
        return int(llama_cpp.llama_decode(self.pointer, batch.struct))

    def logits(self, index: int) -> npt.NDArray[np.float32]:
        """A writable view of the logits of batch position ``index``, shape (n_vocab,), valid until the next
        decode."""
        return np.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(self.pointer, index), shape=(self._n_vocab,)
        )

    def use_adapters(self, adapters: Sequence[tuple[Adapter, float]]) -> bool:
        """Apply LoRA adapters (from `LlamaModel.load_adapter`), each with its scale; False where one does
        not fit."""
        pointers = (llama_cpp.llama_adapter_lora_p_ctypes * len(adapters))(*(p for p, _ in adapters))
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
        return bool(llama_cpp.llama_set_adapters_lora(self.pointer, pointers, len(adapters), scales) == 0)

    def embedding_of_sequence(self, seq: int) -> npt.NDArray[np.float32]:
        """A copy of the pooled embedding of a sequence in the last batch."""
        pointer = llama_cpp.llama_get_embeddings_seq(self.pointer, seq)
        return np.ctypeslib.as_array(pointer, shape=(self.n_embd,)).copy()

    # Memory: positions [start, end) of sequences; end -1 means to the end.

    @property
    def has_memory(self) -> bool:
        """False for encoders, which keep nothing between batches."""
        return bool(self._memory)

    @property
    def can_shift(self) -> bool:
        return bool(self._memory and llama_cpp.llama_memory_can_shift(self._memory))

    def remove(self, seq: int, start: int, end: int = -1) -> bool:
        """Forget positions. False where this kind of memory cannot forget a part; then nothing has
        changed."""
        return bool(llama_cpp.llama_memory_seq_rm(self._memory, seq, start, end))

    def copy(self, source: int, target: int) -> None:
        """Make ``target`` a copy of all of ``source``; streams can only be copied whole."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def move(self, seq: int, start: int, end: int, delta: int) -> None:
        """Add ``delta`` to the positions."""
        llama_cpp.llama_memory_seq_add(self._memory, seq, start, end, delta)

    def first_position(self, seq: int) -> int:
        """The smallest position kept; -1: none. Above 0 where a sliding window has dropped older ones."""
        return int(llama_cpp.llama_memory_seq_pos_min(self._memory, seq))

    def last_position(self, seq: int) -> int:
        return int(llama_cpp.llama_memory_seq_pos_max(self._memory, seq))


class LlamaBatch:
    """Tokens for one decode, filled without per-token calls into C. Each token belongs to one sequence."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.size = 0
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._seq = np.zeros(capacity, np.int32)
        self._seq_count = np.ones(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        # seq_id is an array of pointers, one for each token, into _seq.
        base, step = self._seq.ctypes.data, self._seq.itemsize
        self._seq_pointers = np.arange(base, base + capacity * step, step, dtype=np.uint64)
        self.struct = llama_cpp.llama_batch(
            n_tokens=0,
            token=self._token.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=self._position.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._seq_count.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._seq_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    @property
    def room(self) -> int:
        return self.capacity - self.size

    def clear(self) -> None:
        self.size = 0
        self.struct.n_tokens = 0

    def add(
        self,
        seq: int,
        tokens: Sequence[int] | npt.NDArray[np.int32],
        position: int,
        *,
        want_last: bool,
        want_all: bool = False,
    ) -> int:
        """Append tokens at consecutive positions; the last one's output, or all outputs, can be asked for.

        Returns the batch index of the last.
        """
        start, end = self.size, self.size + len(tokens)
        if len(tokens) == 1:  # decoding: the common case, worth sparing the slices
            self._token[start] = tokens[0]
            self._position[start] = position
            self._seq[start] = seq
        else:
            self._token[start:end] = tokens
            self._position[start:end] = np.arange(position, position + len(tokens), dtype=np.int32)
            self._seq[start:end] = seq
        self._wanted[start:end] = want_all
        self._wanted[end - 1] = want_last or want_all
        self.size = end
        self.struct.n_tokens = end
        return end - 1


def start_backend() -> None:
    """Once per process, before anything else of llama.cpp."""
    llama_cpp.llama_backend_init()


def has_gpu() -> bool:
    return bool(llama_cpp.llama_supports_gpu_offload())


def _load_mode(settings: ModelSettings) -> int:
    if settings.use_mmap:
        return int(
            llama_cpp.LLAMA_LOAD_MODE_MMAP_MLOCK if settings.use_mlock else llama_cpp.LLAMA_LOAD_MODE_MMAP
        )
    return int(llama_cpp.LLAMA_LOAD_MODE_MLOCK if settings.use_mlock else llama_cpp.LLAMA_LOAD_MODE_NONE)
