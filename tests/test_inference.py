from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gainrag import GainRAG
from gainrag.answering import Threshold
from gainrag.errors import ConfigError, DataError
from gainrag.prompts import question_with_choices
from gainrag.protocols import FloatArray
from gainrag.records import Passage
from gainrag.testing import EchoGenerator, OverlapLM, OverlapRetriever, OverlapSelector

PASSAGES = [
    Passage(id="1", text="Rain falls on Paris in winter."),
    Passage(id="2", text="Seine: the river that flows through Paris."),
    Passage(id="3", text="Nothing to see."),
]


def rag(**settings: int | bool) -> GainRAG:
    return GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(), OverlapLM(), **settings)  # type: ignore[arg-type]


def test_the_answer_comes_with_its_passage_and_every_candidates_score() -> None:
    found = rag().answer("Which river flows through Paris?")
    assert found.answer == "Seine"
    assert found.passage.id == "2"
    assert not found.from_pseudo_passage
    assert [c.score for c in found.candidates] == sorted((c.score for c in found.candidates), reverse=True)  # type: ignore[type-var]
    assert len(found.candidates) == 4
    assert [c.origin for c in found.candidates].count("generated") == 1


def test_k_passages_are_read_and_the_pseudo_passage_can_be_left_out() -> None:
    found = rag(k=2, pseudo=False).answer("Which river flows through Paris?")
    assert [p.id for p in found.passages] == ["2", "1"]
    assert len(found.candidates) == 3


def test_depth_bounds_the_candidates() -> None:
    assert len(rag(depth=1).answer("Which river flows through Paris?").candidates) == 2


class Short(OverlapLM):
    """A model of few tokens, which are words."""

    context = 200

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, tokens: int) -> str:
        return " ".join(text.split()[:tokens])


@pytest.mark.parametrize("question", [None, 7, b"Which?", ["Which?"]])
def test_what_is_no_text_is_said_in_one_line(question: object) -> None:
    with pytest.raises(DataError, match="not a text"):
        rag().answer(question)  # type: ignore[arg-type]


def test_a_long_question_is_blamed_for_its_length() -> None:
    asked = GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(), Short())
    asked.answer("Which river flows through Paris?")
    with pytest.raises(DataError, match=r"the question has 15000 tokens.*context of 200.*shorten the question"):
        asked.answer("why " * 15_000)


def test_questions_are_counted_from_all_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    asked = GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(threshold=3), OverlapLM())
    questions = ["Which river flows through Paris?", "Where is Rome?"] * 100
    alone = [asked.answer(question).answer for question in questions]
    with ThreadPoolExecutor(8) as pool:
        assert [found.answer for found in pool.map(asked.answer, questions)] == alone
    assert (asked.answered, asked.skipped) == (400, 200)


def test_of_choices_the_answer_is_the_one_of_least_loss() -> None:
    choices = ["the Spree", "Seine"]
    found = rag(pseudo=False).answer("Which river flows through Paris?", choices)
    assert found.choice_losses is not None
    assert found.choice_losses[1] < found.choice_losses[0]
    assert (found.answer, found.passage.id) == ("Seine", "2")
    strict = Threshold(("the Spree", "Seine"), min(-100.0, -found.choice_losses[0]), 10)
    assert rag(pseudo=False).answer("Which river flows through Paris?", choices, strict).answer == "the Spree"
    assert rag().answer("Which river flows through Paris?").choice_losses is None


def test_the_selector_reads_the_choices_as_in_selection() -> None:
    class Asked(OverlapSelector):
        seen: list[str]

        def score(self, question: str, passages: Sequence[Passage]) -> FloatArray:
            self.seen = [question]
            return super().score(question, passages)

    selector = Asked()
    GainRAG(OverlapRetriever(PASSAGES), selector, OverlapLM(), pseudo=False).answer("Which?", ["Yes", "No"])
    assert selector.seen == [question_with_choices("Which?", ["Yes", "No"])]


@pytest.mark.parametrize("choices", [[], ["Yes"], ["Yes", "Yes"], ["Yes", " "], "Yes", [1, 2]])
def test_choices_that_are_none(choices: Any) -> None:
    with pytest.raises(DataError, match="choices is"):
        rag().answer("Which?", choices)


def test_choices_need_a_scorer() -> None:
    asked = GainRAG(OverlapRetriever(PASSAGES), OverlapSelector(), EchoGenerator())
    with pytest.raises(ConfigError, match="not a Scorer"):
        asked.answer("Which?", ["Yes", "No"])


def test_bad_questions_and_settings() -> None:
    with pytest.raises(DataError, match="empty"):
        rag().answer("  ")
    with pytest.raises(DataError, match="9 passages are wanted of 4"):
        rag(k=9).answer("Which?")
    with pytest.raises(ConfigError, match="k is 0"):
        rag(k=0)
