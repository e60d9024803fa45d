"""Constrained output: what a format allows next. Runner process only.

A format that cannot be compiled is an error. It never means unconstrained output.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import BadFormat
from ..protocol import Generate, Grammar
from .after_thinking import AfterThinking
from .call_grammar import calls_or_form, json_rule, possible_calls, required_calls
from .format_constraint import FormatConstraint
from .generation import Constraint
from .grammar_bounds import check_grammar, check_regex, check_schema
from .guidance import Matcher, json_grammar, lark_grammar, regex_grammar, tokenizer_of
from .lark_text import Spelling
from .llama import LlamaVocab
from .possible_calls import PossibleCalls
from .renderer import Renderer
from .thinking import Splitter, ThinkingSplitter
from .tool_formats.tool_format import CallShape
from .tool_schema import CallableTool, callable_tools

if TYPE_CHECKING:
    import llguidance

Form = Literal["json"] | Mapping[str, Any] | Grammar
"""JSON, a JSON Schema, or a grammar."""

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSyntax:
    """How a model writes calls, and what it may write before them."""

    shape: CallShape
    markers: Sequence[str]
    """Texts that may be control tokens."""
    starts: Sequence[str] = ()
    """What an answer begins with that is calls, where the shape has no trigger."""
    thought: tuple[str, str] | None = None
    """What stands around a thought that may come first, where that is no part of what is spared anyway."""
    before_form: str = ""
    """What an answer of a given format begins with."""


_KEPT = 32


class ConstraintCompiler:
    """Compiles formats for one vocabulary, and keeps those used last. For one event loop; the slow parts are
    done in threads."""

    def __init__(self, vocab: LlamaVocab, renderer: Renderer) -> None:
        self._vocab = vocab
        self._renderer = renderer
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._making_tokenizer = threading.Lock()
        self._known: OrderedDict[str, Matcher] = OrderedDict()

    async def compile(self, form: Form, thinking: ThinkingSplitter | None = None) -> Constraint:
        """The constraint for a format; it spares the thoughts that ``thinking`` will find in the answer.

        Raises: BadFormat.
        """
        return self._after(thinking, await self._matcher(await self._grammar(form)))

    async def compile_calls(
        self,
        syntax: CallSyntax,
        request: Generate,
        splitter: Splitter | None,
        thinking: ThinkingSplitter | None,
    ) -> Constraint:
        """The constraint for the calls that an answer to ``request`` may or must come to, and for its format.

        ``splitter`` is what the answer's text runs through; ``thinking`` finds the thoughts that are spared
        where the answer must begin with something.

        Raises: BadRequest, BadFormat.
        """
        shape, choice = syntax.shape, request.tool_choice
        tools = callable_tools(request.tools, choice.names)
        form = request.grammar if request.format is None else request.format
        spelling = Spelling(await self._control_texts(syntax.markers))
        is_required = choice.mode == "required"
        many = choice.parallel and not (is_required and len(choice.names) == 1)
        try:
            if form is None and not is_required:
                lark = possible_calls(shape, tools, spelling, many=many)
                beginning = await self._matcher(lark_grammar(lark))
                return PossibleCalls(
                    beginning, self._vocab, trigger=shape.trigger, starts=syntax.starts, thinking=splitter
                )
            calls = required_calls(shape, tools, spelling, many=many, thought=syntax.thought)
            grammar = lark_grammar(calls)
            if form is not None and not is_required:
                grammar = calls_or_form(calls, await self._grammar(form), spelling(syntax.before_form))
            return self._after(thinking, await self._matcher(grammar))
        except BadFormat:
            await self._blame(tools)
            raise

    async def _blame(self, tools: Sequence[CallableTool]) -> None:
        """Raises: BadFormat that names the tool whose schema cannot be compiled, if there is one."""
        for tool in tools:
            try:
                await self._renderer.try_grammar(lark_grammar(f"start: {json_rule(tool)}"))
            except BadFormat as error:
                raise BadFormat(f"reading the tool {tool.name}: {error.message}", hint=error.hint) from error

    async def _control_texts(self, markers: Sequence[str]) -> dict[str, int]:
        """The tokens of those markers that are no text for llguidance."""
        tokenizer = await asyncio.to_thread(self._tokenizer_once)
        found = {
            marker: self._vocab.tokenize(marker, add_special=False, parse_special=True)
            for marker in markers
            if marker
        }
        return {
            marker: tokens[0]
            for marker, tokens in found.items()
            if len(tokens) == 1 and tokenizer.is_special_token(tokens[0])
        }

    def _after(self, thinking: ThinkingSplitter | None, matcher: Matcher) -> Constraint:
        constraint = FormatConstraint(matcher, self._vocab.size)
        if thinking is None:
            return constraint
        return AfterThinking(constraint, thinking.tags, self._vocab, primed=thinking.primed)

    async def _grammar(self, form: Form) -> str:
        """In llguidance's notation; its bounds are kept, but nobody has tried to compile it."""
        if form == "json":
            return json_grammar(_ANY_OBJECT)
        if isinstance(form, Mapping):
            check_schema(form)
            return json_grammar(form)
        if form.syntax == "regex":
            check_regex(form.definition)
            return regex_grammar(form.definition)
        check_grammar(form.definition)
        if form.syntax == "gbnf":
            return lark_grammar(await self._renderer.lark_of_gbnf(form.definition))
        return lark_grammar(form.definition)

    async def _matcher(self, grammar: str) -> Matcher:
        """At the beginning of an answer."""
        known = self._known.get(grammar)
        if known is None:
            await self._renderer.try_grammar(grammar)
            known = self._known[grammar] = await asyncio.to_thread(self._compiled, grammar)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(grammar)
        return known.copy()

    def _compiled(self, grammar: str) -> Matcher:
        return Matcher(self._tokenizer_once(), grammar)

    def _tokenizer_once(self) -> llguidance.LLTokenizer:
        with self._making_tokenizer:
            if self._tokenizer is None:
                self._tokenizer = tokenizer_of(self._vocab)
            return self._tokenizer
