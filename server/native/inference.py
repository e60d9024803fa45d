"""``/api/generate``, ``/api/chat``, ``/api/embed`` and ``/api/embeddings``.

Source: Ollama's server/routes.go: the order of checks, the load and unload forms, and the texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from typing import Any, Literal

from falcon.asgi import Request, Response

from ...modelfile.errors import InputError
from ...runtime.errors import PromptTooLong
from ...runtime.inference import ChatRequest, GenerateRequest, Settings
from ...runtime.keep_alive import parse_keep_alive
from ...runtime.protocol import FunctionCall, Message, MessageToolCall, Think
from ..access.stay import longest_stay
from ..answer_form import grammar_of, native_format, one_form
from ..errors import BadField, NoSuchModel, asked_for
from ..field_status import refuse_unsupported
from ..guard import note
from ..json_body import parse, read_request
from ..message_parts import image_of
from ..request_size import check_size
from ..services import Services
from ..streaming import Body, gathered, in_time, noted, open_stream
from ..tool_choice import chosen_tools
from ..wire import JSON, NDJSON, json_bytes, rfc3339
from . import schema as schema
from .encode import chat_lines, generate_lines, problem_line, whole_chat, whole_generate

EMBED_MISSING = 'model "{}" not found, try pulling it first'
PROMPT_TOO_LONG = "the prompt is longer than the context length currently available to the model"
INPUT_TOO_LONG = "the input length exceeds the context length"
_LEVELS = ("low", "medium", "high", "max")


class Generate:
    """POST /api/generate"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.GenerateRequest)
        settings = inference_settings(request)
        model = request.model_name
        note(req.scope, model=model)
        with asked_for(model), _said_if_too_long(PROMPT_TOO_LONG):
            if not model:
                raise NoSuchModel("model '' not found")
            if not request.prompt and not request.suffix and not request.images:
                reason = await in_time(load_or_unload(self._services, model, settings), req.scope)
                answer = schema.GenerateChunk(
                    model=model, created_at=rfc3339(), response="", done=True, done_reason=reason
                )
                resp.data, resp.content_type = json_bytes(answer), JSON
                return
            refuse_unsupported(request)
            if request.raw and (request.template or request.system or request.context):
                raise BadField("raw mode does not support template, system, or context")
            generation = self._generation(request, settings)
            check_size(generation, self._services.settings.limits)
            if request.debug_render_only:
                await _answer_rendered(self._services, generation, len(generation.images), resp)
                return
            opened = await open_stream(noted(self._services.inference.generate(generation), req.scope))
        if request.stream:
            encode = functools.partial(generate_lines, model=model, clock=rfc3339)
            resp.content_type, resp.stream = NDJSON, Body(opened, encode, problem_line)
        else:
            whole = await gathered(opened, functools.partial(whole_generate, model=model, clock=rfc3339))
            resp.data, resp.content_type = json_bytes(whole), JSON

    def _generation(self, request: schema.GenerateRequest, settings: Settings) -> GenerateRequest:
        return GenerateRequest(
            model=request.model_name,
            prompt=request.prompt,
            suffix=request.suffix,
            system=request.system,
            template=request.template,
            context=tuple(request.context),
            raw=request.raw,
            images=images_of(request.images),
            settings=settings,
        )


class Chat:
    """POST /api/chat"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.ChatRequest)
        settings = inference_settings(request)
        model = request.model_name
        note(req.scope, model=model)
        with asked_for(model), _said_if_too_long(PROMPT_TOO_LONG):
            if not model:
                raise BadField("model is required", field="model")
            if not request.messages:
                reason = await in_time(load_or_unload(self._services, model, settings), req.scope)
                empty = schema.MessageOut(role="assistant", content="")
                answer = schema.ChatChunk(
                    model=model, created_at=rfc3339(), message=empty, done=True, done_reason=reason
                )
                resp.data, resp.content_type = json_bytes(answer), JSON
                return
            chat = _chat(request, settings)
            check_size(chat, self._services.settings.limits)
            if request.debug_render_only:
                images = sum(len(message.images) for message in chat.messages)
                await _answer_rendered(self._services, chat, images, resp)
                return
            opened = await open_stream(noted(self._services.inference.chat(chat), req.scope))
        if request.stream:
            encode = functools.partial(chat_lines, model=model, clock=rfc3339)
            resp.content_type, resp.stream = NDJSON, Body(opened, encode, problem_line)
        else:
            whole = await gathered(opened, functools.partial(whole_chat, model=model, clock=rfc3339))
            resp.data, resp.content_type = json_bytes(whole), JSON


class Embed:
    """POST /api/embed"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.EmbedRequest)
        model = request.model_name
        note(req.scope, model=model)
        texts = _texts(request.input)
        keep_alive = parse_seconds(request.keep_alive)
        inference = self._services.inference
        with asked_for(model, EMBED_MISSING), _said_if_too_long(INPUT_TOO_LONG):
            if not model:
                raise NoSuchModel("model '' not found")
            if not texts:
                load = inference.load(model, options=request.options, keep_alive=keep_alive)
                loaded = await in_time(load, req.scope)
                vectors, tokens, times = [], 0, (loaded.total_duration_ns, loaded.load_duration_ns)
            else:
                asked = inference.embed(
                    model,
                    texts,
                    options=request.options,
                    keep_alive=keep_alive,
                    truncate=request.truncate,
                    dimensions=request.dimensions,
                )
                done = await in_time(asked, req.scope)
                vectors, tokens = list(done.vectors), done.prompt_tokens
                times = (done.total_duration_ns, done.load_duration_ns)
                note(req.scope, prompt_tokens=tokens)
        answer = schema.EmbedAnswer(
            model=model,
            embeddings=vectors,
            total_duration=times[0],
            load_duration=times[1],
            prompt_eval_count=tokens,
        )
        resp.data, resp.content_type = json_bytes(answer), JSON


