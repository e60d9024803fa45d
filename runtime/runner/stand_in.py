"""Chat templates for models that bring none, told by the control tokens of their vocabulary.

A model that was trained to chat has tokens that part its turns, and those name its family. Only what every
member of a family was trained on is written: turns, without tools and thoughts. Where no family is known,
turns are ChatML's, as they are in llama.cpp.
"""

# ruff: noqa: RUF001 - DeepSeek's tokens are made of such bars

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFamily:
    """How turns are written: ``opening content closing``."""

    name: str
    tokens: tuple[str, ...]
    """The control tokens that a vocabulary of this family has."""
    openings: Mapping[str, str]
    """By role; a family without "system" takes no system messages."""
    closing: str = ""
    closings: Mapping[str, str] = field(default_factory=dict)
    """By role, where they differ from ``closing``."""
    asking: str = ""
    """What asks for an answer; "": the assistant's opening."""
    beginning: str = ""
    """What stands before all turns, beside the BOS token."""

    @property
    def template(self) -> str:
        """In Jinja."""
        closings = {role: self.closings.get(role, self.closing) for role in self.openings}
        asking = self.asking or self.openings["assistant"]
        return (
            f"{{%- set openings = {_literal(dict(self.openings))} -%}}"
            f"{{%- set closings = {_literal(closings)} -%}}"
            f"{{{{- {_literal(self.beginning)} -}}}}"
            "{%- for message in messages -%}"
            "{%- set role = message.role if message.role in openings else 'user' -%}"
            "{%- if message.role == 'system' != role -%}"
            "{{ raise_exception('there is no place for a system message') }}{%- endif -%}"
            "{{- openings[role] ~ message.content ~ closings[role] -}}"
            "{%- endfor -%}"
            f"{{%- if add_generation_prompt -%}}{{{{- {_literal(asking)} -}}}}{{%- endif -%}}"
        )


def _literal(value: str | dict[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _by_role(pattern: str, **names: str) -> dict[str, str]:
    roles = {"system": "system", "user": "user", "assistant": "assistant"} | names
    return {role: pattern.format(name) for role, name in roles.items()}


CHATML = TurnFamily(
    name="chatml",
    tokens=("<|im_start|>", "<|im_end|>"),
    openings=_by_role("<|im_start|>{}\n"),
    closing="<|im_end|>\n",
)

FAMILIES = (
    TurnFamily(
        name="harmony",
        tokens=("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        openings=_by_role("<|start|>{}<|message|>", assistant="assistant<|channel|>final"),
        closing="<|end|>",
        asking="<|start|>assistant",
    ),
    TurnFamily(
        name="llama-3",
        tokens=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        openings=_by_role("<|start_header_id|>{}<|end_header_id|>\n\n"),
        closing="<|eot_id|>",
    ),
    TurnFamily(
        name="llama-4",
        tokens=("<|header_start|>", "<|header_end|>", "<|eot|>"),
        openings=_by_role("<|header_start|>{}<|header_end|>\n\n"),
        closing="<|eot|>",
    ),
    TurnFamily(
        name="gemma",
        tokens=("<start_of_turn>", "<end_of_turn>"),
        openings={"user": "<start_of_turn>user\n", "assistant": "<start_of_turn>model\n"},
        closing="<end_of_turn>\n",
    ),
    TurnFamily(
        name="phi-4",
        tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        openings=_by_role("<|im_start|>{}<|im_sep|>"),
        closing="<|im_end|>",
    ),
    CHATML,
    TurnFamily(
        name="command-r",
        tokens=("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        openings=_by_role(
            "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>", system="SYSTEM", user="USER", assistant="CHATBOT"
        ),
        closing="<|END_OF_TURN_TOKEN|>",
    ),
    TurnFamily(
        name="granite",
        tokens=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
        openings=_by_role("<|start_of_role|>{}<|end_of_role|>"),
        closing="<|end_of_text|>\n",
    ),
    TurnFamily(
        name="deepseek",
        tokens=("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        openings={"system": "", "user": "<｜User｜>", "assistant": "<｜Assistant｜>"},
        closings={"assistant": "<｜end▁of▁sentence｜>"},
    ),
    TurnFamily(
        name="glm",
        tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        openings=_by_role("<|{}|>\n"),
        beginning="[gMASK]<sop>",
    ),
    TurnFamily(
        name="phi-3",
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
        openings=_by_role("<|{}|>\n"),
        closing="<|end|>\n",
    ),
    TurnFamily(
        name="mistral",
        tokens=("[INST]", "[/INST]"),
        openings={"user": "[INST]", "assistant": ""},
        closings={"user": "[/INST]", "assistant": "</s>"},
    ),
)
"""The first of which a vocabulary has all tokens is the model's."""


def stand_in(control_tokens: Collection[str]) -> TurnFamily:
    """The family that a vocabulary with these control tokens belongs to."""
    known = frozenset(control_tokens)
    return next((family for family in FAMILIES if known.issuperset(family.tokens)), CHATML)
