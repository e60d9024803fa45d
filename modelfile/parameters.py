"""The parameters of a model: one table for the Modelfile's PARAMETER, a request's options, and the
documentation.

Sources: Ollama's `api.Options` and `Runner` (api/types.go), the Modelfile documentation, and llama.cpp's
`common_params_sampling` for what Ollama dropped and llama.cpp still does (mirostat). Ranges are advice:
Ollama checks none, so a value outside is the linter's business, never an error here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias, TypeGuard

from .diagnostics import quoted
from .errors import InputError
from .suggestion import did_you_mean

Value: TypeAlias = int | float | bool | str | list[str]


class ParameterType(StrEnum):
    INT = "int"
    """A 64-bit integer."""
    FLOAT = "float"
    """A finite 32-bit floating-point number."""
    BOOL = "bool"
    STRING = "string"
    STRINGS = "strings"
    """PARAMETER may be repeated, and each adds one string."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One row of the table."""

    name: str
    type: ParameterType
    default: Value | None
    """What counts where nobody sets it; None: chosen when the model is loaded."""
    meaning: str
    source: str
    """Who defines it."""
    low: float | None = None
    high: float | None = None
    """Sensible values are from `low` to `high`, both included; None: no bound."""
    also: tuple[float, ...] = ()
    """Sensible values outside of that, with a meaning of their own."""
    load_time: bool = False
    """Decides how the model is loaded: two requests that differ in it cannot share a loaded model."""
    deprecated: str | None = None
    """It is accepted and has no effect, for this reason."""

    def is_sensible(self, value: Value) -> bool:
        """Whether `value`, of this parameter's type, is in range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or value in self.also:
            return True
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def range(self) -> str:
        """The sensible values in words, for a message; empty where all are."""
        if self.low is None and self.high is None:
            return ""
        if self.high is None:
            words = f"{self.low:.10g} or more"
        elif self.low is None:
            words = f"{self.high:.10g} or less"
        else:
            words = f"{self.low:.10g} to {self.high:.10g}"
        return " or ".join([*(f"{value:g}" for value in self.also), words])


class BadParameter(InputError):
    """A parameter is not known, or its value is not of its type."""

    name: str
    value: object

    def __init__(self, message: str, *, name: str, value: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.value = value


def parse_value(name: str, text: str) -> Value:
    """The value that PARAMETER `name` gets from `text`, as Ollama reads it. Of `stop`: a list of that one
    string.

    Numbers are Go's `strconv.ParseInt` (base 10, 64 bits) and `ParseFloat` (32 bits), truths its `ParseBool`.
    Departure: `NaN` and infinities are refused here; Ollama accepts them and fails when it writes them as
    JSON. The value of a deprecated parameter is not checked, and is returned as it is.

    Raises: BadParameter.
    """
    spec = spec_of(name)
    if spec.deprecated is not None:
        return text
    parsed = _parse(spec.type, text)
    if parsed is None:
        expected = _EXPECTED[spec.type]
        message = f"invalid {spec.type} value {quoted(text)} of parameter {name}: expected {expected}"
        raise BadParameter(message, name=name, value=text, hint=_hint(spec))
    return parsed


def check_value(name: str, value: object) -> Value:
    """The value of option `name` in a request, from JSON, with Ollama's leniency: any number does for an
    integer, and is truncated. More lenient than Ollama: a single string does for `stop`.

    Raises: BadParameter.
    """
    spec = spec_of(name)
    match spec.type:
        case ParameterType.BOOL if isinstance(value, bool):
            return value
        case ParameterType.STRING if isinstance(value, str):
            return value
        case ParameterType.STRINGS if isinstance(value, str):
            return [value]
        case ParameterType.STRINGS if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return list(value)
        case ParameterType.INT if _is_number(value) and -(2**63) <= value < 2**63:
            return int(value)
        case ParameterType.FLOAT if _is_number(value) and abs(value) < _FLOAT32_MAX:
            return float(value)
    message = f'option "{name}" must be of type {_JSON_TYPE[spec.type]}'
    raise BadParameter(message, name=name, value=value, hint=_hint(spec))


def collect(pairs: Iterable[tuple[str, str]]) -> dict[str, Value]:
    """What a Modelfile's PARAMETER lines come to: the last of a name counts, `stop` accumulates, deprecated
    ones are left out. In the order of first appearance.

    Raises: BadParameter.
    """
    values: dict[str, Value] = {}
    for name, text in pairs:
        value = parse_value(name, text)
        if PARAMETERS[name].deprecated is not None:
            continue
        earlier = values.get(name)
        if isinstance(earlier, list) and isinstance(value, list):
            value = earlier + value
        values[name] = value
    return values


def value_text(value: Value) -> str:
    """`value` as PARAMETER takes it: `parse_value(name, value_text(v)) == v`. Not for lists: one line
    each."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def spec_of(name: str) -> ParameterSpec:
    """Raises: BadParameter where there is no such parameter; the hint names the nearest, or what replaced
    it."""
    spec = PARAMETERS.get(name)
    if spec is None:
        hint = REMOVED.get(name) or did_you_mean(name.replace("-", "_"), PARAMETERS)
        raise BadParameter(f"unknown parameter {quoted(name)}", name=name, hint=hint)
    return spec