class Embeddings:
    """POST /api/embeddings, the older form: one prompt, one vector."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.EmbeddingsRequest)
        model = request.model_name
        note(req.scope, model=model)
        keep_alive = parse_seconds(request.keep_alive)
        inference = self._services.inference
        with asked_for(model, EMBED_MISSING):
            if not model:
                raise BadField("model is required", field="model")
            vector: tuple[float, ...] = ()
            if request.prompt:
                asked = inference.embed(
                    model, (request.prompt,), options=request.options, keep_alive=keep_alive
                )
                done = await in_time(asked, req.scope)
                vector = done.vectors[0]
            else:
                load = inference.load(model, options=request.options, keep_alive=keep_alive)
                await in_time(load, req.scope)
        resp.data, resp.content_type = json_bytes(schema.EmbeddingsAnswer(embedding=vector)), JSON


@contextlib.contextmanager
def _said_if_too_long(words: str) -> Iterator[None]:
    """Ollama's words, which clients look for, before ours."""
    try:
        yield
    except PromptTooLong as error:
        raise PromptTooLong(f"{words}: {error.message}", hint=error.hint) from error


def _chat(request: schema.ChatRequest, settings: Settings) -> ChatRequest:
    tools, choice = chosen_tools(request.tools, request.tool_choice or None, parallel=True)
    return ChatRequest(
        model=request.model_name,
        messages=tuple(runtime_message(message) for message in request.messages),
        tools=tools,
        tool_choice=choice,
        settings=settings,
    )


async def _answer_rendered(
    services: Services, request: ChatRequest | GenerateRequest, images: int, resp: Response
) -> None:
    """Answer with the prompt that the request would be evaluated as."""
    rendered = await services.inference.render(request)
    answer = schema.RenderedAnswer(
        model=request.model,
        created_at=rfc3339(),
        debug_info=schema.DebugInfo(rendered_template=rendered.prompt, image_count=images),
    )
    resp.data, resp.content_type = json_bytes(answer), JSON


# Shared with the OpenAI dialect.


async def load_or_unload(services: Services, model: str, settings: Settings) -> Literal["load", "unload"]:
    """What a request without content asks for: keep_alive 0 unloads, anything else loads."""
    if settings.keep_alive == 0:
        await asyncio.to_thread(services.catalogue.find, model)
        await services.inference.unload(model)
        return "unload"
    await services.inference.load(model, options=settings.options, keep_alive=settings.keep_alive)
    return "load"


def parse_seconds(value: object) -> float | None:
    """``keep_alive``: seconds, a Go duration, or (as some clients send it) a bare number as text; at most
    what whoever asks may have."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            return min(parse_keep_alive(float(value)), longest_stay())
        except ValueError:
            pass
    return min(parse_keep_alive(value), longest_stay())


def images_of(texts: list[str]) -> tuple[bytes, ...]:
    """Base64, with or without a data: URL around it."""
    return tuple(image_of(text, "images") for text in texts)


def runtime_message(message: schema.MessageIn) -> Message:
    """A message as templates see it. Lists of parts, which other dialects have, become text."""
    content = message.content
    if isinstance(content, list):
        content = "\n".join(part["text"] for part in content if isinstance(part, dict) and _is_text(part))
    return Message(
        role=message.role.lower(),
        content=content,
        thinking=message.thinking,
        images=images_of(message.images),
        tool_calls=tuple(
            MessageToolCall(
                id=call.id,
                function=FunctionCall(
                    name=call.function.name, arguments=arguments_of(call.function.arguments)
                ),
            )
            for call in message.tool_calls
        ),
        tool_name=message.tool_name,
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def arguments_of(value: dict[str, Any] | str) -> dict[str, Any]:
    """A call's arguments: an object, or one as JSON text."""
    if isinstance(value, dict):
        return value
    try:
        arguments = parse((value or "{}").encode())
    except InputError as error:
        raise BadField("tool_calls: expected arguments to be a JSON object", field="messages") from error
    if not isinstance(arguments, dict):
        raise BadField("tool_calls: expected arguments to be a JSON object", field="messages")
    return arguments


def _is_text(part: dict[str, Any]) -> bool:
    return part.get("type", "text") == "text" and isinstance(part.get("text"), str)


def inference_settings(request: schema.GenerateRequest | schema.ChatRequest) -> Settings:
    """What both routes have in common, checked."""
    if not 0 <= request.top_logprobs <= 20:
        raise BadField("top_logprobs must be between 0 and 20", field="top_logprobs")
    beside = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "num_predict": request.max_output_tokens,
    }
    return Settings(
        options={name: value for name, value in beside.items() if value is not None} | request.options,
        keep_alive=parse_seconds(request.keep_alive),
        think=think_of(request.think),
        max_thinking_tokens=request.max_thinking_tokens,
        format=one_form(format=native_format(request.format), grammar=grammar_of(request.grammar)),
        truncate=request.truncate,
        shift=request.shift,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs,
    )


def think_of(value: bool | str | None) -> Think | None:
    if value is None or isinstance(value, bool):
        return value
    for level in _LEVELS:
        if value == level:
            return level  # type: ignore[return-value]  # mypy does not narrow str to the literal
    if value == "":
        return None
    raise BadField(
        f'think: expected a boolean or one of {", ".join(_LEVELS)}, got "{value[:20]}"', field="think"
    )


def _texts(value: object) -> tuple[str, ...]:
    if value is None or value == "" or value == []:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise BadField("invalid input type", field="input")
