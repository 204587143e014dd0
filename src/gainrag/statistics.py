"""Intervals and tests of means over questions, the only thing sampled, and weights of scores. No records are known.

| function              | of                              | value                                                      |
|-----------------------|---------------------------------|------------------------------------------------------------|
| `compare_systems`     | scores of several systems       | all of the next three, of each system and each pair        |
| `resampled_means`     | values of every question        | their means in each bootstrap resample, within strata      |
| `interval`            | means of the resamples          | percentile bootstrap interval                              |
| `permutation_p`       | paired differences, weighted    | two-sided p of a sign-flip permutation test                |
| `difference_interval` | paired differences              | the interval that `evaluate` gives for the same difference |
| `mean_interval`       | other values, one a question    | percentile bootstrap interval of their mean                |
| `share_interval`      | k of n                          | Wilson's interval of the share                             |
| `questions_needed`    | a difference, its deviation     | questions it takes to show it                              |
| `deviation`           | the interval of a difference    | the deviation of one question's difference                 |
| `holm`                | p-values of several comparisons | p-values corrected for how many they are                   |
| `spread`              | a figure of several runs        | its standard deviation over them                           |
| `standardise`         | values                          | their distances from the mean, in standard deviations      |
| `least_cross_entropy` | columns of scores, teachers     | the weights at which their softmax is nearest the teachers |
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gainrag.errors import DataError

FloatArray = npt.NDArray[np.float64]

# How many random numbers are held at a time: 16 MB of them, however many questions and resamples there are.
_BLOCK = 2_000_000


class Means(NamedTuple):
    """Mean scores of systems, each an array [system, measure]."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


class Differences(NamedTuple):
    """Differences of systems' mean scores, each an array [pair, measure]."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray


def compare_systems(
    scores: FloatArray, sizes: Sequence[int], resamples: int, confidence: float, seed: int, compared: int
) -> tuple[Means, Differences]:
    """The means over strata of the mean within each, and how they differ, with intervals and p-values.

    Args:
        scores: [question, system, measure], the questions of a stratum together.
        sizes: how many questions each stratum has.
        resamples: how many bootstrap resamples, and how many flips of all signs.
        confidence: the level of the intervals.
        seed: where the random numbers start.
        compared: how many of the measures, from the first, the differences are of.

    Returns:
        The means of each system; the differences of each pair, first minus second, in the order of `combinations`.
    """
    draws, flips = _streams(seed)
    n, systems, measures = scores.shape
    # What a question counts in the mean over strata; 1/n where there is one stratum.
    weights = np.concatenate([np.full(size, 1.0 / (size * len(sizes))) for size in sizes])
    flat = scores.reshape(n, -1)
    means = (weights @ flat).reshape(systems, measures)
    drawn = resampled_means(flat, sizes, resamples, draws).reshape(resamples, systems, measures)
    found = Means(means, *interval(drawn, confidence))

    firsts, seconds = np.triu_indices(systems, 1)
    observed = (means[firsts] - means[seconds])[:, :compared]
    weighted = (scores[:, firsts, :compared] - scores[:, seconds, :compared]) * weights[:, None, None]
    p_values = permutation_p(weighted.reshape(n, -1), resamples, flips).reshape(observed.shape)
    ends = np.empty((2, *observed.shape))
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        # One pair at a time: all of them at once would be large, and the quantile sorts a copy.
        ends[:, i] = interval(drawn[:, first, :compared] - drawn[:, second, :compared], confidence)
    return found, Differences(observed, ends[0], ends[1], p_values)


def _streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """The random numbers of a comparison of systems: those of its resamples, and those of its sign flips."""
    return np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])


def resampled_means(values: FloatArray, sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> FloatArray:
    """The mean over strata of the mean within each, in every resample. Each stratum is drawn anew with replacement.

    Args:
        values: [question, column], the questions of a stratum together.
        sizes: how many questions each stratum has, in the order of `values`.
        resamples: how many resamples are drawn.
        rng: draws the same questions for every column, so that what makes a question hard cancels in a difference.

    Returns:
        [resample, column].
    """
    return np.concatenate([weights @ values for weights in resampled_weights(sizes, resamples, rng)])


def resampled_weights(sizes: Sequence[int], resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Blocks [resample, question] of how much each question counts."""
    for block in _blocks(sum(sizes), resamples):
        parts: list[FloatArray] = []
        for size in sizes:
            picks = rng.integers(size, size=(block, size)) + np.arange(block)[:, None] * size
            counts = np.bincount(picks.ravel(), minlength=block * size).reshape(block, size)
            parts.append(counts / float(size * len(sizes)))
        yield np.concatenate(parts, axis=1)


