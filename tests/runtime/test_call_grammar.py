"""The grammar of every format of tool calls against its parser: whatever the one allows, the other reads.

Texts are drawn at random from the grammar, with the tiny model's vocabulary but without the model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest
from command import TINY_CHAT

from lading.runtime.runner.answer import Call, merged
from lading.runtime.runner.call_grammar import possible_calls, required_calls
from lading.runtime.runner.guidance import Matcher, json_grammar, lark_grammar, problem_of, tokenizer_of
from lading.runtime.runner.lark_text import Spelling
from lading.runtime.runner.llama import LlamaModel, LlamaVocab, ModelSettings
from lading.runtime.runner.llama_log import LlamaLog, start_backend
from lading.runtime.runner.tool_formats import harmony
from lading.runtime.runner.tool_formats.parser import ToolCallParser
from lading.runtime.runner.tool_formats.registry import FORMATS
from lading.runtime.runner.tool_formats.tool_format import OfferedTools
from lading.runtime.runner.tool_schema import callable_tools

TEXT = {"type": "string", "maxLength": 5}
SCHEMAS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {"city": TEXT, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["city"],
    },
    "book_seat": {
        "type": "object",
        "properties": {
            "who": {"$ref": "#/$defs/person"},
            "seats": {"type": "array", "items": {"enum": ["A1", "B2"]}, "minItems": 1, "maxItems": 2},
            "cabin": {"enum": ["first", "second class"]},
            "on": {"type": "boolean"},
            "zip": {"type": "string", "pattern": "^[0-9]{3}$"},
            "price": {"type": "number", "minimum": 0, "maximum": 5, "multipleOf": 0.5},
            "note": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 9}, {"type": "null"}]},
        },
        "required": ["who", "cabin", "zip"],
        "$defs": {"person": {"type": "object", "properties": {"name": TEXT}, "required": ["name"]}},
    },
    "now": {"type": "object", "properties": {}},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
NAMES = [name for name, form in FORMATS.items() if form.shape is not None]
MOST = 400
"""Tokens of a text; one that is longer is given up."""


class Walker:
    """Draws texts from grammars."""

    def __init__(self, vocab: LlamaVocab) -> None:
        self.vocab = vocab
        self.tokenizer = tokenizer_of(vocab)

    def spelling(self, markers: Sequence[str]) -> Spelling:
        tokens = {
            marker: self.vocab.tokenize(marker, add_special=False, parse_special=True)
            for marker in markers
            if marker
        }
        controls = {marker: ids[0] for marker, ids in tokens.items() if len(ids) == 1}
        return Spelling({m: i for m, i in controls.items() if self.tokenizer.is_special_token(i)})

    def text(self, grammar: str, seed: int) -> str | None:
        """A text, or None where it does not come to an end."""
        chance = random.Random(seed)
        matcher = Matcher(self.tokenizer, grammar)
        mask = np.zeros((1, (self.vocab.size + 31) // 32), np.int32)
        tokens: list[int] = []
        while len(tokens) < MOST and not matcher.must_end:
            run = list(matcher.forced())
            if not run:
                matcher.fill(mask)
                bits = np.unpackbits(mask.view(np.uint8)[0], bitorder="little", count=self.vocab.size)
                run = [int(chance.choice(np.flatnonzero(bits).tolist()))]
                if self.vocab.is_end(run[0]):
                    break
            matcher.consume(run)
            tokens += run
        text = b"".join(self.vocab.piece(token, special=True) for token in tokens)
        return text.decode() if matcher.may_end else None


@pytest.fixture(scope="module")
def walker() -> Iterator[Walker]:
    log = LlamaLog()
    log.install()
    start_backend()
    model = LlamaModel(ModelSettings(paths=(str(TINY_CHAT),)), log, lambda _fraction: True)
    yield Walker(model.vocab)
    model.close()


@pytest.mark.parametrize("name", NAMES)
def test_what_the_grammar_allows_the_parser_reads(walker: Walker, name: str) -> None:
    form = FORMATS[name]
    assert form.shape is not None
    spelling = walker.spelling(form.markers)
    grammar = lark_grammar(required_calls(form.shape, callable_tools(TOOLS), spelling, many=True))
    called: set[str] = set()
    for seed in range(8):
        if (text := walker.text(grammar, seed)) is None:
            continue
        parser = ToolCallParser(form, OfferedTools(TOOLS))
        pieces = merged([*parser.push(text), *parser.finish()])
        assert all(isinstance(piece, Call) for piece in pieces), text
        for call in pieces:
            assert isinstance(call, Call)
            jsonschema.validate(call.arguments, SCHEMAS[call.name])
            called.add(call.name)
    assert len(called) >= 2


@pytest.mark.parametrize("name", [*NAMES, "harmony"])
def test_a_possible_call_is_free_until_it_begins(walker: Walker, name: str) -> None:
    shape = harmony.SHAPE if name == "harmony" else FORMATS[name].shape
    spelling = walker.spelling(harmony.MARKERS if name == "harmony" else FORMATS[name].markers)
    assert shape is not None
    grammar = lark_grammar(possible_calls(shape, callable_tools(TOOLS), spelling, many=True))
    beginning = Matcher(walker.tokenizer, grammar)
    for text in ("Hello", "<", "{}", '{"a": [1, 2]}', "日本"):
        free = beginning.copy()
        free.read(text.encode())
        assert free.may_end
    call = beginning.copy()
    call.read(f"{shape.opening}{shape.before_name}get_weather{shape.after_name}".encode())
    assert not call.may_end
    for rest in ("!", "\x00"):
        with pytest.raises(Exception, match="following the format"):
            call.copy().read(rest.encode())


def test_a_grammar_needs_no_model_to_be_tried() -> None:
    tools = callable_tools(TOOLS)
    for form in FORMATS.values():
        if form.shape is not None:
            assert problem_of(lark_grammar(required_calls(form.shape, tools, Spelling({}), many=True))) == ""
    assert problem_of(json_grammar({"type": "nonsense"})) != ""
