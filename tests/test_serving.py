"""The service as its clients see it, without a network: routes, refusals, the queue, keys, reloads, answers."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from gainrag.errors import ConfigError, GainragError, ModelError
from gainrag.protocols import FloatArray, Selector
from gainrag.records import Passage
from gainrag.selectors import PRIOR, CrossEncoderSelector, open_selector
from gainrag.serving import serve
from gainrag.serving.answering import Answerer
from gainrag.serving.app import Limits, create_app
from gainrag.serving.keys import VARIABLE, keys_of_environment
from gainrag.serving.loaded import Shelf, names_of
from gainrag.serving.waiting import Worker
from gainrag.testing import OverlapLM, OverlapRetriever, OverlapSelector

QUERY = "Which river flows through Paris?"
DOCUMENTS = ["Nothing to see.", "The Seine is a river that flows through Paris.", "Rain falls on Paris."]
BODY = {"query": QUERY, "documents": DOCUMENTS}
ROUTES = ("/rerank", "/v1/rerank", "/v2/rerank")


@contextmanager
def served(selector: Selector | None = None, answerer: Answerer | None = None, **settings: Any) -> Iterator[TestClient]:
    opened = selector or OverlapSelector()
    settings.setdefault("limits", Limits(deadline=600))  # it is not speed that is tested
    with TestClient(create_app(Shelf({"overlap": "overlap"}, lambda path: opened), answerer, **settings)) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with served() as found:
        yield found


# --- the rerank routes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_gives_every_document_best_first(client: TestClient, route: str) -> None:
    found = client.post(route, json={**BODY, "model": "overlap"})
    assert found.status_code == 200
    body = found.json()
    assert set(body) == {"id", "object", "created", "model", "results", "usage", "meta"}
    assert [result["index"] for result in body["results"]] == [1, 2, 0]
    # A key that was not asked for is not there: some clients fail on null.
    assert all(set(result) == {"index", "relevance_score"} for result in body["results"])
    scores = [result["relevance_score"] for result in body["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert body["model"] == "overlap"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] == body["meta"]["tokens"]["input_tokens"] > 0
    assert "warnings" not in body["meta"]


@pytest.mark.parametrize(
    "more",
    [
        {"top_n": None, "max_tokens_per_doc": None, "model": None, "return_documents": None},
        {"rank_fields": ["text"], "max_chunks_per_doc": 10, "user": {"anything": [1]}},
    ],
)
def test_nulls_and_keys_of_others_are_accepted(client: TestClient, more: dict[str, Any]) -> None:
    assert len(client.post("/rerank", json={**BODY, **more}).json()["results"]) == 3


@pytest.mark.parametrize("flag", [True, "true", "True"])
def test_documents_come_back_where_asked(client: TestClient, flag: object) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "title": "Seine", "id": 7, "score": 3.5, "scores": {"bm25": 1}}]
    body = {"query": QUERY, "documents": documents, "top_n": 1, "return_documents": flag}
    (result,) = client.post("/v1/rerank", json=body).json()["results"]
    assert result["index"] == 1
    assert result["document"] == {"text": DOCUMENTS[1]}


def test_texts_are_answered_as_text_embeddings_inference_does(client: TestClient) -> None:
    found = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "raw_scores": True}).json()
    assert [result["index"] for result in found] == [1, 2, 0]
    assert found[0] == {"index": 1, "score": 4.0}
    found = client.post("/rerank", json={"query": QUERY, "texts": DOCUMENTS, "return_text": True}).json()
    assert found[0]["text"] == DOCUMENTS[1]
    assert 0 < found[0]["score"] < 1


class Given:
    """A selector whose scores are the passages' texts."""

    def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
        return np.array([float(p.text) if _is_number(p.text) else 0.0 for p in passages])


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace("-", "").replace("e", "").isdigit()


