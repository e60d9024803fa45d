"""Owners of llama.cpp's context and batch. Runner process only; the rules of `llama` hold.

A context belongs to one thread.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from ...modelfile.errors import ResourceError
from .llama import Adapter, LlamaModel
from .llama_log import LlamaLog

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


class ContextError(ResourceError):
    """llama.cpp cannot make a context, most often for want of memory."""

    log: tuple[str, ...]

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


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
    n_drafted: int = 0
    """Tokens drafted in one step, at most, of all sequences together: each needs an output of its own."""


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
        # Room for the logits of one token of each sequence and of what is drafted, not of every token of a
        # step: with 150,000 tokens in the vocabulary that is 300 MB less. Embedding models pool over all.
        params.n_outputs_max = 0 if settings.embeddings else settings.n_seq + settings.n_drafted
        params.kv_unified = False
        params.swa_full = False
        params.no_perf = True
        pointer = llama_cpp.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ContextError("preparing the model: llama.cpp cannot make a context", log.errors)
        self.pointer: int = pointer
        self.n_seq = settings.n_seq
        self.n_drafted = settings.n_drafted
        self.n_ubatch = settings.n_ubatch
        """Most tokens that are evaluated at once, each knowing of all others."""
        self._logits_type = ctypes.c_float * model.vocab.size
        self.ranks: bool = self.pooling == llama_cpp.LLAMA_POOLING_TYPE_RANK
        """What is pooled are scores, not embeddings."""
        self.n_embd = model.n_cls_out if self.ranks else model.n_embd_out
        """Width of what is pooled."""
        self._memory = llama_cpp.llama_get_memory(pointer)

    def close(self) -> None:
        llama_cpp.llama_free(self.pointer)

    @property
    def n_threads(self) -> int:
        return int(llama_cpp.llama_n_threads(self.pointer))

    @property
    def pooling(self) -> int:
        return int(llama_cpp.llama_pooling_type(self.pointer))

    def decode(self, batch: LlamaBatch) -> int:
        """llama_decode's code: 0 done, 1 no room, 2 aborted, negative: failed."""
        return int(llama_cpp.llama_decode(self.pointer, batch.struct))

    def wait(self) -> None:
        """Until the last decode is done, which on GPUs has only begun it."""
        llama_cpp.llama_synchronize(self.pointer)

    def decode_image(self, batch: EmbeddingBatch, *, causal: bool) -> int:
        """As `decode`, for a piece of an image; not ``causal``: each of its cells looks at all."""
        if causal:
            return int(llama_cpp.llama_decode(self.pointer, batch.struct))
        llama_cpp.llama_set_causal_attn(self.pointer, False)
        try:
            return int(llama_cpp.llama_decode(self.pointer, batch.struct))
        finally:
            llama_cpp.llama_set_causal_attn(self.pointer, True)

    def logits(self, index: int) -> npt.NDArray[np.float32]:
        """A writable view of the logits of batch position ``index``, shape (n_vocab,), valid until the next
        decode."""
        pointer = llama_cpp.llama_get_logits_ith(self.pointer, index)
        # A tenth of what `np.ctypeslib.as_array` takes, and this is done for every token.
        row = self._logits_type.from_address(ctypes.addressof(pointer.contents))
        return np.ndarray((len(row),), np.float32, memoryview(row))

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

    # The state of one sequence, in files

    def state_size(self, seq: int) -> int:
        """Bytes of a sequence's state."""
        return int(llama_cpp.llama_state_seq_get_size(self.pointer, seq))

    def save_state(self, seq: int, path: Path, tokens: npt.NDArray[np.int32]) -> bool:
        """Write a sequence's state, with the tokens that led to it; whether that worked. A failure may leave
        part of a file."""
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        written = llama_cpp.llama_state_seq_save_file(
            self.pointer, os.fsencode(path), seq, pointer, len(tokens)
        )
        return bool(written)

    def load_state(self, seq: int, path: Path, capacity: int) -> npt.NDArray[np.int32] | None:
        """Replace a sequence by what `save_state` has written; its tokens, or None, and then the sequence is
        empty.

        The file must be what was written: llama.cpp checks little.
        """
        tokens = np.zeros(capacity, np.int32)
        count = ctypes.c_size_t(0)
        self.remove(seq, -1, -1)
        read = llama_cpp.llama_state_seq_load_file(
            self.pointer,
            os.fsencode(path),
            seq,
            tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            capacity,
            ctypes.byref(count),
        )
        if not read:
            self.remove(seq, -1, -1)
            return None
        return tokens[: count.value]


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


class EmbeddingBatch:
    """Cells of an image for one decode: embeddings instead of tokens, all of one sequence."""

    def __init__(
        self,
        seq: int,
        embeddings: npt.NDArray[np.float32],
        positions: npt.NDArray[np.int32],
        *,
        want_last: bool,
    ) -> None:
        """``embeddings``: one row for each cell; ``positions``: one column for each, see `ImagePiece`."""
        self.size = len(embeddings)
        # llama.cpp looks at these for as long as the batch is in use.
        self._embeddings = np.ascontiguousarray(embeddings)
        self._positions = np.ascontiguousarray(positions)
        self._seq = ctypes.c_int32(seq)
        self._seq_count = np.ones(self.size, np.int32)
        self._seq_pointers = np.full(self.size, ctypes.addressof(self._seq), np.uint64)
        self._wanted = np.zeros(self.size, np.int8)
        self._wanted[-1] = want_last
        self.struct = llama_cpp.llama_batch(
            n_tokens=self.size,
            token=None,
            embd=self._embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._seq_count.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._seq_pointers.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
