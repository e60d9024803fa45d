"""Jinja chat templates: what published ones need, and what hostile ones must not get."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psutil
import pytest

from lading.runtime.errors import BadTemplate
from lading.runtime.runner.chat_template import (
    MAX_OUTPUT,
    MAX_TEMPLATE,
    ChatTemplate,
    template_variables,
)
from lading.runtime.runner.renderer import CPU_LIMIT_S, Renderer, RenderJob
from lading.runtime.runner.stand_in import CHATML as CHATML_FAMILY
from lading.runtime.runner.thinking import ThinkingTags

# From Python 3.12 on a fork beside threads is warned of; a runner forks before it has any.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

USER = {"role": "user", "content": "Hi"}
CHATML = CHATML_FAMILY.template


def render(source: str, *messages: dict[str, Any], **more: Any) -> str:
    settings = {"think": None, "bos": "<s>", "eos": "</s>"} | more
    tools = settings.pop("tools", ())
    return ChatTemplate(source).render(template_variables(messages or (USER,), tools, **settings))


# What published templates need


@pytest.mark.parametrize(
    ("source", "text"),
    [
        pytest.param("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>Hi</s>", id="tokens"),
        pytest.param("  {% if true %}\nx\n  {% endif %}\n", "x\n", id="trim and left-strip of blocks"),
        pytest.param(
            "{% for i in [1,2,3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "13",
            id="loop controls",
        ),
        pytest.param(
            "{{ {'b': 1, 'a': '<é&>'} | tojson }}", '{"b": 1, "a": "<é&>"}', id="tojson: order, no escaping"
        ),
        pytest.param("{{ [1] | tojson(indent=2) }}", "[\n  1\n]", id="tojson indent"),
        pytest.param("{% generation %}x{% endgeneration %}", "x", id="generation"),
        pytest.param("{{ tools is none }} {{ documents is none }}", "True True", id="no tools"),
        pytest.param("{{ enable_thinking is defined }}", "False", id="thinking not said"),
        pytest.param(
            "{% set s = namespace(n=0) %}{% for m in messages %}{% set s.n = s.n + 1 %}{% endfor %}{{ s.n }}",
            "1",
            id="namespace",
        ),
        pytest.param("{{ messages[0].missing or 'none' }}", "none", id="undefined"),
        pytest.param(
            "{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'x'.startswith('x') }}", "bxTrue", id="methods"
        ),
        pytest.param("{{ messages[::-1][0].role }}", "user", id="slices"),
        pytest.param("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}", "<1>", id="macros"),
        pytest.param("{{ '-' * 3 }}{{ 2 ** 3 }}{{ 3 * 4 }}", "---812", id="products"),
        pytest.param(
            "{% set seen = [] %}{% set _ = seen.append('x') %}{{ seen | join }}",
            "x",
            id="changing its own lists",
        ),
        pytest.param("{{ messages | map(attribute='role') | tojson }}", '["user"]', id="tojson of a filter"),
        pytest.param("{{ functions }}", "[]", id="the older name of tools"),
    ],
)
def test_published_templates_find_what_they_need(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    ("think", "text"), [(True, "True True -"), (False, "False False -"), ("high", "True True high")]
)
def test_thinking_is_said_in_all_ways(think: bool | str, text: str) -> None:
    source = "{{ enable_thinking }} {{ thinking }} {{ reasoning_effort or '-' }}"
    assert render(source, think=think) == text


def test_the_date_is_there() -> None:
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_tools_are_passed_as_they_are() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"z": 1, "a": 2}}}
    assert json.loads(render("{{ tools[0] | tojson }}", tools=(tool,))) == tool


# What hostile ones must not get


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("{{ ''.__class__.__mro__[1].__subclasses__() }}", id="subclasses"),
        pytest.param("{{ raise_exception.__globals__['os'] }}", id="globals of ours"),
        pytest.param("{{ strftime_now.__code__.co_code }}", id="code of ours"),
        pytest.param("{{ '{0.__class__.__mro__}'.format(1) }}", id="format"),
        pytest.param("{% include '/etc/passwd' %}", id="include"),
        pytest.param("{% import '/etc/passwd' as x %}", id="import"),
        pytest.param("{% extends 'x' %}", id="extends"),
        pytest.param("{{ lipsum(n=100000) }}", id="lipsum"),
        pytest.param("{{ cycler(1).__init__ }}", id="cycler"),
        pytest.param("{% for i in range(10000000) %}{% endfor %}", id="long range"),
        pytest.param("{{ 9 ** 99 }}", id="power"),
        pytest.param("{{ 'a' * 2000000000 }}", id="long text"),
        pytest.param("{{ [0] * 2000000000 }}", id="long list"),
        pytest.param("{{ 2000000000 * 'a' }}", id="long text, the other way"),
        pytest.param("{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", id="long output"),
        pytest.param("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", id="endless recursion"),
        pytest.param("{{ 1 / 0 }}", id="division"),
        pytest.param("{{ none.upper() }}", id="none"),
        pytest.param("{{ messages | map(attribute='x.y') | list | sum }}", id="type error"),
        pytest.param("{{ raise_exception('roles must alternate') }}", id="raises"),
        pytest.param("{% if %}", id="syntax"),
        pytest.param("{{ " + "(" * 3000 + ")" * 3000 + " }}", id="3,000 brackets"),
        pytest.param("{% if 1 %}" * 300 + "{% endif %}" * 300, id="300 blocks"),
        pytest.param("x" * (MAX_TEMPLATE + 1), id="long source"),
    ],
)
def test_hostile_templates_are_refused(source: str) -> None:
    with pytest.raises(BadTemplate) as refusal:
        render(source)
    assert len(refusal.value.message) < 700
    assert refusal.value.message.startswith(
        ("compiling the chat template: ", "rendering the chat template: ")
    )


def test_attr_finds_nothing() -> None:
    assert "class" not in render("{{ '' | attr('__class__') }}")


def test_a_template_says_why_it_refuses() -> None:
    with pytest.raises(BadTemplate, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


# In its own process


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    """Closed by `within`; its process ends here at the latest, so that a test that fails does not hang."""
    renderer = Renderer.start()
    yield renderer
    os.kill(renderer.pid, signal.SIGKILL)
    os.waitpid(renderer.pid, 0)


def within(renderer: Renderer, body: Callable[[], Awaitable[None]]) -> None:
    """Run ``body`` in an event loop, then close the renderer there."""

    async def closing() -> None:
        try:
            await body()
        finally:
            await renderer.aclose()

    asyncio.run(closing())


def job(template: str, **fields: Any) -> RenderJob:
    return RenderJob(template=template, messages=(USER,), **fields)


async def outcome(renderer: Renderer, template: str) -> str:
    try:
        return await renderer.render(job(template))
    except BadTemplate as error:
        return error.message


EXPENSIVE = {
    "endless loop": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "wide format": "{{ '%2000000000d' | format(1) }}",
    "wide centre": "{{ 'x' | center(2000000000) }}",
    "growing list": "{% set n = namespace(l=[1]) %}"
    "{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
    "replace": "{% set n = namespace(s='aa') %}{% for i in range(40) %}"
    "{% set n.s = n.s.replace('a', 'aaaa') %}{% endfor %}",
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_expensive_templates_are_stopped_and_the_next_is_rendered(renderer: Renderer, name: str) -> None:
    async def body() -> None:
        started = time.process_time()
        assert "it takes " in await outcome(renderer, EXPENSIVE[name])
        assert time.process_time() - started < CPU_LIMIT_S
        assert await outcome(renderer, CHATML) == render(CHATML)

    within(renderer, body)


def test_a_killed_worker_is_replaced(renderer: Renderer) -> None:
    async def body() -> None:
        assert await outcome(renderer, "a") == "a"
        (worker,) = psutil.Process(renderer.pid).children()
        waiting = asyncio.create_task(outcome(renderer, EXPENSIVE["endless loop"]))
        await asyncio.sleep(0.2)
        worker.send_signal(signal.SIGKILL)
        assert "too long or too much memory" in await waiting
        assert await outcome(renderer, "b") == "b"

    within(renderer, body)


def test_many_jobs_at_once_are_answered_each(renderer: Renderer) -> None:
    async def body() -> None:
        texts = [f"{{{{ messages[0].content }}}} {i}" for i in range(50)]
        assert await asyncio.gather(*(outcome(renderer, text) for text in texts)) == [
            f"Hi {i}" for i in range(50)
        ]

    within(renderer, body)


def test_a_job_that_is_given_up_confuses_nobody(renderer: Renderer) -> None:
    async def body() -> None:
        given_up = asyncio.create_task(outcome(renderer, EXPENSIVE["endless loop"]))
        await asyncio.sleep(0.1)
        given_up.cancel()
        assert await outcome(renderer, "next") == "next"

    within(renderer, body)


def test_large_jobs_that_are_given_up_confuse_nobody(renderer: Renderer) -> None:
    async def body() -> None:
        for delay in range(8):
            large = asyncio.create_task(outcome(renderer, "{{ 'x' * 1000000 }}" * 3))
            await asyncio.sleep(delay * 0.004)
            large.cancel()
            await asyncio.gather(large, return_exceptions=True)
        assert await outcome(renderer, "next") == "next"

    within(renderer, body)


def test_large_prompts_come_back_whole(renderer: Renderer) -> None:
    async def body() -> None:
        size = MAX_OUTPUT - 10
        message = {"role": "user", "content": "é" * size}
        long = RenderJob(template="{{ messages[0].content }}", messages=(message,))
        assert len(await renderer.render(long)) == size

    within(renderer, body)


def test_traits_are_told_before_there_is_a_loop(renderer: Renderer) -> None:
    traits = renderer.describe("jinja", "{{ tools }}<tool_call></tool_call><think></think>")
    assert traits.thinking_tags == ThinkingTags("<think>", "</think>")
    assert traits.tool_format == "hermes"
    assert set(traits.capabilities) == {"tools", "thinking"}
    with pytest.raises(BadTemplate):
        renderer.describe("jinja", "{% if %}")

    async def body() -> None:
        assert await outcome(renderer, "x") == "x"

    within(renderer, body)
