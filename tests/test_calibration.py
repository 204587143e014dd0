from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gainrag.errors import DataError
from gainrag.protocols import FloatArray
from gainrag.records import Scored
from gainrag.selectors.calibration import OWN, Calibration, fit, retrievers_of, standardised
from gainrag.selectors.learned import read_learned, write_learned


def passages(*scores: float | None, **of_retrievers: list[float | None]) -> list[Scored]:
    """Retrieved passages with these scores, and a pseudo-passage."""
    found = [Scored(id=str(i), text="x", score=score) for i, score in enumerate(scores)]
    for i, passage in enumerate(found):
        own = {name: score for name, values in of_retrievers.items() if (score := values[i]) is not None}
        passage.scores = own if of_retrievers else None
    return [*found, Scored(id="own", text="x", origin="generated")]


def test_a_retrievers_scores_are_seen_beside_each_other_alone() -> None:
    z = standardised(passages(4.0, 3.0, 2.0, 1.0))
    assert z[:4].mean() == pytest.approx(0.0)
    assert z[:4].std() == pytest.approx(1.0)
    assert z[4] == 0.0
    assert standardised(passages(140.0, 130.0, 120.0, 110.0)) == pytest.approx(z)  # another unit, another question
    assert standardised(passages(4.0, 3.0, 2.0, 1.0)[::-1]) == pytest.approx(z[::-1])


def test_what_a_retriever_did_not_return_is_its_last() -> None:
    found = standardised(passages(3.0, 2.0, 1.0, dense=[0.9, None, 0.1], bm25=[9.0, 7.0, 7.5]), "dense")
    assert found[1] == found[2] < found[0]


def test_passages_without_scores_have_their_order() -> None:
    z = standardised(passages(None, None, None))
    assert z[0] > z[1] > z[2]
    assert standardised(passages(None, None, None), "dense").tolist() == [0.0] * 4
    assert standardised(passages(1.0, 1.0)).tolist() == [0.0] * 3
    assert standardised(passages(1.0)).tolist() == [0.0] * 2


def test_the_retrievers_are_those_that_were_fused_or_the_one_there_was() -> None:
    fused, single = passages(2.0, 1.0, dense=[0.1, 0.2], bm25=[8.0, None]), passages(2.0, 1.0)
    assert retrievers_of([single, fused]) == ["bm25", "dense"]
    assert retrievers_of([single]) == [OWN]
    foreign = [Scored(id="1", text="x", score=1.0, extra={"by_others": [1, 2]})]
    assert retrievers_of([foreign]) == [OWN]


def test_permuting_passages_permutes_scores() -> None:
    calibration = Calibration(0.5, {OWN: 1.0}, -0.3)
    every, scores = passages(4.0, 3.0, 2.0, 1.0), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    there, back = calibration.apply(every, scores), calibration.apply(every[::-1], scores[::-1])
    assert there.tolist() == back[::-1].tolist()


def test_the_pseudo_passage_scores_the_same_alone() -> None:
    """So that a lazy one can be scored after the retrieved passages."""
    calibration = Calibration(0.5, {OWN: 1.0}, -0.3)
    every, scores = passages(4.0, 3.0, 2.0, 1.0), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    together = calibration.apply(every, scores)
    apart = [*calibration.apply(every[:4], scores[:4]), *calibration.apply(every[4:], scores[4:])]
    assert together.tolist() == apart


def setup(rng: np.random.Generator, useful: str) -> tuple[list[list[Scored]], list[FloatArray], list[FloatArray]]:
    """Questions whose teacher follows the cross-encoder's scores or those of one of two retrievers."""
    lists, scores, teachers = [], [], []
    for _ in range(200):
        mine, dense, bm25 = rng.normal(0, 2, 5), rng.normal(0.5, 0.1, 4), rng.normal(12, 3, 4)
        lists.append(passages(4.0, 3.0, 2.0, 1.0, dense=[*dense], bm25=[*bm25]))
        scores.append(mine)
        z = mine if useful == "scores" else 2 * standardised(lists[-1], useful)
        teachers.append(np.exp(z) / np.exp(z).sum())
    return lists, scores, teachers


@pytest.mark.parametrize("useful", ["scores", "dense", "bm25"])
def test_weight_goes_to_what_helps(useful: str) -> None:
    lists, scores, teachers = setup(np.random.default_rng(0), useful)
    calibration, together, alone = fit(lists, scores, teachers)
    weights = {"scores": calibration.scale, **calibration.weights}
    for name, weight in weights.items():
        wanted = {"scores": 1.0}.get(name, 2.0) if name == useful else 0.0
        assert weight == pytest.approx(wanted, abs=0.02), name
    assert together <= alone + 1e-6
    if useful == "scores":
        assert together > alone - 0.01
    else:
        assert together < alone - 0.3


def test_no_weight_is_below_0() -> None:
    lists, scores, teachers = setup(np.random.default_rng(0), "dense")
    for own in lists:
        for passage in own[:4]:
            assert passage.scores
            passage.scores["dense"] *= -1
    calibration, together, alone = fit(lists, scores, teachers)
    assert calibration.weights["dense"] == 0.0
    assert together <= alone + 1e-6


def test_the_level_of_pseudo_passages_is_learned_and_moves_nothing_else() -> None:
    """A cross-encoder that is right but for their level: 2 too high."""
    lists, scores, teachers = setup(np.random.default_rng(0), "scores")
    raised = [s + 2.0 * np.array([p.origin == "generated" for p in ps]) for s, ps in zip(scores, lists, strict=True)]
    calibration, loss, alone = fit(lists, raised, teachers)
    assert calibration.pseudo == pytest.approx(-2.0, abs=0.05)
    assert loss < alone - 0.1
    order = [i for i in np.argsort(-calibration.apply(lists[0], raised[0])) if lists[0][i].origin != "generated"]
    assert order == [i for i in np.argsort(-raised[0]) if lists[0][i].origin != "generated"]


def test_it_reads_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    calibration = Calibration(0.5, {"bm25": 0.3, "dense": 0.0}, -1.0)
    write_learned(tmp_path, calibration)
    assert read_learned(tmp_path, Calibration) == calibration
    assert read_learned(tmp_path / "elsewhere", Calibration) is None
    (tmp_path / Calibration.FILE).write_text('{"scale": "much"}')
    with pytest.raises(DataError, match=Calibration.FILE):
        read_learned(tmp_path, Calibration)
