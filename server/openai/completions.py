"""``POST /v1/completions``: prompts are continued; with a suffix, the gap between the two is filled.

One choice for each prompt and each of its ``n`` answers, prompts first, as OpenAI numbers them. All are made
at the same time.
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace

from falcon.asgi import Request, Response

from ...runtime.inference import Done, GenerateRequest, InferenceEvent, Settings
from ...runtime.protocol import Text, Thinking, TokenLogprob
from ..errors import BadField, asked_for
from ..field_status import refuse_unsupported
from ..guard import note
from ..json_body import read_request
from ..merging import Numbered, merged
from ..native.inference import parse_seconds
from ..request_size import check_choices, check_size
from ..services import Services
from ..streaming import Body, gathered, noted, open_stream
from ..wire import EVENT_STREAM, JSON, SSE_DONE, json_bytes, sse_event
from . import schema as schema
from .encode import FINGERPRINT, Head, problem_event
from .request import form_of, is_tokens, new_id, options_of

MAX_CHOICES = 128
MAX_LOGPROBS = 20


class Completions:
    """POST /v1/completions"""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def on_post(self, req: Request, resp: Response) -> None:
        request = await read_request(req, schema.CompletionRequest)
        note(req.scope, model=request.model)
        if not request.model:
            raise BadField("model is required", field="model")
        prompts = _prompts(request)
        check_choices(request.n, self._services.settings.limits)
        with asked_for(request.model):
            echoes = [await self._text(request, prompt) if request.echo else "" for prompt in prompts]
            streams = [noted(events, req.scope) for events in self._choices(request, prompts)]
            opened = await open_stream(merged(streams))
        answer = _Answer(
            head=Head(id=new_id("cmpl"), created=int(time.time()), model=request.model),
            echoes=tuple(echo for echo in echoes for _ in range(request.n)),
            per_prompt=request.n,
            logprobs=request.logprobs is not None,
        )
        if request.stream:
            encode = functools.partial(_events, answer=answer, usage=request.stream_options.include_usage)
            resp.content_type, resp.stream = EVENT_STREAM, Body(opened, encode, problem_event)
            resp.cache_control = ["no-cache"]
        else:
            whole = await gathered(opened, functools.partial(_whole, answer=answer))
            resp.data, resp.content_type = json_bytes(whole), JSON

    def _choices(
        self, request: schema.CompletionRequest, prompts: Sequence[str | list[int]]
    ) -> list[AsyncGenerator[InferenceEvent, None]]:
        """One stream for each choice; with a seed, each answer to a prompt has the next."""
        settings = Settings(
            options=options_of(request),
            keep_alive=parse_seconds(request.keep_alive),
            think=False,
            format=form_of(request),
            logprobs=request.logprobs is not None,
            top_logprobs=request.logprobs or 0,
        )
        streams = []
        for prompt in prompts:
            for number in range(request.n):
                options = dict(settings.options)
                if number and options.get("seed") is not None:
                    options["seed"] += number
                one = GenerateRequest(
                    model=request.model,
                    prompt=prompt if isinstance(prompt, str) else "",
                    context=() if isinstance(prompt, str) else tuple(prompt),
                    suffix=request.suffix,
                    raw=not request.suffix,
                    settings=replace(settings, options=options),
                )
                check_size(one, self._services.settings.limits)
                streams.append(self._services.inference.generate(one))
        return streams

    async def _text(self, request: schema.CompletionRequest, prompt: str | list[int]) -> str:
        """A text as it is, or the text that the model's tokens stand for."""
        if isinstance(prompt, str):
            return prompt
        return await self._services.inference.detokenize(
            request.model,
            tuple(prompt),
            options=options_of(request),
            keep_alive=parse_seconds(request.keep_alive),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What all objects of an answer share."""

    head: Head
    echoes: tuple[str, ...]
    """For each choice, what stands before its text."""
    per_prompt: int
    """Choices of one prompt."""
    logprobs: bool

    def object(
        self, choices: list[schema.TextChoice], usage: schema.Usage | None = None
    ) -> schema.TextCompletion:
        return schema.TextCompletion(
            id=self.head.id,
            object="text_completion",
            created=self.head.created,
            model=self.head.model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=usage,
        )


class _Usage:
    """Counters over all choices. Those of one prompt share it, and it is counted once."""

    def __init__(self, per_prompt: int) -> None:
        self._per_prompt = per_prompt
        self._prompts: dict[int, int] = {}
        self._cached: dict[int, int] = {}
        self._eval = 0

    def add(self, index: int, done: Done) -> None:
        prompt = index // self._per_prompt
        self._prompts[prompt] = max(self._prompts.get(prompt, 0), done.usage.prompt_tokens)
        self._cached[prompt] = max(self._cached.get(prompt, 0), done.usage.cached_tokens)
        self._eval += done.usage.eval_tokens

    @property
    def total(self) -> schema.Usage:
        prompt = sum(self._prompts.values())
        return schema.Usage(
            prompt_tokens=prompt,
            completion_tokens=self._eval,
            total_tokens=prompt + self._eval,
            prompt_tokens_details=schema.PromptTokensDetails(cached_tokens=sum(self._cached.values())),
        )


class _Logprobs:
    """The probabilities of one choice's tokens, in the form that this route has always had."""

    def __init__(self, offset: int) -> None:
        self._offset = offset
        """Of the next token, in characters from the start of the choice's text."""

    def take(self, tokens: Sequence[TokenLogprob]) -> schema.TextLogprobs:
        taken = schema.TextLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
        for token in tokens:
            taken.tokens.append(token.token)
            taken.token_logprobs.append(token.logprob)
            taken.top_logprobs.append({other.token: other.logprob for other in token.top})
            taken.text_offset.append(self._offset)
            self._offset += len(token.token)
        return taken


async def _events(events: AsyncIterator[Numbered], *, answer: _Answer, usage: bool) -> AsyncIterator[bytes]:
    """The server-sent events of a completion."""
    counted = _Usage(answer.per_prompt)
    logprobs = [_Logprobs(len(echo)) for echo in answer.echoes]
    for index, echo in enumerate(answer.echoes):
        if echo:
            yield sse_event(answer.object([_choice(index, echo)]))
    async for index, event in events:
        if isinstance(event, Text | Thinking):
            taken = logprobs[index].take(event.logprobs) if answer.logprobs else None
            yield sse_event(answer.object([_choice(index, event.text, logprobs=taken)]))
        elif isinstance(event, Done):
            counted.add(index, event)
            yield sse_event(answer.object([_choice(index, "", _reason(event))]))
    if usage:
        yield sse_event(answer.object([], counted.total))
    yield SSE_DONE


async def _whole(events: AsyncIterator[Numbered], *, answer: _Answer) -> schema.TextCompletion:
    counted = _Usage(answer.per_prompt)
    texts = [[echo] for echo in answer.echoes]
    tokens: list[list[TokenLogprob]] = [[] for _ in answer.echoes]
    reasons = ["stop"] * len(texts)
    async for index, event in events:
        if isinstance(event, Text | Thinking):
            texts[index].append(event.text)
            tokens[index] += event.logprobs
        elif isinstance(event, Done):
            counted.add(index, event)
            reasons[index] = _reason(event)
    choices = [
        _choice(
            index,
            "".join(text),
            reasons[index],
            _Logprobs(len(answer.echoes[index])).take(tokens[index]) if answer.logprobs else None,
        )
        for index, text in enumerate(texts)
    ]
    return answer.object(choices, counted.total)


def _choice(
    index: int, text: str, reason: str | None = None, logprobs: schema.TextLogprobs | None = None
) -> schema.TextChoice:
    return schema.TextChoice(index=index, text=text, finish_reason=reason, logprobs=logprobs)


def _reason(done: Done) -> str:
    return "length" if done.reason == "length" else "stop"


def _prompts(request: schema.CompletionRequest) -> list[str | list[int]]:
    """Each is a text, or tokens of the model's own vocabulary. Raises: BadField."""
    refuse_unsupported(request)
    given = request.prompt
    prompts = [given] if isinstance(given, str) or is_tokens(given) else given
    if not prompts or not all(isinstance(one, str) or is_tokens(one) for one in prompts):
        raise BadField("prompt: expected a text, tokens, or a list of either", field="prompt")
    if len(prompts) * request.n > MAX_CHOICES:
        raise BadField(f"n: expected 1 to {MAX_CHOICES} choices, over all prompts", field="n")
    if request.logprobs is not None and not 0 <= request.logprobs <= MAX_LOGPROBS:
        raise BadField(f"logprobs: expected 0 to {MAX_LOGPROBS}", field="logprobs")
    if request.echo and request.logprobs is not None:
        raise BadField("echo: the probabilities of a prompt's own tokens cannot be had", field="echo")
    if request.suffix and not all(isinstance(one, str) for one in prompts):
        raise BadField("suffix: expected a prompt that is a text", field="suffix")
    return prompts
