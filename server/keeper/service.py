"""The keeper, reachable: a Unix socket (0600) over one `Keeper`, served by a thread of its own.

gunicorn's dirty arbiter starts this process, watches it and starts it again; its own calls are not used, for
it passes them on to a worker one at a time, and a load of a minute would hold up every other request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...modelfile.errors import InternalError, LadingError
from ...runtime.frame import BadFrame, receive_frame
from ...runtime.keeper import Keeper
from ...runtime.runner_pool import Caller
from . import wire as wire
from .preload import Preloader
from .self_test import SelfTest

log = logging.getLogger("lading.keeper")


class KeeperService:
    """Answers calls to `keeper` at `path`. `start` and `stop` block; neither closes the keeper."""

    def __init__(
        self,
        keeper: Keeper,
        path: Path,
        *,
        max_waiting: int,
        preloader: Preloader | None = None,
        self_test: SelfTest | None = None,
    ) -> None:
        self._keeper = keeper
        self._path = path
        self._preloader = preloader
        self._self_test = self_test
        # A call waits in a thread while its model loads; idle threads are reused, none is made ahead.
        self._threads = ThreadPoolExecutor(max_waiting + 32, thread_name_prefix="keeper-call")
        self._thread = threading.Thread(target=self._run, name="keeper-service", daemon=True)
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Listen. Raises what made that impossible."""
        self._thread.start()
        self._listening.wait()
        if self._failure is not None:
            raise self._failure

    def wait_until_left(self, timeout_s: float) -> bool:
        """Whether every web worker went away within `timeout_s`; calls are answered meanwhile."""
        deadline = time.monotonic() + timeout_s
        while self._connections:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def stop(self) -> None:
        """Stop answering, hang up, end the thread."""
        if self._loop is not None and self._stopped is not None:
            with contextlib.suppress(RuntimeError):  # the loop ended by itself
                self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(timeout=5)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # handed to `start`, which waits for it
            self._failure = error
            log.exception("keeper service ended")
        finally:
            self._listening.set()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        self._path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._accept, path=str(self._path))
        self._path.chmod(0o600)
        self._listening.set()
        await self._stopped.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (body := await receive_frame(reader)) is not None:
                reply = await self._answer(wire.unpack(wire.CALLS, body), reader)
                if reply is not None:
                    writer.write(wire.pack(reply))
                    await writer.drain()
        except (OSError, BadFrame) as error:
            log.debug("keeper call ended: %s", error)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, call: wire.Call, reader: asyncio.StreamReader) -> wire.Reply | None:
        if isinstance(call, wire.Attach):
            return None
        caller = Caller()
        watch = asyncio.create_task(self._watch(reader, caller))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, call, caller)
        except LadingError as error:
            return wire.refusal(error)
        except Exception:
            log.exception("keeper call failed")
            return wire.refusal(InternalError("asking the model keeper: it failed; its log says why"))
        finally:
            watch.cancel()
            await asyncio.wait([watch])  # until then the reader is taken, and the next call could not be read

    async def _watch(self, reader: asyncio.StreamReader, caller: Caller) -> None:
        """Notice a client that hangs up before it is answered: nothing else comes from it until then."""
        with contextlib.suppress(OSError):
            if await reader.read(1):
                log.warning("a keeper client spoke before it was answered; it is taken for gone")
        self._keeper.leave(caller)

    def _do(self, call: wire.Call, caller: Caller) -> wire.Reply:
        match call:
            case wire.AcquireCall(request=request):
                return wire.Granted(grant=self._keeper.acquire(request, caller))
            case wire.UnloadCall(model=model):
                return wire.Unloaded(was_loaded=self._keeper.unload(model))
            case wire.HealthCall():
                return self._health()
            case _:
                return wire.LoadedModels(models=tuple(self._keeper.loaded()))

    def _health(self) -> wire.Health:
        return wire.Health(
            sandbox=self._self_test.report if self._self_test else wire.SandboxReport(),
            preloads=self._preloader.states if self._preloader else (),
            runner_ends=self._keeper.runner_ends(),
        )