def test_scores_are_sigmoids_that_are_never_rounded() -> None:
    with served(Given()) as client:
        body = {"query": "?", "documents": ["30.0", "30.5", "-700", "-690", "31"]}
        found = client.post("/rerank", json=body).json()["results"]
        assert [result["index"] for result in found] == [4, 1, 0, 3, 2]
        values = [result["relevance_score"] for result in found]
        assert len(set(values)) == 5
        assert values == sorted(values, reverse=True)
        raw = client.post("/rerank", json={**body, "raw_scores": True}).json()["results"]
        assert [result["relevance_score"] for result in raw] == [31.0, 30.5, 30.0, -690.0, -700.0]
        # Where the sigmoid is 1 for both, the order is still the selector's.
        found = client.post("/rerank", json={"query": "?", "documents": ["90", "95"]}).json()["results"]
        assert [(r["index"], r["relevance_score"]) for r in found] == [(1, 1.0), (0, 1.0)]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "no JSON"),
        (b'{"query": "\xff\xfe", "documents": ["a"]}', 400, "UTF-8"),
        (b'{"query": "\\ud800", "documents": ["a"]}', 400, "no JSON"),
        (b'{"query": "q", "x": ' + b"[" * 100_000, 400, "no JSON"),
        (b"", 400, "no JSON"),
        (b"[" * 100_000, 422, "object"),
        (b'{"documents": ["a"]}', 422, "query"),
        (b'{"query": "q"}', 422, "documents"),
        (b'{"query": "q", "documents": []}', 422, "empty"),
        (b'{"query": " ", "documents": ["a"]}', 422, "blank"),
        (b'{"query": "q", "documents": [{"image": "x"}]}', 422, "text"),
        (b'{"query": "q", "documents": [3]}', 422, "at `documents[0]`"),
        (b'{"query": "q", "documents": "a"}', 422, "documents"),
        (b'{"query": "q", "documents": ["a"], "top_n": 0}', 422, "top_n"),
        (b'{"query": "q", "documents": ["a"], "top_n": "3"}', 422, "top_n"),
        (b'{"query": "q", "documents": ["a"], "max_tokens_per_doc": -1}', 422, "max_tokens_per_doc"),
        (b'{"query": "q", "documents": ["a"], "return_documents": "maybe"}', 422, "true or false"),
        (b'{"query": "q", "documents": [{"text": "a", "score": 1e999}]}', 422, "range"),
        (b'{"query": "q", "documents": ["a"], "x": NaN}', 400, "no JSON"),
    ],
)
def test_errors_are_one_sentence_where_every_client_looks(
    client: TestClient, body: bytes, status: int, says: str
) -> None:
    found = client.post("/rerank", content=body)
    assert found.status_code == status, found.text
    error = found.json()
    assert isinstance(error["detail"], str)
    assert says in error["detail"]
    assert error["message"] == error["error"]["message"] == error["detail"]
    assert set(error["error"]) == {"message", "type", "code"}


def test_routes_and_methods_that_are_not_there(client: TestClient) -> None:
    assert client.get("/nothing").status_code == 404
    found = client.get("/rerank")
    assert found.status_code == 405
    assert found.json()["error"]["code"] == "method_not_allowed"


def test_what_is_too_large_is_refused_and_one_long_document_is_not() -> None:
    with served() as client:
        assert client.post("/rerank", content=b" " * (10 << 20)).status_code == 413
        many = client.post("/rerank", json={"query": "q", "documents": ["a"] * 100_000})
        assert many.status_code == 413
        assert "100000 documents" in many.json()["detail"]
        long = {"query": QUERY, "documents": ["The Seine " * 100_000, DOCUMENTS[2]]}
        assert client.post("/rerank", json=long).status_code == 200


def test_a_model_that_is_not_there() -> None:
    with served() as client:
        body = client.post("/rerank", json={**BODY, "model": "rerank-v3.5"}).json()
        assert body["model"] == "overlap"
        assert "no model 'rerank-v3.5'" in body["meta"]["warnings"][0]
    shelf = Shelf({"one": "1", "two": "2"}, lambda path: OverlapSelector())
    with TestClient(create_app(shelf)) as client:
        assert client.post("/rerank", json={**BODY, "model": "two"}).json()["model"] == "two"
        found = client.post("/rerank", json={**BODY, "model": "too"})
        assert found.status_code == 404
        assert "did you mean 'two'" in found.json()["detail"]


def test_names_of_selectors() -> None:
    assert names_of([PRIOR, "a=b/c", "runs/x/selector/"]) == {
        "gain-features": PRIOR,
        "a": "b/c",
        "selector": "runs/x/selector/",
    }
    with pytest.raises(ConfigError, match="two selectors are called"):
        names_of(["a/s", "b/s"])


# --- cutting and counting ------------------------------------------------------------------------------------------


