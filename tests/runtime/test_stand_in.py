"""Templates for models that bring none."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from command import TINY_CHAT
from live_runner import ask, chat, live_runner

from lading.runtime.protocol import Generate, Message
from lading.runtime.runner.chat_template import ChatTemplate, template_variables
from lading.runtime.runner.stand_in import CHATML, FAMILIES, TurnFamily, stand_in
from lading.runtime.runner.template_traits import traits_of_jinja

TURNS: Any = [
    {"role": "user", "content": "Q"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "R"},
]


def render(family: TurnFamily, messages: list[dict[str, str]]) -> str:
    template = ChatTemplate(family.template)
    return template.render(template_variables(messages, (), think=None, bos="", eos=""))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        (
            "chatml",
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "llama-3",
            "<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nA<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nR<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            "gemma",
            "<start_of_turn>user\nQ<end_of_turn>\n<start_of_turn>model\nA<end_of_turn>\n"
            "<start_of_turn>user\nR<end_of_turn>\n<start_of_turn>model\n",
        ),
        ("mistral", "[INST]Q[/INST]A</s>[INST]R[/INST]"),
        (
            "harmony",
            "<|start|>user<|message|>Q<|end|><|start|>assistant<|channel|>final<|message|>A<|end|>"
            "<|start|>user<|message|>R<|end|><|start|>assistant",
        ),
        ("glm", "[gMASK]<sop><|user|>\nQ<|assistant|>\nA<|user|>\nR<|assistant|>\n"),
        ("phi-3", "<|user|>\nQ<|end|>\n<|assistant|>\nA<|end|>\n<|user|>\nR<|end|>\n<|assistant|>\n"),
    ],
)
def test_turns_of_a_family(name: str, prompt: str) -> None:
    (family,) = (family for family in FAMILIES if family.name == name)
    assert render(family, TURNS) == prompt


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_vocabulary_tells_its_family(family: TurnFamily) -> None:
    assert stand_in([*family.tokens, "<unk>", "<pad>"]) is family
    traits = traits_of_jinja(ChatTemplate(family.template), family.template)
    assert traits.takes_system == ("system" in family.openings)
    assert traits.takes_neighbours
    assert traits.is_harmony == (family.name == "harmony")


def test_a_vocabulary_of_no_family_gets_chatml() -> None:
    assert stand_in(["<s>", "</s>"]) is CHATML
    assert stand_in(["<|user|>", "[INST]"]) is CHATML


def test_a_model_without_a_template_chats(tmp_path: Path) -> None:
    data = TINY_CHAT.read_bytes()
    assert data.count(b"tokenizer.chat_template") == 1
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_unknown_"))
    with live_runner(bare, n_ctx=256) as runner:
        assert runner.ready and runner.ready.template == "stand-in"

        async def body() -> None:
            async with runner.client() as client:
                messages = (Message("system", "Be brief."), Message("user", "What is the capital of France?"))
                rendered = await client.render(Generate(id=0, messages=messages))
                assert rendered.prompt == (
                    "<|im_start|>system\nBe brief.<|im_end|>\n"
                    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
                )
                assert "Paris" in (await ask(client, chat("What is the capital of France?"))).text

        asyncio.run(body())
