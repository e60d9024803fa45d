"""The process that quantises one model: ``python -m lading.runtime.runner.quantiser_main``.

Its life is told in `quantise_protocol`. It gives up what a runner gives up, and may write nothing but its
output, which may not become larger than the parent said. It is killed when it is not wanted any more.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import threading

from ..frame import BadFrame, read_frame, unpack
from ..quantise_protocol import SPEC, QuantiseSpec, Refused
from .sandbox import confine, die_with_parent, forbid_privileges
from .status_pipe import StatusPipe

EXIT_OK, EXIT_REFUSED, EXIT_BAD_SPEC, EXIT_NOT_WANTED = 0, 3, 64, 75
_NICENESS = 10
"""Answers of models that are being served come first."""


def main() -> int:
    """Returns the exit status."""
    faulthandler.enable()
    status = StatusPipe()
    try:
        body = read_frame(sys.stdin.buffer)
        if body is None:
            return EXIT_BAD_SPEC
        spec = unpack(SPEC, body)
    except BadFrame as error:
        status.send(Refused(reason=error.message))
        return EXIT_BAD_SPEC
    die_with_parent(spec.parent_pid)
    _give_up(spec)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    from .quantisation import quantise  # llama.cpp comes in here

    outcome = quantise(spec, status.send)
    status.send(outcome)
    return EXIT_REFUSED if isinstance(outcome, Refused) else EXIT_OK


def _give_up(spec: QuantiseSpec) -> None:
    """While there is one thread, and before llama.cpp and numpy come in."""
    os.nice(_NICENESS)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = spec.largest_size if most == resource.RLIM_INFINITY else min(most, spec.largest_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    forbid_privileges()
    if spec.sandbox:
        confine(files=spec.sources, overwrite=spec.output)


def _end_with_stdin() -> None:
    """For systems whose kernel does not end a process with its parent."""
    os.read(0, 1)
    os._exit(EXIT_NOT_WANTED)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
