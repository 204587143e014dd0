from __future__ import annotations

import pytest

from gainrag.errors import ConfigError, DataError
from gainrag.records import Retrieved, Scored
from gainrag.selection import cut, rank, select
from gainrag.testing import OverlapSelector


def record(*texts: str) -> Retrieved:
    ctxs = [Scored(id=str(i), text=text, score=0.5) for i, text in enumerate(texts)]
    ctxs.append(Scored(id="own", text="one two three four", origin="generated"))
    return Retrieved(id="q", question="one two three four", ctxs=ctxs, extra={"note": "kept"})


def test_best_first_ties_in_retrieval_order_scores_are_the_selectors() -> None:
    chosen = select([record("one", "one two", "three four", "nothing")], OverlapSelector(), k=4)[0]
    assert [c.id for c in chosen.ctxs] == ["own", "1", "2", "0"]
    assert [c.score for c in chosen.ctxs] == [4.0, 2.0, 2.0, 1.0]
    assert chosen.extra == {"note": "kept"}


def test_without_the_pseudo_passage_it_is_never_chosen() -> None:
    chosen = select([record("one", "two")], OverlapSelector(), k=2, pseudo=False)[0]
    assert {c.origin for c in chosen.ctxs} == {"corpus"}


def test_candidates_are_left_as_they_were() -> None:
    given = record("one")
    select([given], OverlapSelector(), k=1)
    assert given.ctxs[0].score == 0.5
    assert given.ctxs[-1].score is None


def test_k_out_of_range() -> None:
    with pytest.raises(ConfigError, match="k is 0"):
        select([record("one")], OverlapSelector(), k=0)
    with pytest.raises(DataError, match="question q: 3 passages are wanted of 2"):
        select([record("one")], OverlapSelector(), k=3)


@pytest.mark.parametrize("pseudo", [True, False])
def test_ranking_all_and_cutting_is_selecting(pseudo: bool) -> None:
    given = [record("one", "one two", "three four", "nothing"), record("two", "one")]
    ranked = rank(given, OverlapSelector())
    assert [len(r.ctxs) for r in ranked] == [5, 3]
    for k in (1, 2):
        assert cut(ranked, k, pseudo=pseudo) == select(given, OverlapSelector(), k=k, pseudo=pseudo)
    with pytest.raises(DataError, match="question q: 4 passages are wanted of"):
        cut(ranked, 4, pseudo=pseudo)
