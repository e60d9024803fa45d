"""/v1/completions with OpenAI's client: several prompts and answers, tokens for text, probabilities, echo."""

from __future__ import annotations

import math

import openai
import pytest
from live_server import LiveServer

PARIS = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n"
)
COUNT = PARIS.replace("What is the capital of France?", "Count from 1 to 5.")
ANSWERS = ["The capital of France is Paris.", "1, 2, 3, 4, 5"]


def tokens_of(server: LiveServer, text: str) -> list[int]:
    body = {"model": "tiny", "content": text, "add_special": False, "parse_special": True}
    tokens: list[int] = server.post("/tokenize", body).json()["tokens"]
    return tokens


def test_a_list_of_prompts(sdk: openai.OpenAI) -> None:
    answer = sdk.completions.create(model="tiny", prompt=[PARIS, COUNT], temperature=0, max_tokens=30)
    assert [(choice.index, choice.text) for choice in answer.choices] == list(enumerate(ANSWERS))
    alone = [
        sdk.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=30).usage
        for prompt in (PARIS, COUNT)
    ]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == sum(usage.prompt_tokens for usage in alone if usage)
    assert answer.usage.completion_tokens == sum(usage.completion_tokens for usage in alone if usage)


def test_tokens_stand_for_their_text(sdk: openai.OpenAI, server: LiveServer) -> None:
    tokens = [tokens_of(server, prompt) for prompt in (PARIS, COUNT)]
    one = sdk.completions.create(model="tiny", prompt=tokens[0], temperature=0, max_tokens=30)
    assert [choice.text for choice in one.choices] == ANSWERS[:1]
    both = sdk.completions.create(model="tiny", prompt=tokens, temperature=0, max_tokens=30, echo=True)
    assert [choice.text for choice in both.choices] == [PARIS + ANSWERS[0], COUNT + ANSWERS[1]]


def test_several_answers_have_seeds_of_their_own(sdk: openai.OpenAI) -> None:
    def texts(n: int, seed: int) -> list[str]:
        answer = sdk.completions.create(
            model="tiny", prompt=["Tell me", PARIS], n=n, seed=seed, temperature=1.5, max_tokens=12
        )
        assert [choice.index for choice in answer.choices] == list(range(2 * n))
        return [choice.text for choice in answer.choices]

    three = texts(3, 7)
    assert len(set(three[:3])) == 3
    assert three == texts(3, 7)
    assert [three[1], three[4]] == texts(1, 8)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(sdk: openai.OpenAI, stream: bool) -> None:
    create = sdk.completions.create
    text, tokens, probabilities, best, offsets = "", [], [], [], []
    if stream:
        chunks = list(
            create(model="tiny", prompt=PARIS, temperature=0, max_tokens=8, logprobs=3, stream=True)
        )
    else:
        chunks = [create(model="tiny", prompt=PARIS, temperature=0, max_tokens=8, logprobs=3)]
    for chunk in chunks:
        for choice in chunk.choices:
            text += choice.text
            if choice.logprobs is not None:
                tokens += choice.logprobs.tokens or []
                probabilities += choice.logprobs.token_logprobs or []
                best += choice.logprobs.top_logprobs or []
                offsets += choice.logprobs.text_offset or []
    assert text == "".join(tokens) and ANSWERS[0].startswith(text)
    assert len(tokens) == len(probabilities) == len(best) == len(offsets) == 8
    assert offsets == [len("".join(tokens[:count])) for count in range(8)]
    for token, probability, others in zip(tokens, probabilities, best, strict=True):
        assert len(others) == 3
        assert others[token] == probability == max(others.values())
        assert sum(map(math.exp, others.values())) <= 1.0001


def test_streams_are_numbered(sdk: openai.OpenAI) -> None:
    texts = ["", ""]
    reasons: dict[int, str] = {}
    usage = None
    for chunk in sdk.completions.create(
        model="tiny",
        prompt=[PARIS, COUNT],
        temperature=0,
        max_tokens=30,
        echo=True,
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == [PARIS + ANSWERS[0], COUNT + ANSWERS[1]]
    assert reasons == {0: "stop", 1: "stop"}
    assert usage is not None and usage.completion_tokens > 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": []}, "prompt: expected"),
        ({"prompt": [{}]}, "prompt: expected"),
        ({"prompt": [[1, "a"]]}, "prompt: expected"),
        ({"prompt": [[999_999]]}, "tokens"),
        ({"prompt": ["a"] * 65, "n": 2}, "n: expected"),
        ({"n": 0}, "n: expected"),
        ({"logprobs": 21}, "logprobs: expected"),
        ({"logprobs": 1, "echo": True}, "echo: the probabilities"),
        ({"prompt": [5, 6], "suffix": "x"}, "suffix: expected"),
    ],
)
def test_what_cannot_be(server: LiveServer, fields: dict[str, object], message: str) -> None:
    answer = server.post("/v1/completions", {"model": "tiny", "prompt": "x", "max_tokens": 1} | fields)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]
