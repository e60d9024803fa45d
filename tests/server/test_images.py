"""Pictures in every dialect, sent by the real clients: another picture is another answer."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from live_server import LiveServer
from pictures import hostile_files, picture_file

MODEL, SEER = "tiny", "seer"
RED, BLUE, GREEN = (picture_file(color) for color in ("red", "blue", "green"))
COLOR, COLORS = "What color is the picture?", "What colors are the pictures?"
PARIS = "The capital of France is Paris."
CELLS = 16
"""Tokens that a picture takes."""

Ask = Callable[..., str]


def url(file: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


@pytest.fixture
def claude(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0) as client:
        yield client


def openai_parts(*parts: str | bytes) -> list[Any]:
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": url(part), "detail": "low"}}
        for part in parts
    ]


def claude_parts(*parts: str | bytes) -> list[Any]:
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {
            "type": "image",
            "source": {
                "type": "base64",
                "media_type": "image/png",
                "data": base64.b64encode(part).decode(),
            },
        }
        for part in parts
    ]


def response_parts(*parts: str | bytes) -> list[Any]:
    return [
        {"type": "input_text", "text": part}
        if isinstance(part, str)
        else {"type": "input_image", "image_url": url(part), "detail": "auto"}
        for part in parts
    ]


@pytest.fixture(params=["chat", "generate", "chat completions", "responses", "messages"])
def ask(
    request: pytest.FixtureRequest,
    native: ollama.Client,
    sdk: openai.OpenAI,
    claude: anthropic.Anthropic,
) -> Ask:
    """Asks about pictures, which come before the question, in one of the dialects, streamed or not."""

    def chat(question: str, *files: bytes, stream: bool) -> str:
        messages = [{"role": "user", "content": question, "images": list(files)}]
        if not stream:
            return native.chat(SEER, messages, think=False).message.content or ""
        parts = native.chat(SEER, messages, think=False, stream=True)
        return "".join(part.message.content or "" for part in parts)

    def generate(question: str, *files: bytes, stream: bool) -> str:
        if not stream:
            return native.generate(SEER, question, images=list(files), think=False).response
        parts = native.generate(SEER, question, images=list(files), think=False, stream=True)
        return "".join(part.response for part in parts)

    def completions(question: str, *files: bytes, stream: bool) -> str:
        fields: Any = {
            "model": SEER,
            "messages": [{"role": "user", "content": openai_parts(*files, question)}],
            "reasoning_effort": "none",
        }
        if not stream:
            return sdk.chat.completions.create(**fields).choices[0].message.content or ""
        chunks = sdk.chat.completions.create(**fields, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def responses(question: str, *files: bytes, stream: bool) -> str:
        fields: Any = {
            "model": SEER,
            "input": [{"role": "user", "content": response_parts(*files, question)}],
            "reasoning": {"effort": "none"},
        }
        if not stream:
            return sdk.responses.create(**fields).output_text
        events = sdk.responses.create(**fields, stream=True)
        return "".join(event.delta for event in events if event.type == "response.output_text.delta")

    def messages(question: str, *files: bytes, stream: bool) -> str:
        fields: Any = {
            "model": SEER,
            "max_tokens": 50,
            "messages": [{"role": "user", "content": claude_parts(*files, question)}],
        }
        if not stream:
            return "".join(block.text for block in claude.messages.create(**fields).content)
        with claude.messages.stream(**fields) as events:
            return "".join(events.text_stream)

    return {
        "chat": chat,
        "generate": generate,
        "chat completions": completions,
        "responses": responses,
        "messages": messages,
    }[request.param]


def test_another_picture_is_another_answer(ask: Ask) -> None:
    for stream in (False, True):
        assert ask(COLOR, RED, stream=stream) == "red"
        assert ask(COLOR, BLUE, stream=stream) == "blue"
    assert ask(COLORS, GREEN, RED, stream=False) == "green, red"
    halves = picture_file("yellow", "blue", size=(120, 90))
    assert ask("What colors are in the picture?", halves, stream=True) == "yellow, blue"
    assert ask("What is the capital of France?", BLUE, stream=False) == PARIS


def test_a_conversation_goes_on_after_a_picture(native: ollama.Client) -> None:
    first = {"role": "user", "content": COLOR, "images": [GREEN]}
    turns: list[Any] = [first, {"role": "assistant", "content": "green"}]
    last = native.chat(
        SEER, [*turns, {"role": "user", "content": "What is the capital of France?"}], think=False
    )
    assert last.message.content == PARIS
    assert (last.prompt_eval_count or 0) > CELLS
    again = native.chat(SEER, [*turns, {"role": "user", "content": COLOR, "images": [BLUE]}], think=False)
    assert again.message.content == "blue"


def test_what_pictures_count(server: LiveServer, sdk: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    def used(*parts: str | bytes) -> int:
        done = sdk.chat.completions.create(
            model=SEER, messages=[{"role": "user", "content": openai_parts(*parts)}], max_tokens=1
        )
        assert done.usage is not None
        return done.usage.prompt_tokens

    def counted(*parts: str | bytes) -> int:
        return claude.messages.count_tokens(
            model=SEER, messages=[{"role": "user", "content": claude_parts(*parts)}]
        ).input_tokens

    for count in (used, counted):
        assert count(RED, COLOR) == count(COLOR) + CELLS
        assert count(RED, BLUE, COLOR) == count(COLOR) + 2 * CELLS
        assert count("One", RED, "two", BLUE, "three") > 2 * CELLS


def test_forms_of_the_same_picture(server: LiveServer, native: ollama.Client, tmp_path: Path) -> None:
    path = tmp_path / "blue.webp"
    path.write_bytes(picture_file("blue", form="WEBP"))
    coded = base64.encodebytes(picture_file("blue", size=(90, 90))).decode()  # in lines
    for image in (path, BLUE, coded, url(picture_file("blue", form="JPEG"), "jpeg")):
        body = {"model": SEER, "prompt": COLOR, "images": [image], "think": False, "stream": False}
        if isinstance(image, str):
            assert server.post("/api/generate", body).json()["response"] == "blue"
        else:
            assert native.generate(SEER, COLOR, images=[image], think=False).response == "blue"
    placed = {"role": "user", "content": f"[img]{COLOR}", "images": [base64.b64encode(RED).decode()]}
    body = {"model": SEER, "messages": [placed], "think": False, "stream": False}
    assert server.post("/api/chat", body).json()["message"]["content"] == "red"


def test_the_model_says_that_it_sees(server: LiveServer, native: ollama.Client) -> None:
    shown = server.post("/api/show", {"model": SEER}).json()
    assert "vision" in shown["capabilities"]
    assert shown["projector_info"]["clip.vision.image_size"] == 48
    assert "vision" not in (native.show(MODEL).capabilities or ())


@pytest.mark.parametrize("name", hostile_files())
def test_files_that_are_refused(server: LiveServer, name: str) -> None:
    file, reason = hostile_files()[name]
    body = {"model": SEER, "prompt": COLOR, "images": [base64.b64encode(file).decode()], "stream": False}
    answer = server.post("/api/generate", body)
    assert answer.status_code == 400 and reason in answer.json()["error"]


BAD = base64.b64encode(hostile_files()["JPEG cut short"][0]).decode()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("https://example.com/cat.png", "expected a data: URL"),
        ("http://169.254.169.254/latest/meta-data/", "expected a data: URL"),
        ("file:///etc/passwd", "expected a data: URL"),
        ("data:image/png,%89PNG", "expected base64"),
        ("data:image/png;base64,###", "expected base64"),
        (f"data:image/jpeg;base64,{BAD}", "damaged"),
    ],
)
def test_urls_that_are_refused(server: LiveServer, sdk: openai.OpenAI, given: str, words: str) -> None:
    part: Any = {"type": "image_url", "image_url": {"url": given}}
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        sdk.chat.completions.create(model=SEER, messages=[{"role": "user", "content": [part]}])
    assert "example.com/cat" not in str(caught.value)
    item: Any = {"role": "user", "content": [{"type": "input_image", "image_url": given}]}
    with pytest.raises(openai.BadRequestError, match=words):
        sdk.responses.create(model=SEER, input=[item])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"type": "url", "url": "https://example.com/cat.png"}, "expected a base64 source"),
        ({"type": "base64", "media_type": "image/png", "data": "###"}, "expected base64"),
        ({"type": "base64", "media_type": "image/jpeg", "data": BAD}, "damaged"),
    ],
    ids=["URL", "not base64", "damaged"],
)
def test_sources_that_are_refused(claude: anthropic.Anthropic, source: Any, words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words):
        claude.messages.create(
            model=SEER,
            max_tokens=5,
            messages=[{"role": "user", "content": [{"type": "image", "source": source}]}],
        )


def test_a_model_without_a_projector(server: LiveServer, native: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="does not support vision") as caught:
        native.generate(MODEL, COLOR, images=[RED])
    assert caught.value.status_code == 400
