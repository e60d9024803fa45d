"""How a child process ended, in words: what it wrote last, and what its status means."""

from __future__ import annotations

import re
import signal
from collections import deque
from typing import BinaryIO

_LINES = 20
_LINE = 500
_TRACE = re.compile(r'^(File "|Extension modules:|<no Python frame>|Traceback )|[Tt]hread 0x|\[0x')
"""Lines of a stack, ours or llama.cpp's: they would push out what was said before, and tell clients of our
insides."""
_FOLDERS = re.compile(r"(?:/[\w.+@-]+)+/(?=[\w.+-])")
"""Where llama.cpp was compiled, or a model lies, is nobody's business."""


class LastWords:
    """The end of what a child writes to its standard error. One thread reads, any may look."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)

    def read(self, stream: BinaryIO) -> None:
        """Read to the end, and close."""
        with stream:
            while line := stream.readline(_LINE):
                text = line.decode("utf-8", "replace").strip()
                if text and not _TRACE.search(text):
                    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
                    self._lines.append(_FOLDERS.sub("", plain))

    @property
    def text(self) -> str:
        """The failed assertion, where there is one; else the last line."""
        lines = list(self._lines)
        return next((line for line in lines if "ASSERT" in line), lines[-1] if lines else "")


def how_it_ended(status: int, *, oom: bool) -> str:
    """``status`` is `Popen`'s; ``oom``: the kernel has killed for lack of memory meanwhile."""
    if status >= 0:
        return f"it exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"killed by {name}: out of memory" if oom and status == -signal.SIGKILL else f"killed by {name}"
