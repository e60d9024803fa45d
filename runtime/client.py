"""The asyncio client of a runner: many requests at once on one Unix socket.

The client numbers the requests; an ``id`` set by the caller is ignored. Failures arrive as the errors of
`errors`, never as events. When the runner goes away, every unfinished request raises `RunnerLost` at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from .errors import RunnerFault, RunnerLost, from_failure
from .frame import REPLIES, BadFrame, pack, receive_frame, unpack
from .protocol import (
    Cancel,
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
    Started,
    Status,
    Text,
    Thinking,
    Tokenize,
    Tokens,
    ToolCall,
)
from .request_check import check

StreamEvent = Started | Text | Thinking | ToolCall | End
"""What `RunnerClient.generate` yields; `End` is the last."""

_ResultT = TypeVar("_ResultT", Rendered, Tokens, Detokenized, Embeddings, Scores, RunnerStatus)


class RunnerClient:
    """A connection to a runner. Make one with `connect`; close it with `aclose`, which cancels what it had
    asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[Reply | None]] = {}
        self._lost: str | None = None
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, path: Path | str) -> RunnerClient:
        """Raises: RunnerLost where nothing listens at ``path``."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            raise RunnerLost(f"reaching the model's runner: {error.strerror or error}") from error
        return cls(reader, writer)

    @property
    def is_lost(self) -> bool:
        """True once the runner has gone away or `aclose` was called; make a new client then."""
        return self._lost is not None

    async def aclose(self) -> None:
        """Close the connection. Unfinished requests raise `RunnerLost`. Repeating it is harmless."""
        self._receiver.cancel()
        await asyncio.gather(self._receiver, return_exceptions=True)
        self._lose("the connection was closed")
        self._writer.close()
        with contextlib.suppress(OSError):  # the runner may be gone already
            await self._writer.wait_closed()

    async def generate(self, request: Generate) -> AsyncGenerator[StreamEvent, None]:
        """The events of a generation, `End` last. Closing the iterator earlier cancels the generation.

        Raises: what `from_failure` makes of the runner's failures; RunnerLost.
        """
        check(request)
        request_id, replies = self._open()
        finished = False
        try:
            await self._send(msgspec.structs.replace(request, id=request_id))
            while not finished:
                reply = await replies.get()
                if isinstance(reply, Started | Text | Thinking | ToolCall | End):
                    finished = isinstance(reply, End)
                    yield reply
                else:
                    finished = True
                    self._raise(reply)
        finally:
            self._close(request_id)
            if not finished:
                self._cancel(request_id)

    async def render(self, request: Generate, *, whole: bool = False) -> Rendered:
        """The prompt that ``request`` would be evaluated as; ``whole``: before it is cut to the context."""
        return await self._ask(Render(id=self._next_id(), request=request, whole=whole), Rendered)

    async def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> Tokens:
        request = Tokenize(
            id=self._next_id(), text=text, add_special=add_special, parse_special=parse_special
        )
        return await self._ask(request, Tokens)

    async def detokenize(self, tokens: tuple[int, ...]) -> Detokenized:
        return await self._ask(Detokenize(id=self._next_id(), tokens=tokens), Detokenized)

    async def embed(
        self, texts: tuple[str, ...], *, variant: str = "", truncate: bool = True, dimensions: int = 0
    ) -> Embeddings:
        request = Embed(
            id=self._next_id(), texts=texts, variant=variant, truncate=truncate, dimensions=dimensions
        )
        return await self._ask(request, Embeddings)

    async def rank(self, query: str, documents: tuple[str, ...], *, variant: str = "") -> Scores:
        """Raises: Unsupported where the model does not rank."""
        request = Rank(id=self._next_id(), query=query, documents=documents, variant=variant)
        return await self._ask(request, Scores)

    async def status(self) -> RunnerStatus:
        return await self._ask(Status(id=self._next_id()), RunnerStatus)

    # Requests and replies

    async def _ask(self, request: Request, kind: type[_ResultT]) -> _ResultT:
        _, replies = self._open(request.id)
        finished = False
        try:
            await self._send(request)
            reply = await replies.get()
            finished = True
            if isinstance(reply, kind):
                return reply
            self._raise(reply)
        finally:
            self._close(request.id)
            if not finished:
                self._cancel(request.id)

    def _next_id(self) -> int:
        return next(self._ids)

    def _open(self, request_id: int = 0) -> tuple[int, asyncio.Queue[Reply | None]]:
        request_id = request_id or self._next_id()
        replies: asyncio.Queue[Reply | None] = asyncio.Queue()
        self._waiting[request_id] = replies
        return request_id, replies

    def _close(self, request_id: int) -> None:
        self._waiting.pop(request_id, None)

    async def _send(self, request: Request) -> None:
        if self._lost is not None:
            raise RunnerLost(f"asking the model's runner: {self._lost}")
        try:
            self._writer.write(pack([request]))
            await self._writer.drain()
        except OSError as error:
            raise RunnerLost("asking the model's runner: it has gone away") from error

    def _cancel(self, request_id: int) -> None:
        if self._lost is None:
            self._writer.write(pack([Cancel(id=request_id)]))

    def _raise(self, reply: Reply | None) -> NoReturn:
        if reply is None:
            raise RunnerLost(f"waiting for the model's runner: {self._lost}")
        if isinstance(reply, Failed):
            raise from_failure(reply)
        raise RunnerFault(f"waiting for the model's runner: unexpected {type(reply).__name__} message")

    # Receiving

    async def _receive(self) -> None:
        reason = "it has gone away"
        try:
            while (body := await receive_frame(self._reader)) is not None:
                for reply in unpack(REPLIES, body):
                    if queue := self._waiting.get(reply.id):
                        queue.put_nowait(reply)
        except (OSError, BadFrame) as error:
            reason = str(error)
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        for queue in self._waiting.values():
            queue.put_nowait(None)