def test_words_are_counted_and_cut_where_a_selector_has_no_tokens(client: TestClient) -> None:
    body = {"query": "river Paris", "documents": ["one two three river Paris", "a river"], "max_tokens_per_doc": 3}
    found = client.post("/rerank", json={**body, "raw_scores": True})
    assert found.headers["x-truncated-documents"] == "1"
    assert found.json()["usage"]["total_tokens"] == 2 + 3 + 2
    assert [r["relevance_score"] for r in found.json()["results"]] == [1.0, 0.0]
    refused = client.post(
        "/rerank", json={"query": "a", "texts": ["a b c d"], "truncate": False, "max_tokens_per_doc": 2}
    )
    assert refused.status_code == 413


def test_a_cross_encoder_counts_and_cuts_tokens(cross_encoder: Path) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    long = "The Seine flows through Paris. " * 50
    with served(selector) as client:
        found = client.post("/rerank", json={"query": QUERY, "documents": [long, DOCUMENTS[2]]})
        assert found.headers["x-truncated-documents"] == "1"
        assert selector.context == 96 - 3
        expected = 93 + selector.count_tokens(QUERY) + selector.count_tokens(DOCUMENTS[2])
        assert found.json()["usage"]["total_tokens"] == expected
        refused = client.post("/rerank", json={"query": QUERY, "texts": [long], "truncate": False})
        assert refused.status_code == 413
        cut = {"query": QUERY, "documents": [long], "max_tokens_per_doc": 7, "raw_scores": True}
        found = client.post("/rerank", json=cut).json()["results"][0]["relevance_score"]
        beginning = selector.truncate(long, 7)
        assert long.startswith(beginning)
        assert selector.count_tokens(beginning) == 7
        assert found == pytest.approx(selector.score(QUERY, [Passage(id="0", text=beginning)])[0], abs=1e-5)


def test_the_shipped_selector_serves_without_any_training() -> None:
    selector = open_selector(PRIOR)
    with served(selector) as client:
        documents = [{"text": text, "title": "Seine" if "Seine" in text else ""} for text in DOCUMENTS]
        found = client.post("/rerank", json={"query": QUERY, "documents": documents, "raw_scores": True}).json()
        assert found["results"][0]["index"] == 1
        passages = [Passage(id=str(i), text=d["text"], title=d["title"]) for i, d in enumerate(documents)]
        expected = selector.score(QUERY, passages)
        assert [r["relevance_score"] for r in found["results"]] == sorted(expected, reverse=True)
        assert client.post("/rerank", json={"query": "a " * 10_000, "documents": ["a"]}).json()["meta"]["warnings"]


def test_a_selector_that_weighs_scores_says_so_once_to_who_sends_none() -> None:
    class Weighs(OverlapSelector):
        weighs = ("bm25", "dense")

    with served(Weighs()) as client:
        (warning,) = client.post("/rerank", json=BODY).json()["meta"]["warnings"]
        assert "bm25, dense" in warning
        scored = [{"text": text, "scores": {"bm25": 1.0, "dense": 0.5}} for text in DOCUMENTS]
        assert "warnings" not in client.post("/rerank", json={**BODY, "documents": scored}).json()["meta"]


# --- the queue -----------------------------------------------------------------------------------------------------


