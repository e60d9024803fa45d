"""llama.cpp's log, and its start. Runner process only."""

from __future__ import annotations

import ctypes
import re
from collections import deque
from typing import ClassVar

import llama_cpp


def start_backend() -> None:
    """Once per process, before anything else of llama.cpp."""
    llama_cpp.llama_backend_init()


class LlamaLog:
    """llama.cpp's log, kept in memory: the last lines, and the last errors apart. Install once per process.

    Also where buffer sizes come from: llama.cpp has no C function that tells them.
    """

    _installed: ClassVar[LlamaLog]
    _ERROR, _CONTINUE = 4, 5
    _BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output)\s+buffer size =\s+([0-9.]+) MiB")
    _OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")
    _FLASH_ATTENTION = re.compile(r"flash_attn\s+= (enabled|disabled|auto)|Flash Attention (enabled)")
    _USES: ClassVar = {"model": "weights", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=200)
        self._errors: deque[str] = deque(maxlen=20)
        self._buffers: list[tuple[str, str, float]] = []
        self.gpu_layers = 0
        """Layers that the last load put on GPUs."""
        self.flash_attention = False
        """Whether the last context has it."""
        self._partial = ""
        self._level = 0
        self._callback = llama_cpp.llama_log_callback(self._log)

    def install(self) -> None:
        LlamaLog._installed = self  # llama.cpp may call it for as long as the process lives
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def install_for_projectors(self) -> None:
        """The same for `mtmd`, which is a library of its own and logs for itself."""
        from llama_cpp import mtmd_cpp

        mtmd_cpp.mtmd_helper_log_set(self._callback, ctypes.c_void_p(0))

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(self._errors)

    @property
    def mapped(self) -> int:
        """Bytes of weights that are pages of the file itself, which others who map it share."""
        return sum(int(size * 2**20) for device, _, size in self._buffers if device.endswith("_Mapped"))

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
            if found := self._FLASH_ATTENTION.search(line):
                self.flash_attention = "enabled" in found.groups()
            if found := self._BUFFER.search(line):
                self._buffers.append((found[1], self._USES[found[2]], float(found[3])))
