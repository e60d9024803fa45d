"""The parameter table, values as PARAMETER writes them, and values as a request has them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from lading.modelfile.parameters import (
    PARAMETERS,
    REMOVED,
    BadParameter,
    ParameterType,
    check_value,
    collect,
    parse_value,
    value_text,
)
from lading.runtime.options import LOAD_TIME, Options


def test_table_agrees_with_the_options_of_a_request() -> None:
    options = Options()
    known = {name for name in Options.__struct_fields__ if name != "logit_bias"}
    assert known == {name for name, spec in PARAMETERS.items() if spec.deprecated is None}
    assert {name for name, spec in PARAMETERS.items() if spec.load_time} == set(LOAD_TIME)
    for name, spec in PARAMETERS.items():
        if spec.deprecated is None and spec.default is not None:
            assert getattr(options, name) == spec.default, name


@pytest.mark.parametrize("spec", PARAMETERS.values(), ids=PARAMETERS.keys())
def test_each_row_is_sound(spec: Any) -> None:
    assert spec.meaning and not spec.meaning.endswith(".")
    assert spec.source
    if spec.default is not None and spec.deprecated is None:
        assert check_value(spec.name, spec.default) == spec.default
        assert spec.is_sensible(spec.default)
        assert parse_value(spec.name, value_text(spec.default)) == spec.default


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "42", 42),
        ("seed", "+42", 42),
        ("seed", "-9223372036854775808", -(2**63)),
        ("temperature", "1", 1.0),
        ("temperature", ".5", 0.5),
        ("temperature", "5.", 5.0),
        ("temperature", "1e-3", 0.001),
        ("temperature", "0x1p-2", 0.25),
        ("temperature", "3.4e38", 3.4e38),
        ("use_mmap", "T", True),
        ("use_mmap", "False", False),
        ("stop", "", [""]),
        ("stop", " a ", [" a "]),
        ("penalize_newline", "anything", "anything"),
        ("mirostat", "2", 2),
    ],
)
def test_values_are_read_as_go_reads_them(name: str, text: str, value: object) -> None:
    parsed = parse_value(name, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("seed", ""),
        ("seed", "1.5"),
        ("seed", "1_000"),
        ("seed", " 1"),
        ("seed", "0x10"),
        ("seed", "9223372036854775808"),
        ("seed", "1" * 5000),
        ("seed", "\u0661"),
        ("temperature", "hot"),
        ("temperature", "1,5"),
        ("temperature", "1_0"),
        ("temperature", "NaN"),
        ("temperature", "inf"),
        ("temperature", "1e39"),
        ("temperature", "1e999999999"),
        ("temperature", "0x10"),
        ("use_mmap", "yes"),
        ("use_mmap", "tRUE"),
        ("use_mmap", ""),
    ],
)
def test_other_values_are_refused(name: str, text: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_value(name, text)
    assert caught.value.name == name
    assert "expected" in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("seed", 42, 42),
        ("seed", 42.9, 42),
        ("seed", -1.5, -1),
        ("temperature", 1, 1.0),
        ("use_mmap", False, False),
        ("stop", ["a", "b"], ["a", "b"]),
        ("stop", "a", ["a"]),
        ("stop", [], []),
    ],
)
def test_json_values_are_taken_leniently(name: str, given: object, value: object) -> None:
    checked = check_value(name, given)
    assert checked == value
    assert type(checked) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("seed", "42", 'option "seed" must be of type integer'),
        ("seed", True, 'option "seed" must be of type integer'),
        ("seed", None, 'option "seed" must be of type integer'),
        ("seed", float("nan"), 'option "seed" must be of type integer'),
        ("seed", 2**63, 'option "seed" must be of type integer'),
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", 1e39, 'option "temperature" must be of type float32'),
        ("temperature", 10**400, 'option "temperature" must be of type float32'),
        ("temperature", False, 'option "temperature" must be of type float32'),
        ("use_mmap", 1, 'option "use_mmap" must be of type boolean'),
        ("stop", ["a", 1], 'option "stop" must be of type array'),
        ("stop", {"a": 1}, 'option "stop" must be of type array'),
    ],
)
def test_json_values_of_another_type_are_refused(name: str, given: object, message: str) -> None:
    with pytest.raises(BadParameter) as caught:
        check_value(name, given)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", 'did you mean "temperature"?'),
        ("Stop", 'did you mean "stop"?'),
        ("top-p", 'did you mean "top_p"?'),
        ("tfs_z", REMOVED["tfs_z"]),
        ("", None),
        ("x" * 10_000, None),
    ],
)
def test_unknown_names_get_a_hint(name: str, hint: str | None) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_value(name, "1")
    assert caught.value.hint == hint
    with pytest.raises(BadParameter):
        check_value(name, 1)


def test_lines_are_collected_in_order() -> None:
    pairs = [("stop", "a"), ("seed", "1"), ("low_vram", "x"), ("stop", "b"), ("seed", "2")]
    assert collect(pairs) == {"stop": ["a", "b"], "seed": 2}


def test_range_in_words() -> None:
    assert PARAMETERS["num_predict"].range == "-1 or -2 or 1 to 2147483647"
    assert PARAMETERS["temperature"].range == "0 to 2"
    assert PARAMETERS["stop"].range == ""
    assert PARAMETERS["seed"].type is ParameterType.INT


def test_error_survives_pickling() -> None:
    error = BadParameter("m", name="seed", value=3, hint="h")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.name, again.value, again.hint) == ("m", "seed", 3, "h")
