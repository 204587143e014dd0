"""What records and results look like: one line, one screen, bars in a notebook; and what they refuse to be made of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import gainrag
from gainrag import Answer, Gained, GainRAG, GainRecord, Passage, Question, Result, Retrieved, Scored
from gainrag.errors import DataError
from gainrag.testing import OverlapLM, OverlapRetriever, OverlapSelector

NASTY = "<script>alert('x')</script>"


def scored(number: int) -> Scored:
    return Scored(id=f"p{number}", title=f"{NASTY} {number}", text=f"{NASTY} " * 60, score=float(number))


def gained(number: int) -> Gained:
    return Gained(id=f"p{number}", text="A river.", loss={"0.0": 1.0}, gain=-float(number), hasanswer=number == 1)


def every() -> list[object]:
    ctxs = [scored(n) for n in range(20, 0, -1)]
    label = GainRecord(
        id="q", question=NASTY, answers=[NASTY], kept=False, prediction="x", silver=1, ctxs=[gained(2), gained(1)]
    )
    return [
        Retrieved(id="q", question=NASTY, answers=["a"], ctxs=ctxs),
        label,
        Answer(id="q", question=NASTY, answers=["a"], prediction=NASTY, ctxs=ctxs),
        Result(NASTY, ctxs[:1], ctxs, seconds={"retrieved": 0.1}),
    ]


@pytest.mark.parametrize("shown", every(), ids=lambda one: type(one).__name__)
def test_a_notebook_shows_bars_and_no_markup_of_others(shown: object) -> None:
    page = shown._repr_html_()  # type: ignore[attr-defined]
    assert "<table>" in page
    assert "width:100px" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("shown", every(), ids=lambda one: type(one).__name__)
def test_text_fits_on_one_screen(shown: object) -> None:
    lines = str(shown).split("\n")
    assert 3 < len(lines) < 20
    assert max(map(len, lines)) <= 120


def test_a_record_is_one_line_and_the_silver_passage_comes_first() -> None:
    passage = Passage(id="1", title="T", text="word\n" * 1000)
    assert repr(passage) == f"Passage(id='1', title='T', text='{('word ' * 12).strip()}…')"
    assert str(passage) == repr(passage)
    assert passage._repr_html_() is None
    retrieved, label, *_ = every()
    assert "\n" not in repr(retrieved)
    assert "… 20 in all" in repr(retrieved)
    assert "[silver, holds an answer]" in str(label).split("\n")[-2]


def test_equal_scores_and_no_scores_have_bars_too() -> None:
    ctxs = [Scored(id="1", text="a", score=2.0), Scored(id="2", text="b", score=2.0), Scored(id="3", text="c")]
    page = Retrieved(id="q", question="Which?", ctxs=ctxs)._repr_html_()
    assert page is not None
    assert page.count("width:100px") == 2
    assert page.count("width:0px") == 1


def test_the_object_says_what_it_is_made_of() -> None:
    passages = [Passage(id="1", text="Seine: the river that flows through Paris.")]
    rag = GainRAG(OverlapRetriever(passages), OverlapSelector(), OverlapLM(), depth=5)
    rag.answer("Which river flows through Paris?")
    assert repr(rag).split("\n") == [
        "GainRAG",
        "  retriever  OverlapRetriever",
        "  selector   OverlapSelector",
        "  llm        OverlapLM",
        "  settings   depth=5, k=1, pseudo='eager', prompt='completion'",
        "  so far     1 answered, 0 of them without pseudo-passage",
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Passage(id=1, text="x"), "Passage: id is 1, not a text"),  # type: ignore[arg-type]
        (lambda: Passage(id="1", text=None), "Passage: text is None, not a text"),  # type: ignore[arg-type]
        (lambda: Question(id="1", question="q", answers="Paris"), "answers is 'Paris', not a list of texts"),  # type: ignore[arg-type]
        (lambda: Question(id="1", question="q", answers=[7]), r"answers is \[7\], not a list of texts"),  # type: ignore[list-item]
        (lambda: Retrieved(id="1", question="q", ctxs=["t"]), r"not a list of Scored records"),  # type: ignore[list-item]
        (lambda: Scored(id="1", text="t", score="best"), "score is 'best', not a number"),  # type: ignore[arg-type]
    ],
)
def test_a_record_of_wrong_types_is_not_made(make: Callable[[], object], says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


def test_only_public_names_are_listed() -> None:
    assert dir(gainrag) == sorted(gainrag.__all__)
