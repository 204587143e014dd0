"""Eight threads on one model, selector, retriever or GainRAG get what one thread gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import numpy as np
import pytest

from gainrag import BM25, CrossEncoderSelector, Dense, GainRAG, Hybrid
from gainrag.demo import load
from gainrag.lms.local import LocalLM
from gainrag.models import threads
from gainrag.prompts import for_model
from gainrag.protocols import Retriever, ScoringRequest

T = TypeVar("T")
R = TypeVar("R")
THREADS = 8


def at_once(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The work on every item, by threads that begin together."""
    together = Barrier(THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda _: together.wait(), range(THREADS)))
        return list(pool.map(work, items))


def test_scoring_and_generating_on_one_model(smollm: LocalLM) -> None:
    questions, _, corpus = load()
    prompts = for_model("completion", smollm)

    def work(n: int) -> str | list[float]:
        question = questions[n]
        read = [prompts.with_passages(question.question, [p], reserve=8) for p in corpus[n : n + 2]]
        if n % 2:
            return smollm.generate_until(read, 6, "\n")[0]
        answers = [prompts.scored_answer(answer) for answer in question.answers[:2]]
        request = ScoringRequest(read, prompts.without(question.question), answers)
        return [float(x) for x in smollm.losses([request], [0.5])[0].ravel()]

    alone = [work(n) for n in range(8)]
    for one, other in zip(alone, at_once(work, range(8)), strict=True):
        assert one == (other if isinstance(one, str) else pytest.approx(other, abs=1e-5))


def test_one_selector(cross_encoder: Path) -> None:
    questions, _, corpus = load()
    selector = CrossEncoderSelector(cross_encoder, dtype="bfloat16")  # settles what is close with another copy

    def work(n: int) -> list[float]:
        # Some are cut, some are not: the tokenizer's state changes from one to the next.
        return [float(x) for x in selector.score(questions[n].question, corpus[5 * n : 5 * n + 2 + n])]

    alone = [work(n) for n in range(8)]
    fresh = selector = CrossEncoderSelector(cross_encoder, dtype="bfloat16")  # loads that copy while others score
    assert fresh is selector
    for one, other in zip(alone, at_once(work, range(8)), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("kind", ["bm25", "dense", "hybrid"])
def test_one_retriever(kind: str) -> None:
    questions, _, corpus = load()
    make: dict[str, Callable[[], Retriever]] = {
        "bm25": lambda: BM25.build(corpus[:60]),
        "dense": lambda: Dense.build(corpus[:60]),
        "hybrid": lambda: Hybrid([make["bm25"](), make["dense"]()]),
    }
    retriever = make[kind]()

    def work(n: int) -> list[tuple[str, float | None]]:
        return [(p.id, p.score) for p in retriever.search([q.question for q in questions[n : n + 1 + n % 3]], 5)[0]]

    alone = [work(n % 20) for n in range(64)]
    assert at_once(work, [n % 20 for n in range(64)]) == alone


def test_one_gainrag(smollm: LocalLM, cross_encoder: Path) -> None:
    questions, _, corpus = load()
    selector = CrossEncoderSelector(cross_encoder, dtype="float32")
    rag = GainRAG(BM25.build(corpus[:60]), selector, smollm, depth=3, max_new_tokens=4, background_tokens=6)
    asked = [question.question for question in questions[:8]]
    alone = [rag.answer(question) for question in asked]
    for one, other in zip(alone, at_once(rag.answer, asked), strict=True):
        assert (one.answer, one.passage) == (other.answer, other.passage)
        assert [c.id for c in one.candidates] == [c.id for c in other.candidates]
    assert rag.answered == 16


def test_threads_of_others_keep_their_cores() -> None:
    """The pool's threads compute on one core each; what they set for themselves must not reach others."""
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        done: list[int] = []
        threads.each(range(9), done.append, device="cpu")
        assert sorted(done) == list(range(9))
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 3
    finally:
        torch.set_num_threads(before)


def test_pools_are_started_once() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        threads._pools.clear()
        pools = at_once(threads._pool, [2] * THREADS)
        assert len({id(pool) for pool in pools}) == 1
        assert np.unique([pool.submit(torch.get_num_threads).result() for pool in pools]).tolist() == [1]
    finally:
        torch.set_num_threads(before)
