"""llama.cpp's log, and its start. Runner process only."""

from __future__ import annotations

import ctypes
from collections import deque
from typing import ClassVar

import llama_cpp

from .load_report import LoadReport


def start_backend() -> None:
    """Once per process, before anything else of llama.cpp."""
    llama_cpp.llama_backend_init()


class LlamaLog:
    """llama.cpp's log, kept in memory: the last lines, and the last errors apart. Installed once."""

    _installed: ClassVar[LlamaLog]
    _ERROR, _CONTINUE = 4, 5

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=200)
        self._errors: deque[str] = deque(maxlen=20)
        self.report = LoadReport()
        self._is_loaded = False
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

    def end_report(self) -> None:
        """The model is loaded: what is said of buffers from now on is said again."""
        self._is_loaded = True

    @property
    def errors(self) -> tuple[str, ...]:
        return tuple(self._errors)

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
            if not self._is_loaded:
                self.report.read(line)
