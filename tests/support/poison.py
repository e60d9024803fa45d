"""An input that kills the runner that reads it, for tests of what becomes of everybody else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

POISON = "a sentence that no runner survives"


class Poison:
    """Runners with `environment` among their variables abort when they are sent `POISON`, as llama.cpp does
    at a failed assertion; as often as `doses` says, and never after. They keep count in files, so they need
    to be without the sandbox."""

    def __init__(self, folder: Path, doses: int) -> None:
        self._doses = folder / "doses"
        self._doses.mkdir()
        for number in range(doses):
            (self._doses / str(number)).touch()
        (folder / "sitecustomize.py").write_text(
            f"import os\n"
            f"import lading.runtime.frame as frame\n"
            f"take = frame.unpack\n"
            f"def unpack(decoder, body):\n"
            f"    if {POISON.encode()!r} in body:\n"
            f"        for name in os.listdir({str(self._doses)!r}):\n"
            f"            os.unlink(os.path.join({str(self._doses)!r}, name))\n"
            f"            os.abort()\n"
            f"    return take(decoder, body)\n"
            f"frame.unpack = unpack\n"
        )
        path = os.pathsep.join([str(folder), *filter(None, sys.path)])
        self.environment = (("PYTHONPATH", path),)

    @property
    def left(self) -> int:
        return len(list(self._doses.iterdir()))