def _hint(spec: ParameterSpec) -> str:
    return f"{spec.name}: {spec.meaning}" + (f"; {spec.range}" if spec.range else "")


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


# ---- Go's number syntax

_FLOAT32_MAX = 3.4028235677973366e38  # largest value that rounds to a finite 32-bit number
_INT = re.compile(r"[+-]?[0-9]{1,64}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?", re.ASCII)
_HEX_FLOAT = re.compile(
    r"[+-]?0[xX](?=_?[0-9a-fA-F]|\.)[0-9a-fA-F_]*\.?[0-9a-fA-F_]*[pP][+-]?[0-9]+", re.ASCII
)
_LONGEST_NUMBER = 512
_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)


def _parse_int(text: str) -> int | None:
    if not _INT.fullmatch(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


def _parse_float(text: str) -> float | None:
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        if _FLOAT.fullmatch(text):
            value = float(text)
        elif _HEX_FLOAT.fullmatch(text):
            value = float.fromhex(text.replace("_", ""))
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return value if abs(value) < _FLOAT32_MAX else None


def _parse(type_: ParameterType, text: str) -> Value | None:
    match type_:
        case ParameterType.INT:
            return _parse_int(text)
        case ParameterType.FLOAT:
            return _parse_float(text)
        case ParameterType.BOOL:
            return _BOOLS.get(text)
        case ParameterType.STRING:
            return text
        case ParameterType.STRINGS:
            return [text]


_EXPECTED = {
    ParameterType.INT: "a whole number, such as 42",
    ParameterType.FLOAT: "a number, such as 0.7",
    ParameterType.BOOL: "true or false",
    ParameterType.STRING: "text",
    ParameterType.STRINGS: "text",
}
_JSON_TYPE = {  # Ollama's words
    ParameterType.INT: "integer",
    ParameterType.FLOAT: "float32",
    ParameterType.BOOL: "boolean",
    ParameterType.STRING: "string",
    ParameterType.STRINGS: "array",
}

# ---- The table

_OLLAMA = "Ollama api.Options"
_RUNNER = "Ollama api.Runner"
_LLAMA = "llama.cpp common_params_sampling; dropped by Ollama in 2026"
_IGNORED = "Ollama accepts it with a warning and ignores it"
_INT32 = 2**31 - 1


def _spec(name: str, type_: str, default: Value | None, meaning: str, **more: object) -> ParameterSpec:
    facts: dict[str, object] = {"source": _OLLAMA, **more}
    return ParameterSpec(
        name=name,
        type=ParameterType(type_),
        default=default,
        meaning=meaning,
        **facts,  # type: ignore[arg-type]  # only called in the table below
    )


def _load(name: str, type_: str, default: Value | None, meaning: str, **more: object) -> ParameterSpec:
    return _spec(name, type_, default, meaning, source=_RUNNER, load_time=True, **more)


def _ignored(name: str, type_: str, meaning: str, instead: str) -> ParameterSpec:
    return _spec(name, type_, None, meaning, source=_IGNORED, deprecated=instead)


_TABLE = (
    # Length.
    _spec(
        "num_predict",
        "int",
        -1,
        "most tokens of an answer; -1: until the model ends, -2: until the context is full",
        low=1,
        high=_INT32,
        also=(-1, -2),
    ),
    _spec(
        "num_keep",
        "int",
        4,
        "tokens at the start of the prompt that stay when a full context is shifted; -1: all of them",
        low=0,
        high=_INT32,
        also=(-1,),
    ),
    _spec("stop", "strings", None, "text at which the answer ends, itself not part of it"),
    # Sampling.
    _spec(
        "seed", "int", -1, "seed of the sampler; -1: another one each time", low=0, high=2**32 - 1, also=(-1,)
    ),
    _spec("temperature", "float", 0.8, "randomness; 0: always the likeliest token", low=0, high=2),
    _spec("top_k", "int", 40, "choose among so many likeliest tokens; 0: among all", low=0, high=_INT32),
    _spec(
        "top_p",
        "float",
        0.9,
        "choose among the likeliest tokens that sum to this probability",
        low=0,
        high=1,
    ),
    _spec("min_p", "float", 0.0, "leave out tokens less likely than this times the likeliest", low=0, high=1),
    _spec("typical_p", "float", 1.0, "locally typical sampling; 1: off", low=0, high=1),
    _spec(
        "repeat_last_n",
        "int",
        64,
        "tokens looked back at for the three penalties; 0: none, -1: the whole context",
        low=0,
        high=_INT32,
        also=(-1,),
    ),
    _spec("repeat_penalty", "float", 1.0, "divides the score of tokens seen before; 1: off", low=0.1, high=2),
    _spec("presence_penalty", "float", 0.0, "taken off the score of tokens seen before", low=-2, high=2),
    _spec("frequency_penalty", "float", 0.0, "the same, for each time the token was seen", low=-2, high=2),
    _spec(
        "mirostat",
        "int",
        0,
        "1 or 2: Mirostat of that version in place of top_k, top_p, min_p and typical_p; 0: off",
        low=0,
        high=2,
        source=_LLAMA,
    ),
    _spec("mirostat_tau", "float", 5.0, "the surprise that Mirostat aims at", low=0, high=20, source=_LLAMA),
    _spec("mirostat_eta", "float", 0.1, "how fast Mirostat adapts", low=0, high=1, source=_LLAMA),
    # Loading.
    _load(
        "num_ctx",
        "int",
        None,
        "context of one conversation in tokens; 0: the server's default",
        low=4,
        high=_INT32,
        also=(0,),
    ),
    _load("num_batch", "int", 512, "most tokens evaluated in one step", low=1, high=65536),
    _load(
        "num_gpu",
        "int",
        -1,
        "layers on the GPU; -1: as many as fit, 0: none",
        low=0,
        high=100_000,
        also=(-1,),
    ),
    _load("main_gpu", "int", None, "the one GPU to use; -1: all", low=0, high=1023, also=(-1,)),
    _load("use_mmap", "bool", None, "map the weights into memory rather than reading them"),
    _load(
        "use_mlock",
        "bool",
        False,
        "lock the weights in memory, as far as the system's limit on locked memory allows",
    ),
    _load("num_thread", "int", None, "threads; 0: one for each physical core", low=0, high=4096),
    _load(
        "draft_num_predict",
        "int",
        None,
        "most tokens drafted in one step, by the draft model or, without one, from what was said before; "
        "0: none; by default 4 with a draft model, else 0",
        low=0,
        high=64,
        also=(-1,),
    ),
    # What Ollama still accepts and no longer heeds.
    _ignored("penalize_newline", "bool", "penalise newlines like other tokens", "llama.cpp dropped it"),
    _ignored("low_vram", "bool", "save GPU memory", "llama.cpp dropped it; set num_gpu"),
    _ignored("f16_kv", "bool", "16-bit key-value cache", "it is the default; see the server's settings"),
    _ignored("logits_all", "bool", "compute the logits of every token", "requests ask for log probabilities"),
    _ignored("vocab_only", "bool", "load no weights", "there is no use for it when serving"),
)

PARAMETERS: Mapping[str, ParameterSpec] = MappingProxyType({spec.name: spec for spec in _TABLE})
"""Every parameter, by name."""

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "numa": "Ollama removed it; remove the line",
        "num_gqa": "Ollama removed it; the GGUF file says it: remove the line",
        "tfs_z": "llama.cpp dropped tail-free sampling; use min_p or typical_p",
        "rope_frequency_base": "Ollama removed it; the GGUF file says it: remove the line",
        "rope_frequency_scale": "Ollama removed it; the GGUF file says it: remove the line",
    }
)
"""What Ollama once had and now refuses, with what to do."""
