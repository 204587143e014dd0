from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gainrag import statistics
from gainrag.errors import DataError
from gainrag.statistics import difference_interval, holm, mean_interval, permutation_p, resampled_means, share_interval


def test_the_interval_of_a_mean_covers_it_and_is_the_same_each_time() -> None:
    values = [0.0, 1.0] * 50
    low, high = mean_interval(values, resamples=2000, seed=3)
    assert low is not None
    assert high is not None
    # The standard error is 0.05.
    assert low == pytest.approx(0.4, abs=0.03)
    assert high == pytest.approx(0.6, abs=0.03)
    assert mean_interval(values, resamples=2000, seed=3) == (low, high)


def test_an_interval_is_the_same_however_few_resamples_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(np.random.default_rng(0).random(30))
    whole = [f(values, resamples=300) for f in (mean_interval, difference_interval)]
    monkeypatch.setattr(statistics, "_BLOCK", 100)
    assert [f(values, resamples=300) for f in (mean_interval, difference_interval)] == whole


def test_a_stratum_is_resampled_from_its_own_questions() -> None:
    values = np.array([[0.0], [0.0], [1.0], [1.0], [1.0], [1.0]])
    assert np.allclose(resampled_means(values, [2, 4], 50, np.random.default_rng(0)), 0.5)
    assert resampled_means(values, [6], 50, np.random.default_rng(0)).std() > 0.1


def test_p_values_are_near_those_of_all_sign_flips() -> None:
    rng = np.random.default_rng(1)
    differences = rng.choice([-1.0, 0.0, 0.5, 1.0], size=(9, 3))
    flips = np.array(list(itertools.product([-1, 1], repeat=9))) @ differences
    exact = (np.abs(flips) >= np.abs(differences.sum(axis=0)) - 1e-9).mean(axis=0)
    assert permutation_p(differences, 20_000, rng) == pytest.approx(exact, abs=0.02)


def test_the_interval_of_a_share_is_wilsons() -> None:
    # By hand, z = 1.96: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    assert share_interval(3, 10) == pytest.approx((0.1078, 0.6032), abs=1e-4)


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="no p-value"):
            holm([0.5, wrong])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_none_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    found = holm(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values)) + 1e-12
    order = sorted(range(len(found)), key=p_values.__getitem__)
    assert [found[i] for i in order] == sorted(found)