class Gated(OverlapSelector):
    """Scores many at a time, and not before the gate opens; it notes the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.batches: list[int] = []

    def score_many(self, requests: Sequence[tuple[str, Sequence[Passage]]]) -> list[FloatArray]:
        self.batches.append(len(requests))
        self.entered.set()
        assert self.open.wait(30)
        if any("poison" in question for question, _ in requests):
            raise RuntimeError("CUDA error")
        return [self.score(question, passages) for question, passages in requests]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def blocked(**settings: Any) -> Iterator[tuple[TestClient, Gated, ThreadPoolExecutor]]:
    """A server whose scoring thread is busy with one request until the gate opens."""
    selector = Gated()
    with served(selector, **settings) as client, ThreadPoolExecutor(16) as pool:
        selector.batches.clear()
        selector.open.clear()
        selector.entered.clear()
        pool.submit(client.post, "/rerank", json=BODY)
        assert selector.entered.wait(30)
        try:
            yield client, selector, pool
        finally:
            selector.open.set()


def waiting(client: TestClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("gainrag_queue_passages")).split()[1])


def test_requests_that_wait_together_are_scored_together() -> None:
    with blocked() as (client, selector, pool):
        more = [pool.submit(client.post, "/rerank", json=BODY) for _ in range(5)]
        until(lambda: waiting(client) == 15)
        selector.open.set()
        assert {one.result().status_code for one in more} == {200}
        assert [r["index"] for r in more[0].result().json()["results"]] == [1, 2, 0]
        assert selector.batches == [1, 5]
        assert more[0].result().headers["x-batch-passages"] == "15"


def test_one_request_that_fails_takes_no_other_with_it() -> None:
    with blocked() as (client, selector, pool):
        good = [pool.submit(client.post, "/rerank", json=BODY) for _ in range(2)]
        bad = pool.submit(client.post, "/rerank", json={**BODY, "query": "poison"})
        until(lambda: waiting(client) == 9)
        selector.open.set()
        assert [one.result().status_code for one in good] == [200, 200]
        assert bad.result().status_code == 500
        assert "RuntimeError" in bad.result().json()["detail"]
        assert client.get("/health").status_code == 200


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    with blocked(limits=Limits(queue=6)) as (client, selector, pool):
        more = [pool.submit(client.post, "/rerank", json=BODY) for _ in range(2)]
        until(lambda: waiting(client) == 6)
        refused = client.post("/rerank", json=BODY)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "the queue is full" in refused.json()["detail"]
        assert 'gainrag_rejections_total{reason="full"} 1.0' in client.get("/metrics").text
        selector.open.set()
        assert {one.result().status_code for one in more} == {200}


def test_a_request_without_a_result_in_time_is_given_up() -> None:
    with blocked(limits=Limits(deadline=0.5)) as (client, selector, _):
        late = client.post("/rerank", json=BODY)
        assert late.status_code == 503
        assert late.headers["retry-after"]
        assert client.get("/health").status_code == 503  # it is busy, and with nothing that ends
        selector.open.set()
        until(lambda: client.get("/health").status_code == 200)
        assert selector.batches[0] == 1


def test_bodies_together_are_bounded() -> None:
    with blocked(limits=Limits(held=3000)) as (client, selector, _):
        refused = client.post("/rerank", json={**BODY, "padding": "x" * 3000})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        selector.open.set()
        until(lambda: waiting(client) == 0)
        assert client.post("/rerank", json={**BODY, "padding": "x" * 2000}).status_code == 200


def test_out_of_memory_is_said_and_survived() -> None:
    class Small(OverlapSelector):
        def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
            if len(passages) > 2:
                raise MemoryError
            return super().score(question, passages)

    with served(Small()) as client:
        found = client.post("/rerank", json=BODY)
        assert found.status_code == 503
        assert "out of memory" in found.json()["detail"]
        assert client.get("/health").status_code == 200


def test_a_worker_finishes_what_waits_before_it_stops() -> None:
    gate = threading.Event()

    def work(asked: Sequence[int]) -> list[int]:
        gate.wait(30)
        return [2 * number for number in asked]

    worker = Worker(work, capacity=10, together=2, unit="numbers")
    jobs = [worker.submit(n, kind="all", size=1, within=30) for n in range(5)]
    closing = threading.Thread(target=worker.close)
    closing.start()
    until(lambda: worker._closed)
    with pytest.raises(GainragError, match="stopping"):
        worker.submit(9, kind="all", size=1, within=30)
    gate.set()
    closing.join(30)
    assert [job.result(0) for job in jobs] == [0, 2, 4, 6, 8]
    assert not worker.alive


def test_batches_keep_the_order_of_their_kind_and_their_size() -> None:
    gate, batches = threading.Event(), []

    def work(asked: Sequence[str]) -> Sequence[str]:
        gate.wait(30)
        batches.append("".join(asked))
        return asked

    worker = Worker(work, capacity=100, together=3, unit="letters")
    first = worker.submit("x", kind=None, size=1, within=30)
    until(lambda: worker.running == 1)
    jobs = [worker.submit(letter, kind=letter.lower(), size=1 + letter.isupper(), within=30) for letter in "abaAabb"]
    alone = worker.submit("z", kind=None, size=50, within=30)
    gate.set()
    assert [job.result(30) for job in [first, *jobs, alone]] == list("xabaAabbz")
    # A large one of a kind is not overtaken by a small one of the same kind.
    assert batches == ["x", "aa", "bbb", "Aa", "z"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_one_gets_does_not_depend_on_its_company(cross_encoder: Path, dtype: Any) -> None:
    selector = CrossEncoderSelector(cross_encoder, dtype=dtype)
    near = [f"The Seine flows through Paris{mark}" for mark in (".", "!", "?", " .", ",")]  # scores close together
    asked = [{"query": QUERY, "documents": [*near[n:], *DOCUMENTS, "a b c. " * 30]} for n in range(4)]
    rounding = 1e-5 if dtype == "float32" else 0.05

    def scores(body: dict[str, Any]) -> tuple[int, FloatArray]:
        results = body["results"]
        return results[0]["index"], np.array([r["relevance_score"] for r in sorted(results, key=lambda r: r["index"])])

    with served(selector) as client, ThreadPoolExecutor(4) as pool:
        alone = [client.post("/rerank", json={**one, "raw_scores": True}).json() for one in asked]
        together = list(pool.map(lambda one: client.post("/rerank", json={**one, "raw_scores": True}).json(), asked))
    for (best, single), (also_best, common) in zip(map(scores, alone), map(scores, together), strict=True):
        assert best == also_best
        np.testing.assert_allclose(single, common, atol=rounding)


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_covers_everything_but_health_and_readiness() -> None:
    with served(keys=["first", "second"]) as client:
        for path in ("/", "/metrics", "/openapi.json", "/examples", "/playground.js", "/nothing"):
            assert client.get(path).status_code == 401, path
        for path in (*ROUTES, "/answer"):
            assert client.post(path, json=BODY).status_code == 401, path
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        refused = client.post("/rerank", json=BODY, headers={"Authorization": "Bearer third"})
        assert refused.status_code == 401
        assert isinstance(refused.json()["detail"], str)
        assert refused.headers["www-authenticate"].startswith("Basic")
        password = base64.b64encode(b"anyone:first").decode()
        for allowed in ("Bearer first", "bearer second", f"Basic {password}"):
            assert client.post("/rerank", json=BODY, headers={"Authorization": allowed}).status_code == 200
        refused_ones: list[Any] = ["Basic first", "Basic !!", "first", "Token first", "Bearer", b"Bearer \xff\xfe"]
        for wrong in refused_ones:
            assert client.post("/rerank", json=BODY, headers={"Authorization": wrong}).status_code == 401


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert keys_of_environment() == []
    monkeypatch.setenv(VARIABLE, "one, two,")
    assert keys_of_environment() == ["one", "two"]
    for bad in ("", " , ", "schlüssel"):
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(ConfigError):
            keys_of_environment()


# --- selectors that change -----------------------------------------------------------------------------------------


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """A copy of the shipped selector's folder."""
    from gainrag.models.folder import resolve

    return Path(shutil.copytree(resolve(PRIOR), tmp_path / "selector"))


