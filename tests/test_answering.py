from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gainrag.answering import answer
from gainrag.augmentation import augment, one_paragraph
from gainrag.errors import DataError
from gainrag.prompts import for_model
from gainrag.records import Retrieved, Scored
from gainrag.testing import EchoGenerator, OverlapLM

if TYPE_CHECKING:
    from gainrag.lms.local import LocalLM

SEINE = Retrieved(
    id="q",
    question="Which river flows through Paris?",
    answers=["Seine"],
    ctxs=[Scored(id="1", title="Seine", text="The Seine is the river that flows through Paris.", score=1.0)],
)


def test_the_answer_keeps_question_passages_and_unknown_keys() -> None:
    SEINE.extra = {"level": "easy"}
    found = answer([SEINE], OverlapLM())[0]
    assert (found.id, found.answers, found.extra) == ("q", ["Seine"], {"level": "easy"})
    assert found.ctxs == SEINE.ctxs


def test_without_passages_the_question_stands_alone() -> None:
    lm = EchoGenerator()
    answer([Retrieved(id="q", question="Which river?", ctxs=[])], lm)
    assert lm.prompts == [for_model("completion", lm).without("Which river?")]
    assert lm.prompts[0].endswith("Question: Which river?\nAnswer:")


def test_all_passages_are_read() -> None:
    lm = EchoGenerator()
    two = Retrieved(id="q", question="?", ctxs=[Scored(id="1", text="First."), Scored(id="2", text="Second.")])
    answer([two], lm)
    assert lm.prompts[0].index("First.") < lm.prompts[0].index("Second.")


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_a_real_model_reads_the_answer_off_the_passage(smollm: LocalLM, form: str) -> None:
    found = answer([SEINE], smollm, prompt=form)[0]  # type: ignore[arg-type]
    assert "Seine" in found.prediction
    assert "\n" not in found.prediction or form == "chat"


def test_a_question_too_long_is_named_before_anything_is_written(candidates: list[Retrieved]) -> None:
    lm = EchoGenerator()
    lm.context, lm.count_tokens, lm.truncate = 200, len, lambda text, n: text[:n]  # type: ignore[attr-defined]
    long = Retrieved(id="long", question="why " * 200, ctxs=[])
    short = Retrieved(id="short", question="?", ctxs=candidates[0].ctxs)
    for stage in (answer, augment):
        with pytest.raises(DataError, match=r"question long: the question has 800 tokens"):
            stage([short, long], lm, max_new_tokens=16)
    assert not lm.prompts


def test_the_pseudo_passage_is_a_candidate_without_title_and_score() -> None:
    augmented = augment([SEINE], EchoGenerator(), max_new_tokens=5)[0]
    assert augmented.ctxs[:-1] == SEINE.ctxs
    own = augmented.ctxs[-1]
    assert (own.origin, own.title, own.score) == ("generated", "", None)
    assert own.hasanswer is False
    assert len(SEINE.ctxs) == 1


def test_who_has_a_pseudo_passage_gets_no_second_one() -> None:
    once = augment([SEINE], EchoGenerator(), max_new_tokens=5)
    assert augment(once, EchoGenerator(), max_new_tokens=5) == once


def test_an_empty_background_reads_not_available() -> None:
    assert one_paragraph(" \n\n ") == "N/A"
    assert one_paragraph("No end in sight and\n\nanother") == "No end in sight and"
