"""``POST /v1/completions`` and ``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import functools
import struct
import time
from collections.abc import AsyncIterator, Sequence

from falcon.asgi import Request, Response

from ...runtime.inference import Done, GenerateRequest, InferenceEvent, Settings
from ...runtime.protocol import Text
from ..errors import BadField, asked_for
from ..field_status import refuse_unsupported
from ..guard import note
from ..json_body import read_request
from ..native.inference import parse_seconds
from ..services import Services
from ..streaming import Body, gathered, noted, open_stream
from ..wire import EVENT_STREAM, JSON, SSE_DONE, json_bytes, sse_event
from . import schema as schema
from .encode import FINGERPRINT, Head, problem_event
from .request import form_of, new_id, options_of

MAX_INPUTS = 2048


class Completions:
    """POST /v1/completions: a prompt is continued; with a suffix, the gap between the two is filled."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.CompletionRequest)
        note(req.scope, model=request.model)
        if not request.model:
            raise BadField("model is required", field="model")
        prompt = _prompt(request)
        settings = Settings(
            options=options_of(request),
            keep_alive=parse_seconds(request.keep_alive),
            think=False,
            format=form_of(request),
        )
        with asked_for(request.model):
            events = self._services.inference.generate(
                GenerateRequest(
                    model=request.model,
                    prompt=prompt,
                    suffix=request.suffix,
                    raw=not request.suffix,
                    settings=settings,
                )
            )
            opened = await open_stream(noted(events, req.scope))
        head = Head(id=new_id("cmpl"), created=int(time.time()), model=request.model)
        echo = prompt if request.echo else ""
        if request.stream:
            usage = request.stream_options.include_usage
            encode = functools.partial(_text_events, head=head, echo=echo, include_usage=usage)
            resp.content_type, resp.stream = EVENT_STREAM, Body(opened, encode, problem_event)
            resp.cache_control = ["no-cache"]
        else:
            whole = await gathered(opened, functools.partial(_whole_text, head=head, echo=echo))
            resp.data, resp.content_type = json_bytes(whole), JSON


class Embeddings:
    """POST /v1/embeddings; little-endian float32 in base64 where asked for, as OpenAI's clients do."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.EmbeddingRequest)
        note(req.scope, model=request.model)
        if not request.model:
            raise BadField("model is required", field="model")
        if request.encoding_format not in ("float", "base64"):
            raise BadField("encoding_format: expected float or base64", field="encoding_format")
        if request.dimensions < 0:
            raise BadField("dimensions: expected at least 1", field="dimensions")
        inputs = _inputs(request.input)
        with asked_for(request.model):
            done = await self._services.inference.embed(
                request.model,
                tuple([await self._text(request, one) for one in inputs]),
                options=request.options,
                keep_alive=parse_seconds(request.keep_alive),
                dimensions=request.dimensions,
            )
        note(req.scope, prompt_tokens=done.prompt_tokens)
        encode = _base64 if request.encoding_format == "base64" else tuple
        answer = schema.EmbeddingList(
            object="list",
            data=[
                schema.EmbeddingRow(object="embedding", index=index, embedding=encode(vector))
                for index, vector in enumerate(done.vectors)
            ],
            model=request.model,
            usage=schema.EmbeddingUsage(prompt_tokens=done.prompt_tokens, total_tokens=done.prompt_tokens),
        )
        resp.data, resp.content_type = json_bytes(answer), JSON

    async def _text(self, request: schema.EmbeddingRequest, given: str | list[int]) -> str:
        """A text as it is, or the text that the model's tokens stand for."""
        if isinstance(given, str):
            return given
        return await self._services.inference.detokenize(
            request.model,
            tuple(given),
            options=request.options,
            keep_alive=parse_seconds(request.keep_alive),
        )


async def _text_events(
    events: AsyncIterator[InferenceEvent], *, head: Head, echo: str, include_usage: bool
) -> AsyncIterator[bytes]:
    """The server-sent events of a completion."""
    if echo:
        yield sse_event(_text_object(head, [_choice(echo, None)], None))
    async for event in events:
        if isinstance(event, Text):
            yield sse_event(_text_object(head, [_choice(event.text, None)], None))
        elif isinstance(event, Done):
            yield sse_event(_text_object(head, [_choice("", _reason(event))], None))
            if include_usage:
                yield sse_event(_text_object(head, [], _usage(event)))
    yield SSE_DONE


async def _whole_text(
    events: AsyncIterator[InferenceEvent], *, head: Head, echo: str
) -> schema.TextCompletion:
    text, usage, reason = [echo], None, "stop"
    async for event in events:
        if isinstance(event, Text):
            text.append(event.text)
        elif isinstance(event, Done):
            usage, reason = _usage(event), _reason(event)
    return _text_object(head, [_choice("".join(text), reason)], usage)


def _text_object(
    head: Head, choices: list[schema.TextChoice], usage: schema.Usage | None
) -> schema.TextCompletion:
    return schema.TextCompletion(
        id=head.id,
        object="text_completion",
        created=head.created,
        model=head.model,
        system_fingerprint=FINGERPRINT,
        choices=choices,
        usage=usage,
    )


def _choice(text: str, reason: str | None) -> schema.TextChoice:
    return schema.TextChoice(index=0, text=text, finish_reason=reason)


def _reason(done: Done) -> str:
    return "length" if done.reason == "length" else "stop"


def _usage(done: Done) -> schema.Usage:
    counters = done.usage
    return schema.Usage(
        prompt_tokens=counters.prompt_tokens,
        completion_tokens=counters.eval_tokens,
        total_tokens=counters.prompt_tokens + counters.eval_tokens,
        prompt_tokens_details=schema.PromptTokensDetails(cached_tokens=counters.cached_tokens),
    )


def _prompt(request: schema.CompletionRequest) -> str:
    if request.n != 1:
        raise BadField("n: expected 1", field="n")
    refuse_unsupported(request)
    if isinstance(request.prompt, str):
        return request.prompt
    if len(request.prompt) == 1 and isinstance(request.prompt[0], str):
        return request.prompt[0]
    raise BadField("prompt: expected one text", field="prompt")


def _inputs(value: object) -> list[str | list[int]]:
    """Texts, or tokens of the model's own vocabulary in their place."""
    inputs = [value] if isinstance(value, str) or _is_tokens(value) else value
    if not isinstance(inputs, list) or not inputs:
        raise BadField("invalid input", field="input")
    if not all(isinstance(one, str) or _is_tokens(one) for one in inputs):
        raise BadField("invalid input", field="input")
    if len(inputs) > MAX_INPUTS:
        raise BadField(f"input: expected at most {MAX_INPUTS} texts, got {len(inputs)}", field="input")
    return inputs


def _is_tokens(value: object) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(token, int) and not isinstance(token, bool) for token in value)


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
