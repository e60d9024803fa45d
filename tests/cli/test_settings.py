"""Settings: who wins, where a value came from, and what a bad one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lading.cli.settings import SETTINGS, BadSetting, read_settings


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_DATA_HOME": str(tmp_path / "data")}


def _write_config(environ: dict[str, str], text: str) -> Path:
    path = Path(environ["XDG_CONFIG_HOME"]) / "lading" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_defaults(environ: dict[str, str]) -> None:
    settings = read_settings(environ=environ)
    assert settings.home == Path(environ["XDG_DATA_HOME"]) / "lading"
    assert settings["host"] == "127.0.0.1:11434"
    assert {value.origin for value in settings.values.values()} == {"default"}


def test_flag_beats_our_variable_beats_ollamas_beats_the_file_beats_the_default(
    environ: dict[str, str],
) -> None:
    origins = []
    path = _write_config(environ, 'host = "file:1"')
    for change in (
        lambda: None,
        lambda: environ.update(OLLAMA_HOST="ollama:2"),
        lambda: environ.update(LADING_HOST="lading:3"),
    ):
        change()
        origins.append(read_settings(environ=environ).values["host"])
    origins.append(read_settings({"host": "flag:4"}, environ).values["host"])
    assert [(value.value, value.origin) for value in origins] == [
        ("file:1", str(path)),
        ("ollama:2", "OLLAMA_HOST"),
        ("lading:3", "LADING_HOST"),
        ("flag:4", "flag"),
    ]


def test_an_empty_variable_counts_as_unset(environ: dict[str, str]) -> None:
    assert read_settings(environ={**environ, "LADING_HOST": ""}).values["host"].origin == "default"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memory", "8GB", 8 * 10**9),
        ("mirrors", "a.io=b.io/x, a.io=c.io:5000", {"a.io": ("b.io/x", "c.io:5000")}),
        ("token_services", "a.io:5000=auth.a.io", {"a.io:5000": ("auth.a.io",)}),
        ("max_download_rate", "10MB", 10**7),
        ("memory", "512MiB", 512 * 2**20),
        ("memory", "1.5g", 1_500_000_000),
        ("memory", "1000", 1000),
        ("flash_attention", "1", "on"),
        ("flash_attention", "auto", "auto"),
        ("kv_cache_type", "Q8_0", "q8_0"),
        ("insecure_registries", "a:5000, b", ("a:5000", "b")),
        ("debug", "true", True),
        ("debug", "0", False),
        ("num_parallel", "4", 4),
        ("keep_alive", "-1", "-1"),
        ("max_tools", "512", 512),
        ("max_choices", "1", 1),
        ("max_image", "1MiB", 2**20),
    ],
)
def test_values(environ: dict[str, str], name: str, text: str, value: object) -> None:
    assert read_settings(environ={**environ, f"LADING_{name.upper()}": text})[name] == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("num_parallel", "-1"),
        ("num_parallel", "many"),
        ("memory", "8XB"),
        ("debug", "perhaps"),
        ("kv_cache_type", "q3"),
        ("mirrors", "a.io"),
        ("mirrors", "a.io=https://b.io"),
        ("token_services", "a.io=b c"),
        ("max_tools", "513"),
        ("max_stops", "65"),
        ("max_stop_length", "1025"),
        ("max_images", "65"),
        ("max_choices", "129"),
        ("max_messages", "0"),
    ],
)
def test_a_bad_value_names_its_variable_and_what_was_expected(
    environ: dict[str, str], name: str, text: str
) -> None:
    variable = f"LADING_{name.upper()}"
    with pytest.raises(BadSetting) as caught:
        read_settings(environ={**environ, variable: text})
    expected = next(setting.expected for setting in SETTINGS if setting.name == name)
    assert (
        caught.value.message == f"reading setting {name} from {variable}: expected {expected}, got {text!r}"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("host = [", "expected TOML"),
        ("hots = 1", "expected a known setting"),
        ("num_parallel = true", "a whole number"),
    ],
    ids=["syntax", "unknown", "type"],
)
def test_a_bad_file_is_named(environ: dict[str, str], text: str, problem: str) -> None:
    path = _write_config(environ, text)
    with pytest.raises(BadSetting, match=problem) as caught:
        read_settings(environ=environ)
    assert str(path) in caught.value.message


def test_mirrors_in_the_file(environ: dict[str, str]) -> None:
    _write_config(environ, '[mirrors]\n"a.io" = ["b.io/x", "c.io"]\n"d.io/team" = "e.io"\n')
    assert read_settings(environ=environ)["mirrors"] == {"a.io": ("b.io/x", "c.io"), "d.io/team": ("e.io",)}


def test_every_setting_has_a_meaning_and_a_default_that_its_parser_takes() -> None:
    for setting in SETTINGS:
        assert setting.meaning and setting.expected
        if setting.default not in (None, ()):
            assert setting.parse(setting.default) == setting.default
