"""What the ``lading`` command runs. It only makes an early Ctrl-C quiet: importing the rest takes a tenth of
a second, in which an interruption would otherwise print a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run one command line and exit with its code."""
    try:
        from .main import run

        sys.exit(run(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
