from __future__ import annotations

import math

import numpy as np
import pytest

from gainrag.gain import best_loss, entropy, gain_from_loss, silver_index, teacher

RNG = np.random.default_rng(0)
LOSSES = RNG.gamma(2.0, 2.0, size=(21, 5, 3))  # [passage, answer, alpha], nats per token


def test_gain_is_in_its_range() -> None:
    gains = gain_from_loss(best_loss(LOSSES))
    assert np.isfinite(gains).all()
    assert (gains <= -math.log(2)).all()
    assert gain_from_loss(0.0) == pytest.approx(-math.log(2))


def test_gain_is_the_formula_where_that_does_not_overflow() -> None:
    losses = np.linspace(0, 30, 50)
    np.testing.assert_allclose(gain_from_loss(losses), -np.log(np.exp(losses) + 1), rtol=1e-12)


def test_no_loss_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert gain_from_loss(1e6) == -1e6


def test_lower_loss_is_higher_gain() -> None:
    losses = np.sort(RNG.gamma(2.0, 2.0, 100))
    assert (np.diff(gain_from_loss(losses)) < 0).all()


def test_permuting_passages_permutes_gains() -> None:
    order = RNG.permutation(21)
    gains = gain_from_loss(best_loss(LOSSES))
    np.testing.assert_array_equal(gain_from_loss(best_loss(LOSSES[order])), gains[order])


def test_permuting_answers_changes_nothing_and_another_answer_never_hurts() -> None:
    np.testing.assert_array_equal(best_loss(LOSSES[:, RNG.permutation(5)]), best_loss(LOSSES))
    assert (best_loss(LOSSES) <= best_loss(LOSSES[:, :4])).all()


def test_silver_is_the_least_loss_and_the_first_of_equals() -> None:
    losses = best_loss(LOSSES)[:, 0]
    assert silver_index(gain_from_loss(losses)) == losses.argmin()
    assert silver_index([-2.0, -1.0, -1.0]) == 1


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 10.0])
def test_teacher_is_a_distribution_in_the_order_of_the_gains(temperature: float) -> None:
    gains = gain_from_loss(best_loss(LOSSES)[:, 0])
    weights = teacher(gains, temperature)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    np.testing.assert_array_equal(np.argsort(weights, kind="stable"), np.argsort(gains, kind="stable"))


def test_teacher_sharpens_as_the_temperature_falls() -> None:
    gains = gain_from_loss(best_loss(LOSSES)[:, 0])
    entropies = [entropy(teacher(gains, t)) for t in (10.0, 1.0, 0.3, 0.05, 0.001)]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] == pytest.approx(math.log(21), abs=0.1)
    assert entropies[-1] == pytest.approx(0.0, abs=0.1)


def test_teacher_is_unmoved_by_a_constant_and_by_extremes() -> None:
    np.testing.assert_allclose(teacher([-1.0, -2.0]), teacher([-1001.0, -1002.0]), rtol=1e-9)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert teacher([-1e6, -1.0]).tolist() == [0.0, 1.0]
