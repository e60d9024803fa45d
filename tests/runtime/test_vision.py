"""Images through the runner: what is evaluated is what llama.cpp evaluates, alone and beside others, anew and
again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import TINY_CHAT, TINY_VISION
from live_runner import LiveRunner, ask, ask_all, chat, live_runner, options
from pictures import hostile_files, picture_file
from random_projectors import IMAGE_KINDS

from lading.runtime.errors import BadRequest, PromptTooLong, Unsupported
from lading.runtime.options import Options
from lading.runtime.protocol import Generate, Message, Text

RED, BLUE = picture_file("red"), picture_file("blue")
ORACLE = Path(__file__).parents[1] / "support" / "mtmd_oracle.py"
CELLS = 16
"""Of a picture, for the tiny vision model."""


@dataclass(frozen=True)
class Kind:
    model: Path
    projector: Path
    folder: Path


@pytest.fixture(scope="module", params=["causal", *IMAGE_KINDS])
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kind:
    """A model with a projector; pictures ``0.png`` and ``1.png`` in a folder."""
    folder = tmp_path_factory.mktemp("kind")
    (folder / "0.png").write_bytes(picture_file("red", "white"))
    (folder / "1.png").write_bytes(picture_file("blue", "yellow", size=(100, 70)))
    if request.param == "causal":
        return Kind(TINY_CHAT, TINY_VISION, folder)
    make_model, make_projector = IMAGE_KINDS[request.param]
    model = make_model(folder / "model.gguf", TINY_CHAT)
    return Kind(model, make_projector(folder / "mmproj.gguf"), folder)


@pytest.fixture(scope="module")
def eye() -> Iterator[LiveRunner]:
    with live_runner(TINY_CHAT, projector=str(TINY_VISION), n_ctx=512, n_parallel=3, n_threads=1) as runner:
        assert runner.ready is not None and "vision" in runner.ready.capabilities
        yield runner


def look(text: str, *images: bytes, at: tuple[int, ...] = ()) -> Generate:
    return Generate(id=0, messages=(Message("user", text, images=images, image_at=at),), options=options())


def raw(prompt: str, *images: bytes, count: int = 8) -> Generate:
    chosen = Options(temperature=0.0, num_predict=count)
    return Generate(id=0, prompt=prompt, raw=True, images=images, options=chosen, top_logprobs=1)


def test_it_is_what_llama_cpp_evaluates(kind: Kind) -> None:
    """Also while texts stream beside it, and read in small pieces."""
    files = [(kind.folder / name).read_bytes() for name in ("0.png", "1.png")]
    zero, one = f"@{kind.folder / '0.png'}", f"@{kind.folder / '1.png'}"
    prompts = {
        "One [img-0] two [img-1] three": ["One ", zero, " two ", one, " three"],
        "[img-1]And [img-0] so": [one, "And ", zero, " so"],
        "[img-0] Red?": [zero, " Red?"],
    }

    async def answers() -> list[str]:
        with live_runner(
            kind.model, projector=str(kind.projector), n_ctx=1024, n_batch=32, n_parallel=4, n_threads=1
        ) as runner:
            async with runner.client() as client:
                streams = [raw("Count from 1 to 9.", count=60)]
                asked = [raw(prompt, *files[: 2 if "img-1" in prompt else 1]) for prompt in prompts]
                return [answer.text for answer in await ask_all(client, [*streams, *asked])][1:]

    assert asyncio.run(answers()) == [oracle(kind, parts) for parts in prompts.values()]


def oracle(kind: Kind, parts: list[str]) -> str:
    command = [sys.executable, str(ORACLE), str(kind.model), str(kind.projector), "8", *parts]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace")


def test_reuse_changes_no_answer(kind: Kind) -> None:
    first, second = ((kind.folder / name).read_bytes() for name in ("0.png", "1.png"))
    turn = "<|im_start|>user\nLook: {}<|im_end|>\n<|im_start|>assistant\n"
    asked = [
        raw(turn.format("[img-0] What?"), first),
        raw(turn.format("[img-0] What?"), second),  # the same text, another picture
        raw(turn.format("[img-0] And then?"), first),
        raw(turn.format("[img-0][img-1] What?"), first, second),
        raw(turn.format("[img-0][img-1] Which?"), first, second),
        raw(turn.format("[img-0] What?"), first),
    ]

    async def likeliest(parallel: int, *, anew: bool) -> tuple[list[tuple[str, float]], list[int]]:
        """First tokens and how likely they were, and how much was known. ``anew``: nothing may be."""
        found, cached = [], []
        with live_runner(
            kind.model, projector=str(kind.projector), n_ctx=512, n_parallel=parallel, n_threads=1
        ) as runner:
            async with runner.client() as client:
                for i, request in enumerate(asked):
                    if anew:
                        await ask(client, raw(f"{i}: something else altogether", count=1))
                    answer = await ask(client, request)
                    cached.append(answer.end.usage.cached_tokens)
                    said = next(e for e in answer.events if isinstance(e, Text) and e.logprobs)
                    found.append((said.logprobs[0].token, said.logprobs[0].logprob))
        return found, cached

    expected, known = asyncio.run(likeliest(1, anew=True))
    assert not any(known) and len(set(expected)) == 5
    for parallel in (1, 2):
        found, known = asyncio.run(likeliest(parallel, anew=False))
        assert [token for token, _ in found] == [token for token, _ in expected]
        # Evaluated in other portions, sums differ in their last digits.
        assert [logprob for _, logprob in found] == pytest.approx(
            [logprob for _, logprob in expected], abs=0.02
        )
        before = known[1]  # the same text, and then another picture
        assert (known[2] == before) if parallel == 1 else (known[2] >= before + CELLS)
        assert known[4] >= before + 2 * CELLS, "both pictures are known"


# The tiny vision model


def test_pictures_are_seen(eye: LiveRunner) -> None:
    async def colors() -> list[str]:
        async with eye.client() as client:
            asked = [look("What color is the picture?", picture) for picture in (RED, BLUE)]
            asked.append(look("What colors are the pictures?", BLUE, RED))
            return [answer.text for answer in await ask_all(client, asked)]

    assert asyncio.run(colors()) == ["red", "blue", "blue, red"]


def test_where_images_stand(eye: LiveRunner) -> None:
    places = {
        look("What?", RED): "user\n[img-0]What?",
        look("One [img] two [img]?", RED, BLUE): "One [img-0] two [img-1]?",
        look("One [img] two [img]?", RED): "\nOne [img-0] two [img]?",
        look("One [img] two?", RED, BLUE): "\n[img-0]One [img-1] two?",
        look("One, two?", RED, BLUE, at=(4, 9)): "\nOne,[img-0] two?[img-1]",
        look("[img]?", RED, at=(6,)): "\n[img]?[img-0]",
        Generate(id=0, prompt="What?", images=(RED,), options=options()): "\n[img-0]What?",
        raw("A[img-1]B[img-0]C[img-1]", RED, BLUE, RED): "[img-0]A[img-1]B[img-2]C[img-1]",
    }

    async def check() -> None:
        async with eye.client() as client:
            for request, expected in places.items():
                shown = await client.render(request)
                assert expected in shown.prompt
                images = request.images or request.messages[0].images
                assert shown.tokens > CELLS * len(images)

    asyncio.run(check())


def test_a_conversation_knows_its_pictures(eye: LiveRunner) -> None:
    async def cached() -> int:
        async with eye.client() as client:
            first = look("What color is this picture?", RED)
            said = await ask(client, first)
            turns = (*first.messages, Message("assistant", said.text), Message("user", "Hello!"))
            again = await ask(client, Generate(id=0, messages=turns, options=options()))
            return again.end.usage.cached_tokens - said.end.usage.prompt_tokens

    assert asyncio.run(cached()) >= 0, "all of the first prompt, its picture included"


def test_limits_of_the_context() -> None:
    async def check() -> None:
        with live_runner(TINY_CHAT, projector=str(TINY_VISION), n_ctx=48, n_threads=1) as runner:
            async with runner.client() as client:
                old = (Message("user", "Hello", images=(BLUE,)), Message("assistant", "Hello!")) * 3
                last = Message("user", "What color is the picture?", images=(RED,))
                cut = await ask(client, Generate(id=0, messages=(*old, last), options=options()))
                assert cut.text == "red", "the oldest turns are left out with their pictures"
                with pytest.raises(PromptTooLong, match="room for 48"):
                    await ask(client, look("What?", RED, BLUE, RED, BLUE))
                full = await ask(client, raw("<|im_start|>user\n[img-0]Tell me a story.", RED, count=500))
                assert full.end.reason in ("length", "stop"), "a context with a picture in it is not shifted"
                assert len(full.end.context) == 0 and full.end.usage.eval_tokens <= 48

    asyncio.run(check())


def test_what_is_refused(eye: LiveRunner) -> None:
    damaged, _ = hostile_files()["JPEG cut short"]

    async def check() -> None:
        async with eye.client() as client:
            for request, kind, words in (
                (look("What?", damaged), BadRequest, "damaged"),
                (look("What?", *[RED] * 65), BadRequest, "at most 64"),
                (look("What?", RED, BLUE, at=(2,)), BadRequest, "a place"),
                (look("What?", RED, at=(6,)), BadRequest, "a place"),
            ):
                with pytest.raises(kind, match=words):
                    await ask(client, request)
            assert (await ask(client, look("What color is the picture?", RED))).text == "red"

    asyncio.run(check())


def test_the_weights_of_a_projector_are_counted() -> None:
    with (
        live_runner(TINY_CHAT, n_ctx=1024) as blind,
        live_runner(TINY_CHAT, n_ctx=1024, projector=str(TINY_VISION)) as seeing,
    ):
        assert blind.ready is not None and seeing.ready is not None
        more = seeing.ready.memory["weights"] - blind.ready.memory["weights"]
    assert more == pytest.approx(TINY_VISION.stat().st_size, rel=0.05)


def test_a_model_without_a_projector() -> None:
    async def check() -> None:
        with live_runner(TINY_CHAT, n_ctx=64, n_threads=1) as runner:
            async with runner.client() as client:
                for request in (look("What?", RED), Generate(id=0, prompt="What?", images=(RED,))):
                    with pytest.raises(Unsupported, match="does not take images"):
                        await ask(client, request)
                assert (await ask(client, chat("Hello!"))).text

    asyncio.run(check())


def test_projectors_that_are_refused(tmp_path: Path) -> None:
    """In words, by a runner that ends in good order."""
    other = IMAGE_KINDS["non-causal"][1](tmp_path / "other.gguf")
    short = tmp_path / "short.gguf"
    short.write_bytes(TINY_VISION.read_bytes()[:-100_000])
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(TINY_VISION.read_bytes().replace(b"mm.2.weight", b"mm.9.weight"))
    unknown = tmp_path / "unknown.gguf"
    unknown.write_bytes(TINY_VISION.read_bytes().replace(b"clip.projector_type", b"clip.projector_tipe"))
    for path, words in (
        (other, "mismatch between text model"),
        (short, "projector"),
        (unknown, "unknown projector type"),
        (TINY_CHAT, "projector"),
        (tmp_path / "missing.gguf", "projector"),
    ):
        with live_runner(TINY_CHAT, projector=str(path), n_threads=1) as runner:
            assert runner.failure is not None and runner.failure.code == "bad_model", path
            assert words in runner.failure.message and path.name in runner.failure.message
            assert runner.process.wait(30) == 3
