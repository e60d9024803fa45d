"""What is printed: tables, templates, sizes, ages, addresses."""

from __future__ import annotations

import doctest
import importlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from lading.cli.address import BadAddress, parse_address
from lading.cli.exit_code import ExitCode, exit_code_of
from lading.cli.human import format_ago, format_until
from lading.cli.output import BadFormat, print_rows
from lading.modelfile import errors

ROWS = [{"name": "a:1", "size": 5, "extra": {"k": "é"}}, {"name": "longer:2", "size": None, "extra": {}}]
TABLE = {"NAME": lambda row: row["name"], "SIZE": lambda row: row["size"] or "-"}
FIELDS = ("name", "size", "extra")


@pytest.mark.parametrize("module", ["human", "address"])
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"lading.cli.{module}")).failed == 0


def test_table_columns_are_four_spaces_apart(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", ROWS, TABLE, FIELDS)
    assert capsys.readouterr().out == "NAME        SIZE\na:1         5\nlonger:2    -\n"


def test_an_empty_table_has_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("table", [], TABLE, FIELDS)
    assert capsys.readouterr().out == "NAME    SIZE\n"


def test_json_is_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("json", ROWS, TABLE, FIELDS)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == ROWS


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        ("{{.name}}", ["a:1", "longer:2"]),
        (r"{{ .Name }}\t{{.size}}", ["a:1\t5", "longer:2\t"]),
        ("{{json .extra}}", ['{"k": "é"}', "{}"]),
        ("{{json .}}", [json.dumps(row, ensure_ascii=False) for row in ROWS]),
    ],
)
def test_templates(capsys: pytest.CaptureFixture[str], template: str, lines: list[str]) -> None:
    print_rows(template, ROWS, TABLE, FIELDS)
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("template", ["yaml", "{{.nope}}", "{{range .}}", "{{.name"])
def test_a_bad_template_is_refused_before_anything_is_printed(
    capsys: pytest.CaptureFixture[str], template: str
) -> None:
    with pytest.raises(BadFormat) as caught:
        print_rows(template, ROWS, TABLE, FIELDS)
    assert caught.value.hint is not None and "fields: name, size, extra" in caught.value.hint
    assert capsys.readouterr().out == ""


def test_ages() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert format_ago(now - timedelta(days=21), now=now) == "3 weeks ago"
    assert format_until(now + timedelta(minutes=4, seconds=59), now=now) == "4 minutes from now"
    assert format_until(None, now=now) == "Forever"
    assert format_until(now - timedelta(seconds=1), now=now) == "Stopping..."


@pytest.mark.parametrize("text", ["host:port", "host:99999", "ftp://host", "user@host:1", "a b:1"])
def test_bad_addresses(text: str) -> None:
    with pytest.raises(BadAddress, match="expected host:port"):
        parse_address(text, default_port=1)


def test_ipv6_addresses() -> None:
    assert parse_address("[::1]:8080", default_port=1) == ("::1", 8080)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LadingError("x"), ExitCode.FAILURE),
        (errors.InputError("x"), ExitCode.FAILURE),
        (errors.UsageError("x"), ExitCode.USAGE),
        (errors.NotFoundError("x"), ExitCode.NOT_FOUND),
        (errors.NotAuthorisedError("x"), ExitCode.NOT_AUTHORISED),
        (errors.UnreachableError("x"), ExitCode.UNREACHABLE),
        (errors.ResourceError("x"), ExitCode.FAILURE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_codes(error: errors.LadingError, code: ExitCode) -> None:
    assert exit_code_of(error) == code
