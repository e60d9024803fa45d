"""Quantising with llama.cpp. Only in the process of `quantiser_main`.

llama.cpp has no callback for the progress of this; it can compute the result's size beforehand, without
reading weights (``dry_run``), and says it in its log. How far it has come, the parent sees by the output.

Source: llama.cpp, src/llama-quant.cpp. Rows are quantised each by itself, so neither threads nor the size of
buffers change a bit of the result.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

import llama_cpp

from ..quantise_protocol import Planned, QuantiseSpec, Refused, Written
from .llama_log import LlamaLog, start_backend

_BUFFER = 256 * 1024 * 1024
"""Bytes of rows that are held at a time, however large a tensor is."""
_ALIGNMENT = 32
_MIB = 1024 * 1024
_SIZE = re.compile(r"quant size\s+=\s+([0-9.]+) MiB")
_FAILED = "failed to quantize: "
_STREAM_FAILED = "iostream error"
"""What the C++ library says when a write failed, whatever the reason."""


def quantise(spec: QuantiseSpec, report: Callable[[Planned], None]) -> Written | Refused:
    """Write the output, after its size was reported. Memory may stay allocated."""
    log = LlamaLog()
    log.install()
    start_backend()
    params = llama_cpp.llama_model_quantize_default_params()
    params.nthread = spec.threads
    params.ftype = spec.file_type
    params.max_buf_size = _BUFFER
    if spec.alignment != _ALIGNMENT:
        params.kv_overrides = (llama_cpp.llama_model_kv_override * 2)(_standard_alignment())
    params.dry_run = True
    if not _run(spec, params):
        return _refusal(log)
    report(Planned(tensors_size=_planned_size(log)))
    params.dry_run = False
    return Written() if _run(spec, params) else _refusal(log)


def _standard_alignment() -> llama_cpp.llama_model_kv_override:
    """llama.cpp copies what the source says of its alignment, and then aligns what it writes as usual."""
    value = llama_cpp.llama_model_kv_override_value(val_i64=_ALIGNMENT)
    return llama_cpp.llama_model_kv_override(
        tag=llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, key=b"general.alignment", value=value
    )


def _run(spec: QuantiseSpec, params: llama_cpp.llama_model_quantize_params) -> bool:
    source, output = spec.sources[0].encode(), spec.output.encode()
    return int(llama_cpp.llama_model_quantize(source, output, ctypes.byref(params))) == 0


def _planned_size(log: LlamaLog) -> int:
    """Bytes of all tensors, as far as the log is exact; 0 where it does not say."""
    found = [match[1] for line in log.lines if (match := _SIZE.search(line))]
    return int((float(found[-1]) + 0.005) * _MIB) if found else 0


def _refusal(log: LlamaLog) -> Refused:
    errors = [line.strip() for line in log.errors if line.strip()]
    last = next((line for line in reversed(errors) if _FAILED in line), errors[-1] if errors else "")
    return Refused(reason=last.partition(_FAILED)[2] or last, writing=_STREAM_FAILED in last)
