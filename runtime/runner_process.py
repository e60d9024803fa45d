"""Starts one runner process and watches it until it is gone.

Each runner has one thread here that starts it, reads its status pipe and reaps it. The thread must live as
long as the runner: the kernel's parent-death signal, which the runner asks for, fires when the *thread* that
started it ends, not the process.

Its stdin is a Unix socket, over which variants are added and dropped once it is ready; files of adapters go
along as open descriptors, for a runner may open nothing but its model.

A runner that is no longer wanted is told so three times: its stdin is closed, then SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

from ..modelfile.errors import LadingError
from .errors import LoadTimedOut, OutOfMemory, RunnerFault, RunnerLost, ShuttingDown, from_failure
from .frame import REPLIES, STATUS, BadFrame, pack, read_frame, unpack
from .memory import oom_kills
from .process_end import LastWords, how_it_ended
from .protocol import (
    AddVariant,
    ControlMessage,
    DropVariant,
    LoadFailed,
    LoadSpec,
    Ready,
    RunnerStatus,
    Status,
    StatusMessage,
    Variant,
    VariantAdded,
    VariantRefused,
)

MODULE = "lading.runtime.runner"
STOP_GRACE_S = 2.0
"""Time between closing stdin and SIGTERM together, and SIGKILL."""

_SCARCE = frozenset({errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE})
_POLL_S = 0.05
_TELL_TIMEOUT_S = 10.0


class RunnerProcess:
    """One runner, from `start` to its end. Methods may be called from any thread.

    ``on_exit`` is called once, in the watching thread, when the process is gone, whatever the reason.
    """

    def __init__(
        self,
        name: str,
        spec: LoadSpec,
        *,
        on_exit: Callable[[RunnerProcess], None],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.pid = 0
        self.ready: Ready | None = None
        self.how_it_ended = ""
        """In words, once it has."""
        self.asked_to_stop = False
        self._on_exit = on_exit
        self._environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})}
        self._changed = threading.Condition()
        self._failure: LadingError | None = None
        self._gone = False
        self._progress_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._words = LastWords()
        self._control: socket.socket | None = None
        self._telling = threading.Lock()
        self._variants: dict[str, VariantAdded | VariantRefused | None] = {}  # None: being added
        self._oom_kills = 0
        self._thread = threading.Thread(target=self._watch, name=f"runner-{name}", daemon=True)

    def start(self) -> None:
        """Start the process; returns before it has loaded anything.

        Raises: OutOfMemory where the system gives us no thread.
        """
        self._progress_at = time.monotonic()
        try:
            self._thread.start()
        except RuntimeError as error:
            raise OutOfMemory(f"starting the runner of {self.name}: {error}") from error

    def wait_ready(self, stall_s: float) -> Ready:
        """The runner's facts, once it has loaded.

        Raises:
            LoadTimedOut: no progress for ``stall_s``; the runner is killed.
            RunnerLost: it ended. LadingError: it refused the model, with its reason.
        """
        with self._changed:
            while self.ready is None and self._failure is None and not self._gone:
                left = self._progress_at + stall_s - time.monotonic()
                if left <= 0:
                    self._failure = LoadTimedOut(self.name, stall_s)
                    self._signal(signal.SIGKILL)
                    break
                self._changed.wait(min(left, 1.0))
            if self._failure is not None:
                raise self._failure
            if self._gone or self.ready is None:
                raise self.lost()
            return self.ready

    def add_variant(self, variant: Variant, timeout_s: float) -> None:
        """Have a ready runner serve one more variant, whose id it has not had before; waits for it.

        Raises: ModelRefused, with llama.cpp's reason, and nothing has changed; RunnerLost, ShuttingDown: it
            ended; LoadTimedOut: it has not answered, and is killed; OutOfMemory, RunnerFault: the file of an
            adapter cannot be opened.
        """
        with self._changed:
            self._variants[variant.id] = None
        deadline = time.monotonic() + timeout_s
        try:
            with contextlib.ExitStack() as files:
                fds = [files.enter_context(_opened(self.name, adapter.path)) for adapter in variant.adapters]
                self._tell(AddVariant(variant=variant), fds)
            self._wait_for_variant(variant.id, deadline, timeout_s)
        finally:
            with self._changed:
                del self._variants[variant.id]

    def drop_variant(self, variant_id: str) -> None:
        """No request names this variant any more. Does not wait; harmless where the runner is gone."""
        with contextlib.suppress(RunnerLost):
            self._tell(DropVariant(id=variant_id), [])

    def _tell(self, message: ControlMessage, fds: list[int]) -> None:
        """Raises: RunnerLost."""
        data = pack(message)
        with self._telling:
            try:
                if self._control is None:
                    raise OSError("it has ended")
                self._control.settimeout(_TELL_TIMEOUT_S)
                sent = socket.send_fds(self._control, [data], fds) if fds else 0
                self._control.sendall(data[sent:])
            except OSError as error:  # a message may be cut short: the next one would be read as its rest
                self.kill()
                raise RunnerLost(f"telling the runner of {self.name}: {error.strerror or error}") from error

    def _wait_for_variant(self, variant_id: str, deadline: float, timeout_s: float) -> None:
        with self._changed:
            while (reply := self._variants[variant_id]) is None and not self._gone:
                left = deadline - time.monotonic()
                if left <= 0:
                    self.kill()
                    raise LoadTimedOut(self.name, timeout_s)
                self._changed.wait(min(left, 1.0))
        if isinstance(reply, VariantRefused):
            raise from_failure(reply)
        if reply is None:
            raise self.lost()

    def lost(self) -> RunnerLost | ShuttingDown:
        """The error for callers whose runner has ended."""
        if self.asked_to_stop:
            return ShuttingDown(f"running {self.name}: the model was stopped")
        tail = f": {self.last_words}" if self.last_words else ""
        return RunnerLost(
            f"running {self.name}: model runner has unexpectedly stopped ({self.how_it_ended}){tail}",
            hint="the next request loads the model again",
        )

    @property
    def last_words(self) -> str:
        """What it wrote to its standard error last: the failed assertion, where there is one."""
        return self._words.text

    @property
    def failure(self) -> LadingError | None:
        """Why the load ended, where there is a reason: the runner's own, or that it took too long."""
        return self._failure

    def stop(self) -> None:
        """Begin to stop it; does not wait. Repeating it is harmless."""
        with self._changed:
            if self.asked_to_stop or self._gone:
                return
            self.asked_to_stop = True
        try:
            threading.Thread(target=self._stop, name=f"stop-{self.name}", daemon=True).start()
        except RuntimeError:  # no thread to be had: then not politely
            self.kill()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until the process is gone and ``on_exit`` has returned; whether it is."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def kill(self) -> None:
        """End it at once."""
        self._signal(signal.SIGKILL)

    # The watching thread

    def _watch(self) -> None:
        try:
            self._run()
        except OSError as error:
            kind = OutOfMemory if error.errno in _SCARCE else RunnerFault
            self._fail(kind(f"starting the runner of {self.name}: {error.strerror or error}"))
        except BadFrame as error:
            self._fail(RunnerFault(f"starting the runner of {self.name}: {error.message}"))
            self.kill()
        finally:
            self._reap()
            with self._changed:
                self._gone = True
                self._changed.notify_all()
            with contextlib.suppress(OSError):
                Path(self.spec.socket_path).unlink()
            self._on_exit(self)

    def _run(self) -> None:
        self._oom_kills = oom_kills()
        with self._changed:
            if self.asked_to_stop:
                return
            self._control, theirs = socket.socketpair()
            with theirs:
                self._process = process = subprocess.Popen(
                    [sys.executable, "-P", "-m", MODULE],
                    stdin=theirs.fileno(),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    cwd="/",
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for us, not for the runner
                )
            self.pid = process.pid
        assert process.stdout is not None and process.stderr is not None
        reader = threading.Thread(
            target=self._words.read, args=(cast(BinaryIO, process.stderr),), daemon=True
        )
        reader.start()
        with contextlib.suppress(OSError):  # it has ended already, as the status pipe will say
            self._control.sendall(pack(self.spec))
        while (body := read_frame(cast(BinaryIO, process.stdout))) is not None:
            self._take(unpack(STATUS, body))
        reader.join(STOP_GRACE_S)

    def _take(self, message: StatusMessage) -> None:
        with self._changed:
            self._progress_at = time.monotonic()
            if isinstance(message, Ready):
                self.ready = message
            elif isinstance(message, LoadFailed):
                self._failure = _refusal(self.name, self.spec, message)
            elif isinstance(message, VariantAdded | VariantRefused) and message.id in self._variants:
                self._variants[message.id] = message
            self._changed.notify_all()

    def _fail(self, error: LadingError) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _reap(self) -> None:
        """Wait for the process, which has closed its status pipe; it may not hang on after that."""
        self._hang_up()
        with self._telling:
            if self._control is not None:
                self._control.close()
        process = self._process
        if process is None:
            self.how_it_ended = "not started"
            return
        if process.stdout is not None:
            with contextlib.suppress(OSError):
                process.stdout.close()
        try:
            status = process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        self.how_it_ended = how_it_ended(status, oom=oom_kills() > self._oom_kills)

    # Stopping

    def _stop(self) -> None:
        self._hang_up()
        self._signal(signal.SIGTERM)
        if not self.join(STOP_GRACE_S):
            self._signal(signal.SIGKILL)

    def _hang_up(self) -> None:
        """The end of its stdin."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            if self._process is not None:
                self._process.send_signal(number)  # does nothing once it was reaped


class StatusProbe:
    """A blocking connection to a runner, for the keeper alone. Not thread-safe."""

    def __init__(self, socket_path: str, *, timeout_s: float) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None
        self._id = 0

    def ask(self) -> RunnerStatus:
        """Raises: RunnerLost where it does not answer in time; the next call connects anew."""
        self._id += 1
        try:
            connection, stream = self._connected()
            connection.sendall(pack([Status(id=self._id)]))
            body = read_frame(stream)
            replies = unpack(REPLIES, body) if body is not None else []
        except (OSError, BadFrame) as error:
            self.close()
            raise RunnerLost(f"asking a runner for its status: {error}") from error
        for reply in replies:
            if isinstance(reply, RunnerStatus) and reply.id == self._id:
                return reply
        self.close()
        raise RunnerLost("asking a runner for its status: it hung up")

    def close(self) -> None:
        for end in (self._stream, self._socket):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.close()
        self._socket = self._stream = None

    def _connected(self) -> tuple[socket.socket, BinaryIO]:
        if self._socket is None or self._stream is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(self._path)
            self._stream = cast(BinaryIO, self._socket.makefile("rb"))
        return self._socket, self._stream


@contextlib.contextmanager
def _opened(name: str, path: str) -> Iterator[int]:
    """A descriptor of a file that a runner is to read. Raises: OutOfMemory, RunnerFault."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        kind = OutOfMemory if error.errno in _SCARCE else RunnerFault
        raise kind(f"loading {name}: opening an adapter: {error.strerror or error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _refusal(name: str, spec: LoadSpec, failed: LoadFailed) -> LadingError:
    """The runner's refusal for people: the model's name in place of files, and llama.cpp's first reason."""
    marker = "error loading model: "
    reason = next((line.partition(marker)[2] for line in failed.log if marker in line), "")
    error = from_failure(failed)
    message = f"llama.cpp refuses the file: {reason}" if reason else error.message
    for path in (*spec.weights, spec.projector, spec.draft):
        message = message.replace(path, name) if path else message
    if not message.startswith(("loading ", "preparing ")):
        message = f"loading {name}: {message}"
    error.args = (message,)
    return error
