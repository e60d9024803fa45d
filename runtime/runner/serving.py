"""The runner's socket: requests in, events out, and the thread of the engine behind it. Runner process
only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ...modelfile.errors import LadingError
from ..errors import QueueFull, Unsupported, failure_code
from ..frame import REQUESTS, BadFrame, receive_frame, unpack
from ..memory import resident_memory
from ..protocol import (
    AddVariant,
    Cancel,
    ControlMessage,
    Detokenize,
    Detokenized,
    Embed,
    Embeddings,
    End,
    Failed,
    Generate,
    Rank,
    Render,
    Rendered,
    Reply,
    Request,
    RunnerStatus,
    Scores,
    Status,
    StatusMessage,
    Tokenize,
    Tokens,
    Usage,
    Variant,
    VariantAdded,
    VariantRefused,
)
from .connection import Connection
from .control import Control
from .drafting import Drafter
from .engine import Delivery, Engine, EngineSettings
from .loading import Loaded
from .saved_prefixes import SavedPrefixes
from .variants import Variants

_MAX_CONNECTIONS = 1024
_MAX_TOKENS = 1_000_000
_STOP_GRACE_S = 1.5
EXIT_ENGINE_FAILED = 70

_EvaluatedT = TypeVar("_EvaluatedT")


def serve(
    loaded: Loaded,
    socket_path: str,
    on_listening: Callable[[], None],
    report: Callable[[StatusMessage], None],
) -> None:
    """Serve until SIGTERM or the end of stdin. ``on_listening`` is called once clients can connect,
    ``report`` tells the keeper what became of its messages."""
    asyncio.run(_Server(loaded, report).run(socket_path, on_listening))


class _Server:
    def __init__(self, loaded: Loaded, report: Callable[[StatusMessage], None]) -> None:
        self._loaded = loaded
        self._report = report
        self._connections: set[Connection] = set()
        self._preparing = 0
        self._embedder_thread = ThreadPoolExecutor(1, "embedder")
        """The only one that touches the embedder: what was begun there goes on for a while when nobody waits
        for it any more."""
        self._embedding = 0
        self._embedded_at_ns = time.monotonic_ns()
        self._embeddings = 0
        self._embedded_tokens = 0
        self._stop = asyncio.Event()
        self._engine = _engine(loaded, self._deliver) if loaded.embedder is None else None
        evaluates = self._engine or loaded.embedder
        assert evaluates is not None
        self._variants = Variants(loaded, evaluates.adapters, self._alone)
        self._control = Control(self._take_control, self._parent_gone)
        self._adding: set[asyncio.Task[None]] = set()

    async def run(self, socket_path: str, on_listening: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        self._loop.add_signal_handler(signal.SIGINT, lambda: None)
        self._loop.add_reader(self._control.fd, self._control.read)
        thread = threading.Thread(target=self._run_engine, name="engine", daemon=True)
        thread.start()
        server = await asyncio.start_unix_server(self._serve_connection, socket_path)
        os.chmod(socket_path, 0o600)  # noqa: PTH101 - the umask has done so; this makes sure
        on_listening()
        await self._stop.wait()
        server.close()
        if self._engine:
            self._engine.stop()
            await asyncio.to_thread(thread.join, _STOP_GRACE_S)
        await asyncio.sleep(0)  # what slow clients had no room for is tried once more
        for connection in list(self._connections):
            connection.close()
        os.unlink(socket_path)  # noqa: PTH108 - not a Path anywhere else here

    # The engine's thread

    def _run_engine(self) -> None:
        if self._engine is None:
            return
        try:
            self._engine.run()
        except BaseException:  # the engine's state is unknown; clients see their connections end
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            os._exit(EXIT_ENGINE_FAILED)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        """One frame for each client and step."""
        by_connection: dict[Connection, list[Reply]] = defaultdict(list)
        for owner, event in deliveries:
            assert isinstance(owner, Connection)
            by_connection[owner].append(event)
        for connection, events in by_connection.items():
            connection.send(events)

    # The keeper

    def _take_control(self, message: ControlMessage, files: list[int]) -> None:
        if not isinstance(message, AddVariant):
            self._variants.drop(message.id)
            return
        task = asyncio.ensure_future(self._add_variant(message.variant, files))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _add_variant(self, variant: Variant, files: list[int]) -> None:
        reply: StatusMessage = VariantAdded(id=variant.id)
        try:
            await self._variants.add(variant, files)
        except LadingError as error:
            reply = VariantRefused(
                id=variant.id, code=failure_code(error), message=error.message, hint=error.hint or ""
            )
        with contextlib.suppress(OSError):  # the keeper is gone, and so are we in a moment
            self._report(reply)

    def _parent_gone(self) -> None:
        self._loop.remove_reader(self._control.fd)
        self._stop.set()

    async def _alone(self, errand: Callable[[], None]) -> None:
        """Do something while nothing is evaluated, in the thread that evaluates."""
        if self._engine is not None:
            await asyncio.wrap_future(self._engine.between_steps(errand))
            return
        await self._loop.run_in_executor(self._embedder_thread, errand)

    # Connections

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        connection = Connection(reader, writer)
        self._connections.add(connection)
        try:
            while (body := await receive_frame(reader)) is not None:
                for request in unpack(REQUESTS, body):
                    self._take(connection, request)
        except (OSError, BadFrame):
            pass  # a client that breaks the rules or the connection is treated alike
        finally:
            self._connections.discard(connection)
            for task in connection.tasks.values():
                task.cancel()
            if self._engine:
                self._engine.cancel(connection)
            connection.close()

    def _take(self, connection: Connection, request: Request) -> None:
        """Begin to answer. Raises: BadFrame where the id is in use."""
        if isinstance(request, Cancel):
            self._cancel(connection, request.id)
            return
        connection.take(request)
        task = asyncio.create_task(self._answer(connection, request))
        connection.tasks[request.id] = task

    def _cancel(self, connection: Connection, request_id: int) -> None:
        if task := connection.tasks.get(request_id):
            task.cancel()
        elif self._engine:
            self._engine.cancel(connection, request_id)

    async def _answer(self, connection: Connection, request: Request) -> None:
        try:
            reply = await self._reply(connection, request)
            if reply is not None:
                connection.send([reply])
        except LadingError as error:
            failed = Failed(
                id=request.id, code=failure_code(error), message=error.message, hint=error.hint or ""
            )
            connection.send([failed])
        except asyncio.CancelledError:
            if isinstance(request, Generate):
                connection.send([End(id=request.id, reason="cancelled", usage=Usage())])
        except Exception as error:  # the boundary: a bug here fails one request, not the runner
            traceback.print_exc(file=sys.stderr)
            message = f"answering a request: {type(error).__name__}: {error}"
            connection.send([Failed(id=request.id, code="internal", message=message)])
        finally:
            connection.tasks.pop(request.id, None)

    async def _reply(self, connection: Connection, request: Request) -> Reply | None:
        """The answer to ``request``; None where the engine gives it."""
        match request:
            case Generate():
                await self._generate(connection, request)
                return None
            case Render():
                preparer = self._variants.find(request.request.variant).preparer
                text, tokens = await preparer.render(request.request, whole=request.whole)
                return Rendered(id=request.id, prompt=text, tokens=tokens)
            case Tokenize():
                return await self._tokenize(request)
            case Detokenize():
                return await self._detokenize(request)
            case Embed():
                return await self._embed(request)
            case Rank():
                return await self._rank(request)
            case Status():
                self._variants.tidy()
                return self._status(request)
        raise AssertionError(request)

    async def _generate(self, connection: Connection, request: Generate) -> None:
        engine = self._engine
        if engine is None:
            raise Unsupported("generating: this model makes embeddings only")
        if engine.is_full or self._preparing >= self._loaded.spec.max_queue:
            raise QueueFull(
                f"generating: {self._loaded.spec.max_queue} requests wait already",
                hint="try again later, or raise the queue's length or the number of parallel requests",
            )
        variant = self._variants.find(request.variant)
        self._preparing += 1
        variant.use.begin()
        try:
            generation = await variant.preparer.generation(request, connection)
        except BaseException:
            variant.use.give_up()
            raise
        finally:
            self._preparing -= 1
        generation.adapters, generation.use = variant.adapters, variant.use
        connection.generating.add(request.id)
        engine.submit(generation)

    async def _tokenize(self, request: Tokenize) -> Tokens:
        vocab = self._loaded.model.vocab
        tokens = await asyncio.to_thread(
            vocab.tokenize,
            request.text,
            add_special=request.add_special,
            parse_special=request.parse_special,
        )
        return Tokens(id=request.id, tokens=tuple(tokens))

    async def _detokenize(self, request: Detokenize) -> Detokenized:
        vocab = self._loaded.model.vocab
        if len(request.tokens) > _MAX_TOKENS or not all(0 <= token < vocab.size for token in request.tokens):
            raise Unsupported(f"reading tokens: expected at most {_MAX_TOKENS} ids below {vocab.size}")
        text = await asyncio.to_thread(vocab.detokenize, request.tokens)
        return Detokenized(id=request.id, text=text)

    async def _embed(self, request: Embed) -> Embeddings:
        embedder = self._loaded.embedder
        if embedder is None:
            raise Unsupported("embedding texts: this model does not make embeddings")
        variant = self._variants.find(request.variant)
        with variant.use.counted():
            vectors, tokens = await self._in_turn(
                lambda goes_on: embedder.embed(
                    request.texts,
                    truncate=request.truncate,
                    dimensions=request.dimensions,
                    adapters=variant.adapters,
                    goes_on=goes_on,
                )
            )
        self._note_embedded(tokens)
        return Embeddings(id=request.id, vectors=tuple(vectors), prompt_tokens=tokens)

    async def _rank(self, request: Rank) -> Scores:
        embedder = self._loaded.embedder
        if embedder is None:
            raise Unsupported("ranking documents: this model does not rank")
        variant = self._variants.find(request.variant)
        with variant.use.counted():
            scores, tokens = await self._in_turn(
                lambda goes_on: embedder.rank(
                    request.query, request.documents, adapters=variant.adapters, goes_on=goes_on
                )
            )
        self._note_embedded(tokens)
        return Scores(id=request.id, scores=tuple(scores), prompt_tokens=tokens)

    async def _in_turn(self, evaluate: Callable[[Callable[[], bool]], _EvaluatedT]) -> _EvaluatedT:
        """What ``evaluate`` makes in the embedder's thread, first come, first served. Where this is cancelled
        it is not begun, or told so by the function that it is given.

        Raises: what ``evaluate`` raises; QueueFull.
        """
        if self._embedding > self._loaded.spec.max_queue:
            raise QueueFull(
                f"embedding texts: {self._loaded.spec.max_queue} requests wait already",
                hint="try again later, or raise the queue's length",
            )
        wanted = True
        self._embedding += 1
        try:
            return await self._loop.run_in_executor(self._embedder_thread, evaluate, lambda: wanted)
        finally:
            wanted = False
            self._embedding -= 1

    def _note_embedded(self, tokens: int) -> None:
        self._embeddings += 1
        self._embedded_tokens += tokens
        self._embedded_at_ns = time.monotonic_ns()

    def _status(self, request: Status) -> RunnerStatus:
        now = time.monotonic_ns()
        counters = self._engine.counters if self._engine else None
        running = counters.running if counters else min(self._embedding, 1)
        queued = (counters.queued if counters else self._embedding - running) + self._preparing
        since = counters.idle_since_ns if counters else self._embedded_at_ns
        return RunnerStatus(
            id=request.id,
            running=running,
            queued=queued,
            connections=len(self._connections),
            idle_ns=0 if running or queued or not since else now - since,
            requests=counters.requests if counters else self._embeddings,
            prompt_tokens=counters.prompt_tokens if counters else self._embedded_tokens,
            cached_tokens=counters.cached_tokens if counters else 0,
            eval_tokens=counters.eval_tokens if counters else 0,
            drafted_tokens=counters.drafted_tokens if counters else 0,
            accepted_tokens=counters.accepted_tokens if counters else 0,
            steps=counters.steps if counters else 0,
            memory_rss=resident_memory(),
            variants=self._variants.uses(),
        )


def _engine(loaded: Loaded, deliver: Callable[[list[Delivery]], None]) -> Engine:
    facts = loaded.facts
    settings = EngineSettings(
        n_ctx=facts.n_ctx,
        n_batch=facts.n_batch,
        max_queue=loaded.spec.max_queue,
        slot_bytes=facts.memory.get("kv", 0) // facts.n_parallel,
    )
    folder = loaded.spec.prefix_folder
    saved = (
        SavedPrefixes(Path(folder), loaded.spec.prefix_budget, facts.n_ctx, loaded.context)
        if folder
        else None
    )
    return Engine(
        loaded.context,
        loaded.model.vocab,
        settings,
        deliver,
        saved=saved,
        sliding_window=loaded.model.sliding_window,
        drafter=_drafter(loaded),
    )


def _drafter(loaded: Loaded) -> Drafter | None:
    drafts, facts = loaded.drafts, loaded.facts
    if drafts.guesser is None:
        return None
    return Drafter(
        drafts.guesser,
        is_model=drafts.is_model,
        most=drafts.most,
        together=loaded.context.n_drafted,
        n_ctx=facts.n_ctx,
        n_batch=facts.n_batch,
        always=loaded.spec.draft_always,
    )
