"""Whole routes, byte by byte: what was asked and what was answered is recorded in ``golden/``.

The answers come from a real server with the tiny models, at temperature 0. After a change that is meant:

    pytest tests/server/test_golden.py --update-golden

and read the diff. A new case is a file with a title and a request; the same command records its answer.
The form of the files is told in ``tests/support/exchange.py``, what stands for times and the like in
``placeholders.py``. Keep answers short, and such as the model is sure of: the last digits of its arithmetic
differ between processors.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import TINY_VISION
from exchange import Conversation, held, read_conversation
from live_server import TINY_CHAT, LiveServer, build_model, running_server
from placeholders import Placeholders
from random_models import embedding_model, ranking_model, sliding_window_model

from lading.server.operations import OPERATIONS, Dialect, find_operation

FOLDER = Path(__file__).with_name("golden")
FILES = sorted(FOLDER.rglob("*.http"))
NOT_RECORDED = ("/metrics", "/openapi.json")
"""They have tests of their own, and change with every other change."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Has one model loaded at a time, so that what is loaded does not depend on the tests before. ``plain``
    has no template, and says nothing that could be recorded."""
    folder = tmp_path_factory.mktemp("golden")
    home = folder / "home"
    build_model(home, "tiny", 'PARAMETER seed 1\nLICENSE "Apache-2.0"')
    build_model(home, "seer", f"PARAMETER seed 1\nFROM {TINY_VISION}")
    build_model(home, "plain", source=sliding_window_model(folder / "plain.gguf", TINY_CHAT))
    build_model(home, "embed", source=embedding_model(folder / "embed.gguf", TINY_CHAT))
    build_model(home, "rank", source=ranking_model(folder / "rank.gguf", TINY_CHAT))
    with running_server(home, folder, runtime={"max_loaded_models": 1, "grant_grace_s": 0.2}) as live:
        yield live


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER).with_suffix("")))
def test_what_is_answered_is_what_was_recorded(
    recorded: LiveServer, path: Path, request: pytest.FixtureRequest
) -> None:
    expected = read_conversation(path)
    got = held(expected, recorded)
    if request.config.getoption("--update-golden"):
        path.write_text(got.text, "utf-8")
    elif got != expected:
        pytest.fail(difference(expected, got), pytrace=False)


def difference(expected: Conversation, got: Conversation) -> str:
    """Both, with a line for each field, so that one that differs can be seen."""

    def lines(conversation: Conversation) -> list[str]:
        return re.sub(r'(?<=[,\[{])(?=["\[{])', "\n    ", conversation.text).splitlines()

    return "\n".join(difflib.unified_diff(lines(expected), lines(got), "recorded", "answered", lineterm=""))


def test_every_operation_is_recorded_with_its_stream_and_an_error() -> None:
    asked: dict[tuple[str, str], set[str]] = {}
    for file in FILES:
        for exchange in read_conversation(file).exchanges:
            operation = find_operation(exchange.method, exchange.path.partition("?")[0])
            if operation is not None:
                kinds = asked.setdefault((operation.method, operation.path), set())
                kinds.add(exchange.answer[5:6])
                kinds.update(kind for kind in ("x-ndjson", "event-stream") if kind in exchange.answer)
    for operation in OPERATIONS:
        if operation.dialect is Dialect.REGISTRY or operation.path in NOT_RECORDED:
            continue
        kinds = asked.get((operation.method, operation.path), set())
        assert "2" in kinds, f"no success of {operation.method} {operation.path} is recorded"
        if operation.request is not None:
            assert "4" in kinds, f"no refusal of {operation.method} {operation.path} is recorded"
        if operation.stream is not None:
            assert operation.stream.partition("/")[2] in kinds, f"no stream of {operation.path} is recorded"


def test_an_answer_that_differs_is_shown_field_by_field() -> None:
    expected = read_conversation(FOLDER / "native" / "chat-whole.http")
    first, *others = expected.exchanges
    changed = replace(first, answer=first.answer.replace('"done_reason":"stop"', '"done_reason":"load"'))
    got = replace(expected, exchanges=(changed, *others))
    assert got != expected
    lines = difference(expected, got).splitlines()
    assert [line.strip() for line in lines if line[0] in "-+"][2:] == [
        '-    "done_reason":"stop",',
        '+    "done_reason":"load",',
    ]


def test_files_are_written_as_they_are_read() -> None:
    for file in FILES:
        assert read_conversation(file).text == file.read_text("utf-8")


def test_values_are_hidden_only_in_the_form_that_they_should_have() -> None:
    hidden = Placeholders(4711)
    good = '{"id":"resp_%s","created_at":"2026-11-30T22:15:20.1Z","total_duration":5}' % ("a" * 24)
    assert hidden.hide(good) == '{"id":"<resp_1>","created_at":"<time>","total_duration":<ns>}'
    assert hidden.hide(good) == hidden.hide(good)
    assert hidden.fill("/v1/responses/<resp_1>") == f"/v1/responses/resp_{'a' * 24}"
    assert hidden.hide("resp_" + "b" * 24) == "<resp_2>"
    for odd in (
        '"created_at":"2026-11-30 22:15:20"',
        '"created_at":"2026-11-30T22:15:20.1+00:00"',
        '"total_duration":5.5e3',
        '"total_duration":"5"',
        '"id":"resp_%s"' % ("a" * 23),
        '"id":"resp_%s"' % ("A" * 24),
        '"digest":"sha256-%s"' % ("a" * 63),
        '"created":1796077182.5',
        '{"status":"pulling 0123456789ab","digest":"sha256:%s","total":1}\n' % ("c" * 60),
        "127.0.0.1:4712",
    ):
        assert hidden.hide(odd) == odd
    with pytest.raises(KeyError):
        hidden.fill("<resp_3>")
