"""Held to scipy, and to what an interval of 95 % has to do."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from distil.report.comparison.statistics import (
    LARGEST,
    Estimate,
    beta_share,
    estimate,
    in_reach,
    paired,
    t_quantile,
)

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """A quantile is worked out in the test that asks for it."""
    t_quantile.cache_clear()


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 99, 1000, 9999])
@pytest.mark.parametrize("p", [0.025, 0.3, 0.5, 0.6, 0.75, 0.9, 0.95, 0.975, 0.995, 0.9995, 1 - 1e-6])
def test_quantiles_of_t(p: float, freedom: int) -> None:
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 9, 99])
def test_quantiles_in_the_tails_and_about_the_middle(freedom: int) -> None:
    """One part in 1e12 is left out on the right; about 0 the quantile is the share over the density there."""
    left = 1 - (1 - 1e-12)
    assert t_quantile(1 - left, freedom) == pytest.approx(stats.t.isf(left, freedom), rel=1e-9)
    assert t_quantile(left, freedom) == pytest.approx(-stats.t.isf(left, freedom), rel=1e-9)
    share = (0.5 + 1e-7) - 0.5
    assert t_quantile(0.5 + share, freedom) == pytest.approx(share / stats.t.pdf(0, freedom), rel=1e-9)


@pytest.mark.parametrize(("x", "share"), [(-1, 0), (0, 0), (1, 1), (2, 1)])
def test_incomplete_beta_at_its_ends_and_beyond(x: float, share: float) -> None:
    assert beta_share(x, 0.5, 3.0) == share


def test_what_is_in_reach() -> None:
    """Whatever can be squared, with a margin; neither NaN nor an infinity nor nothing."""
    for value in (LARGEST, -LARGEST, math.inf, -math.inf, math.nan, None):
        assert in_reach(value) is None
    for value in (0.0, -2.5, math.nextafter(LARGEST, 0), -math.nextafter(LARGEST, 0)):
        assert in_reach(value) == value
        assert math.isfinite(value * value)


@given(st.floats(0, 1), st.floats(0.5, 500), st.floats(0.5, 500))
def test_incomplete_beta(x: float, a: float, b: float) -> None:
    assert beta_share(x, a, b) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


@given(VALUES)
def test_interval_of_a_mean(values: list[float]) -> None:
    got = estimate(values)
    error = stats.sem(values)
    assert got.n == len(values)
    assert got.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert got.low is not None
    assert got.high is not None
    half = stats.t.ppf(0.975, len(values) - 1) * error
    assert got.high - got.mean == pytest.approx(half, rel=1e-9, abs=1e-9)
    assert got.mean - got.low == pytest.approx(half, rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=2, max_size=10))
def test_paired_difference_and_its_verdict(pairs: list[tuple[float, float]]) -> None:
    ours = {seed: a for seed, (a, _) in enumerate(pairs)}
    theirs = {seed: b for seed, (_, b) in enumerate(pairs)}
    got = paired({**ours, 98: 5.0}, {**theirs, 99: -5.0})  # seeds that only one has do not count
    assert got is not None
    if np.std([a - b for a, b in pairs]) < 1e-6:
        return
    reference = stats.ttest_rel(list(ours.values()), list(theirs.values()))
    interval = reference.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)
    if abs(reference.pvalue - 0.05) > 1e-6:
        assert (got.sign != 0) == (reference.pvalue < 0.05)
        assert got.sign in (0, np.sign(got.mean))


def test_the_interval_holds_the_truth_nineteen_times_in_twenty() -> None:
    chance = random.Random(0)
    trials = 4000
    held = 0
    for _ in range(trials):
        got = estimate([chance.gauss(3, 2) for _ in range(3)])
        assert got.low is not None
        assert got.high is not None
        held += got.low < 3 < got.high
    # Binomial(4000, .95): five standard deviations.
    assert abs(held / trials - 0.95) < 5 * (0.95 * 0.05 / trials) ** 0.5


def test_what_cannot_be_told() -> None:
    assert estimate([0.3]) == Estimate(0.3, None, None, 1)
    assert estimate([0.3]).sign == 0
    assert paired({0: 1.0}, {1: 1.0}) is None
    # Equal differences: no spread, so nothing is known of how seeds would spread.
    assert estimate([0.1, 0.1, 0.1]).sign == 0
    assert estimate([0.1, 0.1, 0.1]).without_spread
    assert not estimate([0.1, 0.1, 0.1001]).without_spread
    assert not estimate([0.1]).without_spread, "of one seed there is no interval at all"
    for p, freedom in ((1.0, 3), (0.0, 3), (-0.5, 3), (1.5, 3), (0.9, 0), (math.nan, 3)):
        with pytest.raises(ValueError, match="p lies in"):
            t_quantile(p, freedom)


def test_an_estimate_says_its_half_width_and_its_sign() -> None:
    assert Estimate(1.0, 0.5, 1.5, 3).half == 0.5
    assert Estimate(1.0, None, None, 1).half is None
    signs = {(0.5, 1.5): 1, (-1.5, -0.5): -1, (-0.5, 0.5): 0, (0.0, 2.0): 0, (-2.0, 0.0): 0}
    for (low, high), sign in signs.items():
        assert Estimate((low + high) / 2, low, high, 3).sign == sign
    # Of no width but for rounding: values that do not spread say nothing.
    assert Estimate(1.0, 1 - 1e-13, 1 + 1e-13, 3).sign == 0
    assert Estimate(1.0, 1 - 1e-10, 1 + 1e-10, 3).sign == 1
