"""Agreement of scores and gains on questions small enough to work out by hand."""

from __future__ import annotations

import math

import pytest

from gainrag.errors import ConfigError
from gainrag.records import Gained
from gainrag.report.agreement import calibration, rank_correlation, top1_regret
from gainrag.report.cases import Case


def case(gains: list[float], scores: list[float], generated: int | None = None) -> Case:
    candidates = [
        Gained(id=str(i), text="x", loss={}, gain=g, origin="generated" if i == generated else "corpus")
        for i, g in enumerate(gains)
    ]
    return Case(
        id="q",
        question="?",
        answers=["a"],
        dataset="d",
        candidates=candidates,
        answered={},
        scores={},
        scored={"s": scores},
    )


def test_rank_correlation_within_questions() -> None:
    cases = [
        case([-3.0, -2.0, -1.0], [0.1, 0.2, 0.9]),  # the true order: 1
        case([-3.0, -2.0, -1.0], [3.0, 2.0, 1.0]),  # turned round: -1
        case([-1.0, -2.0, -3.0], [2.0, 3.0, 1.0]),  # one swap of neighbours: 1 - 6 * 2 / (3 * 8) = 0.5
        case([-1.0, -1.0, -1.0], [2.0, 3.0, 1.0]),  # nothing to order
    ]
    found = rank_correlation(cases, "s", resamples=100)
    assert (found["n"], found["undefined"]) == (3, 1)
    assert found["mean"] == pytest.approx(0.5 / 3)
    assert found["median"] == pytest.approx(0.5)
    counts = found["histogram"]["counts"]
    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 3)
    only = rank_correlation(cases[3:], "s")
    assert (only["n"], only["mean"], sum(only["histogram"]["counts"])) == (0, None, 0)


def test_regret_is_what_the_choice_falls_short_of_the_best() -> None:
    cases = [case([-3.0, -1.0, -2.0], [9.0, 1.0, 2.0], generated=0), case([-1.0, -5.0, -3.0], [1.0, 0.0, 0.0])]
    chosen = top1_regret(cases, "s", resamples=100)
    assert chosen["mean"] == pytest.approx((2 + 0) / 2)
    assert (chosen["best"]["k"], chosen["best"]["n"]) == (1, 2)
    assert chosen["chance"] == pytest.approx((1 + 2) / 2)
    # The retriever's first passage of the first question is not its pseudo-passage.
    assert top1_regret(cases, None, resamples=100)["mean"] == 0.0


def test_a_selector_that_scores_gain_over_temperature_is_calibrated() -> None:
    cases = [case([-1.0, -2.0], [-1.0 / 0.5, -2.0 / 0.5]), case([-1.0, -1.0], [7.0, 7.0])]
    found = calibration(cases, "s", temperature=0.5)
    sure = 1 / (1 + math.exp(-2))
    assert [(row["low"], row["high"], row["n"]) for row in found] == [(0.1, 0.2, 1), (0.5, 0.6, 2), (0.8, 0.9, 1)]
    assert [row["selector"] for row in found] == pytest.approx([1 - sure, 0.5, sure])
    assert [row["teacher"] for row in found] == pytest.approx([row["selector"] for row in found])
    one = calibration(cases, "s", temperature=0.5, bins=1)
    assert (one[0]["n"], one[0]["teacher"]) == (4, pytest.approx(0.5))


def test_calibration_needs_a_temperature() -> None:
    with pytest.raises(ConfigError, match="temperature 0"):
        calibration([case([-1.0], [1.0])], "s", temperature=0)
