"""What can be known of a loss from a part of the vocabulary: bounds that hold whatever the rest is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gainrag.gain import FloatArray, Known, gain_from_loss, token_loss_bounds

ALPHAS = (0.0, 0.25, 0.5, 1.0, 3.0)


def top_of(logs: FloatArray, k: int, gold: int) -> Known:
    """The k most likely tokens and the gold one, as an engine tells them."""
    top = np.argsort(-logs, kind="stable")[:k]
    ids = np.union1d(top, [gold])
    return Known(ids, logs[ids], cutoff=float(logs[top].min()))


def true_loss(p: FloatArray, q: FloatArray, gold: int, alpha: float, floor: float = 0.0) -> float:
    """The loss over the whole vocabulary."""
    clipped = np.maximum(q, np.log(floor)) if floor else q
    z = (1 + alpha) * p - alpha * clipped
    return float(np.logaddexp.reduce(z) - z[gold])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, int, int]:
    """Two distributions over a small vocabulary (log-probabilities), of any sharpness and likeness; a gold token; k."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(2, 60))
    base = rng.normal(size=size) * draw(st.floats(0.0, 12.0))
    other = base * draw(st.floats(-1.0, 1.0)) + rng.normal(size=size) * draw(st.floats(0.0, 12.0))
    p, q = base - np.logaddexp.reduce(base), other - np.logaddexp.reduce(other)
    return p, q, draw(st.integers(0, size - 1)), draw(st.integers(1, size))


@settings(max_examples=200, deadline=None)
@given(world=worlds(), alpha=st.sampled_from(ALPHAS), floor=st.sampled_from((0.0, 1e-8, 1e-4, 1e-2, 0.5)))
def test_the_true_loss_lies_between_the_bounds(
    world: tuple[FloatArray, FloatArray, int, int], alpha: float, floor: float
) -> None:
    p, q, gold, k = world
    known = top_of(p, k, gold), top_of(q, k, gold)
    low, high = token_loss_bounds(gold, *known, alpha, floor, vocabulary=len(p))
    loss = true_loss(p, q, gold, alpha, floor)
    slack = 1e-9 * max(1.0, abs(loss))
    assert low - slack <= loss <= high + slack
    # An engine's vocabulary may be known only as an upper end.
    assert token_loss_bounds(gold, *known, alpha, floor, vocabulary=1000)[0] <= loss + slack


@settings(max_examples=50, deadline=None)
@given(world=worlds())
def test_at_alpha_0_the_gold_token_alone_is_exact(world: tuple[FloatArray, FloatArray, int, int]) -> None:
    p, q, gold, _ = world
    alone = [Known(np.array([gold]), logs[[gold]], cutoff=0.0) for logs in (p, q)]
    low, high = token_loss_bounds(gold, alone[0], alone[1], 0.0)
    assert low == high == -p[gold]


@settings(max_examples=50, deadline=None)
@given(world=worlds(), alpha=st.sampled_from(ALPHAS))
def test_the_whole_vocabulary_leaves_nothing_open(world: tuple[FloatArray, FloatArray, int, int], alpha: float) -> None:
    p, q, gold, _ = world
    whole = top_of(p, len(p), gold), top_of(q, len(q), gold)
    low, high = token_loss_bounds(gold, *whole, alpha, vocabulary=len(p))
    assert low == high == pytest.approx(true_loss(p, q, gold, alpha), abs=1e-9, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(world=worlds(), alpha=st.sampled_from(ALPHAS[1:]))
def test_more_of_the_vocabulary_never_widens_them(world: tuple[FloatArray, FloatArray, int, int], alpha: float) -> None:
    p, q, gold, k = world
    narrow = token_loss_bounds(gold, top_of(p, k, gold), top_of(q, k, gold), alpha, 1e-4, len(p))
    wide = token_loss_bounds(gold, top_of(p, 1, gold), top_of(q, 1, gold), alpha, 1e-4, len(p))
    if min(1 - np.exp(logs[np.argsort(-logs)[:k]]).sum() for logs in (p, q)) > 1e-2:  # else rounding matters
        assert narrow[0] >= wide[0] - 1e-3
    assert narrow[1] <= wide[1] + 1e-6


@settings(max_examples=50, deadline=None)
@given(world=worlds(), alpha=st.sampled_from(ALPHAS))
def test_the_lower_bound_is_at_least_the_one_of_the_masses_alone(
    world: tuple[FloatArray, FloatArray, int, int], alpha: float
) -> None:
    """log(Z_S + m^(1 + alpha) n^(-alpha)) over the tokens known on both sides; the cut-offs only raise it."""
    p, q, gold, k = world
    known = top_of(p, k, gold), top_of(q, k, gold)
    both = np.intersect1d(known[0].ids, known[1].ids)
    m, n = 1 - np.exp(p[both]).sum(), 1 - np.exp(q[both]).sum()
    if min(m, n) < 1e-2:  # rounding matters
        return
    simple = np.exp((1 + alpha) * p[both] - alpha * q[both]).sum() + m ** (1 + alpha) * n**-alpha
    own = (1 + alpha) * p[gold] - alpha * q[gold]
    assert token_loss_bounds(gold, *known, alpha)[0] >= np.log(simple) - own - 1e-3


def test_bounds_of_the_loss_are_bounds_of_the_gain() -> None:
    low, high = 0.5, 2.0
    assert gain_from_loss(high) < gain_from_loss(1.0) < gain_from_loss(low)


def test_without_a_floor_there_is_no_upper_bound() -> None:
    p = np.log(np.full(10, 0.1))
    assert token_loss_bounds(3, top_of(p, 4, 3), top_of(p, 4, 3), 0.5)[1] == np.inf
