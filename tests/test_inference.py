from __future__ import annotations

import pytest

from gainrag import GainRAG
from gainrag.errors import ConfigError, DataError
from gainrag.records import Passage
from gainrag.testing import OverlapLM, OverlapRetriever, OverlapSelector

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


def test_bad_questions_and_settings() -> None:
    with pytest.raises(DataError, match="empty"):
        rag().answer("  ")
    with pytest.raises(DataError, match="9 passages are wanted of 4"):
        rag(k=9).answer("Which?")
    with pytest.raises(ConfigError, match="k is 0"):
        rag(k=0)
