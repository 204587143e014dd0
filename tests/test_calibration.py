from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gainrag.errors import DataError
from gainrag.protocols import FloatArray
from gainrag.records import Scored
from gainrag.selectors.calibration import Calibration, choose_order, fit, learn_prior, ranks
from gainrag.selectors.learned import read_learned, write_learned


def passages(n: int = 4) -> list[Scored]:
    own = Scored(id="own", text="x", origin="generated")
    return [*(Scored(id=str(i), text="x", score=float(n - i)) for i in range(n)), own]


def test_ranks_are_those_of_the_scores_wherever_a_passage_stands() -> None:
    assert ranks(passages()) == [0, 1, 2, 3, None]
    assert ranks(passages()[::-1]) == [None, 3, 2, 1, 0]


def test_permuting_passages_permutes_scores() -> None:
    calibration = Calibration(0.5, 1.0, [-0.1, -2.0, -3.0], -1.0)
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    there = calibration.apply(passages(), scores)
    back = calibration.apply(passages()[::-1], scores[::-1])
    assert there.tolist() == back[::-1].tolist()
    assert there[3] == 0.5 * 4.0 - 3.0  # beyond the learned ranks: the last one's


def test_the_pseudo_passage_scores_the_same_alone() -> None:
    """So that a lazy one can be scored after the retrieved passages."""
    calibration = Calibration(0.5, 1.0, [-0.1, -2.0, -3.0], -1.0)
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    together = calibration.apply(passages(), scores)
    apart = [*calibration.apply(passages()[:4], scores[:4]), *calibration.apply(passages()[4:], scores[4:])]
    assert together.tolist() == apart


def test_the_order_is_that_of_the_retriever_whose_first_passages_are_best() -> None:
    lists = [passages(3) for _ in range(4)]
    for own in lists:
        for passage, bm25, dense in zip(own, (0.2, 0.1, 0.3), (1.0, 9.0, 2.0), strict=False):
            passage.extra = {"scores": {"bm25": bm25, "dense": dense}}
    assert ranks(lists[0], "dense") == [2, 0, 1, None]
    assert choose_order(lists, [[0.0, 1.0, 0.0, 0.0]] * 4) == "dense"
    assert choose_order(lists, [[0.0, 0.0, 1.0, 0.0]] * 4) == "bm25"
    assert choose_order(lists, [[1.0, 0.0, 1.0, 0.0]] * 4) == ""  # of equals the fusion's own
    prior = learn_prior(lists, [np.array([0.1, 0.7, 0.1, 0.1])] * 4, "dense")
    by_dense = Calibration(0.0, 1.0, *prior)
    assert int(by_dense.apply(lists[0], np.zeros(4)).argmax()) == 1
    foreign = [Scored(id="1", text="x", score=1.0, extra={"scores": [1, 2]})]
    assert ranks(foreign, "dense") == [0]
    assert choose_order([foreign], [[0.0]]) == ""


def setup(rng: np.random.Generator, useful: str) -> tuple[list[list[Scored]], list[FloatArray], list[FloatArray]]:
    """Questions whose teacher follows either the retriever's order or the cross-encoder's scores."""
    lists, scores, teachers = [], [], []
    for _ in range(200):
        mine = rng.normal(0, 2, 5)
        z = mine if useful == "scores" else np.array([3.0, 1.0, 0.0, -1.0, -2.0])
        lists.append(passages())
        scores.append(mine)
        teachers.append(np.exp(z) / np.exp(z).sum())
    return lists, scores, teachers


@pytest.mark.parametrize("useful", ["scores", "order"])
def test_weight_goes_to_what_helps(useful: str) -> None:
    rng = np.random.default_rng(0)
    lists, scores, teachers = setup(rng, useful)
    calibration, with_prior, alone = fit(lists, scores, teachers, learn_prior(lists, teachers))
    assert with_prior <= alone + 1e-6
    if useful == "scores":
        assert calibration.scale == pytest.approx(1.0, abs=0.01)
        assert with_prior > alone - 0.01
    else:
        assert calibration.scale <= 0.02
        assert calibration.weight >= 0.9
        assert with_prior < alone - 0.3


def test_the_level_of_pseudo_passages_is_learned_and_moves_nothing_else() -> None:
    """A cross-encoder that is right but for their level: 2 too high."""
    lists, scores, teachers = setup(np.random.default_rng(0), "scores")
    raised = [s + 2.0 * np.array([p.origin == "generated" for p in ps]) for s, ps in zip(scores, lists, strict=True)]
    calibration, loss, alone = fit(lists, raised, teachers, learn_prior(lists, teachers))
    assert calibration.pseudo == pytest.approx(-2.0, abs=0.3)  # the prior of its own has a part in it
    assert loss < alone - 0.1
    order = [i for i in np.argsort(-calibration.apply(lists[0], raised[0])) if lists[0][i].origin != "generated"]
    assert order == [i for i in np.argsort(-raised[0]) if lists[0][i].origin != "generated"]


def test_it_reads_back_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    calibration = Calibration(0.5, 1.0, [-0.1, -2.0], -1.0)
    write_learned(tmp_path, calibration)
    assert read_learned(tmp_path, Calibration) == calibration
    assert read_learned(tmp_path / "elsewhere", Calibration) is None
    (tmp_path / Calibration.FILE).write_text('{"scale": "much"}')
    with pytest.raises(DataError, match=Calibration.FILE):
        read_learned(tmp_path, Calibration)
