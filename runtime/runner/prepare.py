"""From a request to a generation that the engine can take: check, render, tokenise, cut to the context.

Runs in the runner's event loop; the slow parts (rendering, tokenising, compiling a format) are done
elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from ..errors import BadRequest, PromptTooLong, Unsupported
from ..options import Options
from ..protocol import Generate, Message, TemplateKind
from ..request_check import check
from .chat_template import CHATML
from .constraint import ConstraintCompiler
from .generation import Generation
from .image_cells import ImageParts, ImagePiece
from .llama import NO_TOKEN, LlamaVocab
from .output import AnswerReader
from .prompt import Prompt, marked, with_image_marks
from .renderer import Renderer, RenderJob, TemplateTraits
from .shield import ControlNames, Passage, Shield
from .thinking import ThinkingSplitter, ThinkingTags
from .tool_calls import CallTags, ToolCallParser

if TYPE_CHECKING:
    from .vision import Vision


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """The template that chats are rendered with. ``kind`` "": the model brings none."""

    kind: TemplateKind = ""
    source: str = ""
    bos: str = ""
    eos: str = ""
    traits: TemplateTraits = field(default_factory=TemplateTraits)

    @property
    def thinking_tags(self) -> ThinkingTags | None:
        return ThinkingTags(*self.traits.thinking) if self.traits.thinking else None

    @property
    def call_tags(self) -> CallTags:
        return CallTags(*self.traits.call)

    def marker_texts(self) -> list[str]:
        """Texts that a model writes to mark thoughts and calls, which may be control tokens."""
        tags = self.thinking_tags
        calls = self.call_tags
        texts = [calls.opening, calls.closing, "[ARGS]", "[CALL_ID]"]
        return [text for text in (*texts, tags.opening if tags else "", tags.closing if tags else "") if text]


class Preparer:
    """Prepares requests for one loaded model. ``n_ctx`` is the context of a sequence in tokens."""

    def __init__(
        self,
        vocab: LlamaVocab,
        renderer: Renderer,
        template: TemplateFacts,
        compiler: ConstraintCompiler,
        n_ctx: int,
        *,
        vision: Vision | None = None,
        n_ubatch: int = 0,
    ) -> None:
        """``n_ubatch``: most tokens that are evaluated at once; only asked with ``vision``."""
        self._vision = vision
        self._n_ubatch = n_ubatch
        self._vocab = vocab
        self._renderer = renderer
        self._template = template
        self._compiler = compiler
        self._n_ctx = n_ctx
        self._control_names = ControlNames(map(vocab.text, vocab.controls))

    async def generation(self, request: Generate, owner: object) -> Generation:
        """The generation that answers ``request``.

        Raises: BadRequest, BadTemplate, BadFormat, PromptTooLong, Unsupported.
        """
        self._check(request)
        prompt = await self._prompt(request)
        splitter = self._splitter(request, prompt.text)
        constraint = None
        form = request.grammar if request.format is None else request.format
        if form is not None:
            constraint = await self._compiler.compile(form, splitter)
        reader = AnswerReader(
            request.options.stop,
            splitter,
            ToolCallParser(self._template.call_tags, request.tools) if request.tools else None,
        )
        return Generation(
            request_id=request.id,
            owner=owner,
            prompt=np.array(prompt.tokens, np.int32),
            images=prompt.images,
            options=request.options,
            reader=reader,
            constraint=constraint,
            shift=request.shift,
            logprobs=request.logprobs or request.top_logprobs > 0,
            top_logprobs=request.top_logprobs,
            return_context=request.return_context,
        )

    async def render(self, request: Generate, *, whole: bool = False) -> tuple[str, int]:
        """The prompt's text and its number of tokens, as `generation` would evaluate them; ``whole``: before
        anything is cut to the context."""
        self._check(request)
        if whole:
            prompt = await self._tokens(request, [] if request.raw else _conversation(request))
        else:
            prompt = await self._prompt(request)
        return prompt.text, len(prompt)

    def preserved_tokens(self) -> list[int]:
        """Control tokens that mark thoughts and calls: their text is needed, where that of others is not."""
        vocab = self._vocab
        found = [
            vocab.tokenize(text, add_special=False, parse_special=True)
            for text in self._template.marker_texts()
        ]
        return [tokens[0] for tokens in found if len(tokens) == 1]

    def _check(self, request: Generate) -> None:
        check(request)
        if self._vision is None and (request.images or any(message.images for message in request.messages)):
            raise Unsupported(
                "reading the request: this model does not take images", hint="use a model with a projector"
            )

    # The prompt

    async def _prompt(self, request: Generate) -> Prompt:
        """Cut to the context where that is allowed."""
        messages = [] if request.raw else _conversation(request)
        prompt = await self._tokens(request, messages)
        if len(prompt) > self._n_ctx and request.truncate and request.prompt is None:
            prompt = await self._drop_oldest(request, messages, prompt)
        if len(prompt) > self._n_ctx:
            if not request.truncate or prompt.images:  # no image is cut through
                raise PromptTooLong(
                    f"reading the prompt: it has {len(prompt)} tokens, "
                    f"the context has room for {self._n_ctx}",
                    hint="shorten the prompt, or raise num_ctx",
                )
            prompt = Prompt(prompt.text, self._cut(prompt.tokens, request.options))
        if not prompt.tokens:
            raise BadRequest("reading the prompt: it is empty")
        return prompt

    async def _drop_oldest(self, request: Generate, messages: list[Message], best: Prompt) -> Prompt:
        """Drop as few of the oldest messages as make the rest fit: never a system message, never the last."""
        # Templates insist on turns, so what is left begins with a user's, or is the last message alone.
        starts = [i for i, message in enumerate(messages) if i and message.role == "user"]
        starts = sorted({*starts, len(messages) - 1} - {0})
        low, high = 0, len(starts) - 1
        while low <= high:
            middle = (low + high) // 2
            start = starts[middle]
            rest = [m for m in messages[:start] if m.role == "system"] + messages[start:]
            best = await self._tokens(request, rest)
            if middle == low == high:
                break
            if len(best) <= self._n_ctx:
                high = middle
            else:
                low = middle + 1
        return best

    async def _tokens(self, request: Generate, messages: Sequence[Message]) -> Prompt:
        shield = self._control_names.shield()
        messages = [with_image_marks(message, shield) for message in messages]
        text = await self._text(marked(request, shield), messages, shield)
        if text is None:
            if request.images:
                raise BadRequest("reading the request: images have no place in a text with a gap to fill")
            return await asyncio.to_thread(self._fill_in_the_middle, request)
        passages = shield.passages(text)
        files = [passage.image for passage in passages if passage.image is not None]
        images = [await self._image(file) for file in files]
        parts = await asyncio.to_thread(self._parts, passages, images)
        text = "".join(passage.text for passage in passages)
        return Prompt.of_parts(text, (request.context, *parts))

    def _parts(self, passages: Sequence[Passage], images: Sequence[ImageParts]) -> list[list[int] | ImagePiece]:
        """``images`` are those of the passages, in order."""
        parts: list[list[int] | ImagePiece] = [[]]
        waiting = iter(images)
        for i, passage in enumerate(passages):
            if passage.image is not None:
                parts += [*next(waiting), []]
                continue
            last = parts[-1]
            assert isinstance(last, list)
            last += self._vocab.tokenize(passage.text, add_special=i == 0, parse_special=not passage.is_plain)
        first = parts[0]
        assert isinstance(first, list)
        if passages and passages[0].image is not None:
            first += self._vocab.tokenize("", add_special=True, parse_special=False)
        elif self._vocab.add_bos and first[:2] == [self._vocab.bos] * 2:
            del first[0]  # the template writes it, and the tokenizer adds it again
        return parts

    async def _image(self, file: bytes) -> ImageParts:
        assert self._vision is not None
        parts = await self._vision.read(file)
        for part in parts:
            if isinstance(part, ImagePiece) and not part.causal and len(part) > self._n_ubatch:
                raise Unsupported(
                    f"reading a picture: the model must see {len(part)} tokens of it at once, "
                    f"and is loaded for {self._n_ubatch}",
                    hint="raise num_batch and num_ctx, or send a smaller picture",
                )
        return parts

    async def _text(self, request: Generate, messages: Sequence[Message], shield: Shield) -> str | None:
        """With marks of ``shield``. None: fill in the middle without a template."""
        prompt = request.prompt
        go = bool(request.template) or self._template.kind == "go"
        source = request.template or self._template.source
        if prompt is not None and request.suffix and not go:
            return None
        if prompt is not None and (request.raw or not source):
            return prompt
        prefill = ""
        if not go:
            messages, prefill = _without_prefill(messages)
            if not self._template.traits.takes_system:
                messages = _with_system_in_question(messages)
        job = RenderJob(
            kind="go" if go else "jinja",
            template=source or CHATML,
            messages=tuple(_template_message(message, shield) for message in messages),
            tools=tuple(shield.value(request.tools)),
            think=request.think,
            bos=self._template.bos,
            eos=self._template.eos,
        )
        if go and prompt is not None:
            job = structs.replace(
                job,
                messages=tuple(_template_message(message, shield) for message in request.messages),
                prompt=shield.text(prompt),
                suffix=shield.text(request.suffix),
                system=request.system,
            )
        return await self._renderer.render(job) + prefill

    def _fill_in_the_middle(self, request: Generate) -> Prompt:
        """Prefix, suffix, middle: the order that all models with these tokens are trained on."""
        vocab = self._vocab
        if NO_TOKEN in (vocab.fim_prefix, vocab.fim_suffix, vocab.fim_middle):
            raise Unsupported("reading the prompt: this model cannot insert text before a suffix")
        before = vocab.tokenize(request.prompt or "", add_special=False, parse_special=False)
        after = vocab.tokenize(request.suffix, add_special=False, parse_special=False)
        start = [vocab.bos] if vocab.add_bos else []
        tokens = [*start, vocab.fim_prefix, *before, vocab.fim_suffix, *after, vocab.fim_middle]
        return Prompt(vocab.detokenize(tokens), tokens)

    def _cut(self, tokens: list[int], options: Options) -> list[int]:
        """Keep the start, as far as `num_keep` says, and the end: an eighth of the context is left for the
        answer."""
        room = max(1, self._n_ctx - min(self._n_ctx // 8, 256))
        keep = room // 2 if options.num_keep < 0 else min(options.num_keep + self._vocab.add_bos, room - 1)
        return tokens[:keep] + tokens[len(tokens) - (room - keep) :]

    def _splitter(self, request: Generate, text: str) -> ThinkingSplitter | None:
        tags = self._template.thinking_tags
        if not request.think or tags is None or request.raw:
            return None
        return ThinkingSplitter(tags, primed=text.rstrip().endswith(tags.opening))


def _conversation(request: Generate) -> list[Message]:
    """The messages to render; a prompt is the last of them, its system message the first."""
    messages = list(request.messages)
    if request.prompt is None:
        return messages
    if request.system:
        messages = [Message(role="system", content=request.system), *messages]
    return [*messages, Message(role="user", content=request.prompt, images=request.images)]


def _without_prefill(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """An assistant's message at the end is the beginning of the answer, which the model is to go on with."""
    last = messages[-1]
    if len(messages) < 2 or last.role != "assistant" or last.tool_calls or not last.content:
        return messages, ""
    return messages[:-1], last.content


def _with_system_in_question(messages: Sequence[Message]) -> Sequence[Message]:
    """For templates that take no system message: it goes before the question that follows it."""
    if len(messages) < 2 or messages[0].role != "system" or messages[1].role != "user":
        return messages
    question = structs.replace(messages[1], content=f"{messages[0].content}\n\n{messages[1].content}")
    return [question, *messages[2:]]


def _template_message(message: Message, shield: Shield) -> dict[str, Any]:
    """A message as published templates expect it: absent fields absent, calls in OpenAI's shape."""
    # What the model itself and its operator wrote may well contain control tokens.
    is_trusted = message.role in ("system", "assistant")
    content = message.content if is_trusted else shield.text(message.content)
    result: dict[str, Any] = {"role": message.role, "content": content}
    if message.thinking:
        result["reasoning_content"] = result["thinking"] = message.thinking
    if message.tool_calls:
        result["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    for key, value in (
        ("name", message.name or message.tool_name),
        ("tool_name", message.tool_name),
        ("tool_call_id", message.tool_call_id),
    ):
        if value:
            result[key] = value
    return result