def interval(means: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """The low and high ends of percentile bootstrap intervals.

    Args:
        means: [resample, ...], see `resampled_means`.
        confidence: the level, between 0 and 1.
    """
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def permutation_p(weighted: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    """Two-sided p-values [column] of paired permutation tests.

    Under the hypothesis that two systems are alike the sign of each question's difference is as good as random:
    p = (sign flips whose sum is at least as far from 0 as the observed one + 1) / (resamples + 1).

    Args:
        weighted: [question, column], each question's difference times its weight in the mean, so that a column's sum
            is the observed difference of means.
        resamples: how many times the signs are flipped.
        rng: draws the same signs for every column.
    """
    # A flip as extreme as what was observed counts; the margin is for sums of the same numbers in another order.
    bar = np.abs(weighted.sum(axis=0)) - 1e-12
    hits = np.zeros(bar.shape, dtype=np.int64)
    for signs in _random_signs(len(weighted), resamples, rng):
        hits += (np.abs(signs @ weighted) >= bar).sum(axis=0)
    p_values: FloatArray = (hits + 1) / (resamples + 1)
    return p_values


def _random_signs(n: int, resamples: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Blocks [resample, question] of +1 and -1."""
    for block in _blocks(n, resamples):
        yield 2.0 * rng.integers(2, size=(block, n), dtype=np.int8).astype(np.float64) - 1.0


def _blocks(n: int, resamples: int) -> Iterator[int]:
    size = max(1, _BLOCK // n)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def difference_interval(
    differences: Sequence[float], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float | None, float | None]:
    """The interval of a mean paired difference, to the digit that of `gainrag.evaluation.evaluate`.

    Args:
        differences: one a question, in the order of the questions' ids, which is that of `evaluate`.
        resamples: what `evaluate` was given, as are `confidence` and `seed`.

    Returns:
        low and high; None of fewer than two questions.
    """
    return _interval_of_mean(differences, resamples, confidence, _streams(seed)[0])


def mean_interval(
    values: Sequence[float], *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float | None, float | None]:
    """Percentile bootstrap interval of the mean of what is no difference of scores; None of fewer than two values.

    >>> mean_interval([1.0, 1.0, 1.0], resamples=10)
    (1.0, 1.0)
    >>> mean_interval([1.0])
    (None, None)
    """
    return _interval_of_mean(values, resamples, confidence, np.random.default_rng(seed))


def _interval_of_mean(
    values: Sequence[float], resamples: int, confidence: float, rng: np.random.Generator
) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    column = np.asarray(values, dtype=np.float64)[:, None]
    low, high = interval(resampled_means(column, [len(values)], resamples, rng), confidence)
    return tidy(low[0]), tidy(high[0])


def share_interval(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the share k / n; n is at least 1."""
    from scipy.stats import binomtest

    low, high = binomtest(k, n).proportion_ci(confidence, method="wilson")
    return float(low), float(high)


def chance_interval(right: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Jeffreys' interval of the chance behind `right` of n answers: quantiles of Beta(right + 1/2, n - right + 1/2),
    whose mean is (right + 1/2) / (n + 1). It takes answers that are right in part, too, and is then wider than need be:
    no share has a larger variance than one of answers that are wholly right or wrong.

    >>> [round(end, 3) for end in chance_interval(3, 5)]
    [0.209, 0.906]

    References:
        L. D. Brown, T. T. Cai, A. DasGupta, Interval estimation for a binomial proportion, Stat. Science 16, 2001.
    """
    from scipy.stats import beta

    low, high = beta(right + 0.5, n - right + 0.5).interval(confidence)
    return float(low), float(high)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None of fewer than two values, or where all of either are equal.

    >>> rank_correlation([1.0, 2.0, 3.0], [0.1, 0.2, 0.9]), rank_correlation([1.0, 1.0], [0.1, 0.2])
    (1.0, None)
    """
    from scipy.stats import spearmanr

    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    # Sums of ranks are exact, their quotient is not: 1.0000000000000002.
    return float(np.clip(spearmanr(one, other).statistic, -1.0, 1.0))


def questions_needed(
    difference: float, deviation: float, *, confidence: float = 0.95, power: float = 0.8
) -> int | None:
    """How many questions it takes for the interval of a mean paired difference to leave out 0 with this chance.

    n = ((z(confidence, two-sided) + z(power)) * deviation / difference)^2, for means that are about normal.

    >>> questions_needed(0.02, 0.25), questions_needed(-0.02, 0.25), questions_needed(0.0, 0.25)
    (1227, 1227, None)

    Args:
        difference: the true one, as far as it is known.
        deviation: the standard deviation of one question's difference.
        confidence: the level of the interval.
        power: the chance.

    Returns:
        Two at least; None of no difference, which no number of questions shows.
    """
    from scipy.stats import norm

    if not difference:
        return None
    z = float(norm.ppf((1 + confidence) / 2) + norm.ppf(power))
    return max(2, math.ceil((z * deviation / difference) ** 2))


def deviation(low: float, high: float, n: int, confidence: float = 0.95) -> float:
    """The standard deviation of one question's difference, from the interval of the mean over n questions. Of a mean
    over strata it is that of as many questions in the same proportions.

    >>> round(deviation(-0.01, 0.03, 600), 3)
    0.25
    """
    from scipy.stats import norm

    return float((high - low) / (2 * norm.ppf((1 + confidence) / 2)) * math.sqrt(n))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction: each p-value, so that the chance of any false "significant" among all is at most the level.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes less than one before it, none more
    than 1. It assumes nothing of how the comparisons depend on each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]

    Raises:
        DataError: a p-value is not from 0 to 1.

    References:
        S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise DataError(f"{wrong[0]} is no p-value", where="Holm's correction", hint="p-values are from 0 to 1")
    corrected, least = list(p_values), 0.0
    for done, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, p_values[i] * (len(p_values) - done)))
        corrected[i] = least
    return corrected


def spread(values: Sequence[float] | FloatArray) -> float:
    """The standard deviation of one figure over several runs, as an estimate of that of all runs (n - 1).

    >>> spread([1.0, 2.0, 3.0])
    1.0

    Raises:
        DataError: there are fewer than two.
    """
    if len(values) < 2:
        raise DataError(f"{len(values)} run has no spread", hint="give two or more")
    return float(np.std(values, ddof=1))


def tidy(value: float) -> float:
    """Without the last digits, which are noise of the order of summation and differ from machine to machine."""
    return round(float(value), 12) + 0.0  # -0.0 + 0.0 is 0.0


def standardise(values: FloatArray, over: FloatArray | None = None) -> FloatArray:
    """Values less a mean and divided by a standard deviation: of themselves, or of the values `over`. All 0 where these
    are alike or none: they tell nothing apart.

    >>> standardise(np.array([1.0, 3.0])).tolist(), standardise(np.array([2.0, 2.0])).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    over = values if over is None else over
    if not len(over) or not (spread := float(over.std())) > 0:
        return np.zeros(len(values))
    return np.asarray((values - over.mean()) / spread, dtype=np.float64)


def least_cross_entropy(
    columns: Sequence[FloatArray], teachers: Sequence[FloatArray], free: int
) -> tuple[tuple[float, ...], float]:
    """The weights of the columns at which softmax(columns @ weights) is nearest to the teachers, and the mean
    cross-entropy there. It is convex in the weights. Those of scores are not below 0: none can be so wrong that its
    opposite is right, and on few questions it might look so.

    Args:
        columns: by question [passage, column].
        free: how many of the last columns may have a weight below 0.
    """
    from scipy.optimize import minimize

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        total, slope = 0.0, np.zeros_like(weights)
        for x, teacher in zip(columns, teachers, strict=True):
            z = x @ weights
            log_share = z - np.logaddexp.reduce(z)
            total -= float(teacher @ log_share)
            slope -= x.T @ (teacher - np.exp(log_share))
        return total / len(columns), slope / len(columns)

    width = columns[0].shape[1]
    bounds = [(0.0, None)] * (width - free) + [(None, None)] * free
    found = minimize(objective, np.ones(width), jac=True, bounds=bounds, method="L-BFGS-B")
    return tuple(round(float(x), 6) for x in found.x), float(found.fun)
