"""Ranking documents, with a small model of random weights: its judgement is poor, and always the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from live_server import TINY_CHAT, LiveServer, build_model, running_server
from random_models import ranking_model

QUERY = "What is the capital of France?"
DOCUMENTS = ["Paris.", "Count from 1 to 5.", "The sky is blue because the air scatters blue light."]


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("ranker")
    weights = ranking_model(folder / "rank.gguf", TINY_CHAT)
    build_model(folder / "home", "rank", source=weights)
    build_model(folder / "home", "tiny")
    with running_server(folder / "home", folder) as live:
        yield live


def rank(server: LiveServer, **fields: Any) -> Any:
    answer = server.post("/v1/rerank", {"model": "rank", "query": QUERY, "documents": DOCUMENTS, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def scores_of(answer: Any) -> dict[int, float]:
    return {row["index"]: row["relevance_score"] for row in answer["results"]}


def test_every_document_has_a_score_and_the_best_comes_first(ranker: LiveServer) -> None:
    answer = rank(ranker)
    assert (answer["object"], answer["model"]) == ("list", "rank")
    scores = [row["relevance_score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3
    assert sorted(scores_of(answer)) == [0, 1, 2]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 20


def test_a_score_is_of_query_and_document_alone(ranker: LiveServer) -> None:
    together = scores_of(rank(ranker))
    for index, document in enumerate(DOCUMENTS):
        alone = rank(ranker, documents=[document])["results"][0]["relevance_score"]
        assert alone == pytest.approx(together[index], abs=1e-4)
    other = scores_of(rank(ranker, query="Why is the sky blue?"))
    assert other[0] != pytest.approx(together[0], abs=1e-6)


def test_the_best_few_with_their_texts(ranker: LiveServer) -> None:
    best = rank(ranker)["results"][0]
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1]}, DOCUMENTS[2]]
    answer = rank(ranker, documents=documents, top_n=1, return_documents=True)
    assert answer["results"] == [{**best, "document": {"text": DOCUMENTS[best["index"]]}}]


def test_fields_of_other_servers_change_nothing(ranker: LiveServer) -> None:
    assert rank(ranker, max_chunks_per_doc=1) == rank(ranker)


def test_of_long_documents_the_beginning_counts(ranker: LiveServer) -> None:
    long = scores_of(rank(ranker, documents=["hello " * 500, "hello " * 900]))
    assert long[0] == pytest.approx(long[1], abs=1e-6)


def test_a_model_that_ranks_says_so_and_does_nothing_else(ranker: LiveServer) -> None:
    assert ranker.post("/api/show", {"model": "rank"}).json()["capabilities"] == ["rerank"]
    for route, body in (
        ("/api/embed", {"input": "x"}),
        ("/v1/embeddings", {"input": "x"}),
        ("/api/generate", {"prompt": "x"}),
    ):
        answer = ranker.post(route, {"model": "rank", **body})
        assert answer.status_code == 400 and "does not support" in answer.text


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "tiny"}, 400, "does not support rerank"),
        ({"model": "nope"}, 404, "model 'nope' not found"),
        ({"query": ""}, 400, "query"),
        ({"query": "hello " * 500}, 400, "the context has room for"),
        ({"documents": []}, 400, "documents"),
        ({"documents": ["x"] * 1025}, 400, "documents"),
        ({"documents": [3]}, 400, "documents"),
        ({"top_n": 0}, 400, "top_n"),
    ],
    ids=["chat model", "no model", "no query", "long query", "none", "too many", "number", "top_n"],
)
def test_what_cannot_be_ranked_is_refused(ranker: LiveServer, fields: Any, status: int, words: str) -> None:
    body = {"model": "rank", "query": QUERY, "documents": DOCUMENTS, **fields}
    answer = ranker.post("/v1/rerank", body)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
