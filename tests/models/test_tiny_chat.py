"""Static facts of examples/models/tiny-chat.gguf: size, metadata, vocabulary, tensors, chat template."""

import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

MODEL = Path(__file__).parents[2] / "examples" / "models" / "tiny-chat.gguf"
MARKERS = {
    "<|endoftext|>": gguf.TokenType.CONTROL,
    "<|im_start|>": gguf.TokenType.CONTROL,
    "<|im_end|>": gguf.TokenType.CONTROL,
    "<think>": gguf.TokenType.USER_DEFINED,
    "</think>": gguf.TokenType.USER_DEFINED,
    "<tool_call>": gguf.TokenType.USER_DEFINED,
    "</tool_call>": gguf.TokenType.USER_DEFINED,
    "<tool_response>": gguf.TokenType.USER_DEFINED,
    "</tool_response>": gguf.TokenType.USER_DEFINED,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = {"role": "user", "content": "Hello!"}
ASKED = "<|im_start|>user\nHello!<|im_end|>\n"


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(MODEL)


@pytest.fixture(scope="module")
def metadata(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


@pytest.fixture(scope="module")
def vocabulary(metadata: dict[str, Any]) -> list[str]:
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    return tokens


def render(metadata: dict[str, Any], messages: list[dict[str, Any]], **variables: Any) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(metadata["tokenizer.chat_template"])
    return template.render(messages=messages, **variables)


def test_is_at_most_five_megabytes() -> None:
    assert MODEL.stat().st_size <= 5_000_000


def test_says_what_it_is(metadata: dict[str, Any]) -> None:
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "Tiny Chat"
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert metadata["llama.context_length"] == 2048
    assert metadata["tokenizer.ggml.model"] == "gpt2"


def test_widths_are_multiples_of_256_so_that_k_quants_apply(
    metadata: dict[str, Any], reader: gguf.GGUFReader
) -> None:
    assert metadata["llama.embedding_length"] % 256 == 0
    assert metadata["llama.feed_forward_length"] % 256 == 0
    assert all(tensor.shape[0] % 256 == 0 for tensor in reader.tensors)


def test_has_the_tensors_that_the_metadata_promise(metadata: dict[str, Any], reader: gguf.GGUFReader) -> None:
    names = {tensor.name for tensor in reader.tensors}
    per_block = {name.split(".", 2)[2] for name in names if name.startswith("blk.0.")}
    blocks = metadata["llama.block_count"]
    assert names == {"token_embd.weight", "output_norm.weight"} | {
        f"blk.{block}.{name}" for block in range(blocks) for name in per_block
    }


def test_vocabulary_is_small_and_without_repetition(vocabulary: list[str], metadata: dict[str, Any]) -> None:
    assert len(set(vocabulary)) == len(vocabulary) == metadata["llama.vocab_size"] <= 2048


def test_markers_are_single_tokens_of_the_right_type(vocabulary: list[str], metadata: dict[str, Any]) -> None:
    kinds = metadata["tokenizer.ggml.token_type"]
    assert {marker: kinds[vocabulary.index(marker)] for marker in MARKERS} == MARKERS


def test_ends_with_im_end(vocabulary: list[str], metadata: dict[str, Any]) -> None:
    assert vocabulary[metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert metadata["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("variables", "opening"),
    [
        pytest.param({}, "", id="thinking-not-said"),
        pytest.param({"enable_thinking": False}, "<think>\n\n</think>\n\n", id="thinking-off"),
        pytest.param({"enable_thinking": True}, "<think>\n", id="thinking-on"),
    ],
)
def test_template_opens_the_answer(metadata: dict[str, Any], variables: dict[str, Any], opening: str) -> None:
    text = render(metadata, [QUESTION], add_generation_prompt=True, **variables)
    assert text == f"{ASKED}<|im_start|>assistant\n{opening}"


def test_template_puts_the_system_prompt_first(metadata: dict[str, Any]) -> None:
    text = render(metadata, [{"role": "system", "content": "You are a pirate."}, QUESTION])
    assert text == f"<|im_start|>system\nYou are a pirate.<|im_end|>\n{ASKED}"


@pytest.mark.parametrize("system", ["", "You are a pirate."], ids=["without-system", "with-system"])
def test_template_offers_tools_in_the_system_turn(metadata: dict[str, Any], system: str) -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    text = render(metadata, [*messages, QUESTION], tools=[WEATHER])
    start = f"{system}\n\n# Tools" if system else "# Tools"
    assert text.startswith(f"<|im_start|>system\n{start}\n<tools>\n{json.dumps(WEATHER)}\n</tools>\n")
    assert text.endswith(f"<|im_end|>\n{ASKED}")


@pytest.mark.parametrize("arguments", [{"city": "Paris"}, '{"city": "Paris"}'], ids=["object", "text"])
def test_template_writes_calls_and_results(metadata: dict[str, Any], arguments: Any) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": "cold"},
    ]
    assert render(metadata, messages) == (
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n'
        "</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n"
        "<tool_response>\ncold\n</tool_response><|im_end|>\n"
    )


def test_template_keeps_the_history_as_it_was_generated(metadata: dict[str, Any]) -> None:
    """The next prompt begins with this prompt and its answer, so that caches can be reused."""
    first = render(metadata, [QUESTION], add_generation_prompt=True)
    history = [QUESTION, {"role": "assistant", "content": "Hello! How can I help you?"}, QUESTION]
    assert render(metadata, history).startswith(f"{first}Hello! How can I help you?<|im_end|>\n")
