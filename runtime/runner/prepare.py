"""From a request to a generation that the engine can take: check, render, tokenise, cut to the context.

Runs in the runner's event loop; the slow parts (rendering, tokenising, compiling a format) are done
elsewhere.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from msgspec import structs

from ..errors import BadRequest, PromptTooLong, Unsupported
from ..options import Options, context_of
from ..protocol import Generate, Message, TemplateKind, Think
from ..request_check import check
from .constraint import CallSyntax, ConstraintCompiler
from .conversation import template_messages, template_tools, without_prefill
from .generation import Constraint, Generation
from .image_cells import ImageParts, ImagePiece
from .llama import NO_TOKEN, LlamaVocab
from .output import AnswerReader
from .prompt import Prompt, marked, with_image_marks
from .renderer import Renderer, RenderJob
from .shield import ControlNames, Passage, Shield
from .template_traits import TemplateTraits
from .thinking import Splitter, ThinkingSplitter, ThinkingTags
from .thinking_budget import ThinkingBudget
from .tool_formats import harmony
from .tool_formats.parser import ToolCallParser
from .tool_formats.registry import BARE, format_named
from .tool_formats.tool_format import OfferedTools, ToolFormat

if TYPE_CHECKING:
    from .vision import Vision


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateFacts:
    """The template that chats are rendered with. ``kind`` "": the model brings none."""

    kind: TemplateKind = ""
    source: str = ""
    for_chats: str = ""
    """`source`, or what stands in for it."""
    bos: str = ""
    eos: str = ""
    traits: TemplateTraits = field(default_factory=TemplateTraits)

    @property
    def language(self) -> Literal["go", "jinja"]:
        return "go" if self.kind == "go" else "jinja"

    def marker_texts(self) -> list[str]:
        """Texts that a model writes to mark thoughts and calls, which may be control tokens."""
        if self.traits.is_harmony:
            return list(harmony.MARKERS)
        tags = self.traits.thinking_tags
        texts = (tags.opening, tags.closing, tags.answer_opening, tags.answer_closing) if tags else ()
        return [text for text in (*self.tool_format.markers, *texts) if text]

    @property
    def tool_format(self) -> ToolFormat:
        """How the model writes calls, unless in harmony."""
        return format_named(self.traits.tool_format, self.traits.tool_tag)


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
        self._preserved = self._preserved_tokens()

    @property
    def template(self) -> TemplateFacts:
        return self._template

    def with_template(self, template: TemplateFacts) -> Self:
        """One for the same model and another template."""
        other = copy.copy(self)
        other._template = template
        other._preserved = other._preserved_tokens()
        return other

    async def generation(self, request: Generate, owner: object) -> Generation:
        """The generation that answers ``request``.

        Raises: BadRequest, BadTemplate, BadFormat, PromptTooLong, Unsupported.
        """
        self._check(request)
        prompt = await self._prompt(request)
        splitter = self._splitter(request, prompt.text)
        constraint = await self._constraint(request, splitter)
        return Generation(
            request_id=request.id,
            owner=owner,
            prompt=np.array(prompt.tokens, np.int32),
            images=prompt.images,
            options=request.options,
            reader=self._reader(request, splitter),
            constraint=constraint,
            shift=request.shift,
            logprobs=request.logprobs or request.top_logprobs > 0,
            top_logprobs=request.top_logprobs,
            return_context=request.return_context,
            single_call=not request.tool_choice.parallel,
            preserved=self._preserved,
            tenant=request.tenant,
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

    def _preserved_tokens(self) -> frozenset[int]:
        """Control tokens that mark thoughts and calls: their text is needed, where that of others is not."""
        vocab = self._vocab
        controls = frozenset(vocab.controls)
        return frozenset(
            token
            for text in self._template.marker_texts()
            for token in vocab.tokenize(text, add_special=False, parse_special=True)
            if token in controls
        )

    def _check(self, request: Generate) -> None:
        check(request)
        if not all(0 <= token < self._vocab.size for token in request.context):
            # llama.cpp would refuse the batch that it is in, and with it the answers of others.
            raise BadRequest(f"reading context: expected ids of tokens, below {self._vocab.size}")
        if self._vision is None and (request.images or any(message.images for message in request.messages)):
            raise Unsupported(
                "reading the request: this model does not take images", hint="use a model with a projector"
            )

    # The prompt

    async def _prompt(self, request: Generate) -> Prompt:
        """Cut to the context where that is allowed."""
        messages = [] if request.raw else _conversation(request)
        n_ctx = context_of(request.options, self._n_ctx)
        prompt = await self._tokens(request, messages)
        if len(prompt) > n_ctx and request.truncate and request.prompt is None:
            prompt = await self._drop_oldest(request, messages, prompt, n_ctx)
        if len(prompt) > n_ctx:
            if not (request.truncate and request.shift) or prompt.images:  # no image is cut through
                raise PromptTooLong(
                    f"reading the prompt: it has {len(prompt)} tokens, the context has room for {n_ctx}",
                    hint="shorten the prompt, or raise num_ctx",
                )
            prompt = Prompt(prompt.text, self._cut(prompt.tokens, request.options, n_ctx))
        if not prompt.tokens:
            raise BadRequest("reading the prompt: it is empty")
        return prompt

    async def _drop_oldest(
        self, request: Generate, messages: list[Message], best: Prompt, n_ctx: int
    ) -> Prompt:
        """Drop as few of the oldest messages as make the rest fit: never a system message, never the last."""
        # Templates insist on turns, so what is left begins with a user's, or is the last message alone, with
        # the call that it is the result of.
        starts = [i for i, message in enumerate(messages) if i and message.role == "user"]
        last = max((i for i, message in enumerate(messages) if message.role != "tool"), default=0)
        starts = sorted({*starts, last} - {0})
        low, high = 0, len(starts) - 1
        while low <= high:
            middle = (low + high) // 2
            start = starts[middle]
            rest = [m for m in messages[:start] if m.role == "system"] + messages[start:]
            best = await self._tokens(request, rest)
            if middle == low == high:
                break
            if len(best) <= n_ctx:
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
        images = [await self._image(file, request.tenant) for file in files]
        parts = await asyncio.to_thread(self._parts, passages, images, begins=not request.context)
        text = "".join(passage.text for passage in passages)
        return Prompt.of_parts(text, (request.context, *parts))

    def _parts(
        self, passages: Sequence[Passage], images: Sequence[ImageParts], *, begins: bool
    ) -> list[list[int] | ImagePiece]:
        """``images`` are those of the passages, in order. ``begins``: nothing stands before them, so the
        token that the vocabulary begins texts with is added."""
        parts: list[list[int] | ImagePiece] = [[]]
        waiting = iter(images)
        for i, passage in enumerate(passages):
            if passage.image is not None:
                parts += [*next(waiting), []]
                continue
            last = parts[-1]
            assert isinstance(last, list)
            last += self._vocab.tokenize(
                passage.text, add_special=begins and i == 0, parse_special=not passage.is_plain
            )
        first = parts[0]
        assert isinstance(first, list)
        if begins and passages and passages[0].image is not None:
            first += self._vocab.tokenize("", add_special=True, parse_special=False)
        elif self._vocab.add_bos and first[:2] == [self._vocab.bos] * 2:
            del first[0]  # the template writes it, and the tokenizer adds it again
        return parts

    async def _image(self, file: bytes, tenant: str) -> ImageParts:
        assert self._vision is not None
        parts = await self._vision.read(file, tenant)
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
        # A request's own template takes whatever any Go template takes.
        traits = TemplateTraits() if request.template else self._template.traits
        if not go:
            messages, prefill = without_prefill(messages)
        job = RenderJob(
            kind="go" if go else "jinja",
            template=source or self._template.for_chats,
            messages=template_messages(messages, request.tools, traits, shield),
            tools=template_tools(request.tools, traits, shield),
            tool_list=traits.wants_tool_list,
            think=self._think(request.think),
            bos=self._template.bos,
            eos=self._template.eos,
        )
        if go and prompt is not None:
            job = structs.replace(
                job,
                messages=template_messages(request.messages, (), traits, shield),
                prompt=shield.text(prompt),
                suffix=shield.text(request.suffix),
                system=request.system,
            )
        text = await self._renderer.render(job, is_strange=bool(request.template))
        return text + self._closed_thoughts(request.think, text) + prefill

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

    def _cut(self, tokens: list[int], options: Options, n_ctx: int) -> list[int]:
        """Keep the start, as far as `num_keep` says, and the end: an eighth of the context is left for the
        answer."""
        room = max(1, n_ctx - min(n_ctx // 8, 256))
        keep = room // 2 if options.num_keep < 0 else min(options.num_keep + self._vocab.add_bos, room - 1)
        return tokens[:keep] + tokens[len(tokens) - (room - keep) :]

    # The answer

    def _splitter(self, request: Generate, text: str) -> ThinkingSplitter | harmony.HarmonyReader | None:
        """What tells thoughts from content in the answer to the prompt ``text``."""
        if request.raw:
            return None
        if self._template.traits.is_harmony:
            return harmony.HarmonyReader(OfferedTools(request.tools))
        tags = self._template.traits.thinking_tags
        if tags is None or request.think is None:
            return None
        return ThinkingSplitter(tags, primed=text.rstrip().endswith(tags.opening))

    def _reader(self, request: Generate, splitter: Splitter | None) -> AnswerReader:
        has_calls = bool(request.tools) and not self._template.traits.is_harmony
        tools = ToolCallParser(self._template.tool_format, OfferedTools(request.tools)) if has_calls else None
        return AnswerReader(request.options.stop, splitter, tools, hides_thoughts=request.think is False)

    async def _constraint(self, request: Generate, splitter: Splitter | None) -> Constraint | None:
        """What the answer must be like, once thoughts are over, and how long they may be."""
        constraint = await self._form(request, splitter)
        if request.max_thinking_tokens is None or splitter is None:
            return constraint
        closing = self._vocab.tokenize(self._closing(), add_special=False, parse_special=True)
        return ThinkingBudget(constraint, splitter, request.max_thinking_tokens, closing)

    async def _form(self, request: Generate, splitter: Splitter | None) -> Constraint | None:
        """What the answer must be like, once thoughts are over: its format, the calls that it has."""
        syntax = self._call_syntax(request) if request.tools else None
        if syntax is not None:
            thinking = splitter if request.think and isinstance(splitter, ThinkingSplitter) else None
            return await self._compiler.compile_calls(syntax, request, splitter, thinking)
        form = request.grammar if request.format is None else request.format
        if form is None:
            return None
        return await self._compiler.compile(form, self._free_before_format(request, splitter))

    def _call_syntax(self, request: Generate) -> CallSyntax | None:
        """How calls are written; None where that is not known, and nothing depends on it."""
        if self._template.traits.is_harmony:
            return CallSyntax(
                shape=harmony.SHAPE,
                markers=harmony.MARKERS,
                thought=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
                before_form=harmony.FINAL,
            )
        form = self._template.tool_format
        shape = form.shape
        if shape is None and request.tool_choice.mode == "required":
            shape = BARE.shape
        return CallSyntax(shape=shape, markers=form.markers, starts=form.starts) if shape else None

    def _free_before_format(self, request: Generate, splitter: Splitter | None) -> ThinkingSplitter | None:
        if self._template.traits.is_harmony and splitter is not None:
            return ThinkingSplitter(ThinkingTags("", harmony.FINAL), primed=True)
        return splitter if request.think and isinstance(splitter, ThinkingSplitter) else None

    def _closing(self) -> str:
        """What ends a thought, up to where the answer begins."""
        tags = self._template.traits.thinking_tags
        if tags is None:
            return f"<|end|><|start|>assistant{harmony.FINAL}"
        return f"\n{tags.closing}\n\n"

    def _think(self, think: Think | None) -> Think | None:
        """As the template is told: models that write harmony always think, and know three levels."""
        if not self._template.traits.is_harmony or think is None or think is True:
            return think
        return {False: "low", "max": "high"}.get(think, think)  # type: ignore[return-value]

    def _closed_thoughts(self, think: Think | None, text: str) -> str:
        """What the prompt ``text`` lacks to say that there are to be no thoughts, where the template cannot
        say so: a thought that is over already."""
        traits = self._template.traits
        tags = traits.thinking_tags
        if think is not False or tags is None or tags.is_prose or traits.switches_thinking:
            return ""
        opening = "" if text.rstrip().endswith(tags.opening) else f"{tags.opening}\n"
        return f"{opening}\n{tags.closing}\n\n"


def _conversation(request: Generate) -> list[Message]:
    """The messages to render; a prompt is the last of them, its system message the first."""
    messages = list(request.messages)
    if request.prompt is None:
        return messages
    if request.system:
        messages = [Message(role="system", content=request.system), *messages]
    return [*messages, Message(role="user", content=request.prompt, images=request.images)]
