"""The GPUs that llama.cpp can use, in its order. Runner process only.

``python -m lading.runtime.runner.devices`` prints them as JSON, for the keeper: loading a driver is not for a
process that must not die.
"""

from __future__ import annotations

import ctypes
import sys

import msgspec

from ..placement import Device

_GPU = 1
"""``GGML_BACKEND_DEVICE_TYPE_GPU``: a device with memory of its own. Those that share main memory are left
out: nothing is gained by counting that twice."""


def gpu_devices() -> tuple[Device, ...]:
    """Empty for a build of llama.cpp without GPUs, and on a machine without one."""
    import llama_cpp
    from llama_cpp.llama_cpp import _lib as ggml  # the library, whose dependencies have what is called here

    if not llama_cpp.llama_supports_gpu_offload():
        return ()
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_name.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    handles = [ggml.ggml_backend_dev_get(i) for i in range(ggml.ggml_backend_dev_count())]
    return tuple(_device(ggml, handle) for handle in handles if ggml.ggml_backend_dev_type(handle) == _GPU)


def _device(ggml: ctypes.CDLL, handle: int) -> Device:
    free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
    sizes = [ctypes.POINTER(ctypes.c_size_t)] * 2
    ggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, *sizes]
    ggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    name = ggml.ggml_backend_dev_name(handle).decode("utf-8", "replace")
    return Device(name=name, free=free.value, total=total.value)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(gpu_devices()))
