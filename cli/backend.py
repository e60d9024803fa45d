"""Where `run` gets its answers: a server that is running, or a runtime of its own for as long as it lasts.

Both take the runtime's requests and give its events, so that nothing above knows which one it talks to.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..runtime.inference import ChatRequest, Done, GenerateRequest, InferenceEvent
from ..runtime.protocol import Message, Text, Thinking, ToolCall, Usage
from .client import ServerClient

if TYPE_CHECKING:
    from ..runtime.embedded import EmbeddedRuntime
    from ..runtime.settings import RuntimeSettings


class Backend(Protocol):
    """Answers requests. Closing an iterator early cancels its generation."""

    def chat(self, request: ChatRequest) -> Iterator[InferenceEvent]:
        """Continue a conversation."""
        ...

    def generate(self, request: GenerateRequest) -> Iterator[InferenceEvent]:
        """Continue a prompt."""
        ...

    def sees(self, model: str) -> bool:
        """Whether the model takes pictures. Raises where there is no such model."""
        ...

    def close(self) -> None:
        """Let go of everything; a runtime of our own stops."""
        ...


class EmbeddedBackend:
    """A keeper and runners inside this process."""

    def __init__(self, store_root: Path, settings: RuntimeSettings) -> None:
        self._store_root = store_root
        self._settings = settings
        self._loop = asyncio.Runner()
        self._runtime: EmbeddedRuntime | None = None

    def chat(self, request: ChatRequest) -> Iterator[InferenceEvent]:
        return self._iterate(self._start().inference.chat(request))

    def generate(self, request: GenerateRequest) -> Iterator[InferenceEvent]:
        return self._iterate(self._start().inference.generate(request))

    def sees(self, model: str) -> bool:
        from ..oci.reference import Reference
        from ..oci.store import Store
        from ..runtime.mount import mount

        defaults = self._settings.default_registry, self._settings.default_namespace
        reference = Reference.parse(model, default_registry=defaults[0], default_namespace=defaults[1])
        return "vision" in mount(Store.open(self._store_root), reference).facts.capabilities

    def close(self) -> None:
        if self._runtime is not None:
            self._loop.run(self._runtime.__aexit__(None, None, None))
            self._runtime = None
        self._loop.close()

    def _start(self) -> EmbeddedRuntime:
        from ..runtime.embedded import EmbeddedRuntime

        if self._runtime is None:
            runtime = EmbeddedRuntime(self._store_root, self._settings)
            self._runtime = self._loop.run(runtime.__aenter__())
        return self._runtime

    def _iterate(self, events: AsyncIterator[InferenceEvent]) -> Iterator[InferenceEvent]:
        # One run of the loop for each event: Ctrl-C then arrives as an ordinary KeyboardInterrupt in between.
        async def next_event() -> InferenceEvent | None:
            return await anext(events, None)

        try:
            while (event := self._loop.run(next_event())) is not None:
                yield event
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                self._loop.run(close())


class ServerBackend:
    """A running server, over its native API."""

    def __init__(self, client: ServerClient) -> None:
        self._client = client

    def chat(self, request: ChatRequest) -> Iterator[InferenceEvent]:
        body = {
            "model": request.model,
            "messages": [_message_json(message) for message in request.messages],
            **_settings_json(request),
        }
        for line in self._client.stream("/api/chat", body):
            message = line.get("message", {})
            yield from _events(line, message.get("content", ""), message)

    def generate(self, request: GenerateRequest) -> Iterator[InferenceEvent]:
        body: dict[str, Any] = {"model": request.model, "prompt": request.prompt, **_settings_json(request)}
        if request.system:
            body["system"] = request.system
        if request.images:
            body["images"] = _base64(request.images)
        for line in self._client.stream("/api/generate", body):
            yield from _events(line, line.get("response", ""), line)

    def sees(self, model: str) -> bool:
        return "vision" in self._client.call("POST", "/api/show", {"model": model}).get("capabilities", ())

    def close(self) -> None:
        """Nothing is held between requests."""


def _settings_json(request: ChatRequest | GenerateRequest) -> dict[str, Any]:
    settings = request.settings
    body: dict[str, Any] = {"options": dict(settings.options)}
    if settings.think is not None:
        body["think"] = settings.think
    if settings.format is not None:
        body["format"] = settings.format
    if settings.keep_alive is not None:
        from ..runtime.keep_alive import format_keep_alive

        body["keep_alive"] = format_keep_alive(settings.keep_alive)
    return body


def _message_json(message: Message) -> dict[str, Any]:
    images = {"images": _base64(message.images)} if message.images else {}
    return {"role": message.role, "content": message.content, **images}


def _base64(files: Iterable[bytes]) -> list[str]:
    return [base64.b64encode(file).decode() for file in files]


def _events(line: dict[str, Any], text: str, holder: dict[str, Any]) -> Iterator[InferenceEvent]:
    if thought := holder.get("thinking"):
        yield Thinking(id=0, text=thought)
    if text:
        yield Text(id=0, text=text)
    for index, call in enumerate(holder.get("tool_calls") or ()):
        function = call.get("function", {})
        arguments = function.get("arguments", {})
        yield ToolCall(
            id=0,
            index=index,
            call_id=call.get("id", ""),
            name=function.get("name", ""),
            arguments=json.loads(arguments) if isinstance(arguments, str) else arguments,
        )
    if line.get("done"):
        yield Done(
            reason="length" if line.get("done_reason") == "length" else "stop",
            usage=Usage(
                prompt_tokens=line.get("prompt_eval_count", 0),
                eval_tokens=line.get("eval_count", 0),
                prompt_duration_ns=line.get("prompt_eval_duration", 0),
                eval_duration_ns=line.get("eval_duration", 0),
            ),
            total_duration_ns=line.get("total_duration", 0),
            load_duration_ns=line.get("load_duration", 0),
        )
