"""Holds runners in the middle of their load until a test lets them go on, however busy the machine is."""

from __future__ import annotations

import os
import sys
from pathlib import Path


class LoadGate:
    """A runner with `environment` among its variables waits, as its Python starts, for `open`."""

    def __init__(self, folder: Path) -> None:
        self._fifo = folder / "gate"
        self._closed = folder / "closed"
        os.mkfifo(self._fifo)
        self._closed.touch()
        (folder / "sitecustomize.py").write_text(
            f"import os\n"
            f"if os.path.exists({str(self._closed)!r}):\n"
            f"    open({str(self._fifo)!r}, 'rb').read()\n"
        )
        path = os.pathsep.join([str(folder), *filter(None, sys.path)])
        self.environment = (("PYTHONPATH", path),)

    def open(self) -> None:
        """Let go whoever waits, and whoever comes."""
        self._closed.unlink(missing_ok=True)
        try:
            os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody waits
            return
