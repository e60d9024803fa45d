"""What kills llama.cpp, or never ends, sent to a server: each is refused or survived, and the next request is
answered by the same process as before."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from functools import reduce
from typing import Any

import httpx
import pytest
from ggufmaker import make_model, strings, u32
from live_server import TINY_CHAT, LiveServer, build_model, running_server
from server_processes import runners, wait_until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("hostile")
    build_model(folder / "home", "tiny")
    with running_server(folder / "home", folder, runtime={"grant_grace_s": 0.2}) as server:
        yield server


@pytest.fixture
def nothing_blinks(victim: LiveServer) -> Iterator[None]:
    """The same answer, from the same process, before and after a test."""
    before = answer(victim)
    [runner] = runners(victim)
    yield
    assert answer(victim) == before
    assert [process.pid for process in runners(victim)] == [runner.pid]


def answer(server: LiveServer) -> str:
    body = {"model": "tiny", "messages": QUESTION, "stream": False, "think": False}
    text = server.post("/api/chat", body).json()["message"]["content"]
    assert "Paris" in text
    return str(text)


def nested(depth: int, leaf: dict[str, Any], wrap: Any) -> dict[str, Any]:
    return reduce(lambda inner, _: wrap(inner), range(depth), leaf)


SCHEMAS: dict[str, Any] = {
    "maxItems": {"type": "array", "items": {"type": "string"}, "maxItems": 20_000},
    "minItems": {"type": "array", "items": {"type": "string"}, "minItems": 20_000},
    "maxLength": {"type": "string", "maxLength": 100_000},
    "minLength": {"type": "string", "minLength": 2**40},
    "50 objects deep": nested(50, {"type": "string"}, lambda s: {"properties": {"a": s}, "required": ["a"]}),
    "3,000 properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(3000)}},
    "alternatives of alternatives": nested(3, {"type": "string"}, lambda s: {"anyOf": [s] * 30}),
    "a large enum": {"enum": [f"{i:0100d}" for i in range(2000)]},
    "an endless reference": {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
    "a reference to nowhere": {"$ref": "#/$defs/none"},
    "a reference outside": {"$ref": "http://127.0.0.1:9/schema.json"},
    "groups of groups": {"type": "string", "pattern": "(" * 5000 + "a" + ")" * 5000},
    "repeats of repeats": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    "lookbehind": {"type": "string", "pattern": "(?<=a)b"},
    "backreference": {"type": "string", "pattern": r"(a)\1"},
    "an anchor repeated": {"type": "string", "pattern": "^+a$"},
    "catastrophic": {"type": "string", "pattern": "(a+)+$"},
    "no types": {"type": []},
    "nonsense types": {"type": ["string", 7]},
    "null properties": {"properties": None},
    "a contradiction": {"allOf": [{"type": "string"}, {"type": "number"}]},
    "bounds that exclude all": {"type": "integer", "minimum": 5, "maximum": 4},
    "a number of many digits": {"type": "number", "multipleOf": 1e-300},
}


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.usefixtures("nothing_blinks")
def test_a_schema(victim: LiveServer, name: str) -> None:
    body = {
        "model": "tiny",
        "messages": QUESTION,
        "stream": False,
        "format": SCHEMAS[name],
        "options": {"num_predict": 8},
    }
    reply = victim.post("/api/chat", body)
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 400:
        assert len(reply.json()["error"]) < 2000


@pytest.mark.usefixtures("nothing_blinks")
def test_a_schema_of_900_levels(victim: LiveServer) -> None:
    schema = '{"properties":{"a":' * 900 + "{}" + "}}" * 900
    body = f'{{"model": "tiny", "prompt": "x", "format": {schema}}}'
    assert victim.call("POST", "/api/generate", content=body).status_code == 400


TEMPLATES = {
    "an endless loop": "{{ range $i, $a := .Messages }}" * 400 + "x" + "{{ end }}" * 400,
    "a syntax error": "{{ if }}",
    "a field of a field": "{{ .Messages.Role.Name.None }}",
    "deep": "{{ if .System }}" * 3000 + "{{ end }}" * 3000,
    "much output": "{{ range .Messages }}" + "x" * 200_000 + "{{ end }}" * 1,
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.usefixtures("nothing_blinks")
def test_a_template_of_a_request(victim: LiveServer, name: str) -> None:
    body = {"model": "tiny", "prompt": "Hello!", "stream": False, "template": TEMPLATES[name]}
    reply = victim.post("/api/generate", body | {"options": {"num_predict": 4}})
    assert reply.status_code in (200, 400), reply.text


def test_expensive_templates_of_others_hold_up_nobody_for_long(victim: LiveServer) -> None:
    said = "".join(f"MESSAGE user {number}\nMESSAGE assistant yes\n" for number in range(20))
    build_model(victim.store_root, "talkative", said)
    template = "{{ range .Messages }}" * 6 + "x" + "{{ end }}" * 6
    expensive = {"model": "talkative", "prompt": "Hello!", "template": template, "stream": False}
    answer(victim)

    def ask(patience: float) -> None:
        with contextlib.suppress(httpx.ReadTimeout):
            victim.call("POST", "/api/generate", json=expensive, timeout=patience)

    began = time.monotonic()
    ask(60)
    one = time.monotonic() - began
    for patience in (0.5, 90.0):  # they leave again, or they stay
        asking = [threading.Thread(target=ask, args=(patience,)) for _ in range(8)]
        for thread in asking:
            thread.start()
        time.sleep(0.6)
        began = time.monotonic()
        assert answer(victim)
        assert time.monotonic() - began < 4 * one, f"each of them takes {one:.1f} s"
        for thread in asking:
            thread.join()


def tiny_with(template: str) -> bytes:
    """The tiny chat model with another template of the same length in its header."""
    data = TINY_CHAT.read_bytes()
    marker = b"tokenizer.chat_template"
    at = data.index(marker) + len(marker) + 4
    size = int.from_bytes(data[at : at + 8], "little")
    text = template.encode().ljust(size)
    assert len(text) == size
    return data[: at + 8] + text + data[at + 8 + size :]


JINJA = {
    "a loop without end": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory without end": "{% set ns = namespace(s='x') %}{% for i in range(60) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "the interpreter": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a file": "{% include '/etc/passwd' %}",
    "a width": "{{ '%2000000000d' | format(1) }}",
    "a secret": "{{ raise_exception('x' * 100000) }}",
}


@pytest.mark.parametrize("name", JINJA)
@pytest.mark.usefixtures("nothing_blinks")
def test_a_template_of_a_model(victim: LiveServer, name: str) -> None:
    create(victim, "nasty", tiny_with(JINJA[name]))
    body = {"model": "nasty", "messages": QUESTION, "stream": False, "keep_alive": 0}
    reply = victim.post("/api/chat", body)
    assert reply.status_code == 400, reply.text
    assert len(reply.json()["error"]) < 4000
    assert "root:" not in reply.text
    victim.post("/api/generate", {"model": "nasty", "keep_alive": 0})
    wait_until(lambda: len(runners(victim)) == 1)


def create(server: LiveServer, name: str, data: bytes) -> Any:
    """Upload the file and build a model of it, as clients do; the last line of the answer."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert server.call("POST", f"/api/blobs/{digest}", content=data).status_code in (200, 201)
    return server.post("/api/create", {"model": name, "files": {"m.gguf": digest}, "stream": False})


