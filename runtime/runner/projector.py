"""Owner of llama.cpp's `mtmd`, which turns pictures into what a language model can read. Runner process only;
the rules of `llama` hold.

Pictures come in decoded: of `mtmd`'s own readers of files none is used.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp

from ..errors import BadRequest, RunnerFault
from .image_cells import ImageParts, ImagePiece, cells_of
from .llama import LlamaModel, LoadError
from .llama_log import LlamaLog
from .picture import Picture

_MROPE_DIMENSIONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorSettings:
    path: str
    n_threads: int
    use_gpu: bool


class Projector:
    """The loaded projector of a model. One thread at a time may use it.

    Raises:
        LoadError: llama.cpp refuses the file, or it belongs to another model, or is not for pictures.
    """

    def __init__(self, model: LlamaModel, settings: ProjectorSettings, log: LlamaLog) -> None:
        log.install_for_projectors()
        params = mtmd_cpp.mtmd_context_params_default()
        params.use_gpu = settings.use_gpu
        params.n_threads = settings.n_threads
        params.print_timings = False
        pointer = mtmd_cpp.mtmd_init_from_file(settings.path.encode(), model.pointer, params)
        if not pointer:
            reason = log.errors[:1]  # what follows says only that something failed
            raise LoadError(f"loading the projector {settings.path}: llama.cpp refuses the file", reason)
        self._pointer: int = pointer
        self._n_embd = model.n_embd_inp
        if not mtmd_cpp.mtmd_support_vision(pointer):
            self.close()
            raise LoadError(f"loading the projector {settings.path}: expected one for pictures")
        self._has_dimensions = bool(mtmd_cpp.mtmd_decode_use_mrope(pointer))

    def close(self) -> None:
        mtmd_cpp.mtmd_free(self._pointer)

    def read(self, picture: Picture) -> ImageParts:
        """A picture as the model sees it: scaled, perhaps cut into tiles, between tokens that mark it.

        Raises: BadRequest where the projector cannot take it; RunnerFault where llama.cpp fails.
        """
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        assert chunks is not None
        try:
            self._tokenize(picture, chunks)
            count = mtmd_cpp.mtmd_input_chunks_size(chunks)
            return tuple(self._part(chunks, index, picture.digest) for index in range(count))
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)

    def _tokenize(self, picture: Picture, chunks: Any) -> None:
        pixels = (ctypes.c_uint8 * len(picture.pixels)).from_buffer_copy(picture.pixels)
        bitmap = mtmd_cpp.mtmd_bitmap_init(picture.width, picture.height, pixels)
        part = mtmd_cpp.mtmd_input_part(text=None, bitmap=bitmap)
        parts = (ctypes.POINTER(mtmd_cpp.mtmd_input_part) * 1)(ctypes.pointer(part))
        code = mtmd_cpp.mtmd_tokenize_from_parts(self._pointer, chunks, parts, 1, False)
        mtmd_cpp.mtmd_bitmap_free(bitmap)
        if code != 0:
            raise BadRequest(
                f"reading a picture: this model cannot take one of {picture.width} x {picture.height} pixels"
            )

    def _part(self, chunks: Any, index: int, digest: bytes) -> list[int] | ImagePiece:
        chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
        assert chunk is not None
        if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
            count = ctypes.c_size_t(0)
            tokens = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
            return tokens[: count.value] if tokens is not None else []
        if mtmd_cpp.mtmd_encode_chunk(self._pointer, chunk) != 0:
            raise RunnerFault("reading a picture: llama.cpp cannot encode it")
        size = int(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk))
        output = mtmd_cpp.mtmd_get_output_embd(self._pointer)
        return ImagePiece(
            cells=cells_of(digest, index, size),
            embeddings=np.ctypeslib.as_array(output, shape=(size, self._n_embd)).copy(),
            positions=self._positions(chunk, size),
            span=int(mtmd_cpp.mtmd_input_chunk_get_n_pos(chunk)),
            causal=not mtmd_cpp.mtmd_decode_use_non_causal(self._pointer, chunk),
        )

    def _positions(self, chunk: Any, size: int) -> npt.NDArray[np.int32]:
        if not self._has_dimensions:
            return np.arange(size, dtype=np.int32)[np.newaxis]
        image = mtmd_cpp.mtmd_input_chunk_get_tokens_image(chunk)
        found = (mtmd_cpp.mtmd_decoder_pos * size)()
        mtmd_cpp.mtmd_helper_image_get_decoder_pos(image, 0, found)
        rows = np.frombuffer(bytes(found), np.uint32).reshape(size, _MROPE_DIMENSIONS).astype(np.int32)
        return np.ascontiguousarray(rows[:, (0, 2, 1, 3)].T)  # time, row, column, unused
