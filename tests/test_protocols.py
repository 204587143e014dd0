"""What parts return is checked where they are called, and what they can do beyond their protocol is declared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gainrag.answering import answer
from gainrag.augmentation import augment
from gainrag.errors import ConfigError, ModelError
from gainrag.inference import GainRAG
from gainrag.protocols import (
    Hardware,
    Lazy,
    Level,
    Scorer,
    ScorerGenerator,
    StoppingGenerator,
    chunk_for,
    continue_with,
)
from gainrag.records import Passage, Question, Retrieved
from gainrag.retrieval import retrieve
from gainrag.selection import select
from gainrag.synthesis import synthesize
from gainrag.testing import EchoGenerator, OverlapLM, OverlapRetriever, OverlapSelector, TableScorer


class Returning:
    """A part of every kind, which returns what it was given."""

    level: Level = "exact"

    def __init__(self, value: Any) -> None:
        self.value = value

    def score(self, *_: Any) -> Any:
        return self.value

    search = losses = generate = score


class Generating(OverlapLM):
    """A scorer as it should be that generates what it was given."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def generate(self, prompts: Sequence[str], max_new_tokens: int) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("scores", "what"),
    [
        ([1.0, 2.0], "shape"),
        ([1.0] * 4, "shape"),
        ([[1.0, 2.0, 3.0]], "shape"),
        (1.0, "shape"),
        ([1.0, float("nan"), 2.0], "NaN"),
        ([1.0, float("inf"), 2.0], "infinite"),
        (["high", "low", "middle"], "not numbers"),
        (None, "NaN|shape"),
    ],
)
def test_a_selectors_scores_are_checked(candidates: list[Retrieved], scores: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what) as error:
        select(candidates[:1], Returning(scores))
    assert "Returning" in str(error.value)
    rag = GainRAG(OverlapRetriever(candidates[0].ctxs), Returning(scores), OverlapLM(), pseudo=False)
    with pytest.raises(ModelError, match=what):
        rag.answer("Who founded it?")


@pytest.mark.parametrize(
    ("texts", "what"),
    [([], "0 texts for 2"), (["a"] * 3, "3 texts for 2"), (["a", None], "None"), (None, "None"), ("ab", "'ab'")],
)
def test_a_generators_texts_are_checked(candidates: list[Retrieved], texts: Any, what: str) -> None:
    for stage in (answer, augment, synthesize):
        with pytest.raises(ModelError, match=what):
            stage(candidates[:2], Generating(texts))


@pytest.mark.parametrize(
    ("losses", "what"),
    [
        ([], "0 arrays of losses for 1"),
        ([np.zeros((4, 2, 2))], "shape"),  # of one alpha
        ([np.zeros((3, 2, 1))], "shape"),  # the question without a passage is scored, too
        ([np.full((4, 2, 1), np.nan)], "NaN"),
        ([None], "NaN|shape"),
        ([[["low"]]], "not numbers"),
    ],
)
def test_a_scorers_losses_are_checked(candidates: list[Retrieved], losses: Any, what: str) -> None:
    with pytest.raises(ModelError, match=what):
        synthesize(candidates[:1], Returning(losses), alpha=0.0)


def test_a_retrievers_lists_are_checked() -> None:
    with pytest.raises(ModelError, match="1 lists of passages for 2"):
        retrieve([Question(id=str(i), question="?") for i in range(2)], Returning([[]]))


def test_who_is_no_scorer_is_told_before_anything_is_done(candidates: list[Retrieved]) -> None:
    assert isinstance(TableScorer({}), Scorer)
    assert isinstance(OverlapLM(), ScorerGenerator)
    for lm in ("embedded:smollm2-135m-instruct", EchoGenerator(), None):
        with pytest.raises(ConfigError, match=r"not a ScorerGenerator.*open_lm"):
            synthesize(candidates, lm)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("retriever", "selector", "llm", "hint"),
    [
        ("idx", OverlapSelector(), OverlapLM(), "open_index"),
        (OverlapRetriever([]), "selector", OverlapLM(), "open_selector"),
        (OverlapRetriever([]), OverlapSelector(), "model", "open_lm"),
        ("idx", "selector", "model", "open_index"),
        (None, None, None, "open_index"),
    ],
)
def test_names_in_place_of_parts_fail_at_once(retriever: Any, selector: Any, llm: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as error:
        GainRAG(retriever, selector, llm)
    assert "\n" not in str(error.value)


def test_what_goes_beyond_a_protocol_is_declared() -> None:
    class Stopping(EchoGenerator):
        kind = "cuda"

        def rate(self) -> str:
            return "fast"

        def generate_until(self, prompts: Sequence[str], max_new_tokens: int, stop: str | None) -> list[str]:
            return [f"until {stop}"] * len(prompts)

    assert isinstance(Stopping(), StoppingGenerator)
    assert isinstance(Stopping(), Hardware)
    assert continue_with(Stopping(), ["a"], 3, "!") == ["until !"]
    assert continue_with(EchoGenerator(), ["a b"], 1, "!") == ["b"]
    sizes = {"cpu": 1, "cuda": 2}
    assert (chunk_for(Stopping(), sizes), chunk_for(EchoGenerator(), sizes)) == (2, 1)
    assert isinstance(OverlapSelector(), Lazy)


def test_a_selector_that_learned_a_threshold_is_lazy_by_default() -> None:
    passages = [Passage(id="1", text="Seine: the river that flows in Paris.")]

    def pseudo(selector: Any) -> str:
        return GainRAG(OverlapRetriever(passages), selector, OverlapLM()).pseudo

    assert pseudo(OverlapSelector(threshold=3)) == "lazy"
    assert pseudo(OverlapSelector()) == "eager"
    assert pseudo(Returning([0.0])) == "eager"