TWICE = [f"token{i}" for i in range(60)] + ["token7"]
FILES = {
    "a vocabulary with a word twice": make_model(tokenizer__ggml__tokens=strings(TWICE)),
    "100,000 blocks": make_model(llama__block_count=u32(100_000)),
    "no heads": make_model(llama__attention__head_count=u32(0)),
    "a context of four billion": make_model(llama__context_length=u32(2**32 - 1)),
    "cut short": make_model()[:-64],
    "no tensors": make_model()[:2000],
    "not a model": b"GGUF" + bytes(100),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("nothing_blinks")
def test_a_file(victim: LiveServer, name: str) -> None:
    reply = create(victim, "broken", FILES[name])
    assert reply.status_code == 400, reply.text
    assert victim.post("/api/chat", {"model": "broken", "messages": QUESTION}).status_code == 404


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "a megabyte of one letter": ("/api/generate", {"prompt": "a" * 2**20}),
    "a megabyte of blanks": ("/api/generate", {"prompt": " " * 2**20}),
    "joined emoji": ("/api/generate", {"prompt": "\N{WOMAN}\N{ZERO WIDTH JOINER}" * 50_000}),
    "NUL": ("/api/generate", {"prompt": "\0" * 1000}),
    "penalties without bounds": (
        "/api/generate",
        {"prompt": "x", "options": {"repeat_penalty": 1e38, "presence_penalty": -1e38, "temperature": 1e-38}},
    ),
    "a look back without bounds": ("/api/generate", {"prompt": "x", "options": {"repeat_last_n": 2**62}}),
    "a huge seed": ("/api/generate", {"prompt": "x", "options": {"seed": 2**62, "top_k": 2**62}}),
    "numbers as tokens": ("/api/generate", {"prompt": "x", "context": [2**31 - 1, -5, 10**6]}),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.usefixtures("nothing_blinks")
def test_a_body(victim: LiveServer, name: str) -> None:
    path, body = BODIES[name]
    options = {"num_predict": 4} | body.pop("options", {})
    reply = victim.post(path, {"model": "tiny", "stream": False, **body, "options": options})
    assert reply.status_code in (200, 400), reply.text


LOADING = {
    "the least context": {"num_ctx": 1},
    "a context beyond memory": {"num_ctx": 2**62},
    "a batch beyond memory": {"num_batch": 2**62},
    "a million threads": {"num_thread": 10**6},
    "a device that there is not": {"main_gpu": 2**31, "num_gpu": 2**31},
}


@pytest.mark.parametrize("name", LOADING)
def test_an_option_of_loading(victim: LiveServer, name: str) -> None:
    """It has another runner take the place of the one before; none of them crashes."""
    options = {"num_predict": 4, **LOADING[name]}
    body = {"model": "tiny", "prompt": "x", "stream": False, "options": options}
    reply = victim.post("/api/generate", body)
    assert reply.status_code in (200, 400), reply.text
    assert "unexpectedly" not in victim.log
    assert answer(victim)
