"""Held to scipy, and to what an interval of 95 % has to do."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from distil.report.comparison.statistics import Estimate, beta_share, estimate, paired, t_quantile

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 30, 99, 1000, 9999])
@pytest.mark.parametrize("p", [0.025, 0.3, 0.5, 0.6, 0.75, 0.9, 0.95, 0.975, 0.995, 0.9995, 1 - 1e-6])
def test_quantiles_of_t(p: float, freedom: int) -> None:
    assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), rel=1e-9, abs=1e-12)


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
    with pytest.raises(ValueError, match="p lies in"):
        t_quantile(1.0, 3)
