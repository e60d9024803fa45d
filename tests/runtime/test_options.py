"""Options: defaults, precedence and leniency, and that the struct and the parameter table agree."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from lading.modelfile.parameters import PARAMETERS, BadParameter
from lading.runtime.options import LOAD_TIME, Options, resolve_options

CURRENT = {name: spec for name, spec in PARAMETERS.items() if spec.deprecated is None}


def test_the_struct_has_exactly_the_parameters_of_the_table() -> None:
    assert set(Options.__struct_fields__) == set(CURRENT) | {"logit_bias"}
    assert set(LOAD_TIME) == {name for name, spec in CURRENT.items() if spec.load_time}


@pytest.mark.parametrize("name", sorted(name for name, spec in CURRENT.items() if spec.default is not None))
def test_defaults_agree_with_the_table(name: str) -> None:
    assert getattr(Options(), name) == CURRENT[name].default


@pytest.mark.parametrize(
    ("params", "request_", "changed"),
    [
        pytest.param({}, {}, {}, id="nothing set"),
        pytest.param({"temperature": 0.1}, {}, {"temperature": 0.1}, id="model over default"),
        pytest.param({"temperature": 0.1}, {"temperature": 1}, {"temperature": 1.0}, id="request over model"),
        pytest.param({"temperature": 0.1}, {"temperature": None}, {"temperature": 0.1}, id="null is absent"),
        pytest.param({"stop": ["a"]}, {"stop": ["b"]}, {"stop": ("b",)}, id="stop is replaced, not added to"),
        pytest.param({}, {"stop": []}, {}, id="no stop"),
        pytest.param({}, {"num_predict": 12.9}, {"num_predict": 12}, id="numbers are truncated to integers"),
        pytest.param({}, {"banana": 1, "numa": True}, {}, id="unknown names are ignored"),
        pytest.param({"f16_kv": True, "low_vram": "x"}, {}, {}, id="deprecated names are ignored"),
        pytest.param({}, {"num_ctx": 0, "num_thread": -1, "num_gpu": -7}, {}, id="choose for me"),
        pytest.param({"num_ctx": 512}, {"num_ctx": 0}, {}, id="request takes the model's context back"),
        pytest.param({}, {"num_gpu": 0, "main_gpu": 0}, {"num_gpu": 0, "main_gpu": 0}, id="zero has meaning"),
        pytest.param({}, {"use_mmap": False}, {"use_mmap": False}, id="boolean"),
        pytest.param(
            {},
            {"logit_bias": {"7": -100, "3": 900}},
            {"logit_bias": ((3, 100.0), (7, -100.0))},
            id="logit bias",
        ),
    ],
)
def test_later_sources_win(params: dict[str, Any], request_: dict[str, Any], changed: dict[str, Any]) -> None:
    assert resolve_options(params, request_) == msgspec.structs.replace(Options(), **changed)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("num_ctx", "4096", 'option "num_ctx" must be of type integer'),
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", True, 'option "temperature" must be of type float32'),
        ("temperature", math.nan, 'option "temperature" must be of type float32'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("stop", [1], 'option "stop" must be of type array'),
        ("seed", 2**70, 'option "seed" must be of type integer'),
        ("logit_bias", {"x": 1}, 'option "logit_bias" must be an object of token ids and numbers'),
        ("logit_bias", [1], 'option "logit_bias" must be an object of token ids and numbers'),
        ("logit_bias", {"1": math.nan}, 'option "logit_bias" must be an object of token ids and numbers'),
    ],
)
def test_wrong_types_are_refused(name: str, value: object, sentence: str) -> None:
    with pytest.raises(BadParameter) as caught:
        resolve_options({}, {name: value})
    assert caught.value.message == sentence


def test_only_what_differs_crosses_the_wire() -> None:
    options = resolve_options({}, {"temperature": 0, "stop": ["x"]})
    assert msgspec.json.encode(options) == b'{"stop":["x"],"temperature":0.0}'
    assert msgspec.json.decode(msgspec.json.encode(options), type=Options) == options