def test_a_changed_folder_is_swapped_in_and_a_damaged_one_is_not(features: Path) -> None:
    shelf = Shelf({"mine": str(features)}, open_selector)
    with TestClient(create_app(shelf, reload_seconds=0.02)) as client:
        before = client.post("/rerank", json=BODY).json()["results"]
        whole = (features / "trees.txt").read_text()
        (features / "trees.txt").write_text(whole[: len(whole) // 2])
        until(lambda: "failure" in client.get("/ready").json()["models"]["mine"])
        assert client.post("/rerank", json=BODY).json()["results"] == before
        assert 'gainrag_reloads_total{model="mine",outcome="refused"} 1.0' in client.get("/metrics").text
        old = shelf.served["mine"].selector
        (features / "trees.txt").write_text(whole)
        until(lambda: shelf.served["mine"].selector is not old)
        assert "failure" not in client.get("/ready").json()["models"]["mine"]
        assert client.post("/rerank", json=BODY).json()["results"] == before
        assert 'gainrag_reloads_total{model="mine",outcome="served"} 1.0' in client.get("/metrics").text


def test_a_folder_that_is_replaced_as_a_whole_or_gone(features: Path) -> None:
    opened: list[str] = []

    def opening(path: str) -> Selector:
        opened.append(path)
        return OverlapSelector()

    shelf = Shelf({"mine": str(features)}, opening)
    with TestClient(create_app(shelf, reload_seconds=0.02)) as client:
        shutil.move(features, features.with_name("old"))
        time.sleep(0.2)
        assert client.post("/rerank", json=BODY).status_code == 200
        shutil.copytree(features.with_name("old"), features)
        until(lambda: len(opened) == 2)


# --- answers -------------------------------------------------------------------------------------------------------

PASSAGES = [
    Passage(id="1", text="Rain falls on Paris in winter."),
    Passage(id="2", title="Seine", text="Seine: the river that flows through Paris."),
    Passage(id="3", text="Nothing to see."),
]


@pytest.fixture(scope="module")
def answers() -> Iterator[TestClient]:
    with served(answerer=Answerer(OverlapRetriever(PASSAGES), OverlapLM(), depth=3)) as found:
        yield found


def test_an_answer_comes_with_its_passages_scores_and_timings(answers: TestClient) -> None:
    found = answers.post("/answer", json={"question": QUERY}).json()
    assert found["answer"] == "Seine"
    assert [p["id"] for p in found["passages"]] == ["2"]
    assert len(found["candidates"]) == 4
    assert found["candidates"][0]["retrieval_rank"] == 1
    assert {c["retrieval_rank"] for c in found["candidates"]} == {1, 2, 3, None}
    assert set(found["timings"]) == {"retrieved", "written", "selected", "answered"}
    assert found["model"] == "overlap"
    assert found["answer_without"] is None
    assert all(c["gain"] is None for c in found["candidates"])


def test_the_true_gain_and_the_answer_without_a_passage(answers: TestClient) -> None:
    asked = {"question": QUERY, "answers": ["Seine"], "without": True}
    found = answers.post("/answer", json=asked).json()
    gains = {c["id"]: c["gain"] for c in found["candidates"]}
    assert max(gains, key=lambda id: gains[id]) == "2"
    assert gains["2"] > found["gain_without"]
    assert isinstance(found["answer_without"], str)
    assert {"answered_without", "measured"} < set(found["timings"])


def test_the_steps_come_as_server_sent_events(answers: TestClient) -> None:
    with answers.stream("POST", "/answer", json={"question": QUERY, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    events = [dict(line.split(": ", 1) for line in block.splitlines()) for block in text.strip().split("\n\n")]
    assert [event["event"] for event in events] == ["retrieved", "written", "selected", "answered", "result"]
    assert json.loads(events[-1]["data"])["answer"] == "Seine"
    assert [p["id"] for p in json.loads(events[3]["data"])] == ["2"]


def test_questions_that_cannot_be_answered(answers: TestClient, client: TestClient) -> None:
    assert client.post("/answer", json={"question": QUERY}).status_code == 404
    for body in ({}, {"question": " "}, {"question": "x" * 10_000}, {"question": QUERY, "answers": [""]}):
        assert answers.post("/answer", json=body).status_code == 422
    few = Answerer(OverlapRetriever([]), OverlapLM(), depth=3, k=2)
    with served(answerer=few) as short:
        assert short.post("/answer", json={"question": QUERY}).status_code == 422
        with short.stream("POST", "/answer", json={"question": QUERY, "stream": True}) as response:
            assert "event: error" in "".join(response.iter_text())


# --- what is said about it -----------------------------------------------------------------------------------------


def test_every_example_of_the_openapi_can_be_sent(answers: TestClient) -> None:
    paths = answers.get("/openapi.json").json()["paths"]
    assert set(paths) == {*ROUTES, "/answer", "/health", "/ready", "/metrics"}
    sent = 0
    for path, methods in paths.items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json", {})
        for example in content.get("examples", {}).values():
            assert answers.post(path, json=example["value"]).status_code == 200, (path, example)
            sent += 1
    assert sent == 11


def test_metrics_tell_where_time_goes(client: TestClient) -> None:
    client.post("/rerank", json=BODY)
    text = client.get("/metrics").text
    assert 'gainrag_requests_total{route="/rerank",status="200"}' in text
    for name in ("queue", "tokenization", "scoring", "request"):
        assert f"gainrag_{name}_seconds_bucket" in text
    assert "gainrag_truncated_documents_total" in text


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GainragError, match="no such selector folder"):
        serve([str(tmp_path / "nothing")], port=0)
    with pytest.raises(ConfigError, match="an index and a language model"):
        serve(llm=OverlapLM())
    with pytest.raises(ConfigError, match="port is 70000"):
        serve(port=70000)

    def broken(path: str) -> Selector:
        raise ModelError("cannot be loaded", where=path)

    with pytest.raises(ModelError):
        Shelf({"a": "a"}, broken)
