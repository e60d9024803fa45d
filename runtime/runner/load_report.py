"""What llama.cpp's log says of a load: it has no functions that tell sizes of buffers or where layers lie.

Source: llama.cpp, src/llama-model.cpp, src/llama-context.cpp, src/llama-kv-cache.cpp, tools/mtmd/clip.cpp.
"""

from __future__ import annotations

import re
from typing import ClassVar


class LoadReport:
    """Made of the log's lines, in order; whatever they do not say is 0."""

    _BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output)\s+buffer size =\s+([0-9.]+) MiB")
    _OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")
    _FLASH_ATTENTION = re.compile(r"flash_attn\s+= (enabled|disabled|auto)|Flash Attention (enabled)")
    _PROJECTOR = re.compile(r"load_hparams: model size:\s+([0-9.]+) MiB")
    _PROJECTOR_DEVICE = re.compile(r"CLIP using (\S+) backend")
    _USES: ClassVar = {"model": "weights", "KV": "kv", "RS": "kv", "compute": "compute", "output": "output"}

    def __init__(self) -> None:
        self.gpu_layers = 0
        """Layers on GPUs, the output included, of the first model that was loaded."""
        self._has_layers = False
        self.flash_attention = False
        """Whether the last context has it."""
        self._buffers: list[tuple[str, str, float]] = []
        self._projector_size = 0.0
        self._projector_device = "CPU"

    def read(self, line: str) -> None:
        if (found := self._OFFLOADED.search(line)) and not self._has_layers:
            self.gpu_layers = int(found[1])
            self._has_layers = True
        if found := self._FLASH_ATTENTION.search(line):
            self.flash_attention = "enabled" in found.groups()
        if found := self._BUFFER.search(line):
            self._buffers.append((found[1], self._USES[found[2]], float(found[3])))
        # Of a projector's weights the log has the sum alone, and their device in another line.
        if found := self._PROJECTOR_DEVICE.search(line):
            self._projector_device = found[1]
        if found := self._PROJECTOR.search(line):
            self._projector_size = float(found[1])

    @property
    def mapped(self) -> int:
        """Bytes of weights that are pages of the file itself, which others who map it share."""
        return sum(int(size * 2**20) for device, _, size in self._buffers if device.endswith("_Mapped"))

    def memory(self, *, gpu_only: bool = False) -> dict[str, int]:
        """Bytes by use (weights, kv, compute, output), summed over devices."""
        sizes: dict[str, int] = {}
        projector = (self._projector_device, "weights", self._projector_size)
        for device, use, mebibytes in (*self._buffers, *([projector] if self._projector_size else [])):
            if gpu_only and _is_main_memory(device):
                continue
            sizes[use] = sizes.get(use, 0) + int(mebibytes * 2**20)
        return sizes


def _is_main_memory(buffer: str) -> bool:
    """``CPU``, ``CPU_Mapped``, ``CPU_REPACK``, and ``AMX``, weights laid out for processors that have it;
    ``CUDA_Host`` is main memory that a driver has pinned."""
    return buffer.startswith("CPU") or buffer == "AMX" or buffer.endswith("_Host")
