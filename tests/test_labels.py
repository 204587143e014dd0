from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gainrag.errors import DataError
from gainrag.gain import teacher
from gainrag.records import GainRecord, Retrieved, Scored
from gainrag.synthesis import synthesize
from gainrag.testing import OverlapLM
from gainrag.training.labels import RELEVANT, Labels, as_rows, draw, held_out_share, is_held_out, regret, split, targets


@pytest.fixture
def gains(candidates: list[Retrieved]) -> list[GainRecord]:
    found = synthesize(candidates, OverlapLM(), alpha=[0.5, 0.0])
    rng = np.random.default_rng(0)
    for record in found:  # losses as a model has them: no two alike
        record.loss_without = float(rng.normal(3, 1))
        for ctx in record.ctxs:
            ctx.loss = {"0.5": float(rng.normal(3, 2)), "0.0": float(rng.normal(3, 2))}
            ctx.gain = -float(np.log1p(np.exp(ctx.loss["0.5"])))
    return found


def test_labels_are_what_the_table_says(gains: list[GainRecord]) -> None:
    record = gains[0]
    assert record.loss_without is not None
    plain = [ctx.loss["0.0"] for ctx in record.ctxs]
    assert targets(record, "gain") == [ctx.gain for ctx in record.ctxs]
    assert targets(record, "gain", 0.0) == pytest.approx([-np.log1p(np.exp(loss)) for loss in plain])
    assert targets(record, "likelihood", 0.5) == [-loss for loss in plain]  # always the plain ones
    assert targets(record, "information_gain") == [record.loss_without - loss for loss in plain]
    assert targets(record, "relevance") == [0.0, 0.0, RELEVANT]


def test_a_softmax_does_not_see_what_information_gain_adds_to_likelihood(gains: list[GainRecord]) -> None:
    for record in gains:
        shares = [teacher(targets(record, kind), 0.5) for kind in ("likelihood", "information_gain")]
        assert shares[0] == pytest.approx(shares[1])


def test_point_wise_rows_are_pairs_whose_log_odds_are_the_teachers_log_shares(gains: list[GainRecord]) -> None:
    own = targets(gains[0], "information_gain")
    found = as_rows(gains[0], [2, 0, 1], own, "information_gain", 0.5)
    assert [row["passage"] for row in found] == [gains[0].ctxs[i].text for i in (2, 0, 1)]
    labels = np.array([row["label"] for row in found])
    assert all(0 < label < 1 for label in labels)
    assert [label > 0.5 for label in labels] == [own[i] > 0 for i in (2, 0, 1)]  # a help, or a harm
    assert teacher(np.log(labels / (1 - labels))) == pytest.approx(teacher(own, 0.5)[[2, 0, 1]])

    listed = as_rows(gains[0], [2, 0, 1], own, "likelihood", 0.5)
    assert len(listed) == 1
    assert teacher(listed[0]["labels"]) == pytest.approx(teacher(own, 0.5)[[2, 0, 1]])


def test_an_extreme_label_is_certain_and_no_overflow(gains: list[GainRecord]) -> None:
    rows = as_rows(gains[0], [0, 1], [1e6, -1e6, 0.0], "information_gain", 0.1)
    assert [row["label"] for row in rows] == [1.0, 0.0]


def test_a_visit_shows_the_best_passage_and_others() -> None:
    rng = np.random.default_rng(0)
    visits = [draw([0.0, 3.0, 1.0, 2.0], 3, rng) for _ in range(20)]
    assert {visit[0] for visit in visits} == {1}
    assert {i for visit in visits for i in visit[1:]} == {0, 2, 3}
    assert all(len(set(visit)) == 3 for visit in visits)
    assert len({draw([1.0, 1.0, 0.0], 2, rng)[0] for _ in range(20)}) == 2  # of equals by chance


def test_who_is_held_out_hangs_on_the_question_alone(gains: list[GainRecord], candidates: list[Retrieved]) -> None:
    def held(records: Sequence[GainRecord | Retrieved], labels: Labels, seed: int) -> set[str]:
        learn, out = split(list(records), labels, False, 0.4, np.random.default_rng(seed))
        assert len(learn) + len(out) == len(records)
        assert not {r.id for r in learn} & {r.id for r in out}
        return {r.id for r in out}

    whole = held(gains, "gain", 0)
    assert 0 < len(whole) < len(gains)
    assert held(gains, "information_gain", 1) == held(candidates, "relevance", 2) == whole
    assert held(gains[::2], "gain", 3) == whole & {r.id for r in gains[::2]}
    assert whole == {r.id for r in gains if is_held_out(r.id, 0.4)}


def test_left_out_the_share_follows_the_number_of_questions() -> None:
    assert [held_out_share(None, n) for n in (0, 39, 40, 80, 100, 10_000)] == [0, 0, 0.25, 0.125, 0.1, 0.1]
    assert [held_out_share(0.3, n) for n in (0, 39, 10_000)] == [0.3] * 3
    for n, share in ((39, 0.0), (40, 0.25)):
        records = synthesize(many(n), OverlapLM(), alpha=0.0)
        held = split(records, "gain", False, None, np.random.default_rng(0))[1]
        assert {r.id for r in held} == {r.id for r in records if is_held_out(r.id, share)}


def many(n: int) -> list[Retrieved]:
    ctxs = [Scored(id="a", text="Rain."), Scored(id="b", text="Sun.")]
    return [Retrieved(id=f"q{i}", question="Which?", answers=["Sun"], ctxs=list(ctxs)) for i in range(n)]


def test_the_share_that_is_held_out_is_met_on_average_and_is_never_none(gains: list[GainRecord]) -> None:
    assert 370 < sum(is_held_out(f"question {n}", 0.4) for n in range(1000)) < 430
    for n in range(2, 10):
        assert len(split(gains[:n], "gain", False, 1e-9, np.random.default_rng(0))[1]) == 1


@pytest.mark.parametrize("labels", ["gain", "likelihood", "information_gain"])
def test_what_is_missing_is_said(candidates: list[Retrieved], labels: Labels) -> None:
    with pytest.raises(DataError, match=r"question q0: no gains .*gainrag synthesize"):
        split(candidates, labels, True, 0.0, np.random.default_rng(0))
    record = synthesize(candidates[:1], OverlapLM(), alpha=0.5)[0]
    if labels != "gain":
        with pytest.raises(DataError, match=r"no loss at alpha 0\.0 .*--alpha 0\.0"):
            targets(record, labels)
    record = synthesize(candidates[:1], OverlapLM(), alpha=0.0)[0]
    record.loss_without = None
    if labels == "information_gain":
        with pytest.raises(DataError, match=r"question q0: no loss without a passage.* again"):
            targets(record, labels)
    else:
        assert len(targets(record, labels)) == 3


def test_regret_is_what_the_first_choice_falls_short_of_the_best() -> None:
    assert regret([np.array([1.0, 0.0]), np.array([0.0, 1.0])], [[-1.0, -3.0], [-1.0, -3.0]]) == 1.0
