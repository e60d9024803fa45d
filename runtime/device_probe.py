"""Which GPUs this machine has for llama.cpp: asked in a process of its own, once, when a keeper starts."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from .placement import Device

MODULE = "lading.runtime.runner.devices"
_TIMEOUT_S = 60.0
_WITHOUT_GPU = ("libggml-base", "libggml-cpu", "libggml-blas", "libggml-rpc")

log = logging.getLogger("lading.keeper")


class DeviceProbe:
    """Asks in the background; `devices` waits for the answer. Where llama.cpp was built without GPUs, nothing
    is asked at all."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._devices: tuple[Device, ...] = ()
        self._thread: threading.Thread | None = None
        if has_gpu_build():
            self._thread = threading.Thread(target=self._ask, args=(environment,), daemon=True)
            self._thread.start()

    def devices(self) -> tuple[Device, ...]:
        """With what was free when nothing of ours was loaded; empty where there are none."""
        if self._thread is not None:
            self._thread.join()
        return self._devices

    def _ask(self, environment: Mapping[str, str]) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", MODULE],
                capture_output=True,
                check=True,
                cwd="/",
                env={"PYTHONPATH": path, **environment},
                timeout=_TIMEOUT_S,
            )
            self._devices = msgspec.json.decode(done.stdout, type=tuple[Device, ...])
        except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
            log.warning("asking for GPUs failed; the estimate counts main memory only: %s", error)
        for device in self._devices:
            free, total = device.free / 2**30, device.total / 2**30
            log.info("%s: %.1f GiB of %.1f GiB are free", device.name, free, total)


def has_gpu_build() -> bool:
    """Whether the installed llama.cpp has a library for anything but the processor. Imports nothing."""
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.origin is None:
        return False
    libraries = (Path(found.origin).parent / "lib").glob("*ggml-*")
    return any(not path.name.startswith(_WITHOUT_GPU) for path in libraries)
