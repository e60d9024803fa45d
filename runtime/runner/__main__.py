"""The runner process: loads one model and serves it on a Unix socket. ``python -m lading.runtime.runner``.

Its life is told in `protocol`: a `LoadSpec` and what follows on stdin, `StatusMessage`s on stdout, requests
on the socket. It ends when it is told to (SIGTERM, or the end of stdin), when its parent dies, or by the
fault of a model; never otherwise. Standard error is for what llama.cpp says as it crashes.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import time
from pathlib import Path

from ..frame import SPEC, BadFrame, read_frame, unpack
from ..protocol import LoadFailed, LoadSpec, Ready
from . import seccomp
from .renderer import Renderer
from .sandbox import confine, die_with_parent, forbid_privileges
from .status_pipe import StatusPipe

EXIT_OK, EXIT_LOAD_FAILED, EXIT_BAD_SPEC = 0, 3, 64


def main() -> int:
    """Returns the exit status."""
    started_ns = time.monotonic_ns()
    faulthandler.enable()  # a crash in llama.cpp leaves at least the Python stack in the log
    status = StatusPipe()
    try:
        body = read_frame(sys.stdin.buffer)
        if body is None:
            return EXIT_BAD_SPEC
        spec = unpack(SPEC, body)
    except BadFrame as error:
        status.send(LoadFailed(code="bad_request", message=error.message))
        return EXIT_BAD_SPEC
    die_with_parent(spec.parent_pid)
    os.umask(0o077)
    renderer = Renderer.start(close_in_child=(status.fd,))  # forks, so before threads and llama.cpp
    in_force = ("pdeathsig", *forbid_privileges(), *_confine(spec))
    seccomp.refuse_amx()
    return _serve(spec, status, renderer, in_force, started_ns)


def _confine(spec: LoadSpec) -> tuple[str, ...]:
    """Before llama.cpp and numpy come in: what they start is confined as well."""
    if spec.sandbox == "off":
        return ()
    files = (*spec.weights, spec.projector, spec.draft)
    return confine(
        files=tuple(filter(None, files)),
        socket_folder=str(Path(spec.socket_path).parent),
        own_folder=spec.prefix_folder,
        gpu=spec.n_gpu_layers != 0,
    )


def _serve(
    spec: LoadSpec, status: StatusPipe, renderer: Renderer, in_force: tuple[str, ...], started_ns: int
) -> int:
    from . import loading, serving  # llama.cpp comes in here

    outcome = loading.load(spec, renderer, status.send)
    if isinstance(outcome, LoadFailed):
        status.send(outcome)
        return EXIT_LOAD_FAILED

    def on_listening() -> None:
        status.send(ready_message(outcome.facts, in_force, time.monotonic_ns() - started_ns))

    serving.serve(outcome, spec.socket_path, on_listening, status.send)
    return EXIT_OK


def ready_message(facts: Ready, sandbox: tuple[str, ...], load_duration_ns: int) -> Ready:
    import msgspec

    return msgspec.structs.replace(facts, sandbox=sandbox, load_duration_ns=load_duration_ns)


if __name__ == "__main__":
    # What is mapped from the model and what llama.cpp's threads do is of no interest to an orderly shutdown.
    code = main()
    sys.stderr.flush()
    os._exit(code)
